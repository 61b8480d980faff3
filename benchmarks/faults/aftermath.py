"""What must be there after a fault, and what must not have come out."""

import time
from collections.abc import Sequence

from benchmarks.faults.supervised import Supervised
from benchmarks.faults.traffic import Acknowledged, Seen, draw
from edits.store import RevisionStore


def lost(url: str, acknowledged: Sequence[Acknowledged], seen: Sequence[Seen]) -> list[str]:
    """What an operator was told and is not so, and images of what a closed fence had ended."""
    found = []
    with RevisionStore.open(url) as store:
        head = store.head_number() or 0
        for told in acknowledged:
            if told.revision > head:
                found.append(f"acknowledged revision {told.revision} is above the head {head}")
            elif store.revision(told.revision).digest != told.digest:  # verifies the bytes, too
                found.append(f"revision {told.revision} is another set than was acknowledged")
        numbers = [record.number for record in store.revisions(limit=1_000_000)]
        if numbers != list(range(len(numbers), 0, -1)):
            found.append("the log has a gap")
        if (broken := store.verify_audit().broken) is not None:
            found.append(f"the audit chain breaks at {broken}")
    fences = [told for told in acknowledged if told.closed]
    for image in seen:
        if image.status == 200 and any(
            told.at < image.completed_at and told.revision > image.revision for told in fences
        ):
            found.append(f"an image of revision {image.revision} came after a closed fence")
    return found


def users_back(seen: Sequence[Seen], objective: float, began: float, ended: float) -> float:
    """Seconds from a fault's end until the last answer came that was none, or was late; else 0."""
    missed = [
        each.completed_at
        for each in seen
        if each.completed_at >= began
        and (each.status != 200 or each.completed_at - each.asked_at > objective)
    ]
    return max(0.0, max(missed, default=ended) - ended)


def recovered(services: Sequence[Supervised], objective: float) -> bool:
    """Every replica is ready and draws within so many seconds."""
    if not all(service.ready for service in services):
        return False
    drawn = [draw(service, seed=1, timeout=objective) for service in services]
    return all(
        each.status == 200 and each.completed_at - each.asked_at <= objective for each in drawn
    )


def seconds_to_objectives(
    services: Sequence[Supervised], objective: float, patience: float = 180.0
) -> float:
    """From now until `recovered`; infinity when it never came."""
    started = time.monotonic()
    while not recovered(services, objective):
        if time.monotonic() - started > patience:
            return float("inf")
    return time.monotonic() - started
