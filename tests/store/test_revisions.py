"""The log, its head, and the rules by which they change."""

from dataclasses import FrozenInstanceError
from datetime import timedelta
from threading import Barrier, Thread

import pytest

from edits.errors import HeadMoved, RevisionNotFound, StoreCorrupt
from edits.manifests import RevisionContent, digest
from edits.store import RevisionRecord, RevisionStore

from .conftest import START, on_sqlite
from .contents import content

BY = {"author": "ana", "reason": "policy 4.2"}


def test_a_new_store_has_no_head_and_an_empty_log(store):
    assert store.head() is None
    assert store.head_number() is None
    assert store.revisions() == ()
    with pytest.raises(RevisionNotFound, match="there is no revision 1; the log is empty"):
        store.revision(1)


def test_publishing_adds_a_revision_and_leaves_the_head_alone(store):
    published = store.publish(content("a"), **BY)
    assert (published.number, published.parent, published.created_at) == (1, None, START)
    assert (published.author, published.reason) == ("ana", "policy 4.2")
    assert published.digest == content("a").digest()
    assert published.content == content("a")
    assert store.head() is None
    assert store.revision(1) == published
    with pytest.raises(FrozenInstanceError):
        published.number = 2


def test_activating_moves_the_head_and_the_next_revision_names_it_as_parent(store):
    store.publish(content("a"), **BY)
    assert store.activate(1).number == 1
    assert store.head() == store.revision(1)
    assert store.publish(content("b"), **BY).parent == 1


def test_activating_the_head_again_changes_nothing(store):
    store.publish_and_activate(content("a"), **BY)
    assert store.activate(1).number == 1
    assert store.head_number() == 1


def test_the_head_never_moves_back(store):
    store.publish_and_activate(content("a"), **BY)
    store.publish_and_activate(content("b"), **BY)
    with pytest.raises(HeadMoved, match="roll back to 1 instead") as refused:
        store.activate(1)
    assert refused.value.actual == 2
    assert store.head_number() == 2


def test_activating_what_is_not_there_is_refused_with_the_numbers_that_are(store):
    store.publish(content("a"), **BY)
    with pytest.raises(RevisionNotFound, match="there is no revision 9; the log holds 1 to 1"):
        store.activate(9)
    assert store.head_number() is None


def test_publishing_the_content_of_the_head_again_is_one_revision(store):
    first = store.publish_and_activate(content("a"), **BY)
    again = store.publish_and_activate(content("a"), author="bo", reason="again")
    assert again == first
    assert store.publish(content("a"), author="bo", reason="again") == first
    assert len(store.revisions()) == 1


def test_a_publish_repeated_after_a_lost_answer_is_not_a_conflict(store):
    first = store.publish_and_activate(content("a"), **BY, expected_head=None)
    assert store.publish_and_activate(content("a"), **BY, expected_head=None) == first


def test_a_published_revision_that_waits_is_activated_rather_than_added_again(store):
    waiting = store.publish(content("a"), **BY)
    assert store.publish(content("a"), **BY) == waiting
    assert store.publish_and_activate(content("a"), **BY) == waiting
    assert store.head_number() == waiting.number == 1


def test_content_that_was_active_before_the_head_is_a_new_revision(store):
    store.publish_and_activate(content("a"), **BY)
    store.publish_and_activate(content("b"), **BY)
    assert store.publish_and_activate(content("a"), **BY).number == 3


@pytest.mark.parametrize(("expected", "words"), [(None, "an empty log"), (7, "revision 7")])
def test_a_write_on_an_outdated_head_is_refused_with_the_number_to_start_over_from(
    store, expected, words
):
    store.publish_and_activate(content("a"), **BY)
    writes = [
        lambda: store.publish(content("b"), **BY, expected_head=expected),
        lambda: store.publish_and_activate(content("b"), **BY, expected_head=expected),
        lambda: store.activate(2, expected_head=expected),
        lambda: store.rollback(2, **BY, expected_head=expected),
    ]
    store.publish(content("c"), **BY)
    for write in writes:
        with pytest.raises(
            HeadMoved, match=f"the head is revision 1, .* based on {words}"
        ) as refused:
            write()
        assert (refused.value.expected, refused.value.actual) == (expected, 1)
    assert store.head_number() == 1
    assert len(store.revisions()) == 2


def test_a_write_on_the_head_that_was_seen_succeeds(store):
    assert store.publish_and_activate(content("a"), **BY, expected_head=None).number == 1
    assert store.publish_and_activate(content("b"), **BY, expected_head=1).number == 2
    assert store.rollback(1, **BY, expected_head=2).number == 3


def test_a_rollback_is_a_new_revision_with_the_old_content(store):
    old = store.publish_and_activate(content("a"), **BY)
    store.publish_and_activate(content("a", "b"), **BY)
    back = store.rollback(1, author="bo", reason="too strict")
    assert (back.number, back.parent, back.author, back.reason) == (3, 2, "bo", "too strict")
    assert (back.digest, back.content) == (old.digest, old.content)
    assert store.head() == back
    assert [record.number for record in store.revisions()] == [3, 2, 1]


def test_a_rollback_to_what_is_active_changes_nothing(store):
    head = store.publish_and_activate(content("a"), **BY)
    assert store.rollback(1, **BY) == head
    with pytest.raises(RevisionNotFound):
        store.rollback(2, **BY)


def test_the_log_is_listed_newest_first_in_pages_without_content(store):
    for number in range(1, 8):
        store.publish_and_activate(content("a", concept=f"pistol {number}"), **BY)
    page = store.revisions(limit=3)
    assert [record.number for record in page] == [7, 6, 5]
    assert [record.number for record in store.revisions(limit=3, before=5)] == [4, 3, 2]
    assert all(type(record) is RevisionRecord for record in page)
    assert page[0].created_at - page[1].created_at == timedelta(seconds=1)


def test_the_empty_set_can_be_published(store):
    store.publish_and_activate(RevisionContent(), **BY)
    assert store.head().content.edits == ()


def test_what_was_written_is_there_after_the_store_is_opened_again(url, store):
    head = store.publish_and_activate(content("a", "b"), author="é \ud800 \0", reason="日本")
    store.close()
    with RevisionStore.open(url) as reopened:
        assert reopened.head() == head
    assert (head.author, head.reason) == ("é \\ud800 \\x00", "日本")


@pytest.mark.parametrize("position", [0, 17, -1])
def test_one_changed_byte_of_stored_content_is_corruption(store, tamper, position):
    revision = store.publish_and_activate(content("a"), **BY)
    data = bytearray(revision.content.canonical_bytes())
    data[position] ^= 1
    tamper("UPDATE revisions SET content = ? WHERE number = 1", bytes(data))
    for read in (store.head, lambda: store.revision(1), lambda: store.rollback(1, **BY)):
        with pytest.raises(StoreCorrupt, match="the stored content of revision 1 has the digest"):
            read()
    assert [record.digest for record in store.revisions()] == [revision.digest]


@on_sqlite
def test_content_replaced_by_text_is_corruption_too(store, tamper):
    store.publish_and_activate(content("a"), **BY)
    tamper("UPDATE revisions SET content = replace(content, 'pistol', 'pencil')")
    with pytest.raises(StoreCorrupt):
        store.head()


def test_content_or_digest_replaced_is_corruption_too(store, tamper):
    store.publish_and_activate(content("a"), **BY)
    altered = content("a").canonical_bytes().replace(b"pistol", b"pencil")
    tamper("UPDATE revisions SET content = ?", altered)
    with pytest.raises(StoreCorrupt):
        store.head()
    tamper("UPDATE revisions SET content = ?", content("a").canonical_bytes())
    assert store.head().content == content("a")
    tamper("UPDATE revisions SET digest = ?", content("b").digest())
    with pytest.raises(StoreCorrupt, match=f"not {content('b').digest()}"):
        store.head()


def test_content_of_a_future_schema_says_which_program_to_run(store, tamper):
    future = b'{"apiVersion":"quickfix/v9"}'
    store.publish_and_activate(content("a"), **BY)
    tamper("UPDATE revisions SET content = ?, digest = ?", future, digest(future))
    with pytest.raises(StoreCorrupt, match="run the version that published it, or a later one"):
        store.head()


def test_of_threads_that_saw_the_same_head_exactly_one_wins(store):
    for expected in (None, 1, 2):
        start = Barrier(8)
        won, lost = [], []

        def publish(name, start=start, won=won, lost=lost, expected=expected):
            start.wait()
            try:
                revision = store.publish_and_activate(
                    content(name), author=name, reason="race", expected_head=expected
                )
                won.append(revision.number)
            except HeadMoved as moved:
                lost.append(moved.actual)

        threads = [Thread(target=publish, args=(f"e{expected or 0}-{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        number = (expected or 0) + 1
        assert (won, lost) == ([number], [number] * 7)
        assert store.head_number() == number


def test_threads_that_do_not_mind_the_head_all_get_a_revision(store):
    def publish(thread):
        for n in range(5):
            store.publish_and_activate(content(f"t{thread}-{n}"), **BY)
            store.head()

    threads = [Thread(target=publish, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = store.revisions()
    assert [record.number for record in records] == list(range(30, 0, -1))
    assert [record.parent for record in records] == [*range(29, 0, -1), None]
    assert len({record.digest for record in records}) == 30
