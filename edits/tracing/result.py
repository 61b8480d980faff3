"""The result of a trace as one JSON document, beside the raw scores as arrays.

`trace.json` follows the schema of `TraceResult` (docs/trace.schema.json); `scores.safetensors`
holds, for each attribute, float64 scores (prompts, seeds, draws, conditions, scorers) with NaN
where a prompt does not have a condition.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.numpy import load_file, save

from edits.durable_file import write_durably
from edits.errors import TraceConflict
from edits.tracing.effects import Agreement, Effects
from edits.tracing.options import TraceOptions

FILE_NAME = "trace.json"
ARRAYS_NAME = "scores.safetensors"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EstimateDocument(_Document):
    """A mean over prompts with its bootstrap 95 % interval; null: one prompt has none."""

    mean: float | None
    low: float | None
    high: float | None
    prompts: int
    runs: int


class SiteDocument(_Document):
    """Effects of one site; `share` is the indirect effect as a part of the total one."""

    site: str
    indirect: EstimateDocument
    direct: EstimateDocument
    share: float | None


class EffectsDocument(_Document):
    """Mean scores of the clean and corrupted runs, and the effects; total = indirect + direct."""

    clean: EstimateDocument
    corrupted: EstimateDocument
    total: EstimateDocument
    sites: tuple[SiteDocument, ...]


class VerdictDocument(_Document):
    """The site with the largest effect, direct for cross-attention, and what it excludes.

    The residual stream, sites that not all prompts have, and sites that everything passes through
    are not compared.
    """

    site: str
    effect: EstimateDocument
    runner_up: str | None
    difference: EstimateDocument | None
    excludes_zero: bool
    excludes_runner_up: bool
    causal: bool


class CorrelationDocument(_Document):
    """Spearman's rank correlation of `count` pairs with its 95 % interval."""

    rho: float | None
    low: float | None
    high: float | None
    count: int


class AgreementDocument(_Document):
    """How alike the two scorers order sites, and single runs."""

    sites: CorrelationDocument
    runs: CorrelationDocument


class PairDocument(_Document):
    """One traced pair of captions."""

    caption: str
    concept: str
    anchor_caption: str
    judge: str
    wanted: str


class AttributeDocument(_Document):
    """All that was found about one attribute, by scorer."""

    pairs: tuple[PairDocument, ...]
    conditions: tuple[str, ...]
    effects: dict[str, EffectsDocument]
    verdicts: dict[str, VerdictDocument]
    agreement: AgreementDocument | None


class ModelDocument(_Document):
    """What was traced; `digest` is over the weights of text encoders, denoiser and VAE."""

    name: str
    pipeline: str
    digest: str


class TraceResult(_Document):
    """One finished trace. `seconds` is the time that drawing took, summed over workers."""

    version: Literal[1] = 1
    identity: str
    model: ModelDocument
    options: TraceOptions
    environment: dict[str, str | int]
    scorers: tuple[str, ...]
    pictures: int
    seconds: float
    attributes: dict[str, AttributeDocument]
    arrays: dict[str, str]


def write_result(folder: Path, result: Mapping[str, Any], arrays: Mapping[str, Any]) -> TraceResult:
    """Write both files, the document last and each by one rename; answers what was written."""
    blob = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    write_durably(folder / ARRAYS_NAME, blob)
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    document = TraceResult.model_validate(
        {**result, "arrays": {"file": ARRAYS_NAME, "digest": digest}}
    )
    text = json.dumps(document.model_dump(mode="json"), indent=1)
    write_durably(folder / FILE_NAME, text.encode() + b"\n")
    return document


def read_result(folder: Path) -> tuple[TraceResult, dict[str, np.ndarray]]:
    """Read what `write_result` wrote. Raises TraceConflict if the files do not belong together."""
    try:
        document = TraceResult.model_validate_json((folder / FILE_NAME).read_bytes())
        blob = (folder / document.arrays["file"]).read_bytes()
    except (ValidationError, OSError, KeyError) as error:
        raise TraceConflict(
            f"{folder.name} holds no readable trace ({FILE_NAME} and {ARRAYS_NAME})", param="out"
        ) from error
    if f"sha256:{hashlib.sha256(blob).hexdigest()}" != document.arrays["digest"]:
        raise TraceConflict(
            f"{ARRAYS_NAME} in {folder.name} is not the one that {FILE_NAME} was made with",
            param="out",
        )
    return document, load_file(folder / document.arrays["file"])


def schema() -> dict[str, Any]:
    """The JSON schema of `trace.json`."""
    return TraceResult.model_json_schema()


def attribute_document(
    pairs: Sequence[Mapping[str, str]],
    conditions: Sequence[str],
    effects: Mapping[str, Effects],
    verdicts: Mapping[str, Mapping[str, Any]],
    agreement: Agreement | None,
) -> dict[str, Any]:
    """One attribute as JSON."""
    return {
        "pairs": list(pairs),
        "conditions": list(conditions),
        "effects": {name: found.document() for name, found in effects.items()},
        "verdicts": dict(verdicts),
        "agreement": None if agreement is None else agreement.document(),
    }
