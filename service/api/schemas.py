"""What the wire carries. Strict: nothing is coerced, unknown fields are refused."""

import json
import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edits.evaluation.gate import GateReport
from service.errors import RequestInvalid
from service.generation.request import GenerationRequest
from service.generation.schedulers import SchedulerName
from service.model import ServedModel, SizeLimits
from service.snapshot import BuiltContent

__all__ = [
    "DryRunAnswer",
    "EditAnswer",
    "GenerateBody",
    "ImageItem",
    "ImagesAnswer",
    "ImagesBody",
    "PolicyAnswer",
    "PolicyBody",
    "RollbackBody",
    "SignedSetBody",
    "TraceBody",
    "edit_report",
]

MAX_IMAGES = 10
MAX_STEPS = 150
MAX_GUIDANCE = 30.0
MAX_PREVIEWS = 3
MAX_TEXT = 10_000  # characters; the token limit of the model is far below
MAX_SEED = 2**63 - 1


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


Prompt = Annotated[str, Field(min_length=1, max_length=MAX_TEXT, pattern=r"\S")]
Size = Annotated[str, Field(pattern=r"^(auto|[1-9]\d{0,4}x[1-9]\d{0,4})$")]


class GenerateBody(_Strict):
    """Body of `POST /generate`: one image. What is left out is the model's own default."""

    prompt: Prompt
    negative_prompt: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    size: Size | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=MAX_GUIDANCE)] | None = None
    scheduler: SchedulerName | None = None
    policy: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    user: Annotated[str, Field(max_length=MAX_TEXT)] | None = None

    @property
    def images(self) -> int:
        """How many images to draw."""
        return 1

    @property
    def previews(self) -> int:
        """How many previews of each."""
        return 0

    def request(self, model: ServedModel, *, policy: str) -> GenerationRequest:
        """The same with this model's defaults, under `policy`; image i of n has seed + i.

        Raises RequestInvalid for a size that the model does not take.
        """
        seed = secrets.randbelow(2**32) if self.seed is None else self.seed
        defaults = model.defaults
        width, height = _pixels(self.size or "auto", model.sizes)
        return GenerationRequest(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt or "",
            seeds=tuple(range(seed, seed + self.images)),
            steps=defaults.steps if self.steps is None else self.steps,
            guidance_scale=(
                defaults.guidance_scale if self.guidance_scale is None else self.guidance_scale
            ),
            width=width,
            height=height,
            policy=policy,
            scheduler=self.scheduler,
            previews=self.previews,
        )


class ImagesBody(GenerateBody):
    """Body of `POST /v1/images/generations`, OpenAI's shape and this service's own fields.

    `model` is accepted because clients send it; one process serves one model.
    """

    model: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)] | None = None
    response_format: Literal["b64_json"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=MAX_PREVIEWS)] | None = None  # of a stream

    @property
    def images(self) -> int:
        """How many images to draw."""
        return self.n or 1

    @property
    def previews(self) -> int:
        """How many previews of each. Raises RequestInvalid where they are asked for unstreamed."""
        if self.partial_images and not self.stream:
            raise RequestInvalid(
                "partial_images are sent in a stream only; set stream to true",
                param="partial_images",
            )
        return self.partial_images or 0


class ImageItem(_Strict):
    """One image of an answer."""

    b64_json: str
    seed: int


class ImagesAnswer(_Strict):
    """Answer of `POST /v1/images/generations`."""

    created: int  # seconds since 1970
    data: list[ImageItem]
    output_format: Literal["png", "jpeg", "webp"]
    size: str


class SignedSetBody(_Strict):
    """Body of `POST /admin/revisions`: a set and its DSSE envelope, as `quickfix sign` writes them.

    White space and the order of fields do not matter: the set is brought into canonical form, and
    its digest is that of the bytes that were signed.
    """

    revision: dict[str, Any]
    envelope: dict[str, Any]
    reason: Annotated[str, Field(max_length=1000)] = ""


class RollbackBody(_Strict):
    """Body of `POST /admin/rollback`."""

    to: Annotated[int, Field(ge=1, le=2**31 - 1)]
    reason: Annotated[str, Field(max_length=1000)] = ""


class RolloutAnswer(_Strict):
    """Answer of the rollout routes: how it stands, and after `wait` the fence."""

    rollout: dict[str, Any] | None
    fence: dict[str, Any] | None = None


class ReasonBody(_Strict):
    """Body of `POST /admin/rollout/halt` and `/promote`."""

    reason: Annotated[str, Field(max_length=1000)] = ""


class PolicyBody(_Strict):
    """Body of `PUT /admin/policies`. Types only: what a policy may say is the revision's rule."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    edits: Annotated[list[Annotated[str, Field(max_length=63)]], Field(max_length=1000)]
    reason: Annotated[str, Field(max_length=1000)] = ""


class PolicyAnswer(_Strict):
    """Answer of `PUT` and `DELETE /admin/policies`: the revision and all its policies."""

    revision: int
    digest: str
    name: str
    policies: dict[str, list[str]]
    activation_ms: float
    fence: dict[str, Any] | None = None
    rollout: dict[str, Any] | None = None


Word = Annotated[str, Field(max_length=200)]


class TraceBody(_Strict):
    """Body of `POST /admin/traces`. What is left out has the model's or the trace's default.

    Types only: the bounds of the options are those of `quickfix trace` (edits.tracing.options).
    """

    target: Word | None = None
    seeds: int | None = None
    seed: int | None = None
    draws: int | None = None
    noise: float | None = None
    positions: Annotated[list[Word], Field(min_length=1, max_length=100)] | None = None
    modules: Annotated[list[Word], Field(max_length=1000)] | None = None
    window: int | None = None
    first_step: int | None = None
    last_step: int | None = None
    branches: Word | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    batch: int | None = None
    attributes: Annotated[list[Word], Field(max_length=100)] = []
    pairs: int | None = None
    prompts: dict[str, Any] | str | None = None

    def options(self) -> dict[str, object]:
        """The options that were given."""
        others = {"attributes", "pairs", "prompts"}
        return self.model_dump(exclude=others, exclude_none=True)

    def document(self) -> bytes | None:
        """The prompts as the bytes of a file; text may hold half characters, which no file has."""
        if self.prompts is None:
            return None
        if isinstance(self.prompts, str):
            return self.prompts.encode("utf-8", "surrogatepass")
        return json.dumps(self.prompts).encode()


class DryRunAnswer(_Strict):
    """Answer of `POST /admin/edits?dry_run=true`: what would be published."""

    dry_run: Literal[True] = True
    name: str
    digest: str
    report: dict[str, Any]


class EditAnswer(_Strict):
    """Answer of `POST` and `DELETE /admin/edits` and of a roll back."""

    revision: int
    digest: str
    name: str | None = None
    report: dict[str, Any] | None = None
    activation_ms: float
    fence: dict[str, Any] | None = None
    rollout: dict[str, Any] | None = None


def edit_report(name: str, built: BuiltContent, gate: GateReport | None) -> dict[str, Any]:
    """What was computed for one edit; `edit_ms` is captions to swapped weight, all edits.

    `chosen` are the settings that the manifest left open, `gate` is what was found before it was
    published; both are None where there is nothing to say. `not_preserved` are names of `preserve`
    that are not kept still, since a name that some edit removes stands in them.
    """
    own = built.report(name)
    chosen = built.content.choices.get(name)
    return {
        "edit_ms": round(built.seconds * 1000, 3),
        "chosen": None if chosen is None else chosen.model_dump(mode="json"),
        "gate": None if gate is None else gate.document(),
        "not_preserved": list(dict.fromkeys(n for report in own for n in report.not_preserved)),
        "rows": sum(report.rows for report in own),
        "residual": max((report.residual for report in own), default=0.0),
        "preserve_drift": max((report.preserve_drift for report in own), default=0.0),
        "empty_prompt_drift": max((report.empty_prompt_drift for report in own), default=0.0),
        "sites": [
            {
                "site": str(report.site),
                "rows": report.rows,
                "residual": report.residual,
                "preserve_drift": report.preserve_drift,
                "empty_prompt_drift": report.empty_prompt_drift,
                "neighbours": list(report.neighbours),
            }
            for report in own
        ],
    }


def _pixels(size: str, limits: SizeLimits) -> tuple[int, int]:
    if size == "auto":
        return limits.native, limits.native
    width, height = (int(side) for side in size.split("x"))
    for side in (width, height):
        if not limits.smallest <= side <= limits.largest or side % limits.multiple:
            raise RequestInvalid(
                f"size {size} is not served: each side must be a multiple of {limits.multiple} "
                f"from {limits.smallest} to {limits.largest} pixels",
                param="size",
            )
    return width, height
