"""What the fine-tuned erasers share: a student UNet, its captions, and partial denoising.

Both published methods are written for noise prediction. At a given x_t every prediction type is an
affine function of the noise, and both targets are combinations of predictions whose coefficients
sum to one: so they hold in the model's own type as they stand (v for the demo model), and the
losses differ from the published ones by a weight of the time step only.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edits.method.spec import Kind

_COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "gray", "white")
_THINGS = (
    "a photo of the {x} with a {c} background",
    "a picture of one {x} on a plain {c} background",
    "an image of my {x} against a {c} background",
    "the {x} in front of a {c} background",
    "this small {x} with a plain {c} background",
    "one {x}, {c} background",
)
_STYLES = (
    "a dog in the style of {x} with a {c} background",
    "a house by {x} on a plain {c} background",
    "a tree in {x} style against a {c} background",
    "a bird in front of a {c} background in the style of {x}",
    "a painting of a car by {x} with a {c} background",
    "a picture of a flower, {x}, {c} background",
)
TEMPLATES: dict[Kind, tuple[str, ...]] = {"object": _THINGS, "style": _STYLES, "fact": _THINGS}


@dataclass(frozen=True)
class Schedule:
    """How Adam runs: `updates` per concept, `most` for a set, each of `batch` rows."""

    updates: int
    most: int
    batch: int
    learning_rate: float

    def updates_for(self, concepts: int) -> int:
        """Updates for a set of so many concepts."""
        return min(self.updates * concepts, self.most)

    def __str__(self) -> str:
        return (
            f"{self.updates} updates per concept and at most {self.most}, of {self.batch} rows, "
            f"with Adam at {self.learning_rate:g}"
        )


def captions(kind: Kind, name: str, count: int = 24) -> list[str]:
    """`count` captions of `name` (24 of them differ), none in the evaluation's templates.

    Caption i has the same template and background for every name of its kind.
    """
    templates = TEMPLATES[kind]
    return [
        templates[i % len(templates)].format(x=name, c=_COLOURS[i % len(_COLOURS)])
        for i in range(count)
    ]


@torch.no_grad()
def embed(pipeline: Any, prompts: Sequence[str]) -> Tensor:
    """Prompt embeddings (n, positions, width)."""
    tokens = pipeline.tokenizer(list(prompts), padding="max_length", return_tensors="pt")
    states: Tensor = pipeline.text_encoder(tokens.input_ids).last_hidden_state
    return states


def student_of(teacher: nn.Module, trained: Callable[[str], bool]) -> nn.Module:
    """A copy of the UNet in which only parameters whose name `trained` accepts have gradients."""
    student = copy.deepcopy(teacher).eval()
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(trained(name))
    return student


def train(
    student: nn.Module, updates: int, learning_rate: float, loss_at: Callable[[int], Tensor]
) -> None:
    """Minimise `loss_at(update)` over the parameters that have gradients, and freeze them."""
    parameters = [p for p in student.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    for update in range(updates):
        optimiser.zero_grad()
        torch.autograd.backward(loss_at(update))
        optimiser.step()
    student.requires_grad_(False)


def predict(unet: nn.Module, noisy: Tensor, times: Tensor | int, hidden: Tensor) -> Tensor:
    """The model's prediction (n, 4, h, w), of its own type."""
    answer: Tensor = unet(noisy, times, hidden, return_dict=False)[0]
    return answer


@torch.no_grad()
def denoise(
    pipeline: Any,
    unet: Any,
    hidden: Tensor,
    *,
    steps: int,
    guidance_scale: float,
    generator: torch.Generator,
) -> tuple[list[int], list[Tensor]]:
    """DDIM with guidance from noise: the times, and x_t (n, 4, h, w) at each and after the last."""
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(steps)
    size = unet.config.sample_size
    noisy = torch.randn((len(hidden), unet.config.in_channels, size, size), generator=generator)
    noisy = noisy * scheduler.init_noise_sigma
    both = torch.cat([embed(pipeline, [""]).expand_as(hidden), hidden])
    states = [noisy]
    for time in scheduler.timesteps:
        without, within = predict(unet, torch.cat([noisy, noisy]), time, both).chunk(2)
        guided = without + guidance_scale * (within - without)
        noisy = scheduler.step(guided, time, noisy).prev_sample
        states.append(noisy)
    return scheduler.timesteps.tolist(), states


def true_prediction(scheduler: Any, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """What a perfect model of the scheduler's prediction type answers. Raises ValueError."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        velocity: Tensor = scheduler.get_velocity(clean, noise, times)
        return velocity
    raise ValueError(f"prediction type {kind!r} is not known; use epsilon or v_prediction")


def pick(count: int, batch: int, generator: torch.Generator) -> list[int]:
    """`batch` indices below `count`, uniform."""
    return torch.randint(count, (batch,), generator=generator).tolist()
