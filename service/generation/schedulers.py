"""diffusers' own schedulers by the names that requests use, one object for each image.

A scheduler keeps the state of one run, so every drawing gets a copy of its own.
"""

import copy
import inspect
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from service.errors import GenerationFailed

__all__ = ["SCHEDULERS", "SchedulerName", "Schedulers", "predicted_clean", "step_options"]

SchedulerName = Literal["ddim", "dpm++", "euler", "euler-ancestral", "unipc"]

SCHEDULERS: Final[Mapping[SchedulerName, tuple[Any, dict[str, Any]]]] = MappingProxyType(
    {
        "ddim": (DDIMScheduler, {}),
        "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
        "euler": (EulerDiscreteScheduler, {}),
        "euler-ancestral": (EulerAncestralDiscreteScheduler, {}),
        "unipc": (UniPCMultistepScheduler, {}),
    }
)


class Schedulers:
    """Makes schedulers with the configuration of a model's own one."""

    def __init__(self, own: Any) -> None:
        # Made once and copied: the configuration decides tables that take longer to compute.
        self._templates = {
            name: kind.from_config(own.config, **changes)
            for name, (kind, changes) in SCHEDULERS.items()
        }
        self._own = type(own).from_config(own.config)

    def new(self, name: SchedulerName | None, steps: int) -> Any:
        """A scheduler set to `steps`; None is the model's own kind. Its timesteps stay on the CPU.

        On a GPU a step then waits for no copy.
        """
        scheduler = copy.deepcopy(self._own if name is None else self._templates[name])
        scheduler.set_timesteps(steps, device="cpu")
        return scheduler


def step_options(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """What this scheduler's step accepts of diffusers' extra arguments."""
    accepted = inspect.signature(scheduler.step).parameters
    extra = {"eta": 0.0, "generator": generator}
    return {name: value for name, value in extra.items() if name in accepted}


def predicted_clean(scheduler: Any, scaled: Tensor, output: Tensor, timestep: Tensor) -> Tensor:
    """The clean latents that a UNet's output stands for, by the scheduler's prediction type.

    `scaled` is the UNet's input, (1, channels, rows, columns): sqrt(a) x0 + sqrt(1 - a) noise with
    `a` the cumulative alpha of the timestep, for schedulers over sigmas too once they are scaled.
    Raises GenerationFailed for another prediction type than epsilon, sample and v_prediction.
    """
    alphas = scheduler.alphas_cumprod
    nearest = min(max(round(float(timestep)), 0), len(alphas) - 1)
    alpha = float(alphas[nearest])
    signal, noise = math.sqrt(max(alpha, 1e-8)), math.sqrt(1 - alpha)
    kind: str = scheduler.config.prediction_type
    if kind == "v_prediction":
        return scaled * signal - output * noise
    if kind == "sample":
        return output
    if kind != "epsilon":
        raise GenerationFailed(f"previews are not known for schedulers that predict {kind!r}")
    return (scaled - output * noise) / signal
