"""A directory of manifests as the desired state, as a mounted ConfigMap or a git checkout is.

The directory is published when IT changes (and once at start), not whenever it differs from the
head: replicas see a ConfigMap change at different times, and one that still has the old files
must not publish them over the new ones. N replicas that see the same files publish one revision,
because the same content is the same revision.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from edits.errors import EditConflict, EditRefused, ManifestInvalid, QuickFixError
from edits.manifests import (
    DEFAULT_POLICY,
    ConceptEdit,
    ManifestSet,
    RevisionContent,
    digest,
    directory_digest,
    load_directory,
    load_signed_set,
)
from edits.publication import Gatekeeper
from edits.store import AuditEvent, Revision, RevisionStore, SignedBy
from service import metrics
from service.errors import describe
from service.own_thread import in_own_thread
from service.snapshot import SnapshotBuilder
from service.trust import SetTrust

__all__ = ["DesiredState", "DirectoryStatus"]

_log = logging.getLogger("quickfix.directory")


@dataclass(frozen=True, slots=True)
class DirectoryStatus:
    """What became of the files that were last seen."""

    edits: tuple[str, ...] = ()
    last_sync_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None


class DesiredState:
    """Publishes the content of one directory. `sync` belongs to one thread."""

    def __init__(
        self,
        folder: Path,
        store: RevisionStore,
        builder: SnapshotBuilder,
        gatekeeper: Gatekeeper,
        *,
        replica: str,
        trust: SetTrust | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._folder = folder
        self._store = store
        self._builder = builder
        self._gatekeeper = gatekeeper
        self._replica = replica
        self._trust = trust
        self._clock = clock
        self.meanwhile: Callable[[], object] = lambda: None  # again and again while the gate works
        self._settled: str | None = None  # digest of the files that need no more work
        self._status = DirectoryStatus()
        self._settled_status = self._status  # what became of those files

    @property
    def status(self) -> DirectoryStatus:
        """An immutable view for the status route."""
        return self._status

    def sync(self) -> None:
        """Publish the directory if it changed. A bad file leaves the head as it is."""
        try:
            seen = directory_digest(self._folder)
            if seen == self._settled:
                # Back to them: what has failed since, as an unreadable moment, is over.
                self._show(self._settled_status)
                return
            edits = (
                self._publish_manifests()
                if self._trust is None
                else self._publish_signed(self._trust)
            )
        except (ManifestInvalid, EditRefused) as error:
            # The same bytes stay wrong: look again when they change.
            self._failed(error)
            self._settled, self._settled_status = seen, self._status
        except OSError as error:
            self._failed(ManifestInvalid(f"the directory cannot be read: {error.strerror}"))
        except (QuickFixError, RuntimeError) as error:
            self._failed(error)  # the store may come back, keys may change: try at the next poll
        else:
            self._show(DirectoryStatus(edits=edits, last_sync_at=self._clock()))
            self._settled, self._settled_status = seen, self._status
            metrics.DIRECTORY_SYNCS.labels("ok").inc()

    def _publish_signed(self, trust: SetTrust) -> tuple[str, ...]:
        """The signed set in the directory, exactly as it was signed; the names of its edits."""
        files = load_signed_set(self._folder)
        head, now = self._store.head(), self._store.now()
        stored = None if head is None else self._store.envelope(head.number)
        signed = trust.verify(digest(files.content), files.envelope, now=now)
        content = RevisionContent.from_bytes(files.content)
        if stored != files.envelope:
            if head is not None:
                # A replica whose volume is behind must not put the older set over the newer one.
                trust.require_after_head(signed, head.digest, stored)
            self._builder.build(content)  # what this model cannot carry is never published
            statement = signed.verified.statement
            self._became(
                self._store.publish_and_activate(
                    content,
                    author=self._replica,
                    reason=f"edits directory changed: sequence {statement.sequence}",
                    expected_head=None if head is None else head.number,
                    signed=SignedBy(files.envelope, statement.expires),
                )
            )
        return tuple(edit.name for edit in content.edits)

    def _publish_manifests(self) -> tuple[str, ...]:
        wanted = load_directory(self._folder)
        self._publish(wanted)
        return tuple(edit.name for edit in wanted.edits)

    def _publish(self, wanted: ManifestSet) -> None:
        head = self._store.head()
        if head is not None:
            _refuse_changed_without_new_version(wanted.edits, head)
        content = self._admitted(wanted, RevisionContent() if head is None else head.content)
        if head is not None and head.digest == content.digest():
            return
        self._builder.build(content)  # what this model cannot carry is never published
        self._became(
            self._store.publish_and_activate(
                content,
                author=self._replica,
                reason="edits directory changed",
                expected_head=None if head is None else head.number,
            )
        )

    def _became(self, revision: Revision) -> None:
        _log.info("published revision=%d edits=%d", revision.number, len(revision.content.edits))
        # The head has moved: what cannot be recorded now must not look like a refused directory.
        try:
            self._store.record(
                AuditEvent(
                    self._replica,
                    "directory",
                    "publish",
                    f"revision {revision.number}",
                    "ok",
                    revision.digest,
                )
            )
        except QuickFixError as error:
            metrics.AUDIT_FAILURES.inc()
            _log.error("not recorded action=publish error=%s", type(error).__name__)

    def _admitted(self, wanted: ManifestSet, published: RevisionContent) -> RevisionContent:
        """The directory's set; what is new in it has passed the gate beside the rest of it.

        An edit that is published already keeps what was chosen for it.
        """
        edits = wanted.edits
        # Before the gate, which takes its time: may there be such policies over such edits?
        RevisionContent(edits, wanted.policies)
        before = {edit.name: edit for edit in published.edits}
        kept = tuple(edit for edit in edits if before.get(edit.name) == edit)
        names = {edit.name for edit in kept}
        # A mandatory edit joins these, and the gate looks at it there, too.
        policies = {
            policy: tuple(name for name in held if name in names)
            for policy, held in wanted.policies.items()
            if policy != DEFAULT_POLICY
        }
        chosen = {name: choice for name, choice in published.choices.items() if name in names}
        content = RevisionContent(kept, policies, choices=chosen)
        for edit in edits:
            if edit.name not in names:
                admit = partial(self._gatekeeper.admit, content, edit)
                content = in_own_thread(admit, meanwhile=self.meanwhile).content
                self.meanwhile()
        # Last: the gate examines an edit beside all the others, whatever `default` is to be.
        return replace(
            content,
            policies={**content.policies, **wanted.policies},
            fingerprint=self._builder.fingerprint if edits else "",
        )

    def _failed(self, error: Exception) -> None:
        problem = describe(error)
        reason = f"{problem.type}: {problem.message}"
        if self._status.last_error != reason:
            metrics.DIRECTORY_SYNCS.labels("failed").inc()
            _log.error("directory refused reason=%s", reason)
        self._show(
            DirectoryStatus(
                edits=self._status.edits,
                last_sync_at=self._status.last_sync_at,
                last_error=reason,
                last_error_at=self._clock(),
            )
        )

    def _show(self, status: DirectoryStatus) -> None:
        self._status = status
        metrics.DIRECTORY_REFUSED.set(status.last_error is not None)


def _refuse_changed_without_new_version(edits: tuple[ConceptEdit, ...], head: Revision) -> None:
    published = {edit.metadata.name: edit for edit in head.content.edits}
    for edit in edits:
        before = published.get(edit.metadata.name)
        if (
            before is not None
            and before.metadata.version == edit.metadata.version
            and before != edit
        ):
            raise EditConflict(
                f"edit {edit.metadata.name!r} changed but is still version "
                f"{edit.metadata.version}; raise metadata.version",
                param="metadata.version",
            )
