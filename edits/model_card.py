"""What a model folder says about itself beside the weights: `quickfix.json`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edits.durable_file import write_durably
from edits.errors import ModelLoadError
from edits.method import PRESETS, Site, parse_sites
from edits.method.captions import ordinary_names

FILE_NAME = "quickfix.json"


class ModelDefaults(BaseModel):
    """Sampling defaults, the names of everyday concepts that no edit may move, and edit sites.

    Without a file they are those of Stable Diffusion 1.x and 2.x. `sites` is where edits act that
    name no site of their own, as a trace has found it; none: the paper's site. `localised` are the
    cross-attention layers of the preset `locoedit`; none: those of Stable Diffusion 1.x.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=30, ge=1, le=200)
    guidance_scale: float = Field(default=7.5, ge=0, le=50)
    ordinary_captions: tuple[str, ...] = Field(default_factory=ordinary_names)
    sites: tuple[str, ...] = Field(default=(), max_length=256)
    localised: tuple[str, ...] = Field(default=(), max_length=256)

    @property
    def edit_sites(self) -> tuple[Site, ...]:
        """Where the preset `quickfix` edits this model. Raises SiteUnknown for a malformed site."""
        return parse_sites(self.sites) if self.sites else PRESETS["quickfix"]

    @property
    def presets(self) -> dict[str, tuple[Site, ...]]:
        """What the names of presets stand for on this model. Raises SiteUnknown."""
        own = {"quickfix": self.edit_sites}
        if self.localised:
            own["locoedit"] = parse_sites(self.localised)
        return PRESETS | own

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


def write_default_sites(folder: Path, sites: Sequence[str]) -> None:
    """Store the sites in `folder`/quickfix.json and leave its other fields as they are.

    Raises ModelLoadError if the file that is there cannot be read.
    """
    ModelDefaults.read(folder)
    path = folder / FILE_NAME
    document = json.loads(path.read_bytes()) if path.is_file() else {}
    document["sites"] = list(sites)
    write_durably(path, json.dumps(document, indent=2).encode() + b"\n")
