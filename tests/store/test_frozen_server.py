"""A PostgreSQL whose processes stand still: nothing fails, nothing answers."""

import time

import pytest

from benchmarks.faults.supervised import frozen
from edits.errors import StoreUnavailable
from edits.manifests import RevisionContent
from edits.store import RevisionStore, postgresql

from .contents import content


def test_a_server_that_stands_still_fails_a_call_in_time_and_serves_the_next(
    postgres_server, monkeypatch
):
    """Its sockets stay open and its kernel acknowledges, so no keepalive ends the wait."""
    monkeypatch.setattr(postgresql, "_ANSWER_SECONDS", 2.0)
    with postgres_server.database() as url, RevisionStore.open(url) as store:
        store.publish_and_activate(RevisionContent(), author="a", reason="first")
        assert store.head_number() == 1  # its connection is in the pool now
        with frozen(postgres_server.pid):
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                store.head_number()
            # The pooled connection gives up after 2 s, a new one is refused after 3 s.
            assert 2 <= time.monotonic() - started < 15
        assert store.head_number() == 1


def test_a_watch_hears_of_the_next_head_after_the_server_stood_still(postgres_server):
    with postgres_server.database() as url, RevisionStore.open(url) as store:
        heard = []
        watch = store.watch(lambda: heard.append(time.monotonic()))
        try:
            with frozen(postgres_server.pid):
                time.sleep(2)
            store.publish_and_activate(content("pistol"), author="a", reason="after it")
            published = time.monotonic()
            while not any(at > published - 0.5 for at in heard):
                assert time.monotonic() - published < 20
                time.sleep(0.05)
        finally:
            watch.close()
