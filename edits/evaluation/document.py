"""An evaluation as JSON: what every report is written from."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from edits.evaluation.rates import Change, Rate
from edits.evaluation.result import EvaluationResult, GroupResult, PicturePair
from edits.method import EditSpec


def evaluation_document(
    result: EvaluationResult, provenance: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Every figure with its interval and number of pictures; shares are 0 to 1.

    provenance: what else a reader needs to repeat the run (command, model, digests, versions).
    """
    suite = result.suite
    worst, asked, harmonic = result.worst_retained, result.worst_target, result.harmonic_mean
    by_name = result.target_rates()
    return {
        "edits": [
            {
                "name": s.spec.name,
                "concept": s.spec.concept,
                "aliases": list(s.spec.aliases),
                "anchor": s.spec.anchor,
                "type": s.spec.kind,
                "attribute": s.attribute,
                "removed_class": s.removed,
                "anchor_class": s.anchor,
                "neighbours": list(suite.neighbours[s.spec.name]),
                "method": _method(s.spec),
            }
            for s in suite.subjects
        ],
        **result.sampling.document(),
        "seed": suite.seed,
        "images": result.images,
        "seconds": round(result.seconds, 1),
        "target_rate": result.target_rate.document() if by_name else None,
        "worst_target": {**_name(asked), **asked.failed.document()} if asked else None,
        "max_drop": {"group": worst.group.name, **_drop(worst.change)} if worst else None,
        "harmonic_mean": None if harmonic is None else round(harmonic, 4),
        "targets": [_target(group) for group in result.targets],
        "retained": [_retained(group) for group in result.retained],
        "clip_score": {name: change.document() for name, change in result.clip.items()} or None,
        "empty_prompt": result.drift.document(),
        "judge": {
            "held_out": result.card.document() if result.card else None,
            "unedited": {
                attribute: {
                    **pooled(classes.values()).document(),
                    "classes": {name: rate.document() for name, rate in classes.items()},
                }
                for attribute, classes in result.unedited.items()
            },
        },
        "provenance": dict(provenance or {}),
    }


def pooled(rates: Iterable[Rate]) -> Rate:
    """Several rates as one."""
    found = list(rates)
    return Rate(sum(r.hits for r in found), sum(r.count for r in found))


def _method(spec: EditSpec) -> dict[str, Any]:
    """How the edit was computed, what a sweep chose included."""
    asked = {"name", "concept", "anchor", "aliases", "kind"}
    settings = {f.name: getattr(spec, f.name) for f in fields(spec) if f.name not in asked}
    return {
        **settings,
        "sites": [str(site) for site in spec.sites],
        "preserve": list(spec.preserve),
    }


def _target(result: GroupResult) -> dict[str, Any]:
    subject = result.group.subject
    assert subject is not None  # noqa: S101 - a target group has one
    own = {"class": subject.counted, **result.change.document()}
    other = {"class": result.other[0], **result.other[1].document()} if result.other else None
    return {
        **_common(result),
        "scored_by": "anchor" if subject.is_fact else "removed",
        "left": result.failed.document(),
        "removed": other if subject.is_fact else own,
        "anchor": own if subject.is_fact else other,
        "seen": [{"class": s.name, "before": s.before, "after": s.after} for s in result.seen],
        "clip_score": {name: change.document() for name, change in result.clip.items()} or None,
        "worst_pictures": [_picture(pair) for pair in result.pairs],
    }


def _retained(result: GroupResult) -> dict[str, Any]:
    worst = None
    if result.worst:
        worst = {"class": result.worst[0], **result.worst[1].document()}
    return {
        **_common(result),
        **result.change.document(),
        "worst_class": worst,
        "clip_score": {name: change.document() for name, change in result.clip.items()} or None,
        "worst_pictures": [_picture(pair) for pair in result.pairs if pair.harm > 0],
    }


def _name(result: GroupResult) -> dict[str, str]:
    subject = result.group.subject
    edit = {"edit": subject.spec.name} if subject else {}
    return {**edit, "group": result.group.name, "title": result.group.title}


def _common(result: GroupResult) -> dict[str, Any]:
    group = result.group
    return {
        **_name(result),
        "attribute": group.attribute,
        "n": len(group.probes),
    }


def _drop(change: Change) -> dict[str, float]:
    drop: dict[str, float] = change.document()["drop"]
    return drop


def _picture(pair: PicturePair) -> dict[str, Any]:
    return {
        "prompt": pair.probe.prompt,
        "seed": pair.probe.seed,
        "before": {"class": pair.classes[0], "probability": round(pair.probabilities[0], 4)},
        "after": {"class": pair.classes[1], "probability": round(pair.probabilities[1], 4)},
    }
