"""LoRA files of an edit set, as diffusers' own `load_lora_weights` reads them.

W + (alpha / rank) up @ down, with alpha = rank. What diffusers 0.42 asks of a file:

- One rank and one alpha for all layers of a component. Kohya alphas that differ are assigned to
  modules of other names, and lost; PEFT files carry none. Smaller factors are filled with zeros.
- A text encoder's part is recognised by its attention: `lora_A` on MLP layers alone is not, and
  `lora_linear_layer` is; in kohya's spelling, attention without an `out_proj` is not.
- Only pipelines with a UNet read kohya's spelling; the others ignore such a file with a warning.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from edits.errors import QuickFixError
from edits.export.edit_set import EditSet, SiteFigures, pristine_weight
from edits.export.lowrank import Factors, factorise
from edits.export.serialise import serialise
from edits.method import Site

Spelling = Literal["peft", "kohya"]

_OUT = ".out_proj"
_ATTENTION = (".q_proj", ".k_proj", ".v_proj", _OUT)
_MLP = (".fc1", ".fc2")
_DENOISER = (".to_q", ".to_k", ".to_v", ".to_out.0")


def write_lora(
    path: Path,
    pipeline: Any,
    edits: EditSet,
    *,
    spelling: Spelling,
    tolerance: float | None = None,
) -> tuple[SiteFigures, ...]:
    """Write the deltas of `edits` against the pristine `pipeline` as float32 factors.

    tolerance is `factorise`'s. Raises QuickFixError for a site that diffusers' loader cannot reach
    in this spelling, and SiteUnknown.
    """
    check_sites(pipeline, edits.weights, spelling)
    factors = {
        site: factorise(pristine_weight(pipeline, site), weight, tolerance=tolerance)
        for site, weight in sorted(edits.weights.items())
    }
    figures = tuple(SiteFigures(site, each.rank, each.error) for site, each in factors.items())
    tensors = lora_tensors(pipeline, factors, spelling)
    if not tensors:
        raise QuickFixError("the edits change no weight, and a LoRA needs at least rank 1")
    metadata = {"format": "pt", "quickfix": json.dumps(edits.document(), sort_keys=True)}
    if spelling == "kohya":
        rank = str(max(each.rank for each in factors.values()))
        metadata |= {
            "ss_network_module": "networks.lora",
            "ss_network_dim": rank,
            "ss_network_alpha": rank,
        }
    path.write_bytes(serialise(tensors, metadata))
    return figures


def lora_tensors(
    pipeline: Any, factors: Mapping[Site, Factors], spelling: Spelling
) -> dict[str, Tensor]:
    """The file's tensors by name; a site whose delta is zero has none."""
    ranks: dict[str, int] = {}
    for site, found in factors.items():
        ranks[site.component] = max(found.rank, ranks.get(site.component, 0))
    tensors: dict[str, Tensor] = {}
    for site, found in factors.items():
        rank = ranks[site.component]
        if rank == 0:
            continue
        wide = found.padded(rank)
        if spelling == "peft":
            down, up = _peft_names(site)
        else:
            stem = _kohya_stem(pipeline, site)
            down, up = f"{stem}.lora_down.weight", f"{stem}.lora_up.weight"
            tensors[f"{stem}.alpha"] = torch.tensor(float(rank))
        tensors[down], tensors[up] = wide.down, wide.up
    return tensors


def check_sites(pipeline: Any, sites: Mapping[Site, Any], spelling: Spelling) -> None:
    """Raise QuickFixError for the first site that `load_lora_weights` would not load."""
    if not hasattr(pipeline, "load_lora_weights"):
        raise QuickFixError(
            f"{type(pipeline).__name__} loads no LoRA files; export a folder", param="format"
        )
    loadable = getattr(pipeline, "_lora_loadable_modules", ())
    for component in sorted({site.component for site in sites}):
        paths = sorted(site.path for site in sites if site.component == component)
        if component not in loadable or (spelling == "kohya" and "unet" not in loadable):
            raise _refused(component, paths[0], spelling)
        known = (*_ATTENTION, *_MLP) if component.startswith("text_encoder") else _DENOISER
        unknown = [path for path in paths if not path.endswith(known)]
        attention = [path for path in paths if path.endswith(_ATTENTION)]
        if spelling == "kohya" and not any(path.endswith(_OUT) for path in attention):
            unknown += attention
        if unknown:
            raise _refused(component, unknown[0], spelling)


def _peft_names(site: Site) -> tuple[str, str]:
    stem = f"{site.component}.{site.path}"
    if site.component.startswith("text_encoder") and site.path.endswith(_MLP):
        return f"{stem}.lora_linear_layer.down.weight", f"{stem}.lora_linear_layer.up.weight"
    return f"{stem}.lora_A.weight", f"{stem}.lora_B.weight"


def _kohya_stem(pipeline: Any, site: Site) -> str:
    two = getattr(pipeline, "text_encoder_2", None) is not None
    prefix = {
        "text_encoder": "lora_te1" if two else "lora_te",
        "text_encoder_2": "lora_te2",
        "unet": "lora_unet",
    }[site.component]
    return f"{prefix}_{site.path.replace('.', '_')}"


def _refused(component: str, path: str, spelling: Spelling) -> QuickFixError:
    other = "--format peft or folder" if spelling == "kohya" else "--format folder"
    return QuickFixError(
        f"diffusers loads no {spelling} LoRA of {component}:{path}; use {other}", param="format"
    )
