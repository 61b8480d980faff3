"""What a replica remembers over restarts: the highest verified sequence, so that none lower runs.

One small JSON file in the replica's state directory. A file that is not there means that nothing
was verified yet; whoever can delete it can replay, so only the replica's own user may write there.
"""

import json
import threading
from pathlib import Path

from edits.durable_file import write_durably
from edits.errors import LedgerInvalid, StatementInvalid
from edits.manifests.canonical import canonical_json
from edits.manifests.statement import (
    LastVerified,
    RevisionStatement,
    check_content,
    check_sequence,
)

_HEADER = {"apiVersion": "quickfix/v1", "kind": "LastVerified"}
_KEYS = {*_HEADER, "sequence", "content"}
_MAX_BYTES = 1024


class SequenceLedger:
    """The record in `path`. Thread-safe; one process writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def last(self) -> LastVerified | None:
        """The highest verified sequence; None before the first. Raises LedgerInvalid."""
        try:
            with self._path.open("rb") as stream:
                data = stream.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerInvalid(
                f"the record {self._path.name} of the last verified sequence cannot be read: "
                f"{error.strerror}; make it readable for the service's user"
            ) from None
        return self._parse(data)

    def record(self, statement: RevisionStatement) -> None:
        """Remember a verified statement; on the disk when this returns.

        Raises ReplayRefused when it may not follow what is recorded, LedgerInvalid when the file
        cannot be read or written.
        """
        with self._lock:
            last = self.last()
            statement.require_after(last)
            verified = LastVerified(statement.sequence, statement.content)
            if verified == last:
                return
            try:
                write_durably(self._path, canonical_json({**_HEADER, **verified._asdict()}))
            except OSError as error:
                raise LedgerInvalid(
                    f"the record {self._path.name} of the last verified sequence cannot be "
                    f"written: {error.strerror}; give the service's user a writable state directory"
                ) from None

    def _parse(self, data: bytes) -> LastVerified:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            raise self._corrupt() from None
        if not isinstance(document, dict) or set(document) != _KEYS or len(data) > _MAX_BYTES:
            raise self._corrupt()
        if any(document[key] != value for key, value in _HEADER.items()):
            raise self._corrupt()
        try:
            return LastVerified(
                check_sequence(document["sequence"]), check_content(document["content"])
            )
        except StatementInvalid:
            raise self._corrupt() from None

    def _corrupt(self) -> LedgerInvalid:
        return LedgerInvalid(
            f"the record {self._path.name} of the last verified sequence is damaged; an older set "
            "could run without it: see which sequence the other replicas run, and delete the "
            "file only if the newest signed set is the one to run"
        )
