"""Several real processes on one database file, some of them killed."""

import multiprocessing
import random
import time

import pytest
from sqlalchemy import create_engine

from edits.store import RevisionStore

from . import processes

# A clean server process forks the others: fast to start, and free of this process's threads.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["edits.store"])

PATIENCE = 60  # seconds; only a hang gets near it


def run(target, argument_lists):
    """Run one process per argument list to its end; return what they put into `results`."""
    results = context.Queue()
    barrier = context.Barrier(len(argument_lists))
    children = [
        context.Process(target=target, args=(*arguments, barrier, results), daemon=True)
        for arguments in argument_lists
    ]
    for child in children:
        child.start()
    answers = [results.get(timeout=PATIENCE) for _ in children]
    for child in children:
        child.join(PATIENCE)
    assert [child.exitcode for child in children] == [0] * len(children)
    return answers


def test_processes_that_open_a_new_store_at_once_find_one_schema(url):
    answers = run(processes.open_and_report, [(url,)] * 6)
    assert len({pid for pid, _ in answers}) == 6
    assert {head for _, head in answers} == {None}
    engine = create_engine(url)
    with engine.connect() as connection:
        versions = connection.exec_driver_sql("SELECT version_num FROM alembic_version")
        assert versions.scalars().all() == ["0003"]
        assert connection.exec_driver_sql("SELECT * FROM head").all() == [(1, None, 0)]
    engine.dispose()


@pytest.mark.parametrize("prior", [0, 1])
def test_of_processes_that_saw_the_same_head_exactly_one_wins(url, prior):
    with RevisionStore.open(url) as store:
        if prior:
            store.publish_and_activate(processes.content("old"), author="a", reason="b")
    names = [f"process-{n}" for n in range(4)]
    answers = run(processes.publish_once, [(url, name, prior or None) for name in names])
    assert sorted(answer[1:] for answer in answers) == [
        *[("moved", prior + 1)] * 3,
        ("published", prior + 1),
    ]
    winner = next(name for name, outcome, _ in answers if outcome == "published")
    with RevisionStore.open(url) as store:
        assert (store.head().author, store.head_number()) == (winner, prior + 1)


def test_a_killed_publisher_leaves_every_acknowledged_revision_readable(url):
    """SIGKILL at twenty random moments of open, publish and commit; no repair in between."""
    moments = random.Random(20)
    acknowledged = 0
    for _ in range(20):
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(
            target=processes.publish_until_killed, args=(url, sender), daemon=True
        )
        child.start()
        sender.close()
        if receiver.poll(moments.choice([PATIENCE, moments.uniform(0, 0.2)])):
            time.sleep(moments.uniform(0, 0.05))
        child.kill()
        child.join(PATIENCE)
        assert child.exitcode == -9
        try:
            while True:
                acknowledged = receiver.recv()
        except EOFError:
            receiver.close()
        with RevisionStore.open(url) as store:
            head = store.head()
            newest = store.revisions(limit=1)
            # The commit that was under way when the kill came may have been finished, or not.
            assert (head.number if head else 0) in (acknowledged, acknowledged + 1)
            assert [record.number for record in newest] == ([head.number] if head else [])
            acknowledged = head.number if head else 0
    assert acknowledged >= 10
    with RevisionStore.open(url) as store:
        for number in range(1, acknowledged + 1):
            assert store.revision(number).content.edits[0].spec.concept.startswith("pistol ")
