"""SIGKILL at random moments of migrate, publish, activate and rollout, on SQLite and PostgreSQL.

    python -m benchmarks.kills                    # 2,000 kills and 500 in rollouts; 12 minutes
    python -m benchmarks.kills --kills 100

After each kill another process's view is checked, without any repair in between: everything that
was acknowledged is there, the log has no gap, every set has the digest that it was published
with and as many edits, the head is one of them, a rollout that was promoted is the head, and the
audit chain holds. Exit code 1 otherwise.
"""

import json
import multiprocessing
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import kill_workers
from benchmarks.kill_workers import content_of
from edits.store import RevisionStore
from tests.postgres import postgres

PATIENCE = 60.0
OPENING_SECONDS = 0.3  # the kill falls in here: migrations, and a share of the others
WRITING_SECONDS = 0.06  # or in here, once the store is open: several commits
OPENING_SHARE = 0.25
RENEW_AFTER = 150  # kills on one database; then a new one

context = multiprocessing.get_context("forkserver")


def killed(target: Callable[..., None], url: str, *, opened: bool, after: float) -> dict[str, int]:
    """Run `target`, kill it `after` so many seconds from its start, or from when it had `opened`
    the store; the highest number told for each thing.
    """
    receiver, sender = context.Pipe(duplex=False)
    started, start = context.Pipe(duplex=False)
    child = context.Process(target=_announced, args=(target, url, sender, start), daemon=True)
    child.start()
    sender.close()
    start.close()
    if not started.poll(PATIENCE):
        raise RuntimeError("the process did not start")
    if opened and not receiver.poll(PATIENCE):
        raise RuntimeError("the process did not open the store")
    child.join(after)
    child.kill()
    child.join(PATIENCE)
    told: dict[str, int] = {}
    try:
        while True:
            what, number = receiver.recv()
            told[what] = number
    except EOFError:
        receiver.close()
    return told


def _announced(target: Callable[..., None], url: str, told: Any, start: Any) -> None:
    start.send(True)
    target(url, told)


def faults(url: str, told: dict[str, int]) -> list[str]:
    """What is wrong with the store, given what was acknowledged."""
    found = []
    with RevisionStore.open(url) as store:
        records = store.revisions(limit=1_000_000)
        numbers = [record.number for record in records]
        head = store.head_number() or 0
        if numbers != list(range(len(numbers), 0, -1)):
            found.append("the log has a gap")
        if head < told.get("head", 0):
            found.append(f"acknowledged head {told['head']} was lost: the head is {head}")
        if len(numbers) < max(told.get("log", 0), told.get("head", 0)):
            found.append("an acknowledged revision was lost")
        for number in numbers[:20]:  # reading one verifies its bytes against its digest
            content = store.revision(number).content
            if content.digest() != content_of(number).digest():
                found.append(f"revision {number} is not the set that was published")
        if head and store.head() is None:
            found.append("the head cannot be read")
        rollout = store.rollouts.newest()
        if rollout is not None:
            promoted = rollout.outcome == "promoted"
            if promoted != (head >= rollout.revision):
                found.append(f"the rollout of {rollout.revision} and the head {head} disagree")
        if (broken := store.verify_audit().broken) is not None:
            found.append(f"the audit chain breaks at {broken}")
        newest = store.audit(limit=1)
        if (newest[0].id if newest else 0) < told.get("audit", 0):
            found.append("an acknowledged audit entry was lost")
    return found


def main(
    kills: int = 2000,
    seed: int = 0,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Kill, check, print."""
    context.set_forkserver_preload(["benchmarks.kill_workers"])
    moments = random.Random(seed)  # noqa: S311  not a secret
    done: Counter[str] = Counter()
    acknowledged: Counter[str] = Counter()
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder, postgres() as server:
        for kind in ("sqlite", "postgresql"):
            shares = {"migrate": kills // 6, "activate": kills // 6, "roll_out": kills // 8}
            shares["publish"] = kills // 2 - 2 * (kills // 6)
            for mode, share in shares.items():
                left = share
                while left:
                    batch = 1 if mode == "migrate" else min(RENEW_AFTER, left)
                    left -= batch
                    with server.database() as database:
                        file = Path(folder) / f"{kind}-{mode}-{left}.db"
                        url = database if kind == "postgresql" else f"sqlite:///{file}"
                        for _ in range(batch):
                            opened = mode != "migrate" and moments.random() > OPENING_SHARE
                            longest = WRITING_SECONDS if opened else OPENING_SECONDS
                            told = killed(
                                getattr(kill_workers, mode),
                                url,
                                opened=opened,
                                after=moments.uniform(0, longest),
                            )
                            done[f"{kind} {mode}"] += 1
                            acknowledged[f"{kind} {mode}"] += bool(told.keys() - {"open"})
                            problems += [f"{kind} {mode}: {it}" for it in faults(url, told)]
    document = {
        "kills": sum(done.values()),
        "by_kind": dict(done),
        "after_something_was_acknowledged": dict(acknowledged),
        "faults": len(problems),
        "first_faults": problems[:10],
        "seed": seed,
    }
    print(json.dumps(document, indent=2))
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n")
    if problems:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
