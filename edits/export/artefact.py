"""The artefact of an edit set: one small safetensors file, for pipelines of the same base model.

Tensors, for each site: `<site>.up`, `<site>.down`, `<site>.bits` and `<site>.scale`, as
`edits.export.packing` describes them. Metadata: one JSON document under `quickfix`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from edits.errors import FingerprintMismatch, NonFinite, QuickFixError
from edits.export.edit_set import EditSet, SiteFigures, pristine_weight
from edits.export.lowrank import Spectrum, unit_roundoff
from edits.export.packing import Packed, pack
from edits.export.serialise import serialise
from edits.method import Editor, Site, parse_sites, weights_digest

# Measured on the demo model (docs/export.md): here pixels move by 1/255, hardly ever by more.
TOLERANCE = 2.0**-14
_KEY = "quickfix"
_PARTS = ("up", "down", "bits", "scale")


class Card(BaseModel):
    """What an artefact says of itself.

    base: fingerprint of the pristine model. composition: digest of the edited weights. pristine:
    digest of the pristine weights of the sites, since the fingerprint covers text encoders only.
    errors: of each site. digest: of all other fields and of the tensors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["quickfix-artefact/v1"] = "quickfix-artefact/v1"
    edits: tuple[str, ...]
    base: str
    composition: str
    pristine: str
    dtype: str
    tolerance: float = Field(gt=0)
    errors: dict[str, float]
    digest: str = ""


def write_artefact(
    path: Path,
    pipeline: Any,
    edits: EditSet,
    *,
    tolerance: float = TOLERANCE,
    max_kib: float | None = None,
) -> tuple[SiteFigures, ...]:
    """Write the deltas of `edits` against the pristine `pipeline`.

    tolerance bounds the error of each site's weight relative to its Frobenius norm; one below the
    dtype's unit roundoff is taken as that. Raises QuickFixError, and writes nothing, if the file
    would take more than `max_kib` KiB.
    """
    tensors: dict[str, Tensor] = {}
    figures: list[SiteFigures] = []
    dtypes = {weight.dtype for weight in edits.weights.values()}
    if len(dtypes) != 1:
        raise QuickFixError("the edited weights have several dtypes; load the model in one")
    (dtype,) = dtypes
    allowed = max(tolerance, unit_roundoff(dtype))
    for site, weight in sorted(edits.weights.items()):
        packed = pack(Spectrum.of(pristine_weight(pipeline, site), weight), allowed)
        tensors |= {f"{site}.{part}": getattr(packed, part) for part in _PARTS}
        figures.append(SiteFigures(site, packed.rank, packed.error))
    card = Card(
        edits=edits.names,
        base=edits.base,
        composition=edits.composition,
        pristine=_pristine_digest(pipeline, edits.weights),
        dtype=str(dtype).removeprefix("torch."),
        tolerance=allowed,
        errors={str(each.site): each.error for each in figures},
    )
    card = card.model_copy(update={"digest": _digest(card, tensors)})
    body = serialise(tensors, {_KEY: card.model_dump_json()})
    if max_kib is not None and len(body) > 1024 * max_kib:
        ranks = ", ".join(f"rank {each.rank} at {each.site}" for each in figures[:4])
        raise QuickFixError(
            f"the artefact takes {len(body) / 1024:.1f} KiB and {max_kib:g} are allowed ({ranks}); "
            f"raise the budget or the tolerance of {allowed:.1e}, or export fewer edits",
            param="max_kib",
        )
    path.write_bytes(body)
    return tuple(figures)


def read_card(path: Path) -> Card:
    """What an artefact says of itself, its digest not yet checked. Raises QuickFixError."""
    with _opened(path) as file:
        return _card(path, file)


def read_artefact(path: Path, pipeline: Any) -> Mapping[Site, Tensor]:
    """The edited weights (d_out, d_in) by site, in the dtype of `pipeline`'s own.

    Raises FingerprintMismatch if `pipeline` is not the pristine model that the artefact was made
    from, SiteUnknown if it lacks a site, and QuickFixError for a file that is damaged.
    """
    with _opened(path) as file:
        card = _card(path, file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    if _digest(card, tensors) != card.digest:
        raise _damaged(path, "its content does not match its digest")
    base = Editor(pipeline).fingerprint
    if base != card.base:
        raise FingerprintMismatch(
            f"artefact {path.name!r} is for base model {card.base} in {card.dtype}, the loaded one "
            f"is {base}; load that model, pristine and in that dtype, or export again",
            param="base",
        )
    sites = _sites(path, tensors)
    if _pristine_digest(pipeline, sites) != card.pristine:
        raise FingerprintMismatch(
            f"artefact {path.name!r} is for a model with other weights at its sites, in "
            f"{', '.join(sorted({site.component for site in sites}))}; load that model",
            param="pristine",
        )
    return {site: _weight(path, pipeline, site, tensors) for site in sites}


def _sites(path: Path, tensors: Mapping[str, Tensor]) -> tuple[Site, ...]:
    names = sorted({name.rpartition(".")[0] for name in tensors})
    if set(tensors) != {f"{name}.{part}" for name in names for part in _PARTS}:
        raise _damaged(path, f"a site needs the tensors {', '.join(_PARTS)}")
    return parse_sites(names)


def _weight(path: Path, pipeline: Any, site: Site, tensors: Mapping[str, Tensor]) -> Tensor:
    pristine = pristine_weight(pipeline, site)
    rows, columns = pristine.shape
    try:
        up, down, bits, scale = (tensors[f"{site}.{part}"] for part in _PARTS)
        delta = Packed(up, down, bits, scale).unpack((rows, columns))
    except (ValueError, RuntimeError, TypeError) as error:
        raise _damaged(path, f"the factors of {site} do not fit the model's layer") from error
    weight = (pristine.double().cpu() + delta).to(pristine.dtype)
    if not torch.isfinite(weight).all():
        raise NonFinite(f"the weight of site {site} in {path.name!r} contains NaN or infinity")
    return weight.to(pristine.device)


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise _damaged(path, "it cannot be read as safetensors") from error


def _card(path: Path, file: Any) -> Card:
    text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise _damaged(path, "it is no artefact of `quickfix export --format safetensors`")
    try:
        return Card.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise _damaged(path, f"{field}: {first['msg']}") from error


def _pristine_digest(pipeline: Any, sites: Iterable[Site]) -> str:
    return weights_digest({site: pristine_weight(pipeline, site) for site in sites})


def _digest(card: Card, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the card without its digest, and over every tensor."""
    said = card.model_dump(mode="json", exclude={"digest"})
    hasher = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hasher.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return f"sha256:{hasher.hexdigest()}"


def _damaged(path: Path, why: str) -> QuickFixError:
    return QuickFixError(f"artefact {path.name!r} is refused: {why}; export it again", param="path")
