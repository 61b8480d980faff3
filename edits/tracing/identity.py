"""What a trace is called: SHA-256 over everything that decides its scores."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from edits.method.fingerprint import module_digest
from edits.tracing.layout import Layout
from edits.tracing.options import TraceOptions
from edits.tracing.prompts import TracePair
from edits.tracing.scores import Scorer


def trace_identity(
    prompts: Mapping[str, Sequence[TracePair]],
    options: TraceOptions,
    model: str,
    scorers: Iterable[Scorer],
    *,
    dtype: str,
) -> str:
    """`sha256:...` of a trace; `model` is its `pipeline_digest`."""
    return _digest(
        {
            "options": options.model_dump(mode="json"),
            "prompts": {name: [pair.document() for pair in part] for name, part in prompts.items()},
            "model": model,
            "scorers": [[scorer.name, scorer.digest()] for scorer in scorers],
            "dtype": dtype,
        }
    )


def pipeline_digest(layout: Layout) -> str:
    """`sha256:...` of a pipeline: weights, vocabularies and the scheduler's settings."""
    models = [encoder.model for encoder in layout.encoders]
    scheduler = layout.pipeline.scheduler
    settings = {k: v for k, v in dict(scheduler.config).items() if not k.startswith("_")}
    return _digest(
        {
            "weights": [
                module_digest(model) for model in (*models, layout.denoiser, layout.pipeline.vae)
            ],
            "vocabularies": [encoder.tokenizer.get_vocab() for encoder in layout.encoders],
            "scheduler": [type(scheduler).__name__, settings],
        }
    )


def _digest(document: object) -> str:
    text = json.dumps(document, sort_keys=True, default=str)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
