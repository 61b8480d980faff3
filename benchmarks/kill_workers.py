"""What the processes of `benchmarks.kills` do until they are killed."""

from datetime import UTC, datetime
from multiprocessing.connection import Connection

from edits.manifests import RevisionContent, parse_manifest
from edits.store import AuditEvent, ReplicaReport, RevisionStore, RolloutPlan

BY = {"author": "doomed", "reason": "kill test"}


def content_of(number: int) -> RevisionContent:
    """A set that no other number has; its size varies, so that a torn one shows."""
    manifests = [
        {
            "apiVersion": "quickfix/v1",
            "kind": "ConceptEdit",
            "metadata": {"name": f"edit-{n}", "version": number},
            "spec": {"concept": f"pistol {number}", "anchor": "toy", "type": "object"},
        }
        for n in range(1 + number % 7)
    ]
    return RevisionContent(tuple(parse_manifest(manifest) for manifest in manifests))


def migrate(url: str, told: Connection) -> None:
    """Open a new database, which makes its schema."""
    with RevisionStore.open(url):
        told.send(("migrated", 0))


def publish(url: str, told: Connection) -> None:
    """Publish and activate for ever, each time with an audit entry; tell what was committed."""
    with RevisionStore.open(url) as store:
        told.send(("open", 0))
        number = store.head_number() or 0
        while True:
            number += 1
            revision = store.publish_and_activate(content_of(number), **BY)
            told.send(("head", revision.number))
            entry = store.record(AuditEvent("doomed", "operator", "publish", str(number), "ok"))
            told.send(("audit", entry.id))


def activate(url: str, told: Connection) -> None:
    """Publish, then activate, urgently every second time; tell both."""
    with RevisionStore.open(url) as store:
        told.send(("open", 0))
        number = store.head_number() or 0
        while True:
            number += 1
            revision = store.publish(content_of(number), **BY)
            told.send(("log", revision.number))
            store.activate(revision.number, urgent=number % 2 == 0)
            told.send(("head", revision.number))


def roll_out(url: str, told: Connection) -> None:
    """Put each revision on trial, report as its canary and settle it; tell what became the head."""
    alone = RolloutPlan(share=0.5, soak_seconds=0)
    with RevisionStore.open(url) as store:
        told.send(("open", 0))
        if store.head_number() is None:
            store.publish_and_activate(content_of(1), **BY)
        if store.pointer().rollout is not None:  # of the process that was killed before
            store.rollouts.halt("its canary was killed")
        number = store.revisions(limit=1)[0].number
        while True:
            number += 1
            report = ReplicaReport("doomed", "here", datetime.now(UTC), active_revision=number)
            store.acknowledge(report)
            revision = store.publish(content_of(number), **BY)
            told.send(("log", revision.number))
            base = store.head_number()
            assert base is not None  # noqa: S101 - made above
            store.rollouts.begin(revision.number, alone, author="doomed", base=base)
            if store.rollouts.settle(by="doomed") is not None:
                told.send(("head", revision.number))
