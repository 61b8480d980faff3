"""What the other processes of the store's tests do; each is one function, started by name."""

import os

from edits.errors import HeadMoved
from edits.store import RevisionStore

from .contents import content


def open_and_report(url, barrier, results):
    """Open the store at the same moment as the others."""
    barrier.wait()
    with RevisionStore.open(url) as store:
        results.put((os.getpid(), store.head_number()))


def publish_once(url, name, expected_head, barrier, results):
    """Publish on top of the same head as the others; report the number or the head in the way."""
    with RevisionStore.open(url) as store:
        barrier.wait()
        try:
            revision = store.publish_and_activate(
                content(name), author=name, reason="race", expected_head=expected_head
            )
        except HeadMoved as moved:
            results.put((name, "moved", moved.actual))
        else:
            results.put((name, "published", revision.number))


def publish_until_killed(url, acknowledged):
    """Publish for ever, and send each number once its commit has been acknowledged."""
    with RevisionStore.open(url) as store:
        number = store.head_number() or 0
        while True:
            number += 1
            revision = store.publish_and_activate(
                content("a", concept=f"pistol {number}"), author="doomed", reason="kill test"
            )
            acknowledged.send(revision.number)
