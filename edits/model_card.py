"""What a model folder says about itself beside the weights: `quickfix.json`."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edits.errors import ModelLoadError
from edits.method.captions import ordinary_names

FILE_NAME = "quickfix.json"


class ModelDefaults(BaseModel):
    """Sampling defaults, and the names of everyday concepts that no edit may move.

    Without a file they are those of Stable Diffusion 1.x and 2.x.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=30, ge=1, le=200)
    guidance_scale: float = Field(default=7.5, ge=0, le=50)
    ordinary_captions: tuple[str, ...] = Field(default_factory=ordinary_names)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read `folder`/quickfix.json; without one, the defaults. Raises ModelLoadError."""
        path = folder / FILE_NAME
        if not path.is_file():
            return cls()
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ModelLoadError(f"{FILE_NAME} of the model: {field}: {first['msg']}") from error
