"""Admin writes: compute on the pristine encoder, publish with compare-and-set, wait for the swap.

Runs on the caller's thread. Nothing here touches what requests run under: the store is changed,
and this replica follows it like every other one.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

from edits.errors import HeadMoved
from edits.evaluation.gate import GateReport
from edits.manifests import ConceptEdit, RevisionContent
from edits.publication import Gatekeeper
from edits.store import Revision, RevisionStore
from service.activation import Activator
from service.errors import DirectoryOwnsEdits, NotReady
from service.reconcile import Reconciler
from service.snapshot import BuiltContent, SnapshotBuilder

__all__ = ["Published", "Publisher"]

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Published:
    """A revision that this replica runs, and how it came about."""

    revision: Revision
    built: BuiltContent
    gate: GateReport | None  # None: nothing was added
    activation_seconds: float  # from the call of the store to the reference assignment


class Publisher:
    """Turns admin calls into revisions. Thread-safe: the store's compare-and-set decides."""

    def __init__(
        self,
        store: RevisionStore,
        builder: SnapshotBuilder,
        gatekeeper: Gatekeeper,
        activator: Activator,
        reconciler: Reconciler,
        *,
        directory_owns_edits: bool,
    ) -> None:
        self._store = store
        self._builder = builder
        self._gatekeeper = gatekeeper
        self._activator = activator
        self._reconciler = reconciler
        self._directory_owns_edits = directory_owns_edits

    def preview(self, edit: ConceptEdit) -> tuple[BuiltContent, GateReport | None]:
        """The head's set with `edit`, computed and not published. Raises as `add` does."""
        admission = self._gatekeeper.admit(self._head().content, edit)
        return self._builder.build(self._bound(admission.content)), admission.report

    def add(
        self, edit: ConceptEdit, *, author: str, expected_head: int | None, wait: float
    ) -> Published:
        """Publish the head's set with `edit` in it, and wait until this replica runs it.

        With `expected_head` another head is refused; without, the change is made again on the
        head that won. Raises GateRefused, EditRefused, EditConflict, HeadMoved, StoreError,
        NotReady, DirectoryOwnsEdits, or ActivationFailed after `wait` seconds.
        """

        def admitted(content: RevisionContent) -> tuple[RevisionContent, GateReport | None]:
            admission = self._gatekeeper.admit(content, edit)
            return admission.content, admission.report

        return self._change(
            admitted,
            author=author,
            reason=edit.metadata.reason or f"publish {edit.name}",
            expected_head=expected_head,
            wait=wait,
        )

    def remove(
        self, name: str, *, author: str, expected_head: int | None, wait: float
    ) -> Published:
        """Publish the head's set without that edit. Raises EditNotFound, else as `add`."""
        return self._change(
            lambda content: (content.without_edit(name), None),
            author=author,
            reason=f"withdraw {name}",
            expected_head=expected_head,
            wait=wait,
        )

    def define_policy(
        self,
        name: str,
        edits: tuple[str, ...],
        *,
        author: str,
        reason: str,
        expected_head: int | None,
        wait: float,
    ) -> Published:
        """Publish the head's set with that policy. Raises ManifestInvalid, else as `remove`."""
        return self._change(
            lambda content: (content.with_policy(name, edits), None),
            author=author,
            reason=reason or f"policy {name}",
            expected_head=expected_head,
            wait=wait,
        )

    def remove_policy(
        self, name: str, *, author: str, expected_head: int | None, wait: float
    ) -> Published:
        """Publish the head's set without that policy. Raises PolicyNotFound, else as above."""
        return self._change(
            lambda content: (content.without_policy(name), None),
            author=author,
            reason=f"take out policy {name}",
            expected_head=expected_head,
            wait=wait,
        )

    def roll_back(self, to: int, *, author: str, reason: str, wait: float) -> Published:
        """Publish the content of `to` anew. Raises RevisionNotFound, else as `add`."""
        self._require_store_mode()
        built = self._builder.build(self._store.revision(to).content)
        started = time.perf_counter()
        revision = self._store.rollback(
            to, author=author, reason=reason or f"roll back to revision {to}"
        )
        return self._follow(revision, built, None, started, wait)

    def _change(
        self,
        change: Callable[[RevisionContent], tuple[RevisionContent, GateReport | None]],
        *,
        author: str,
        reason: str,
        expected_head: int | None,
        wait: float,
    ) -> Published:
        self._require_store_mode()
        for attempt in range(1, _ATTEMPTS + 1):
            head = self._head()
            content, gate = change(head.content)
            built = self._builder.build(self._bound(content))
            started = time.perf_counter()
            try:
                revision = self._store.publish_and_activate(
                    built.content,
                    author=author,
                    reason=reason,
                    expected_head=head.number if expected_head is None else expected_head,
                )
            except HeadMoved:
                if expected_head is not None or attempt == _ATTEMPTS:
                    raise
                continue
            return self._follow(revision, built, gate, started, wait)
        raise AssertionError("unreachable")

    def _follow(
        self,
        revision: Revision,
        built: BuiltContent,
        gate: GateReport | None,
        started: float,
        wait: float,
    ) -> Published:
        self._reconciler.wake()
        self._activator.wait_for(revision.number, wait)
        return Published(revision, built, gate, time.perf_counter() - started)

    def _head(self) -> Revision:
        head = self._store.head()
        if head is None:
            raise NotReady("the store has no revision yet")
        return head

    def _bound(self, content: RevisionContent) -> RevisionContent:
        """The content for this base model; an empty set fits every model."""
        fingerprint = self._builder.fingerprint if content.edits else ""
        return dataclasses.replace(content, fingerprint=fingerprint)

    def _require_store_mode(self) -> None:
        if self._directory_owns_edits:
            raise DirectoryOwnsEdits(
                "edits of this service come from a directory of manifests (QUICKFIX_EDITS_DIR); "
                "change the files there instead"
            )
