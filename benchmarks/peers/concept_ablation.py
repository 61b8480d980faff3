"""Concept Ablation (Kumari et al., ICCV 2023): model-based, to_k and to_v of cross-attention.

The student's prediction under a caption with the concept is trained to equal the frozen model's
under the same caption with the anchor, on noised pictures that the frozen model drew of the anchor;
the usual diffusion loss on those pictures under the anchor's caption keeps the anchor (weight
`regularisation`). The paper takes the target from the student itself with a stopped gradient, which
the regularisation holds near the frozen model.

Published for Stable Diffusion 1.4: 100 updates of 8 rows, rate 1.6e-5 (2e-6 times the batch), 200
to 1000 pictures of 200 captions per anchor, regularisation 1 where concept and anchor are close.
Here: `pictures` latents per anchor, never decoded, of 24 captions. With several concepts every
row's concept is drawn uniformly. The rate is the one of 1e-4, 3e-4 and 1e-3 that left nothing of
pistol and of van gogh (0 of 24 each; retained 98.7 and 100 %); without regularisation 3e-4 did so
too, but retained 93.3 % (`python -m benchmarks.peers.grid ablation`, seed 171000).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.peers.fine_tuning import (
    Schedule,
    captions,
    denoise,
    embed,
    pick,
    predict,
    student_of,
    train,
    true_prediction,
)
from edits.method import EditSpec, with_components

SCHEDULE = Schedule(updates=96, most=512, batch=8, learning_rate=1e-3)


@dataclass(frozen=True)
class AblationSettings:
    """Settings of a run; `steps` and `guidance_scale` are those of the anchor's pictures."""

    schedule: Schedule = SCHEDULE
    regularisation: float = 1.0
    pictures: int = 24
    steps: int = 20
    guidance_scale: float = 3.0
    seed: int = 0

    @property
    def summary(self) -> str:
        """The settings in words."""
        return (
            f"{self.pictures} pictures per anchor, {self.schedule}, regularisation "
            f"{self.regularisation:g}"
        )


@dataclass(frozen=True)
class _Pictures:
    """Latents (n, 4, h, w) of an anchor's captions, and the captions' embeddings."""

    latents: Tensor
    hidden: Tensor


def concept_ablation(pipeline: Any, specs: Sequence[EditSpec], settings: AblationSettings) -> Any:
    """The pipeline with a UNet that answers the concepts' captions as it did the anchors'."""
    teacher, batch = pipeline.unet, settings.schedule.batch
    generator = torch.Generator().manual_seed(settings.seed)
    drawn: dict[tuple[str, str], _Pictures] = {}  # concepts may share an anchor
    for spec in specs:
        if (spec.kind, spec.anchor) not in drawn:
            drawn[spec.kind, spec.anchor] = _draw(pipeline, spec, settings, generator)
    anchors = [drawn[spec.kind, spec.anchor] for spec in specs]
    concepts = [
        embed(pipeline, captions(spec.kind, spec.concept, settings.pictures)) for spec in specs
    ]
    student = student_of(teacher, lambda name: ".attn2.to_k." in name or ".attn2.to_v." in name)

    def loss_at(_update: int) -> Tensor:
        which = pick(len(specs), batch, generator)
        where = [pick(len(anchors[i].latents), 1, generator)[0] for i in which]
        rows = list(zip(which, where, strict=True))
        clean = torch.stack([anchors[i].latents[j] for i, j in rows])
        anchor = torch.stack([anchors[i].hidden[j] for i, j in rows])
        concept = torch.stack([concepts[i][j] for i, j in rows])
        noise = torch.randn(clean.shape, generator=generator)
        count = pipeline.scheduler.config.num_train_timesteps
        times = torch.randint(count, (batch,), generator=generator)
        noisy = pipeline.scheduler.add_noise(clean, noise, times)
        with torch.no_grad():
            wanted = predict(teacher, noisy, times, anchor)
        ours, kept = predict(
            student, torch.cat([noisy, noisy]), times.repeat(2), torch.cat([concept, anchor])
        ).chunk(2)
        truth = true_prediction(pipeline.scheduler, clean, noise, times)
        return functional.mse_loss(ours, wanted) + settings.regularisation * functional.mse_loss(
            kept, truth
        )

    schedule = settings.schedule
    train(student, schedule.updates_for(len(specs)), schedule.learning_rate, loss_at)
    return with_components(pipeline, {"unet": student})


def _draw(
    pipeline: Any, spec: EditSpec, settings: AblationSettings, generator: torch.Generator
) -> _Pictures:
    hidden = embed(pipeline, captions(spec.kind, spec.anchor, settings.pictures))
    _, states = denoise(
        pipeline,
        pipeline.unet,
        hidden,
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        generator=generator,
    )
    return _Pictures(states[-1], hidden)
