"""The gate: settings are chosen on one half of held-out captions, the other half decides.

Neither half is among the captions that edits are solved with.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from edits.errors import GateRefused
from edits.evaluation.confusion import Confusion, ConfusionTest
from edits.evaluation.standing import ENOUGH, StandingTest, undone
from edits.manifests import Accept
from edits.method import Editor, EditSpec
from edits.method.captions import HELD_OUT, free_of, naming

NEIGHBOURS = 8
# What the sweep looks at, in this order: of ridges that remove a concept, the largest has the
# smallest delta, which leaves text that nobody looked at most alone (docs/evaluation.md).
_RIDGES = (100.0, 30.0, 10.0, 1.0, 0.1, 0.01)
_PRESERVE_WEIGHTS = (0.05, 0.1, 0.02, 0.15, 0.3)
_TOKENS = ("last+pad", "last")
_PAD_WEIGHTS = (1.0, 0.3)
# In norms of the layer's weight. A larger delta opens ways to the concept from spellings that no
# caption has (docs/evaluation.md), which the captions here cannot see.
_LARGEST_DELTA = 1.0
# On the demo model synonyms have cosines above 0.97, and different things below 0.3.
_ONE_THING = 0.9

# Draws the target of an edit and what is to stay beside the other edits, `count` pictures each.
Pictures = Callable[[Mapping[str, nn.Module], EditSpec, Sequence[EditSpec], int], "PictureFigures"]


@dataclass(frozen=True)
class PictureFigures:
    """What the judge saw: `document` holds the rates with their counts and intervals, `words` the
    counts in a line.
    """

    target_rate: float
    drop: float
    words: str
    document: Mapping[str, Any]


@dataclass(frozen=True)
class GateReport:
    """What the gate found for one edit among those that it will run with.

    not_preserved: names of its `preserve` that were not looked at, since a removed name stands in
    them.
    """

    embeddings: Confusion
    pictures: PictureFigures | None
    seconds: float
    not_preserved: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "embeddings": self.embeddings.document(),
            "pictures": None if self.pictures is None else dict(self.pictures.document),
            "not_preserved": list(self.not_preserved),
            "gate_ms": round(1000 * self.seconds, 1),
        }


def halves(
    spec: EditSpec, others: Sequence[EditSpec] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The held-out templates that choose, and those that decide.

    None mentions what is removed: without cats "a cat beside a dog" cannot stay as it is. Where all
    of a half do, it stays whole: no caption would be no evidence.
    """
    removed = _removed(spec, others)
    choosing, deciding = HELD_OUT[spec.kind][0::2], HELD_OUT[spec.kind][1::2]
    return free_of(removed, choosing) or choosing, free_of(removed, deciding) or deciding


def choose(
    editor: Editor, spec: EditSpec, others: Sequence[EditSpec], open_fields: Sequence[str]
) -> EditSpec:
    """`spec` with the first open settings of a sweep that hold beside `others`, or else the best.

    Those that undo one of `others` are passed over, and where the ridge is open to remove a concept
    those with a delta larger than the layer's weight. First the ridge and the preserve weight, then
    the token mode and the weight of the padding rows. Raises EditRefused as `Editor.compose` does,
    and GateRefused when every delta is too large.
    """
    choosing, _ = halves(spec, others)
    test = ConfusionTest(editor, spec, choosing, _neighbours(editor, spec, others))
    standing = StandingTest(editor, spec, others)
    before = standing.run(editor.apply(editor.compose(others)))
    grids: tuple[list[dict[str, Any]], ...] = (
        [{"ridge": r, "preserve_weight": p} for r in _RIDGES for p in _PRESERVE_WEIGHTS],
        [{"tokens": t, "pad_weight": w} for t in _TOKENS for w in _PAD_WEIGHTS],
    )
    bounded = "ridge" in open_fields and spec.kind != "fact"
    seen: dict[EditSpec, float] = {}
    best = spec
    for grid in grids:
        start = best
        for settings in grid:
            candidate = replace(start, **{k: v for k, v in settings.items() if k in open_fields})
            if candidate in seen or (bounded and _too_large(editor, candidate)):
                continue
            modules = editor.apply(editor.compose([*others, candidate]))
            found = test.run(modules)
            brought_back = undone(before, standing.run(modules))
            if found.holds and not brought_back:
                return candidate
            seen[candidate] = found.score - len(brought_back)
            best = max(seen, key=seen.__getitem__)
    if bounded and not seen:
        raise GateRefused(
            f"every open setting gives {spec.name!r} a delta larger than the layer's weight, which "
            "brings the concept back from spellings that no caption has; name another anchor or "
            "fewer aliases, or the ridge to have it all the same",
            param="spec.method.ridge",
        )
    return best


def _too_large(editor: Editor, spec: EditSpec) -> bool:
    return editor.compose([spec]).size() > _LARGEST_DELTA


def examine(
    editor: Editor,
    modules: Mapping[str, nn.Module],
    spec: EditSpec,
    others: Sequence[EditSpec],
    accept: Accept | None,
    *,
    pictures: Pictures | None = None,
    on_pictures: bool = True,
) -> GateReport:
    """Check `spec` as it runs in `modules`, together with `others`.

    Without `on_pictures` none are drawn: those that `accept` asks for have been, beside others.
    Raises GateRefused, with the figures, when a bound of `accept` is exceeded or bounds nothing,
    when one of `others` is undone, or when pictures are asked for and nothing here can judge them.
    """
    started = time.perf_counter()
    _, deciding = halves(spec, others)
    test = ConfusionTest(editor, spec, deciding, _neighbours(editor, spec, others))
    if test.sameness > _ONE_THING:
        raise GateRefused(
            f"to this model {spec.anchor!r} and {spec.concept!r} are one thing (their directions "
            f"have a cosine of {test.sameness:.2f}): mapping one to the other removes nothing; "
            "name another anchor",
            param="spec.anchor",
        )
    found = test.run(modules)
    _require_others_stand(editor, modules, spec, others)
    _require_evidence(accept, spec, found)
    # Of the concept nothing is forgiven.
    figures = f"on embeddings: {_words(spec, found)}"
    _require(accept, spec, found.target.value, found.harm, figures)
    _require_enough(accept, spec, found)
    drawn = None
    if on_pictures and accept is not None and accept.images:
        if pictures is None:
            raise GateRefused(
                f"{accept.images} pictures are asked for and this model ships no judge; "
                "leave `images` out or add a judge",
                param="spec.accept.images",
            )
        drawn = pictures(modules, spec, others, accept.images)
        _require(accept, spec, drawn.target_rate, drawn.drop, f"on pictures: {drawn.words}")
    not_preserved = naming(spec.preserve, _removed(spec, others))
    return GateReport(found, drawn, time.perf_counter() - started, not_preserved)


def _removed(spec: EditSpec, others: Sequence[EditSpec]) -> set[str]:
    return {name for edit in (spec, *others) for name in edit.names}


def _neighbours(editor: Editor, spec: EditSpec, others: Sequence[EditSpec]) -> tuple[str, ...]:
    """The nearest names that stay, and those that the manifest preserves, which replace none."""
    nearest = editor.neighbours.nearest([replace(spec, neighbours=2 * NEIGHBOURS)])[spec]
    excluded = {*naming((*nearest, *spec.preserve), _removed(spec, others)), spec.anchor}
    near, kept = (
        [name for name in names if name not in excluded] for names in (nearest, spec.preserve)
    )
    return tuple(dict.fromkeys((*kept, *near[:NEIGHBOURS])))


def _require_others_stand(
    editor: Editor, modules: Mapping[str, nn.Module], spec: EditSpec, others: Sequence[EditSpec]
) -> None:
    standing = StandingTest(editor, spec, others)
    before = standing.run(editor.apply(editor.compose(others)))
    after = standing.run(modules)
    if names := undone(before, after):
        shares = ", ".join(f"{n} from {before[n]:.2f} to {after[n]:.2f}" for n in names)
        raise GateRefused(
            f"beside {spec.name!r} other edits no longer remove what they are for (share of the "
            f"way to the anchor: {shares}); lower this edit's preserve_weight or raise its ridge",
            param="spec.method",
        )


def _require_evidence(accept: Accept | None, spec: EditSpec, found: Confusion) -> None:
    """A rate of no captions is below every bound; pictures would be other evidence."""
    if found.target.count or accept is None or accept.max_target_rate is None or accept.images:
        return
    raise GateRefused(
        f"this model reads no caption of {spec.concept!r} as it even before the edit, so "
        "max_target_rate bounds nothing; name the concept, or an alias, as the model knows it, ask "
        "for pictures (`images`), or leave max_target_rate out",
        param="spec.accept.max_target_rate",
    )


def _require_enough(accept: Accept | None, spec: EditSpec, found: Confusion) -> None:
    """Captions that went half of the way read as the anchor, and pictures show the concept again.

    A fact is judged by its captions reading as the anchor; where pictures are asked for they tell.
    """
    if spec.kind == "fact" or accept is None or accept.max_target_rate is None or accept.images:
        return
    wanted = ENOUGH * (1 - accept.max_target_rate)
    if found.target.count and found.reached <= wanted:
        raise GateRefused(
            f"captions of {spec.concept!r} go only {100 * found.reached:.0f} % of the way to "
            f"{spec.anchor!r}, and pictures show again what goes less than {100 * wanted:.0f} %; "
            "lower the ridge, or ask for pictures (`images`), which decide then",
            param="spec.method.ridge",
        )


def _require(
    accept: Accept | None, spec: EditSpec, target: float, drop: float, figures: str
) -> None:
    if accept is None:
        return
    for name, value, words in (
        ("max_target_rate", target, _failing(spec)[1]),
        ("max_drop", drop, "of what is to stay is lost"),
    ):
        bound = getattr(accept, name)
        if bound is not None and value > bound:
            raise GateRefused(
                f"{100 * value:.1f} % {words}, and {name} allows {100 * bound:.1f} %; {figures}",
                param=f"spec.accept.{name}",
            )


def _failing(spec: EditSpec) -> tuple[str, str]:
    """What is wrong with captions of the concept that count against the edit, and with a share."""
    if spec.kind == "fact":
        return f"do not read as {spec.anchor!r}", f"does not read as {spec.anchor!r}"
    return "read as the concept", "still reads as the concept"


def _words(spec: EditSpec, found: Confusion) -> str:
    lost = f" ({', '.join(found.lost)})" if found.lost else ""
    return (
        f"{found.target.hits} of {found.target.count} captions {_failing(spec)[0]}, "
        f"{found.kept.count - found.kept.hits} of {found.kept.count} of the neighbours{lost} "
        "no longer as themselves"
    )
