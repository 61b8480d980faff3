"""ESD-x: Erasing Concepts from Diffusion Models (Gandikota et al., ICCV 2023), cross-attention.

The student's prediction for the concept is trained towards what the frozen model answers when it
is guided away from it:

    e(x_t, c)  ->  e*(x_t) - eta (e*(x_t, c) - e*(x_t))

where x_t is the student's own partial denoising of noise under the concept's prompt. There is no
anchor. The time steps are those of the sampler.

Published for Stable Diffusion 1.4: eta 1, guidance 3 and 50 DDIM steps for x_t, 1000 updates of one
row, Adam with rate 1e-5, the concept's bare name as the prompt. Here, for a model a hundred times
smaller on two CPU cores: 10 DDIM steps, and the states of one denoising serve `reuse` updates.
With several concepts every row's concept is drawn uniformly. The rate is the one of 3e-5, 1e-4 and
3e-4 that left nothing of pistol and of van gogh (0 of 24 each, all else retained); 24 captions in
place of the bare name left more at 1e-4 (`python -m benchmarks.peers.grid esd`, seed 171000).
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
)
from edits.method import EditSpec, with_components

SCHEDULE = Schedule(updates=96, most=512, batch=8, learning_rate=3e-4)


@dataclass(frozen=True)
class EsdSettings:
    """Settings of a run; `bare` trains on the concept's name alone, as published."""

    schedule: Schedule = SCHEDULE
    eta: float = 1.0
    guidance_scale: float = 3.0
    steps: int = 10
    reuse: int = 8
    bare: bool = True
    seed: int = 0

    @property
    def summary(self) -> str:
        """The settings in words."""
        prompt = "the bare name" if self.bare else "24 captions"
        return (
            f"eta {self.eta:g}, {prompt}, {self.schedule}, x_t from {self.steps} DDIM steps at "
            f"guidance {self.guidance_scale:g}, each state set used {self.reuse} times"
        )


def esd(pipeline: Any, specs: Sequence[EditSpec], settings: EsdSettings) -> Any:
    """The pipeline with a UNet whose cross-attention has been trained away from the concepts."""
    teacher, batch = pipeline.unet, settings.schedule.batch
    student = student_of(teacher, lambda name: ".attn2." in name)
    generator = torch.Generator().manual_seed(settings.seed)
    empty = embed(pipeline, [""]).expand(batch, -1, -1)
    prompts = [
        [spec.concept] if settings.bare else captions(spec.kind, spec.concept) for spec in specs
    ]
    pool: tuple[list[int], list[Tensor], Tensor] = ([], [], empty)

    def loss_at(update: int) -> Tensor:
        nonlocal pool
        if update % settings.reuse == 0:
            concepts = [prompts[i] for i in pick(len(prompts), batch, generator)]
            chosen = [texts[pick(len(texts), 1, generator)[0]] for texts in concepts]
            hidden = embed(pipeline, chosen)
            times, states = denoise(
                pipeline,
                student,
                hidden,
                steps=settings.steps,
                guidance_scale=settings.guidance_scale,
                generator=generator,
            )
            pool = (times, states, hidden)
        times, states, hidden = pool
        at = pick(len(times), batch, generator)
        noisy = torch.stack([states[step][row] for row, step in enumerate(at)])
        when = torch.tensor([times[step] for step in at])
        with torch.no_grad():
            without, within = predict(
                teacher, torch.cat([noisy, noisy]), when.repeat(2), torch.cat([empty, hidden])
            ).chunk(2)
        wanted = without - settings.eta * (within - without)
        return functional.mse_loss(predict(student, noisy, when, hidden), wanted)

    schedule = settings.schedule
    train(student, schedule.updates_for(len(specs)), schedule.learning_rate, loss_at)
    return with_components(pipeline, {"unet": student})
