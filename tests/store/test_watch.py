"""Being told of a new head."""

import threading
import time
from contextlib import closing

from edits.store import RevisionStore
from tests.postgres import postgres

from .contents import content

BY = {"author": "ana", "reason": "test"}
PATIENCE = 20  # seconds; only a hang gets near it


class Told:
    """Counts calls, and waits for one more."""

    def __init__(self):
        self.calls = 0
        self._changed = threading.Condition()

    def __call__(self):
        with self._changed:
            self.calls += 1
            self._changed.notify_all()

    def seconds_until_more_than(self, calls):
        started = time.monotonic()
        with self._changed:
            assert self._changed.wait_for(lambda: self.calls > calls, PATIENCE)
        return time.monotonic() - started


def test_each_new_head_is_told_at_once(store, url):
    told = Told()
    with RevisionStore.open(url) as other, closing(other.watch(told)):
        told.seconds_until_more_than(0)  # once at the start: what came before was not heard
        for name in ("a", "b", "c"):
            before = told.calls
            store.publish_and_activate(content(name), **BY)
            assert told.seconds_until_more_than(before) < 1.0


def test_a_revision_that_is_only_published_moves_nothing(store, url):
    told = Told()
    with RevisionStore.open(url) as other, closing(other.watch(told)):
        told.seconds_until_more_than(0)
        number = store.publish(content("a"), **BY).number
        assert other.head_number() is None
        before = told.calls
        store.activate(number)
        told.seconds_until_more_than(before)


def test_a_watch_that_is_closed_tells_no_more(store, url):
    told = Told()
    watch = store.watch(told)
    told.seconds_until_more_than(0)
    watch.close()
    calls = told.calls
    with RevisionStore.open(url) as other:
        other.publish_and_activate(content("a"), **BY)
    time.sleep(0.3)
    assert told.calls == calls


def test_a_head_that_moved_while_the_server_was_away_is_told_when_it_is_back():
    told = Told()
    with (
        postgres() as server,
        server.database() as url,
        RevisionStore.open(url) as store,
        closing(store.watch(told)),
    ):
        told.seconds_until_more_than(0)
        server.stop()
        time.sleep(2)
        before = told.calls
        server.start()
        assert told.seconds_until_more_than(before) < 2.0
        before = told.calls
        store.publish_and_activate(content("a"), **BY)
        assert told.seconds_until_more_than(before) < 1.0
