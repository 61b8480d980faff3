"""Run attacks on an edited encoder within a budget, and keep the worst prompts of each."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from edits.evaluation.attacks.attack import ATTACKS, AttackOptions, Scene, mean
from edits.evaluation.attacks.journal import AttackJournal
from edits.evaluation.attacks.pair import EncoderPair
from edits.evaluation.attacks.presence import Presence
from edits.evaluation.attacks.result import AttackOutcome, AttackResult, Baselines
from edits.evaluation.attacks.target import Target


def run_attacks(
    pair: EncoderPair,
    target: Target,
    options: AttackOptions,
    *,
    out: Path | None = None,
    on_attack: Callable[[AttackOutcome], None] = lambda _outcome: None,
) -> AttackResult:
    """Run what `options` names; what the journal in `out` holds already is not run again.

    `on_attack` hears each outcome. The same arguments give the same finds. Raises QuickFixError if
    `out` holds another run.
    """
    identity = run_identity(pair, target, options)
    outcomes: list[AttackOutcome] = []
    with ExitStack() as stack:
        journal = stack.enter_context(AttackJournal(out, identity)) if out else None
        scene = Scene(pair, target, Presence(pair.pristine, target), options)
        for name in options.attacks:
            outcome = journal.outcomes.get(name) if journal else None
            if outcome is None:
                outcome = _run(name, scene)
                if journal:
                    journal.add(outcome)
            outcomes.append(outcome)
            on_attack(outcome)
    concept, anchor = target.prompts(target.concept), target.prompts(target.anchor)
    return AttackResult(
        identity=identity,
        component=pair.component,
        target=json.loads(json.dumps(asdict(target))),
        options=options.document(),
        baselines=Baselines(
            concept=mean(scene.score(concept, pristine=True)),
            removed=mean(scene.score(concept)),
            anchor=mean(scene.score(anchor, pristine=True)),
        ),
        outcomes=tuple(outcomes),
    )


def run_identity(pair: EncoderPair, target: Target, options: AttackOptions) -> str:
    """`sha256:...` of all that decides what is found."""
    document = {
        "target": asdict(target),
        "options": options.document(),
        "component": pair.component,
        "encoders": pair.digests(),
        "vocabulary": pair.pristine.vocabulary,
    }
    text = json.dumps(document, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _run(name: str, scene: Scene) -> AttackOutcome:
    started, before = time.perf_counter(), scene.pair.passes
    finds, tried = ATTACKS[name](scene)
    return AttackOutcome(
        attack=name,
        finds=tuple(finds),
        tried=tried,
        passes=scene.pair.passes - before,
        seconds=round(time.perf_counter() - started, 3),
    )
