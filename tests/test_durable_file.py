"""A file is the old one or the new one, never a part, whatever breaks off its writing."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edits.durable_file import write_durably

WRITER = """
import sys
from pathlib import Path
from edits.durable_file import write_durably
for number in range(10**6):
    write_durably(Path(sys.argv[1]), str(number % 10).encode() * 300_000)
"""


def test_what_was_there_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(b"old")
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o640)])
def test_a_private_file_is_its_users_alone(private: bool, mode: int, tmp_path: Path) -> None:
    path = tmp_path / "token"
    before = os.umask(0o027)
    try:
        write_durably(path, b"secret", private=private)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_after_an_error_the_old_file_stands_alone(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(b"old")

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os if call == "fsync" else Path, call, full)
        with pytest.raises(OSError, match="No space"):
            write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "record"
    for round_number in range(8):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
        deadline = time.monotonic() + 60
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.011 * (round_number + 1))
        process.kill()
        process.wait()
        data = path.read_bytes()
        assert len(data) == 300_000
        assert len(set(data)) == 1
        path.unlink()
