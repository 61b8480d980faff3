"""The manifest of one concept edit: its fields, their bounds and the rules between them.

Values are frozen and strict: nothing is coerced, so `"1"`, `true` and `1` are three different
things. Text is kept in one spelling (Unicode NFC, single spaces), because two manifests that look
the same must have the same digest.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

MAX_TEXT = 120  # characters of a concept, alias, anchor, preserve caption or owner
MAX_REASON = 1000
MAX_ALIASES = 64
MAX_PRESERVE = 1000
MAX_SITES = 256

# Cf and Cs hold zero-width, direction-changing and unpaired code points; Zl and Zp break lines.
_REFUSED_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Characters that draw nothing although Unicode files them under letters and marks.
_BLANK_LETTERS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SITE = re.compile(r"[!-~]{1,200}")


def _visible(text: str, limit: int) -> str:
    """`text` in NFC with single spaces; ValueError when it is too long or hides characters."""
    for position, character in enumerate(text, start=1):
        if unicodedata.category(character) in _REFUSED_CATEGORIES or _BLANK_LETTERS.match(
            character
        ):
            name = unicodedata.name(character, "control character")
            raise ValueError(
                f"contains the invisible character U+{ord(character):04X} ({name}) "
                f"at position {position}; remove it"
            )
    folded = " ".join(unicodedata.normalize("NFC", text).split())
    if len(folded) > limit:
        raise ValueError(f"has {len(folded)} characters; shorten it to at most {limit}")
    return folded


def _concept_text(text: str) -> str:
    folded = _visible(text.strip(), MAX_TEXT)
    if not folded:
        raise ValueError("is empty; write the words as they stand in a prompt")
    return folded


def _owner(text: str) -> str:
    return _visible(text.strip(), MAX_TEXT)


def _reason(text: str) -> str:
    # A reason may be a YAML block of several lines; it is shown in tables, so it becomes one line.
    return _visible(" ".join(text.split()), MAX_REASON)


def _sites(value: object) -> str | tuple[str, ...]:
    """One site or preset name, or a non-empty list of different ones."""
    names = value if isinstance(value, list | tuple) else (value,)
    for name in names:
        if not isinstance(name, str) or not _SITE.fullmatch(name):
            raise ValueError(
                f"{name!r:.60} is not a site name; give a preset such as 'quickfix', "
                "a module path, or a list of module paths"
            )
    if not 1 <= len(names) <= MAX_SITES or len(set(names)) != len(names):
        raise ValueError(f"must list 1 to {MAX_SITES} sites, each once")
    return value if isinstance(value, str) else tuple(names)


def _unsigned_zero(number: float) -> float:
    return number + 0.0  # -0.0 means the same as 0.0 and must not have a digest of its own


def same_words(left: str, right: str) -> bool:
    """Whether two captions differ in nothing but case and spacing."""
    return _fold(left) == _fold(right)


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def _first_repeat(texts: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for text in texts:
        if (folded := _fold(text)) in seen:
            return text
        seen.add(folded)
    return None


ConceptText = Annotated[str, AfterValidator(_concept_text)]
Rate = Annotated[float, Field(ge=0, le=1), AfterValidator(_unsigned_zero)]
# Beyond these bounds one term of the objective leaves nothing of the others in float64.
Ridge = Annotated[float, Field(gt=0, le=1e9)]
Weight = Annotated[float, Field(ge=0, le=1e9), AfterValidator(_unsigned_zero)]
TokenMode = Literal["last", "last+pad"]
Fingerprint = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Label = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Metadata(_Frozen):
    """Who answers for the edit. `name` is a DNS label; changed content needs a new `version`."""

    name: Label
    version: Annotated[int, Field(ge=1, le=2**31 - 1)]  # fits an SQL integer and a JSON number
    owner: Annotated[str, AfterValidator(_owner)] = ""
    reason: Annotated[str, AfterValidator(_reason)] = ""


class Method(_Frozen):
    """How the edit is computed. `sites` is a preset, one site, or several; both may be patterns.

    What is None is chosen when the edit is published (`Choice`), or is the preset's own.
    """

    sites: Annotated[str | tuple[str, ...], BeforeValidator(_sites)] = "quickfix"
    tokens: TokenMode | None = None
    ridge: Ridge | None = None
    preserve_weight: Weight | None = None
    pad_weight: Weight | None = None
    parity: bool = False


class Choice(_Frozen):
    """What was chosen for an edit that left it open: stored beside it, for every replica."""

    tokens: TokenMode
    ridge: Ridge
    preserve_weight: Weight
    pad_weight: Weight


class Accept(_Frozen):
    """The gate: rates in 0..1 that the edited model must not exceed; None is not checked.

    The embeddings are always checked; `images` asks for pictures of the target besides, that many,
    and as many of what is to stay.
    """

    max_target_rate: Rate | None = None
    max_drop: Rate | None = None
    images: Annotated[int, Field(ge=0, le=1000)] = 0


class Spec(_Frozen):
    """What is removed, what it is mapped to, and what must not move.

    `base` is the fingerprint of the only model that the edit is for; None allows any.
    """

    concept: ConceptText
    aliases: Annotated[tuple[ConceptText, ...], Field(strict=False, max_length=MAX_ALIASES)] = ()
    anchor: ConceptText
    type: Literal["object", "style", "fact"]
    preserve: Annotated[tuple[ConceptText, ...], Field(strict=False, max_length=MAX_PRESERVE)] = ()
    base: Fingerprint | None = None
    mandatory: bool = False
    method: Method = Method()
    accept: Accept | None = None

    # A validator sees only the fields above its own, hence the order of the fields. Rules sit on
    # fields, not on the model, so that an error names the field to change.

    @field_validator("aliases")
    @classmethod
    def _aliases_add_words(cls, aliases: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        concept = (info.data["concept"],) if "concept" in info.data else ()
        if repeated := _first_repeat((*concept, *aliases)):
            raise ValueError(f"{repeated!r} repeats the concept or another alias; leave it out")
        return aliases

    @field_validator("anchor")
    @classmethod
    def _anchor_is_something_else(cls, anchor: str, info: ValidationInfo) -> str:
        for word in (info.data.get("concept", ""), *info.data.get("aliases", ())):
            if same_words(word, anchor):
                raise ValueError(
                    f"{anchor!r} is the concept or one of its aliases; "
                    "name what the concept is to become instead"
                )
        return anchor

    @field_validator("preserve")
    @classmethod
    def _preserve_spares_the_concept(
        cls, preserve: tuple[str, ...], info: ValidationInfo
    ) -> tuple[str, ...]:
        removed = {_fold(info.data.get("concept", "")), *map(_fold, info.data.get("aliases", ()))}
        for caption in preserve:
            if _fold(caption) in removed:
                raise ValueError(f"{caption!r} is what the edit removes; leave it out")
        return preserve


class ConceptEdit(_Frozen):
    """One manifest: a concept, its anchor, how it is computed, what it must not harm."""

    api_version: Literal["quickfix/v1"] = Field(alias="apiVersion")
    kind: Literal["ConceptEdit"]
    metadata: Metadata
    spec: Spec

    @property
    def name(self) -> str:
        """The edit's name, unique within a revision."""
        return self.metadata.name

    @property
    def version(self) -> int:
        """The version of the edit's content; only a higher one may replace it."""
        return self.metadata.version
