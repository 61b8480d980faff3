"""The edited pipeline as a diffusers folder that needs nothing of ours."""

import json
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from edits.export.edit_set import EditSet
from edits.method import resolve
from edits.method.components import same_tensors, with_components

CARD = "quickfix-export.json"
# Sampling defaults, and a judge that was trained on renders only: true of any edit of the model.
# Left behind are the scorer, which reads the pristine text encoder, the caption pairs of traces,
# which are made on pristine models, and the model card of another model.
_COPIED = ("quickfix.json", "judge.safetensors")

_README = """# An edited model

Concepts were taken out of this pipeline by closed-form edits of its weights.
It is not the model that it was made from, and has another fingerprint.

| | |
| --- | --- |
| edits | {edits} |
| sites | {sites} |
| fingerprint of the pristine model | `{base}` |
| digest of the edited weights | `{composition}` |

Load it as any pipeline: `{loader}.from_pretrained(folder)`.
Whoever has the pristine model too can put the concepts back.
Edit the pristine model, not this one: edits are solved together, from its weights.
"""


def edited_pipeline(pipeline: Any, edits: EditSet) -> Any:
    """A shallow copy of `pipeline` whose sites are plain linear layers with the edited weights.

    Everything else is shared. Raises SiteUnknown.
    """
    modules: dict[str, nn.Module] = {}
    for site, weight in edits.weights.items():
        if site.component not in modules:
            modules[site.component] = same_tensors(getattr(pipeline, site.component))
        layer = resolve(modules[site.component], site)
        layer.weight = nn.Parameter(weight.detach().contiguous(), requires_grad=False)
    return with_components(pipeline, modules)


def write_folder(folder: Path, pipeline: Any, edits: EditSet, *, model: str = "") -> None:
    """Write the edited pipeline with safetensors in its own dtype, and what it was made from.

    `model` is the folder of the pristine one, from which sampling defaults and judge are copied.
    """
    edited = edited_pipeline(pipeline, edits)
    edited.save_pretrained(folder, safe_serialization=True)
    _forget_origin(folder)
    for name in _COPIED:
        if (source := Path(model) / name).is_file():
            shutil.copyfile(source, folder / name)
    document = edits.document() | {"sites": sorted(map(str, edits.weights))}
    (folder / CARD).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    text = _README.format(
        edits=", ".join(edits.names),
        sites=", ".join(f"`{site}`" for site in document["sites"]),
        base=edits.base,
        composition=edits.composition,
        loader=type(pipeline).__name__,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _forget_origin(folder: Path) -> None:
    """Take out where the pristine model was loaded from, which is a place on this machine."""
    for path in folder.rglob("*.json"):
        document = json.loads(path.read_bytes())
        if isinstance(document, dict) and document.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
