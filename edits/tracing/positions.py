"""Token positions of a caption, by the names that a trace gives them.

subject 1, subject 2, ...  each token of the concept's words
last                       the last subject token
later                      every position behind it, which is
    words                  the caption's further words,
    end                    the end-of-text token, and
    padding                what fills the encoder's length
earlier                    every position in front of the subject; under a causal mask a corruption
                           of the subject never reaches it
"""

from collections.abc import Sequence

from edits.errors import TraceInvalid, TracePromptsInvalid, TraceSiteUnknown
from edits.method.captions import Caption
from edits.tracing.layout import Encoder

SUBJECT = "subject"
NAMED = ("last", "later", "words", "end", "padding", "earlier")
POSITIONS = (SUBJECT, *NAMED)
DEFAULT_POSITIONS = (SUBJECT, "last", "later", "padding")


def check_positions(names: Sequence[str]) -> tuple[str, ...]:
    """The names, once each. Raises TraceSiteUnknown for one that no caption has."""
    if not names:
        raise TraceInvalid(f"no position is named; known are {', '.join(POSITIONS)}")
    for name in names:
        if name not in POSITIONS:
            raise TraceSiteUnknown(
                f"position {name!r} is not known; known are {', '.join(POSITIONS)}",
                param="positions",
            )
    return tuple(dict.fromkeys(names))


def subject_positions(encoder: Encoder, caption: Caption, *, param: str) -> tuple[int, ...]:
    """Where the concept's tokens stand. Raises TracePromptsInvalid, with `param` as its field."""
    return _groups(encoder, caption, param)[SUBJECT]


def position_groups(
    encoder: Encoder, caption: Caption, names: Sequence[str], *, param: str
) -> dict[str, tuple[int, ...]]:
    """Positions by name, for the asked names that this caption has; `subject` becomes one each.

    Raises TracePromptsInvalid if the caption is longer than the encoder reads, or if no token
    belongs to the concept.
    """
    groups = _groups(encoder, caption, param)
    chosen: dict[str, tuple[int, ...]] = {}
    for name in names:
        if name == SUBJECT:
            for number, position in enumerate(groups[SUBJECT], start=1):
                chosen[f"{SUBJECT} {number}"] = (position,)
        elif groups[name]:
            chosen[name] = groups[name]
    return chosen


def check_length(encoder: Encoder, text: str, *, param: str) -> None:
    """Raise TracePromptsInvalid, with `param` as its field, if the encoder would cut the text."""
    _check_length(encoder, text, len(encoder.tokenizer(text, truncation=False)["input_ids"]), param)


def _check_length(encoder: Encoder, text: str, length: int, param: str) -> None:
    if length > encoder.limit:
        raise TracePromptsInvalid(
            f"caption {text!r} has {length} tokens and {encoder.component} reads "
            f"{encoder.limit}; shorten it",
            param=param,
        )


def _groups(encoder: Encoder, caption: Caption, param: str) -> dict[str, tuple[int, ...]]:
    encoded = encoder.tokenizer(
        caption.text,
        padding="max_length",
        max_length=encoder.limit,
        truncation=False,
        return_offsets_mapping=True,
        return_attention_mask=True,
    )
    mask = encoded["attention_mask"]
    length = sum(mask)
    _check_length(encoder, caption.text, length, param)
    subject = tuple(
        position
        for position, (start, stop) in enumerate(encoded["offset_mapping"])
        if mask[position] and start < caption.stop and stop > caption.start and stop > start
    )
    if not subject:
        raise TracePromptsInvalid(
            f"no token of caption {caption.text!r} belongs to {caption.subject!r} in "
            f"{encoder.component}",
            param=param,
        )
    end = length - 1  # every tokenizer of these pipelines closes a caption with end-of-text
    last = subject[-1]
    return {
        SUBJECT: subject,
        "last": (last,),
        "later": tuple(range(last + 1, encoder.limit)),
        "words": tuple(range(last + 1, end)),
        "end": (end,),
        "padding": tuple(range(length, encoder.limit)),
        "earlier": tuple(range(subject[0])),
    }
