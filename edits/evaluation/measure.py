"""Measure what edits did: draw the suite before and after, judge, count."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edits.evaluation.drawing import Sampling
from edits.evaluation.drift import PICTURES, empty_prompt_drift
from edits.evaluation.groups import KINDS, Group
from edits.evaluation.judge import Judge
from edits.evaluation.judge_card import JudgeCard
from edits.evaluation.means import MeanChange
from edits.evaluation.observe import Key, Observation, caption_embeddings, observe
from edits.evaluation.prompts import Probe
from edits.evaluation.rates import Change, Rate, worst_class
from edits.evaluation.result import EvaluationResult, GroupResult, PicturePair, SeenClass
from edits.evaluation.scorer import ClipScorer
from edits.evaluation.suite import Suite

SHOWN_PAIRS = 12
_SEEN_CLASSES = 4
_DRIFT_SEEDS = 10_000 * len(KINDS)
_OWN_PICTURES = ("objects", "neighbours", "styles")  # others count pictures of these once more

Side = Mapping[Key, Observation]
Captions = Mapping[str, Any]


def measure(
    pipeline_before: Any,
    pipeline_after: Any,
    judge: Judge,
    suite: Suite,
    sampling: Sampling,
    *,
    scorer: ClipScorer | None = None,
    card: JudgeCard | None = None,
    before: Side | None = None,
    progress: Callable[[int], None] = lambda _drawn: None,
) -> EvaluationResult:
    """Draw every probe of `suite` with both pipelines, from the same seeds, and count.

    before: what `observe` saw of `pipeline_before` earlier in this run, with the same sampling and
    scorer; what it lacks is drawn. `progress` hears of `2 * len(suite.probes)` pictures.
    """
    started = time.perf_counter()
    known = dict(before or {})
    missing = [probe for probe in suite.probes if probe.key not in known]
    progress(len(suite.probes) - len(missing))
    known |= observe(pipeline_before, missing, sampling, judge, scorer, progress=progress)
    after = observe(pipeline_after, suite.probes, sampling, judge, scorer, progress=progress)
    captions: Captions = {}
    if scorer:
        texts = [t for p in suite.probes for t in (p.prompt, p.caption, p.anchor_caption) if t]
        captions = caption_embeddings(pipeline_before, scorer, texts)
    groups = tuple(_group_result(group, known, after, captions) for group in suite.groups)
    drift = empty_prompt_drift(
        pipeline_before, pipeline_after, sampling, seed=suite.seed + _DRIFT_SEEDS
    )
    return EvaluationResult(
        suite=suite,
        sampling=sampling,
        groups=groups,
        clip=_pooled_clip(suite, known, after, captions),
        drift=drift,
        unedited=_unedited(suite, known),
        card=card,
        images=len(missing) + len(suite.probes) + 2 * PICTURES,
        seconds=time.perf_counter() - started,
    )


def _group_result(group: Group, before: Side, after: Side, captions: Captions) -> GroupResult:
    changes = {
        name: _change(group, before, after, [p for p in group.probes if wanted(p, group) == name])
        for name in dict.fromkeys(wanted(p, group) for p in group.probes)
    }
    pairs = [_pair(group, p, before[p.key], after[p.key]) for p in group.probes]
    subject, other = group.subject, None
    if subject:
        name = subject.removed if subject.is_fact else subject.anchor
        if name:
            other = name, _change(group, before, after, group.probes, name)
    return GroupResult(
        group=group,
        change=_change(group, before, after, group.probes),
        other=other,
        worst=None if subject else worst_class(changes),
        seen=_seen(group, before, after) if subject else (),
        clip=_clip(group, before, after, captions),
        pairs=tuple(sorted(pairs, key=lambda pair: -pair.harm)[:SHOWN_PAIRS]),
    )


def wanted(probe: Probe, group: Group) -> str:
    """The class that counts on a picture of the group."""
    return probe.wanted[group.attribute]


def _change(
    group: Group, before: Side, after: Side, probes: Sequence[Probe], name: str = ""
) -> Change:
    """On how many pictures `name` was seen; without one, what each prompt asks for."""
    sides = [
        [side[p.key].verdict.classes[group.attribute] == (name or wanted(p, group)) for p in probes]
        for side in (before, after)
    ]
    return Change.of(*sides)


def _pair(group: Group, probe: Probe, old: Observation, new: Observation) -> PicturePair:
    name = wanted(probe, group)
    shares = [o.verdict.probabilities[group.attribute][name] for o in (old, new)]
    if group.subject is None:
        harm = shares[0] - shares[1]
    else:
        harm = 1 - shares[1] if group.subject.is_fact else shares[1]
    return PicturePair(
        probe,
        (old.shown, new.shown),
        (old.verdict.classes[group.attribute], new.verdict.classes[group.attribute]),
        (shares[0], shares[1]),
        harm,
    )


def _seen(group: Group, before: Side, after: Side) -> tuple[SeenClass, ...]:
    counts = [
        Counter(side[p.key].verdict.classes[group.attribute] for p in group.probes)
        for side in (before, after)
    ]
    return tuple(
        SeenClass(name, counts[0][name], number)
        for name, number in counts[1].most_common(_SEEN_CLASSES)
    )


def _clip(group: Group, before: Side, after: Side, captions: Captions) -> dict[str, MeanChange]:
    if not captions or (group.subject is None and group.kind not in _OWN_PICTURES):
        return {}
    if group.subject is None:
        return {"prompt": _scores(group.probes, before, after, captions, "prompt")}
    return {
        "concept": _scores(group.probes, before, after, captions, "caption"),
        "anchor": _scores(group.probes, before, after, captions, "anchor_caption"),
    }


def _scores(
    probes: Sequence[Probe], before: Side, after: Side, captions: Captions, field: str
) -> MeanChange:
    """CLIPScore, the cosine of picture and caption, on both sides."""
    sides = [
        [float(side[p.key].embedding @ captions[getattr(p, field)]) for p in probes]
        for side in (before, after)
    ]
    return MeanChange.of(*sides)


def _pooled_clip(
    suite: Suite, before: Side, after: Side, captions: Captions
) -> dict[str, MeanChange]:
    if not captions:
        return {}
    asked = _distinct(suite, lambda group: group.subject is not None)
    kept = _distinct(suite, lambda group: group.kind in _OWN_PICTURES)
    pooled = {}
    if asked:
        pooled["target, concept's caption"] = _scores(asked, before, after, captions, "caption")
        pooled["target, anchor's caption"] = _scores(
            asked, before, after, captions, "anchor_caption"
        )
    if kept:
        pooled["retained"] = _scores(kept, before, after, captions, "prompt")
    return pooled


def _unedited(suite: Suite, before: Side) -> dict[str, dict[str, Rate]]:
    """Pictures that the judge saw otherwise than asked for, before any edit, by wanted class.

    Retained pictures, and those of a removed concept by its own name.
    """
    probes = _distinct(
        suite,
        lambda g: (
            g.kind in _OWN_PICTURES
            or (g.kind == "name" and g.subject is not None and not g.subject.is_fact)
        ),
    )
    errors: dict[str, dict[str, Rate]] = {}
    for probe in probes:
        seen = before[probe.key].verdict.classes
        for attribute, name in probe.wanted.items():
            classes = errors.setdefault(attribute, {})
            old = classes.get(name, Rate(0, 0))
            classes[name] = Rate(old.hits + (seen[attribute] != name), old.count + 1)
    return errors


def _distinct(suite: Suite, keep: Callable[[Group], bool]) -> list[Probe]:
    found = {p.key: p for group in suite.groups if keep(group) for p in group.probes}
    return list(found.values())
