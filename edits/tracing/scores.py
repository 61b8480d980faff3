"""What a picture is scored by: the judge's probability, and CLIPScore."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional

from edits.errors import TraceInvalid, TracePromptsInvalid
from edits.evaluation.judge import Judge, pixels_of
from edits.evaluation.report import JUDGE_FILE, SCORER_FILE
from edits.evaluation.scorer import ClipScorer, clip_scores
from edits.method.fingerprint import module_digest
from edits.tracing.layout import Layout
from edits.tracing.prompts import TracePair


class Scorer(Protocol):
    """One number for a picture of a pair's caption; higher means that the concept is there."""

    name: str

    def digest(self) -> str:
        """`sha256:...` of the weights that score."""

    def check(self, pairs: Sequence[TracePair]) -> None:
        """Raise TracePromptsInvalid for a pair that cannot be scored."""

    def __call__(self, pictures: Sequence[Image], pairs: Sequence[TracePair]) -> list[float]:
        """Scores of the pictures, one pair each."""


class JudgeScorer:
    """The judge's probability of the wanted class."""

    name = "judge"

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def digest(self) -> str:
        """Of the judge's weights."""
        return module_digest(self._judge)

    def check(self, pairs: Sequence[TracePair]) -> None:
        """Raise TracePromptsInvalid if the judge has no such head or class."""
        for pair in pairs:
            classes = self._judge.classes.get(pair.head)
            where = f"attributes.{pair.attribute}"
            if classes is None:
                known = ", ".join(self._judge.classes)
                raise TracePromptsInvalid(
                    f"the judge has no head {pair.head!r}; it has {known}", param=f"{where}.judge"
                )
            if pair.wanted not in classes:
                raise TracePromptsInvalid(
                    f"the judge's head {pair.head!r} has no class {pair.wanted!r}; "
                    f"it has {', '.join(classes)}",
                    param=f"{where}.pairs.{pair.index}.class",
                )

    def __call__(self, pictures: Sequence[Image], pairs: Sequence[TracePair]) -> list[float]:
        """Probabilities in [0, 1]."""
        verdicts = self._judge.look(pictures)
        return [
            verdict.probabilities[pair.head][pair.wanted]
            for verdict, pair in zip(verdicts, pairs, strict=True)
        ]


class ModelClipScorer:
    """CLIPScore by the image tower beside the model and the pipeline's own text encoder."""

    name = "clip"

    def __init__(self, scorer: ClipScorer, layout: Layout) -> None:
        self._scorer = scorer
        self._encoder = layout.encoders[0]
        self._hidden: dict[str, Tensor] = {}

    def digest(self) -> str:
        """Of the image tower and the projection; the text encoder is the pipeline's."""
        return module_digest(self._scorer)

    def check(self, pairs: Sequence[TracePair]) -> None:
        """Every caption can be scored."""

    def __call__(self, pictures: Sequence[Image], pairs: Sequence[TracePair]) -> list[float]:
        """Cosines of picture and caption."""
        hidden = torch.cat([self._caption(pair.caption.text) for pair in pairs])
        return [float(x) for x in clip_scores(self._scorer, pixels_of(pictures), hidden)]

    @torch.inference_mode()
    def _caption(self, text: str) -> Tensor:
        """Hidden state at end-of-text, (1, width)."""
        if text not in self._hidden:
            encoder = self._encoder
            encoded = encoder.tokenizer(
                text, padding="max_length", max_length=encoder.limit, return_tensors="pt"
            )
            end = int(encoded["attention_mask"][0].sum()) - 1
            ids = encoded["input_ids"].to(encoder.embeddings[0].weight.device)
            state = encoder.model(ids).last_hidden_state
            self._hidden[text] = state[:, end].float().cpu()
        return self._hidden[text]


class TransformersClipScorer:
    """CLIPScore by any CLIP model of the hub or of a folder (Hessel et al., 2021, without 2.5)."""

    name = "clip"

    def __init__(self, source: str, device: str) -> None:
        from transformers import CLIPModel, CLIPProcessor  # noqa: PLC0415 - slow to import

        local = Path(source).is_dir()
        try:
            self._model = CLIPModel.from_pretrained(source, local_files_only=local)
            self._processor = CLIPProcessor.from_pretrained(source, local_files_only=local)
        except (OSError, ValueError) as error:
            raise TraceInvalid(
                f"scorer {Path(source).name!r} cannot be loaded as a CLIP model with its processor",
                param="scorer",
            ) from error
        self._model = self._model.to(device).eval()
        self._device = device

    def digest(self) -> str:
        """Of both towers."""
        return module_digest(self._model)

    def check(self, pairs: Sequence[TracePair]) -> None:
        """Every caption can be scored; what CLIP does not read of it is cut."""

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Image], pairs: Sequence[TracePair]) -> list[float]:
        """Cosines of picture and caption."""
        inputs = self._processor(
            text=[pair.caption.text for pair in pairs],
            images=[picture.convert("RGB") for picture in pictures],
            return_tensors="pt",
            padding="max_length",
            truncation=True,
        ).to(self._device)
        answer = self._model(**inputs)
        texts = functional.normalize(answer.text_embeds.float(), dim=-1)
        images = functional.normalize(answer.image_embeds.float(), dim=-1)
        return [float(x) for x in (texts * images).sum(-1)]


def scorers_for(
    model: str, layout: Layout, *, clip_model: str | None, device: str
) -> tuple[Scorer, ...]:
    """The judge and the CLIP scorer that the model ships, or `clip_model` as the latter.

    Raises TraceInvalid if there is none of either.
    """
    scorers: list[Scorer] = []
    folder = Path(model)
    if (folder / JUDGE_FILE).is_file():
        scorers.append(JudgeScorer(Judge.load(folder / JUDGE_FILE)))
    if clip_model is not None:
        scorers.append(TransformersClipScorer(clip_model, device))
    elif (folder / SCORER_FILE).is_file():
        scorers.append(ModelClipScorer(ClipScorer.load(folder / SCORER_FILE), layout))
    if not scorers:
        raise TraceInvalid(
            f"model {folder.name!r} ships neither a judge ({JUDGE_FILE}) nor a scorer "
            f"({SCORER_FILE}); name a CLIP model with --clip-model",
            param="clip_model",
        )
    return tuple(scorers)


def score_all(
    scorers: Sequence[Scorer], pictures: Sequence[Image], pairs: Sequence[TracePair]
) -> list[list[float]]:
    """Scores (pictures, scorers)."""
    columns = [scorer(pictures, pairs) for scorer in scorers]
    return [list(row) for row in zip(*columns, strict=True)]


def pairs_by_key(
    prompts: Mapping[str, Sequence[TracePair]],
) -> dict[tuple[str, int], TracePair]:
    """The pairs of all attributes by attribute and index."""
    return {(pair.attribute, pair.index): pair for part in prompts.values() for pair in part}
