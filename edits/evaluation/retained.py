"""Prompts that ask for what no edit was to change."""

from collections.abc import Iterable, Mapping, Sequence

from edits.evaluation.groups import RETAINED_KINDS, Group, first_seed
from edits.evaluation.judge import Judge
from edits.evaluation.prompts import Probe, object_probes, style_probes
from edits.evaluation.subject import ATTRIBUTES, Subject, kept_classes
from edits.evaluation.target import target_groups
from edits.evaluation.templates import TEMPLATES, Form

_DRAWN = ("objects", "neighbours", "styles")
_STYLE_SEEDS = 5_000  # a set that removes objects and styles has neighbours of both


def retained_groups(
    judge: Judge,
    subjects: Sequence[Subject],
    neighbours: Mapping[str, Sequence[str]],
    *,
    targets: int,
    each: int,
    seed: int,
    kinds: Sequence[str],
) -> list[Group]:
    """The retained groups of `kinds`.

    A class gets at least `each` pictures, and as many more as bring its group to `targets`.
    Colours are judged on all retained pictures that are drawn; what a removed style depicts, on the
    pictures that ask for it by its name.
    """
    objects, styles = (kept_classes(judge, attribute, subjects) for attribute in ATTRIBUTES)
    colours = judge.classes["colour"]
    near = {
        attribute: _union(neighbours[s.spec.name] for s in subjects if s.attribute == attribute)
        for attribute in ATTRIBUTES
    }
    wanted = [kind for kind in _DRAWN if kind in kinds] or ["objects"] * ("colours" in kinds)
    plans: list[tuple[str, Form, Sequence[str]]] = [
        ("objects", "object", objects),
        ("neighbours", "object", near["object"]),
        ("neighbours", "style", near["style"]),
        ("styles", "style", styles),
    ]
    groups = []
    for kind, attribute, classes in plans:
        if kind not in wanted or not classes:
            continue
        number = max(each, -(-targets // len(classes)))
        start = first_seed(seed, kind) + _STYLE_SEEDS * (attribute == "style")
        templates = TEMPLATES[attribute]["unseen" if kind == "neighbours" else "name"]
        probes = (
            object_probes(classes, colours, each=number, seed=start, templates=templates)
            if attribute == "object"
            else style_probes(
                classes, objects, colours, each=number, seed=start, templates=templates
            )
        )
        several = kind == "neighbours" and all(near.values())
        named = f", {attribute}s" * several
        groups.append(_group(kind, attribute, tuple(probes), named))
    drawn = tuple(probe for group in groups for probe in group.probes)
    chosen = [group for group in groups if group.kind in kinds]
    if "colours" in kinds and drawn:
        chosen.append(_group("colours", "colour", drawn))
    if "depicted" in kinds:
        of_style = [(n, s) for n, s in enumerate(subjects) if s.attribute == "style"]
        for number, subject in of_style:
            (by_name,) = target_groups(
                subject, objects, colours, targets=targets, seed=seed, edit=number, kinds=("name",)
            )
            named = f", {subject.spec.name}" * (len(of_style) > 1)
            chosen.append(_group("depicted", "object", by_name.probes, named))
    return chosen


def _union(lists: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in lists for name in names))


def _group(kind: str, attribute: str, probes: tuple[Probe, ...], more: str = "") -> Group:
    return Group(
        name=kind + more,
        kind=kind,
        title=RETAINED_KINDS[kind] + more,
        role="retained",
        attribute=attribute,
        probes=probes,
    )
