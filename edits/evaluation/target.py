"""Prompts that ask for a concept that was edited: by every name, phrasing and spelling."""

from collections.abc import Iterator, Sequence
from itertools import count, islice

import numpy as np

from edits.evaluation.groups import TARGET_KINDS, Group, first_seed
from edits.evaluation.prompts import PLAIN, Probe, fill
from edits.evaluation.spelling import SPELLINGS
from edits.evaluation.subject import Subject
from edits.evaluation.templates import TEMPLATES
from edits.method.captions import HELD_OUT, caption_pairs, pairs_in
from edits.method.text import normalise


def target_groups(
    subject: Subject,
    objects: Sequence[str],
    colours: Sequence[str],
    *,
    targets: int,
    seed: int,
    edit: int,
    kinds: Sequence[str],
) -> Iterator[Group]:
    """`targets` pictures for every phrasing and spelling of the concept, in the order of `kinds`.

    `objects` are what pictures in a style depict; `edit` is the edit's number in its set.
    """
    for kind in (kind for kind in TARGET_KINDS if kind in kinds):
        names = subject.spec.aliases if kind == "alias" else (subject.spec.concept,)
        for number, name in enumerate(names):
            start = first_seed(seed, kind, edit) + number * targets
            probes = _target_probes(subject, kind, name, objects, colours, start)
            yield Group(
                name=f"alias {name}" if kind == "alias" else kind,
                kind=kind,
                title=f"by alias {name!r}" if kind == "alias" else TARGET_KINDS[kind],
                role="target",
                attribute=subject.attribute,
                probes=tuple(islice(probes, targets)),
                subject=subject,
            )


def _target_probes(
    subject: Subject,
    kind: str,
    name: str,
    objects: Sequence[str],
    colours: Sequence[str],
    seed: int,
) -> Iterator[Probe]:
    templates = TEMPLATES[subject.form].get(kind, TEMPLATES[subject.form]["name"])
    is_style = subject.attribute == "style"
    if kind == "unseen":
        templates = unseen_templates(subject, templates)
    spell = SPELLINGS.get(kind)
    rng = np.random.default_rng(seed)
    for number in count():
        template = templates[number % len(templates)]
        colour, thing = colours[number % len(colours)], objects[number % len(objects)]
        spelled = spell(name, rng) if spell else name
        wanted = {"colour": colour, "style": PLAIN, subject.attribute: subject.counted}
        if is_style:
            wanted["object"] = thing
        depicted = thing if is_style else ""
        yield Probe(
            fill(template, spelled, colour=colour, thing=depicted),
            seed + number,
            wanted,
            caption=fill(template, name, colour=colour, thing=depicted),
            anchor_caption=fill(template, subject.spec.anchor, colour=colour, thing=depicted),
        )


def unseen_templates(subject: Subject, templates: Sequence[str]) -> tuple[str, ...]:
    """Those in which the concept follows words that it follows in no caption of the edit's.

    Under a causal mask these words decide the key that the edit acts on. Captions that chose the
    edit's settings count as seen. Raises ValueError if none is left.
    """
    spec = subject.spec
    captions = [
        pair.concept for pair in (*caption_pairs(spec), *pairs_in(HELD_OUT[spec.kind], spec))
    ]
    seen = {normalise(caption.text[: caption.start]) for caption in captions}
    mark = "\N{WHITE SQUARE}"
    left = tuple(
        template
        for template in templates
        if normalise(fill(template, mark, colour="red", thing="cat").partition(mark)[0]) not in seen
    )
    if not left:
        raise ValueError(f"the captions of edit {spec.name!r} begin as all unseen templates do")
    return left
