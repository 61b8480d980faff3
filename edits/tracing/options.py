"""What a trace is asked to do."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edits.errors import TraceInvalid, TraceSiteUnknown
from edits.tracing.layout import Layout
from edits.tracing.positions import DEFAULT_POSITIONS, check_positions
from edits.tracing.text_encoder import MODULES

Target = Literal["text-encoder", "unet", "cross-attention"]


class TraceOptions(BaseModel):
    """Options of one trace; all of them are part of its identity.

    `noise` is in multiples of the standard deviation of the token embeddings. `draws` noise vectors
    are drawn for every seed, each different. `modules` are self_attn, mlp and residual for the text
    encoder, and kinds (self_attn, cross_attn, ff, resnet, ...) or module paths for the UNet; none
    means all. `window` counts cross-attention layers, `first_step` and `last_step` denoising steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    target: Target = "text-encoder"
    seeds: int = Field(default=2, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0, le=2**32)
    draws: int = Field(default=1, ge=1, le=1000)
    noise: float = Field(default=6.0, gt=0, le=1000)
    positions: tuple[str, ...] = DEFAULT_POSITIONS
    modules: tuple[str, ...] = ()
    window: int = Field(default=1, ge=1, le=1000)
    first_step: int = Field(default=0, ge=0, le=1000)
    last_step: int | None = Field(default=None, ge=1, le=1000)
    branches: Literal["both", "conditional"] = "both"
    steps: int = Field(default=20, ge=1, le=1000)
    guidance_scale: float = Field(default=3.0, ge=0, le=50)
    batch: int = Field(default=32, ge=2, le=4096)
    resamples: int = Field(default=2000, ge=100, le=100_000)

    @field_validator("positions")
    @classmethod
    def _known_positions(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return check_positions(names)

    @model_validator(mode="after")
    def _steps_in_order(self) -> Self:
        if self.last_step is not None and not self.first_step < self.last_step <= self.steps:
            raise ValueError(
                f"steps {self.first_step} to {self.last_step} are no window of {self.steps} steps"
            )
        if self.first_step >= self.steps:
            raise ValueError(f"first_step {self.first_step} is not one of {self.steps} steps")
        return self

    @classmethod
    def checked(cls, **given: object) -> Self:
        """Build from loose values. Raises TraceInvalid or TraceSiteUnknown, naming the option."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "options"
            message = first["msg"].removeprefix("Value error, ")
            raise TraceInvalid(f"{name}: {message}", param=name) from None

    def check_against(self, layout: Layout) -> None:
        """Raise TraceSiteUnknown or TraceInvalid for what this pipeline does not have."""
        if self.target == "text-encoder":
            _known(self.modules, MODULES)
        elif self.target == "unet":
            kinds = [unit.kind for unit in layout.units]
            _known(self.modules, (*dict.fromkeys(kinds), *(unit.path for unit in layout.units)))
        else:
            count = len(layout.cross_attention)
            if not count:
                raise TraceInvalid(
                    f"{type(layout.pipeline).__name__} has no cross-attention layers: its text "
                    "enters by joint attention; trace text-encoder or unet",
                    param="target",
                )
            if self.window > count:
                raise TraceInvalid(
                    f"window {self.window} is wider than the {count} cross-attention layers",
                    param="window",
                )


def _known(names: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            raise TraceSiteUnknown(
                f"module {name!r} is not in this pipeline; it has {shown}", param="modules"
            )
