"""Caption pairs whose right answer is known: what a causal trace draws and what it asks for.

A file groups pairs by attribute (object, style, colour, ...). Each pair is a caption in which a
concept stands, the same caption with something else in its place, and the judge's class that only
the first one shows.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from edits.errors import ManifestInvalid, TracePromptsInvalid
from edits.manifests.document import MAX_BYTES, dotted, read_document
from edits.manifests.schema import same_words
from edits.method.captions import Caption, mentions

MAX_ATTRIBUTES = 32
MAX_PAIRS = 1000
MAX_CAPTION = 1000  # characters; encoders read far fewer
MAX_NAME = 120  # characters of a concept, a class or a head

# One sentence per way a field can be wrong; what is missing here keeps pydantic's own words.
_SENTENCES = {
    "missing": "is missing; add it",
    "extra_forbidden": "is no known field; remove it or correct its spelling",
    "string_type": "must be text, not {given}{quotes}",
    "tuple_type": "must be a list, not {given}",
    "dict_type": "must be a mapping, not {given}",
    "model_type": "must be a mapping of fields, not {given}",
    "literal_error": "must be {expected}, not {given}",
    "string_pattern_mismatch": "must be 1 to 64 lower-case letters, digits, '-' or '_'",
    "too_short": "is empty; list at least {min_length}",
    "too_long": "has more than {max_length} entries; keep at most that many",
    "value_error": "{error}",
}


@dataclass(frozen=True)
class TracePair:
    """A caption with its concept's place, the caption without it, and the class to look for.

    `index` is the pair's place (from 0) among its attribute's pairs; `head` is the judge's head
    and `wanted` that head's class.
    """

    attribute: str
    index: int
    caption: Caption
    anchor_caption: str
    head: str
    wanted: str

    def document(self) -> dict[str, str]:
        """As JSON."""
        return {
            "caption": self.caption.text,
            "concept": self.caption.subject,
            "anchor_caption": self.anchor_caption,
            "judge": self.head,
            "wanted": self.wanted,
        }


def parse_prompts(data: bytes) -> dict[str, tuple[TracePair, ...]]:
    """The pairs of every attribute, in the file's order, that a YAML or JSON body describes.

    Raises TracePromptsInvalid for anything else; `param` is the dotted path of the first bad field.
    """
    try:
        # JSON mode: arrays are the only lists, objects the only mappings, and nothing is coerced.
        file = _File.model_validate_json(json.dumps(_document(data)))
    except ValidationError as error:
        raise _refusal(error) from None
    return {name: _pairs(name, attribute) for name, attribute in file.attributes.items()}


def load_prompts(path: Path) -> dict[str, tuple[TracePair, ...]]:
    """The pairs of every attribute in a file. Raises TracePromptsInvalid naming the file."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise TracePromptsInvalid(f"{path.name}: cannot be read: {error.strerror}") from error
    try:
        return parse_prompts(data)
    except TracePromptsInvalid as error:
        raise TracePromptsInvalid(f"{path.name}: {error.message}", param=error.param) from None


def select(
    prompts: Mapping[str, tuple[TracePair, ...]], attributes: Sequence[str]
) -> dict[str, tuple[TracePair, ...]]:
    """The attributes of these names, in this order; no names mean all.

    Raises TracePromptsInvalid for a name that is not there.
    """
    for name in attributes:
        if name not in prompts:
            raise TracePromptsInvalid(
                f"there is no attribute {name!r:.70}; known are {', '.join(sorted(prompts))}",
                param="attributes",
            )
    return {name: prompts[name] for name in attributes or prompts}


def _text(text: str, limit: int) -> str:
    """`text` in NFC with single spaces: what looks the same is the same."""
    folded = " ".join(unicodedata.normalize("NFC", text).split())
    if not folded:
        raise ValueError("is empty; write the words as they stand in a prompt")
    if not folded.isprintable():
        hidden = next(character for character in folded if not character.isprintable())
        raise ValueError(f"contains the invisible character U+{ord(hidden):04X}; remove it")
    if len(folded) > limit:
        raise ValueError(f"has {len(folded)} characters; shorten it to at most {limit}")
    return folded


def _places(text: str, name: str) -> list[tuple[int, int]]:
    """Where `name` stands in `text` by the rule of `mentions`, as [start, stop) characters."""
    # Folding may lengthen a letter, so places in the folded text are counted back.
    letters = [(place, part) for place, whole in enumerate(text) for part in whole.casefold()]
    folded = "".join(part for _place, part in letters)
    words = r"\s+".join(re.escape(word) for word in name.casefold().split())
    # Within a lookahead, so that two places that overlap are two.
    found = re.finditer(rf"(?<!\w)(?=({words})(?!\w))", folded)
    return [(letters[match.start(1)][0], letters[match.end(1) - 1][0] + 1) for match in found]


CaptionText = Annotated[str, AfterValidator(lambda text: _text(text, MAX_CAPTION))]
Name = Annotated[str, AfterValidator(lambda text: _text(text, MAX_NAME))]
AttributeName = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Pair(_Frozen):
    # A validator sees only the fields above its own, hence the order of the fields.
    caption: CaptionText
    concept: Name
    anchor_caption: CaptionText
    wanted: Name | None = Field(default=None, alias="class")

    @field_validator("concept")
    @classmethod
    def _concept_stands_once(cls, concept: str, info: ValidationInfo) -> str:
        if "caption" in info.data:
            count = len(_places(info.data["caption"], concept))
            if not count:
                raise ValueError(f"{concept!r} does not stand in the caption as whole words")
            if count > 1:
                raise ValueError(
                    f"{concept!r} stands {count} times in the caption; it must stand there once"
                )
        return concept

    @field_validator("anchor_caption")
    @classmethod
    def _concept_is_replaced(cls, anchor_caption: str, info: ValidationInfo) -> str:
        if same_words(anchor_caption, info.data.get("caption", "")):
            raise ValueError(
                "is the caption itself but for case and spacing; "
                "write something else in the concept's place"
            )
        if "concept" in info.data and mentions(anchor_caption, info.data["concept"]):
            raise ValueError(
                f"still holds {info.data['concept']!r}; write something else in its place"
            )
        return anchor_caption


class _Attribute(_Frozen):
    judge: Name | None = None
    pairs: Annotated[tuple[_Pair, ...], Field(strict=False, min_length=1, max_length=MAX_PAIRS)]


class _File(_Frozen):
    api_version: Literal["quickfix/v1"] = Field(alias="apiVersion")
    kind: Literal["TracePrompts"]
    attributes: Annotated[
        dict[AttributeName, _Attribute], Field(min_length=1, max_length=MAX_ATTRIBUTES)
    ]


def _document(data: bytes) -> dict[str, object]:
    """The file's mapping, read by the rules of manifests."""
    try:
        return read_document(data)
    except ManifestInvalid as error:
        message = error.message.replace("manifest", "prompts file")
        raise TracePromptsInvalid(message, param=error.param) from None


def _pairs(name: str, attribute: _Attribute) -> tuple[TracePair, ...]:
    """One attribute's pairs with defaults filled in. Raises TracePromptsInvalid for a repeat."""
    pairs: list[TracePair] = []
    first: dict[tuple[str, ...], int] = {}
    for index, pair in enumerate(attribute.pairs):
        spelling = (pair.caption, pair.concept, pair.anchor_caption)
        key = tuple(text.casefold() for text in spelling)
        if key in first:
            param = f"attributes.{name}.pairs.{index}"
            raise TracePromptsInvalid(
                f"{param}: is pair {first[key]} once more; leave it out", param=param
            )
        first[key] = index
        ((start, stop),) = _places(pair.caption, pair.concept)
        pairs.append(
            TracePair(
                attribute=name,
                index=index,
                caption=Caption(pair.caption, start, stop),
                anchor_caption=pair.anchor_caption,
                head=attribute.judge or name,
                wanted=pair.wanted or pair.concept,
            )
        )
    return tuple(pairs)


def _refusal(error: ValidationError) -> TracePromptsInvalid:
    problems = error.errors(include_url=False)
    # A misspelt field is both unknown and missing: the misspelling is what the author can act on.
    problem = min(problems, key=lambda found: found["type"] != "extra_forbidden")
    path = dotted(tuple(part for part in problem["loc"] if part != "[key]"))
    return TracePromptsInvalid(f"{path}: {_sentence(problem)}", param=path)


def _sentence(problem: ErrorDetails) -> str:
    given = problem["input"]
    details: dict[str, Any] = {
        **problem.get("ctx", {}),
        "given": _shown(given),
        "quotes": "; put it in quotes" if isinstance(given, int | float) else "",
    }
    sentence = _SENTENCES.get(problem["type"])
    return sentence.format(**details) if sentence else problem["msg"]


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
