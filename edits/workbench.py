"""What a command works with: a loaded model, its editor and its gate; and manifests by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from edits.errors import QuickFixError
from edits.evaluation.pictures import picture_check
from edits.loading import load_any_pipeline
from edits.manifests import ConceptEdit, catalog, catalog_entry, load_manifest
from edits.method import Editor
from edits.model_card import ModelDefaults
from edits.publication import Gatekeeper


@dataclass(frozen=True)
class Workbench:
    """One loaded model, ready for edits."""

    pipeline: Any
    editor: Editor
    defaults: ModelDefaults
    gatekeeper: Gatekeeper

    @classmethod
    def open(cls, model: str, *, dtype: torch.dtype = torch.float32) -> Self:
        """Load a pipeline folder or hub id. Raises ModelLoadError."""
        pipeline = load_any_pipeline(model, dtype=dtype)
        defaults = ModelDefaults.read(Path(model))
        editor = Editor(pipeline, ordinary=defaults.ordinary_captions)
        editor.warm(defaults.edit_sites)
        gatekeeper = Gatekeeper(
            editor,
            presets=defaults.presets,
            pictures=picture_check(pipeline, defaults, model),
        )
        return cls(pipeline, editor, defaults, gatekeeper)


def find_manifest(name: str) -> ConceptEdit:
    """The manifest in a file, or of the catalog. Raises ManifestInvalid, QuickFixError."""
    if Path(name).is_file():
        return load_manifest(Path(name))
    known = {entry.name for entry in catalog()}
    if name in known:
        return catalog_entry(name)
    raise QuickFixError(
        f"{name!r} is neither a file nor in the catalog ({', '.join(sorted(known))})"
    )
