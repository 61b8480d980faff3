"""The denoising loop over diffusers' own UNet and scheduler.

The same arithmetic in the same order as StableDiffusionPipeline.__call__, so the same seed gives
the same image; what differs is that it can be stopped at every step.
"""

import inspect
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from service.errors import GenerationFailed

__all__ = ["Denoiser"]


class Denoiser:
    """Draws latents from a seed and embeddings. Not thread-safe: one thread owns the UNet.

    `unet` is the pristine one; a run may be given an edited one in its place.
    """

    def __init__(self, unet: Any, scheduler: Any, *, vae_scale_factor: int) -> None:
        self._unet = unet
        self._scheduler = scheduler
        self._vae_scale_factor = vae_scale_factor

    @torch.inference_mode()
    def run(
        self,
        prompt: Tensor,
        unconditional: Tensor | None,
        *,
        seed: int,
        steps: int,
        guidance_scale: float,
        width: int,
        height: int,
        unet: Any = None,
        before_step: Callable[[], None] = lambda: None,
        after_step: Callable[[float], None] = lambda _seconds: None,
    ) -> Tensor:
        """Latents of one image, shape (1, channels, height / scale, width / scale).

        `prompt` and `unconditional` are embeddings (1, positions, features); without
        `unconditional` there is no guidance and no second branch. `before_step` may raise to
        stop; `after_step` gets the step's seconds, on a GPU those until its work is queued.
        Raises GenerationFailed when the result is not finite.
        """
        unet = self._unet if unet is None else unet
        scheduler = self._fresh_scheduler()
        scheduler.set_timesteps(steps, device=prompt.device)
        # Drawn on the CPU whatever the device: the seed means the same image everywhere.
        generator = torch.Generator("cpu").manual_seed(seed)
        latents = self._first_latents(scheduler, generator, prompt, width, height)
        embeddings = prompt if unconditional is None else torch.cat([unconditional, prompt])
        options = _step_options(scheduler, generator)
        for timestep in scheduler.timesteps:
            before_step()
            started = time.perf_counter()
            branches = latents if unconditional is None else torch.cat([latents] * 2)
            branches = scheduler.scale_model_input(branches, timestep)
            noise = unet(branches, timestep, encoder_hidden_states=embeddings, return_dict=False)[0]
            if unconditional is not None:
                without, with_prompt = noise.chunk(2)
                noise = without + guidance_scale * (with_prompt - without)
            latents = scheduler.step(noise, timestep, latents, return_dict=False, **options)[0]
            after_step(time.perf_counter() - started)
        if not torch.isfinite(latents).all():
            raise GenerationFailed("the denoising loop gave non-finite numbers")
        return latents

    def _fresh_scheduler(self) -> Any:
        # Schedulers keep the state of one run.
        return type(self._scheduler).from_config(self._scheduler.config)

    def _first_latents(
        self, scheduler: Any, generator: torch.Generator, like: Tensor, width: int, height: int
    ) -> Tensor:
        scale = self._vae_scale_factor
        shape = (1, int(self._unet.config.in_channels), height // scale, width // scale)
        noise = torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
        latents: Tensor = noise * scheduler.init_noise_sigma
        return latents


def _step_options(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """What this scheduler's step accepts of diffusers' extra arguments."""
    accepted = inspect.signature(scheduler.step).parameters
    extra = {"eta": 0.0, "generator": generator}
    return {name: value for name, value in extra.items() if name in accepted}
