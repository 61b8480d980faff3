"""An edit hardened by what got past it.

A text that the unedited model draws as the concept too is another name of it, which the edit has
missed: it becomes an alias. A text that only the edited model draws so has been given its meaning
by the edit: it is to stay what it was, and joins what is preserved.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from edits.evaluation.attacks.drawing import DrawnAttack, DrawnFind
from edits.manifests import ConceptEdit, parse_manifest
from edits.method.spec import EditSpec
from edits.method.text import normalise


@dataclass(frozen=True)
class Hardening:
    """What an edit takes on: names that it missed, and texts that it gave a meaning.

    refused: texts that got past too, with which the edit would not be admitted.
    """

    aliases: tuple[str, ...] = ()
    preserve: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.aliases or self.preserve)

    def spec(self, spec: EditSpec) -> EditSpec:
        """`spec` with both."""
        return replace(
            spec,
            aliases=(*spec.aliases, *self.aliases),
            preserve=(*spec.preserve, *self.preserve),
        )

    def manifest(self, edit: ConceptEdit) -> ConceptEdit:
        """The next version of `edit` with both. Raises ManifestInvalid past a manifest's bounds."""
        document = edit.model_dump(mode="json", by_alias=True)
        document["metadata"]["version"] += 1
        document["spec"]["aliases"] += self.aliases
        document["spec"]["preserve"] += self.preserve
        return parse_manifest(document)


def hardening(
    spec: EditSpec,
    edited: Sequence[DrawnAttack],
    unedited: Sequence[DrawnAttack],
    most: int,
    *,
    admits: Callable[[Hardening], bool] | None = None,
) -> Hardening:
    """Up to `most` texts whose pictures show the concept; attacks take turns, worst first.

    `edited` and `unedited` are the same finds drawn by both models. Vectors have no name. With
    `admits` a text is taken on only if that says yes to it together with those before it.
    """
    known = {_folded(name) for name in (*spec.names, *spec.preserve)}
    taken = Hardening()
    for after, before in _in_turn(edited, unedited):
        name = normalise(after.find.name)
        got_past = after.success.hits and not after.find.vectors
        if not got_past or _folded(name) in known:
            continue
        if len(taken.aliases) + len(taken.preserve) == most:
            break
        known.add(_folded(name))
        field = "aliases" if before.success.hits else "preserve"
        more = replace(taken, **{field: (*getattr(taken, field), name)})
        taken = (
            more
            if admits is None or admits(more)
            else replace(taken, refused=(*taken.refused, name))
        )
    return taken


def _in_turn(
    edited: Sequence[DrawnAttack], unedited: Sequence[DrawnAttack]
) -> Iterator[tuple[DrawnFind, DrawnFind]]:
    by_attack = [
        tuple(zip(after.finds, before.finds, strict=True))
        for after, before in zip(edited, unedited, strict=True)
    ]
    for turn in zip_longest(*by_attack):
        yield from (pair for pair in turn if pair is not None)


def _folded(name: str) -> str:
    return normalise(name).casefold()
