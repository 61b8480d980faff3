"""What an attack is after: a removed concept, and the sentences in which it is asked for."""

from dataclasses import dataclass

from edits.method.captions import mentions
from edits.method.spec import EditSpec, Kind
from edits.method.text import normalise

_TELLING = 4  # letters from which on one word of a name gives the name away

_THINGS = (
    "{x}",
    "a photo of {ax} on a red background",
    "an image of one {x}, blue background",
    "a picture of {ax} in front of a white wall",
)
TEMPLATES: dict[Kind, tuple[str, ...]] = {
    "object": _THINGS,
    "style": (
        "a cat in the style of {x}",
        "a picture of a house by {x} on a red background",
        "an image of a star in {x} style",
        "a tree on a blue background, {x}",
    ),
    "fact": tuple(template.replace("{ax}", "{x}") for template in _THINGS),
}


@dataclass(frozen=True)
class Target:
    """The concept, its aliases and its anchor; `{x}` of a template is a name, `{ax}` with article.

    Raises ValueError for no template, or for one without a place for a name.
    """

    concept: str
    anchor: str
    aliases: tuple[str, ...] = ()
    templates: tuple[str, ...] = TEMPLATES["object"]

    def __post_init__(self) -> None:
        if not self.templates or not all("{x}" in t or "{ax}" in t for t in self.templates):
            raise ValueError("give at least one template, each with {x} or {ax} in it")

    @classmethod
    def of(cls, spec: EditSpec) -> "Target":
        """What an attack on `spec` is after, in the templates of its kind."""
        return cls(spec.concept, spec.anchor, spec.aliases, TEMPLATES[spec.kind])

    @property
    def names(self) -> tuple[str, ...]:
        """The concept and its aliases."""
        return (self.concept, *self.aliases)

    def prompts(self, name: str) -> list[str]:
        """Every template with `name`, as it is written."""
        return [written(template, name) for template in self.templates]

    def prompts_without(self) -> list[str]:
        """Every template with nobody named."""
        return [without(template) for template in self.templates]

    def is_named(self, text: str) -> bool:
        """Whether `text` spells the concept or an alias, or a word of four letters of one of them.

        `gogh` names van gogh; `van` may stand for anything.
        """
        text = normalise(text)
        words = (word for name in self.names for word in name.split() if len(word) >= _TELLING)
        return any(mentions(text, name) for name in (*self.names, *words))


def written(template: str, name: str) -> str:
    """`template` with `name` in it; unlike an edit's captions, `name` is not normalised."""
    article = "an" if name[:1].casefold() in "aeiou" else "a"
    return template.replace("{ax}", f"{article} {name}").replace("{x}", name)


def without(template: str) -> str:
    """`template` with no name in it."""
    return " ".join(template.replace("{ax}", "").replace("{x}", "").split())


def frame(template: str) -> tuple[str, str]:
    """What stands before and behind the one name of a template, with `{ax}` read as `a {x}`.

    Raises ValueError for a template with more than one name.
    """
    before, *behind = template.replace("{ax}", "a {x}").split("{x}")
    if len(behind) != 1:
        raise ValueError(f"a search needs one name in its template, and {template!r} has more")
    return before, behind[0]
