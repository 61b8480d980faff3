"""What one call asks for and what it gets; both immutable."""

from dataclasses import dataclass

from PIL.Image import Image

from service.generation.schedulers import SchedulerName

__all__ = ["Generated", "GenerationRequest"]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One call: the same prompt drawn from each of its seeds, under one policy.

    All its images run under one revision.
    """

    prompt: str
    seeds: tuple[int, ...]
    steps: int
    guidance_scale: float  # <= 1: no unconditional branch
    width: int  # pixels
    height: int  # pixels
    negative_prompt: str = ""
    policy: str = "default"
    scheduler: SchedulerName | None = None  # None: the model's own
    previews: int = 0  # pictures of the predicted result on the way, for each image


@dataclass(frozen=True, slots=True)
class Generated:
    """The images of one call, in the order of its seeds, and what they were drawn under."""

    request: GenerationRequest
    images: tuple[Image, ...]
    revision: int
    digest: str
    queue_seconds: float
