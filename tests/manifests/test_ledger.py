"""The last verified sequence over restarts: it only grows, and a damaged record is no record."""

import os
import threading

import pytest

from edits.errors import LedgerInvalid, ReplayRefused
from edits.manifests import RevisionContent
from edits.manifests.ledger import SequenceLedger
from edits.manifests.statement import LastVerified

from .signed import SET, statement

OTHER = RevisionContent()


def test_nothing_was_verified_before_the_first_record(tmp_path):
    assert SequenceLedger(tmp_path / "verified.json").last() is None


def test_the_record_is_there_after_a_restart(tmp_path):
    path = tmp_path / "verified.json"
    SequenceLedger(path).record(statement(7))
    assert SequenceLedger(path).last() == LastVerified(7, SET.digest())
    SequenceLedger(path).record(statement(9, OTHER))
    assert SequenceLedger(path).last() == (9, OTHER.digest())
    assert [file.name for file in tmp_path.iterdir()] == ["verified.json"]


def test_a_lower_sequence_or_another_set_is_never_recorded(tmp_path):
    ledger = SequenceLedger(tmp_path / "verified.json")
    ledger.record(statement(7))
    for replayed, words in (
        (statement(6), "is older than 7"),
        (statement(7, OTHER), "before with"),
    ):
        with pytest.raises(ReplayRefused, match=words):
            ledger.record(replayed)
    assert ledger.last() == (7, SET.digest())


def test_the_same_statement_again_writes_nothing(tmp_path):
    path = tmp_path / "verified.json"
    ledger = SequenceLedger(path)
    ledger.record(statement(7))
    before = path.stat().st_ino
    ledger.record(statement(7))
    assert path.stat().st_ino == before


def test_of_many_threads_the_highest_sequence_stays(tmp_path):
    ledger = SequenceLedger(tmp_path / "verified.json")
    refused = []

    def record(sequence):
        try:
            ledger.record(statement(sequence))
        except ReplayRefused:
            refused.append(sequence)

    threads = [threading.Thread(target=record, args=(n,)) for n in (3, 9, 1, 20, 5, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.last().sequence == 20
    assert 20 not in refused


def test_bytes_and_rename_are_on_the_disk_before_record_returns(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    folder = tmp_path.stat().st_ino

    def fsync(handle):
        synced.append("folder" if os.fstat(handle).st_ino == folder else "file")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    SequenceLedger(tmp_path / "verified.json").record(statement())
    assert synced == ["file", "folder"]


def test_a_write_that_fails_leaves_the_last_record_whole(tmp_path, monkeypatch):
    ledger = SequenceLedger(tmp_path / "verified.json")
    ledger.record(statement(7))

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LedgerInvalid, match="cannot be written: No space left on device; give"):
        ledger.record(statement(8))
    assert ledger.last().sequence == 7
    assert [file.name for file in tmp_path.iterdir()] == ["verified.json"]


GOOD = b'{"apiVersion":"quickfix/v1","content":"%b","kind":"LastVerified","sequence":7}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 200,
        b"\xff",
        b"[]",
        b"[" * 1000,
        GOOD % SET.digest().encode() + b" " * 2000,
        GOOD % b"sha256:1",
        (GOOD % SET.digest().encode())[:-3],
        (GOOD % SET.digest().encode()).replace(b":7}", b":0}"),
        (GOOD % SET.digest().encode()).replace(b":7}", b":true}"),
        (GOOD % SET.digest().encode()).replace(b"LastVerified", b"Something"),
        (GOOD % SET.digest().encode()).replace(b":7}", b':7,"more":1}'),
    ],
)
def test_a_damaged_record_is_never_taken_for_none(tmp_path, data):
    path = tmp_path / "verified.json"
    path.write_bytes(data)
    ledger = SequenceLedger(path)
    words = r"verified\.json of the last verified sequence is damaged; .* delete the file only if"
    with pytest.raises(LedgerInvalid, match=words):
        ledger.last()
    with pytest.raises(LedgerInvalid, match=words):
        ledger.record(statement(100))
    assert path.read_bytes() == data


def test_the_form_of_the_record_is_this(tmp_path):
    path = tmp_path / "verified.json"
    SequenceLedger(path).record(statement(7))
    assert path.read_bytes() == GOOD % SET.digest().encode()


def test_a_record_that_cannot_be_read_is_not_taken_for_none(tmp_path):
    path = tmp_path / "verified.json"
    path.mkdir()
    with pytest.raises(LedgerInvalid, match="cannot be read: Is a directory; make it readable"):
        SequenceLedger(path).last()
