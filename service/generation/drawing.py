"""One image on its way from a seed to clean latents.

The same arithmetic in the same order as StableDiffusionPipeline.__call__, so the same seed gives
the same image; what differs is that the UNet's pass may be shared with other drawings.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from service.generation.schedulers import predicted_clean, step_options

__all__ = ["Drawing", "Group"]


@dataclass(frozen=True, slots=True)
class Group:
    """What drawings must have in common to share a pass: the latents' shape, and the UNet."""

    shape: tuple[int, ...]
    unet: nn.Module | None = None  # an edited one; None: the pristine one


class Drawing:
    """Latents, their scheduler, and how far they have come. One thread owns it."""

    def __init__(
        self,
        embeddings: Tensor,
        scheduler: Any,
        *,
        seed: int,
        guidance_scale: float,
        shape: tuple[int, ...],
        unet: nn.Module | None = None,
    ) -> None:
        """A drawing at its first step.

        `embeddings` (branches, positions, features): with two branches the unconditional one comes
        first, with one there is no guidance. `scheduler` is this drawing's own, with its timesteps
        set. `shape` is that of the latents, (channels, rows, columns).
        """
        self.embeddings = embeddings
        self.group = Group(shape, unet)
        self._scheduler = scheduler
        self._guidance_scale = guidance_scale
        # Drawn on the CPU whatever the device: the seed means the same image everywhere.
        generator = torch.Generator("cpu").manual_seed(seed)
        noise = torch.randn((1, *shape), generator=generator, dtype=embeddings.dtype)
        self.latents: Tensor = noise.to(embeddings.device) * scheduler.init_noise_sigma
        self._options = step_options(scheduler, generator)
        self._taken = 0
        self._predicted: Tensor | None = None
        self.keep_predicted = False

    @property
    def steps(self) -> int:
        """Passes of the UNet in all; some schedulers take more than the request's steps."""
        return len(self._scheduler.timesteps)

    @property
    def taken(self) -> int:
        """Passes so far."""
        return self._taken

    @property
    def done(self) -> bool:
        """Whether the latents are clean."""
        return self._taken == self.steps

    @property
    def predicted(self) -> Tensor | None:
        """Clean latents as the last step saw them, (1, channels, rows, columns), if kept."""
        return self._predicted

    @property
    def branches(self) -> int:
        """Rows of a pass: two with guidance, one without."""
        return len(self.embeddings)

    def model_input(self) -> Tensor:
        """The UNet's input of the next step, (branches, channels, rows, columns)."""
        scaled: Tensor = self._scheduler.scale_model_input(self.latents, self._timestep)
        return scaled.expand(self.branches, -1, -1, -1)

    def timesteps(self) -> Tensor:
        """The next timestep for each branch, (branches,), on the CPU."""
        # One type for all schedulers: Euler's are fractions.
        return self._timestep.to(torch.float32).expand(self.branches)

    def advance(self, output: Tensor) -> None:
        """Take one step with the UNet's output (branches, channels, rows, columns)."""
        if self.branches == 2:
            without, with_prompt = output.chunk(2)
            output = without + self._guidance_scale * (with_prompt - without)
        timestep = self._timestep
        if self.keep_predicted:
            scaled = self._scheduler.scale_model_input(self.latents, timestep)
            self._predicted = predicted_clean(self._scheduler, scaled, output, timestep)
        self.latents = self._scheduler.step(
            output, timestep, self.latents, return_dict=False, **self._options
        )[0]
        self._taken += 1

    @property
    def _timestep(self) -> Tensor:
        timestep: Tensor = self._scheduler.timesteps[self._taken]
        return timestep
