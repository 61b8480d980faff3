"""A trace that is asked for, checked against the loaded pipeline before any model runs.

What passes here can still fail only by the machine: memory, disk, a model folder that changes.
"""

import copy
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edits.errors import TraceInvalid, TracePromptsInvalid
from edits.evaluation.report import JUDGE_FILE, SCORER_FILE
from edits.tracing.command import PROMPTS_FILE
from edits.tracing.identity import pipeline_digest, trace_identity
from edits.tracing.layout import Layout
from edits.tracing.options import TraceOptions
from edits.tracing.prompts import TracePair, parse_prompts, select
from edits.tracing.scores import Scorer, scorers_for
from edits.tracing.tracer import check
from service.model import ServedModel

__all__ = ["TraceCheck", "TraceRequest"]

_ID_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """A trace that the model can run, in the words of `quickfix trace`.

    `id` is the beginning of the identity that the result will have: what decides the scores
    decides it, so the same trace has the same id however it is asked for.
    """

    id: str
    model: str  # absolute folder, or hub id
    options: TraceOptions
    prompts: bytes  # the whole document, as it was sent or as the model ships it
    attributes: tuple[str, ...]  # none: all of the document's
    pairs: int | None


class TraceCheck:
    """Checks requests against one loaded model. Thread-safe."""

    def __init__(self, model: ServedModel, source: str) -> None:
        """`source` is the pipeline folder or hub id that the model was loaded from."""
        folder = Path(source).expanduser()
        self._source = str(folder.resolve()) if folder.is_dir() else source
        self._model = model
        # Fast tokenizers raise "Already borrowed" when threads share one: this one is ours.
        self._tokenizer = copy.deepcopy(model.pipeline.tokenizer)
        self._digest: str | None = None
        self._lock = threading.Lock()

    def __call__(
        self,
        options: Mapping[str, object],
        *,
        attributes: Sequence[str] = (),
        pairs: int | None = None,
        prompts: bytes | None = None,
    ) -> TraceRequest:
        """Check everything; options that are left out have the model's or the trace's default.

        `prompts` is a TracePrompts document, by default the one that the model ships. The first
        call takes some seconds for a large model: all weights are digested once. Raises
        TraceInvalid, TraceSiteUnknown, TracePromptsInvalid or PipelineUntraceable.
        """
        defaults = self._model.defaults
        checked = TraceOptions.checked(
            **{"steps": defaults.steps, "guidance_scale": defaults.guidance_scale, **options}
        )
        document = self._shipped_prompts() if prompts is None else prompts
        chosen = select(parse_prompts(document), attributes)
        if pairs is not None:
            if pairs < 1:
                raise TraceInvalid("pairs: at least one is needed", param="pairs")
            chosen = {name: part[:pairs] for name, part in chosen.items()}
        with self._lock:
            layout = self._layout()
            scorers = self._scorers(layout)
            check(layout, chosen, checked, scorers)
            identity = self._identity(layout, scorers, chosen, checked)
        return TraceRequest(
            id=identity.removeprefix("sha256:")[:_ID_CHARACTERS],
            model=self._source,
            options=checked,
            prompts=document,
            attributes=tuple(dict.fromkeys(attributes)),
            pairs=pairs,
        )

    def _layout(self) -> Layout:
        layout = Layout.of(self._model.pipeline)  # one text encoder: the service loads SD 1.x, 2.x
        encoders = (
            dataclasses.replace(encoder, tokenizer=self._tokenizer) for encoder in layout.encoders
        )
        return dataclasses.replace(layout, encoders=tuple(encoders))

    def _scorers(self, layout: Layout) -> tuple[Scorer, ...]:
        try:
            return scorers_for(self._source, layout, clip_model=None, device="cpu")
        except TraceInvalid:
            raise TraceInvalid(
                f"the model ships neither {JUDGE_FILE} nor {SCORER_FILE}: nothing here can score "
                "its pictures"
            ) from None

    def _shipped_prompts(self) -> bytes:
        try:
            return (Path(self._source) / PROMPTS_FILE).read_bytes()
        except OSError:
            raise TracePromptsInvalid(
                f"the model ships no {PROMPTS_FILE}; send prompts", param="prompts"
            ) from None

    def _identity(
        self,
        layout: Layout,
        scorers: Sequence[Scorer],
        chosen: Mapping[str, tuple[TracePair, ...]],
        options: TraceOptions,
    ) -> str:
        if self._digest is None:
            self._digest = pipeline_digest(layout)
        dtype = str(self._model.dtype).removeprefix("torch.")
        return trace_identity(chosen, options, self._digest, scorers, dtype=dtype)
