"""What a kill leaves behind can be gone on with."""

import pytest

from edits.errors import TraceConflict
from edits.tracing.journal import FILE_NAME, Journal


def test_scores_are_there_after_the_file_is_opened_again(tmp_path):
    with Journal(tmp_path, "a") as journal:
        journal.add(0, [[1.0, 2.0]], 0.5)
        journal.add(2, [[3.0, 4.0], [5.0, 0.1]], 1.5)
    with Journal(tmp_path, "a") as again:
        assert again.scores == {0: [[1.0, 2.0]], 2: [[3.0, 4.0], [5.0, 0.1]]}
        assert again.seconds == {0: 0.5, 2: 1.5}


def test_a_file_cut_at_any_byte_keeps_its_whole_lines_and_can_be_written_on(tmp_path):
    with Journal(tmp_path, "a") as journal:
        for number in range(3):
            journal.add(number, [[number / 3]], 0.1)
    whole = (tmp_path / FILE_NAME).read_bytes()
    for cut in range(len(whole) + 1):
        (tmp_path / FILE_NAME).write_bytes(whole[:cut])
        kept = max(0, whole[:cut].count(b"\n") - 1)
        with Journal(tmp_path, "a") as journal:
            assert journal.scores == {number: [[number / 3]] for number in range(kept)}
            journal.add(9, [[0.5]], 0.1)
        with Journal(tmp_path, "a") as journal:
            assert journal.scores[9] == [[0.5]]
            assert len(journal.scores) == kept + 1


def test_the_journal_of_another_trace_is_refused_and_left_alone(tmp_path):
    with Journal(tmp_path, "a") as journal:
        journal.add(0, [[1.0]], 0.1)
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(TraceConflict, match="other options"):
        Journal(tmp_path, "b")
    assert (tmp_path / FILE_NAME).read_bytes() == before
