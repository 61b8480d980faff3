"""Admin writes: compute on the pristine encoder, publish with compare-and-set, wait for the swap.

Runs on the caller's thread. Nothing here touches what requests run under: the store is changed,
and this replica follows it like every other one.
"""

import dataclasses
from collections.abc import Callable
from contextlib import suppress

from edits.errors import HeadMoved, RolloutRefused
from edits.evaluation.gate import GateReport
from edits.manifests import ConceptEdit, RevisionContent
from edits.publication import Admission, Gatekeeper
from edits.store import ANY_HEAD, Fence, Revision, RevisionStore, Rollout, SignedBy
from service.delivery import Deliverer, Delivery, Published
from service.errors import DirectoryOwnsEdits, NotReady, SignaturesRequired
from service.own_thread import in_own_thread
from service.snapshot import BuiltContent, SnapshotBuilder
from service.trust import SetTrust

__all__ = ["Publisher"]

_ATTEMPTS = 5


class Publisher:
    """Turns admin calls into revisions. Thread-safe: the store's compare-and-set decides."""

    def __init__(
        self,
        store: RevisionStore,
        builder: SnapshotBuilder,
        gatekeeper: Gatekeeper,
        deliverer: Deliverer,
        *,
        directory_owns_edits: bool,
        trust: SetTrust | None = None,
    ) -> None:
        self._store = store
        self._builder = builder
        self._gatekeeper = gatekeeper
        self._deliverer = deliverer
        self._directory_owns_edits = directory_owns_edits
        self._trust = trust

    def preview(self, edit: ConceptEdit) -> tuple[BuiltContent, GateReport | None]:
        """The head's set with `edit`, computed and not published. Raises as `add` does."""
        admission = self._admit(self._head().content, edit)
        return self._builder.build(self._bound(admission.content)), admission.report

    def add(
        self, edit: ConceptEdit, *, author: str, expected_head: int | None, delivery: Delivery
    ) -> Published:
        """Publish the head's set with `edit` in it, and wait as `delivery` says.

        With `expected_head` another head is refused; without, the change is made again on the
        head that won. Raises GateRefused, EditRefused, EditConflict, HeadMoved, StoreError,
        NotReady, DirectoryOwnsEdits, or ActivationFailed when this replica cannot run it.
        """

        def admitted(content: RevisionContent) -> tuple[RevisionContent, GateReport | None]:
            admission = self._admit(content, edit)
            return admission.content, admission.report

        return self._change(
            admitted,
            author=author,
            reason=edit.metadata.reason or f"publish {edit.name}",
            expected_head=expected_head,
            delivery=delivery,
        )

    def remove(
        self, name: str, *, author: str, expected_head: int | None, delivery: Delivery
    ) -> Published:
        """Publish the head's set without that edit. Raises EditNotFound, else as `add`."""
        return self._change(
            lambda content: (content.without_edit(name), None),
            author=author,
            reason=f"withdraw {name}",
            expected_head=expected_head,
            delivery=delivery,
        )

    def define_policy(
        self,
        name: str,
        edits: tuple[str, ...],
        *,
        author: str,
        reason: str,
        expected_head: int | None,
        delivery: Delivery,
    ) -> Published:
        """Publish the head's set with that policy. Raises ManifestInvalid, else as `remove`."""
        return self._change(
            lambda content: (content.with_policy(name, edits), None),
            author=author,
            reason=reason or f"policy {name}",
            expected_head=expected_head,
            delivery=delivery,
        )

    def remove_policy(
        self, name: str, *, author: str, expected_head: int | None, delivery: Delivery
    ) -> Published:
        """Publish the head's set without that policy. Raises PolicyNotFound, else as above."""
        return self._change(
            lambda content: (content.without_policy(name), None),
            author=author,
            reason=f"take out policy {name}",
            expected_head=expected_head,
            delivery=delivery,
        )

    def roll_back(
        self, to: int, *, author: str, reason: str, expected_head: int | None, delivery: Delivery
    ) -> Published:
        """Publish the content of `to` anew. Raises RevisionNotFound, else as `add`.

        It goes to all replicas, whatever plan there is: RolloutRefused.
        """
        self._require_store_mode()
        if delivery.plan is not None:
            raise RolloutRefused("a roll back goes to all replicas at once", param="canary")
        return self._deliverer.roll_back(
            to,
            self._builder.build(self._store.revision(to).content),
            delivery,
            author=author,
            reason=reason or f"roll back to revision {to}",
            expected_head=ANY_HEAD if expected_head is None else expected_head,
        )

    def promote(self, *, reason: str, seconds: float | None) -> tuple[Rollout, Fence | None]:
        """Make the revision on trial the head now; with `seconds` wait so long for the fence.

        Raises RolloutRefused, DirectoryOwnsEdits, StoreError.
        """
        self._refuse_beside_directory()
        return self._deliverer.promote(reason=reason, seconds=seconds)

    def halt(self, *, reason: str) -> Rollout:
        """Take the revision on trial back, whoever began it. Raises RolloutRefused, StoreError."""
        return self._deliverer.halt(reason=reason)

    def publish_signed(
        self,
        content: RevisionContent,
        envelope: bytes,
        *,
        author: str,
        reason: str,
        expected_head: int | None,
        delivery: Delivery,
    ) -> Published:
        """Publish a whole set with its signatures, and wait as `delivery` says.

        Raises TrustError, SignaturesRequired without trusted keys, EditRefused, HeadMoved,
        StoreError, DirectoryOwnsEdits, or ActivationFailed.
        """
        self._refuse_beside_directory()
        trust = self._trust
        if trust is None:
            raise SignaturesRequired(
                "this service has no trusted keys (QUICKFIX_TRUSTED_KEYS) to verify a set with; "
                "publish manifests at /admin/edits"
            )

        def once() -> Published:
            head, now = self._store.head(), self._store.now()
            signed = trust.verify(content.digest(), envelope, now=now)
            if head is not None:
                # This replica's ledger may be behind the head, which no older set may replace.
                stored = self._store.envelope(head.number)
                trust.require_after_head(signed, head.digest, stored)
            built = self._builder.build(content)
            statement = signed.verified.statement
            seen = None if head is None else head.number
            return self._deliverer.publish(
                built,
                None,
                delivery,
                author=author,
                reason=reason or f"signed set, sequence {statement.sequence}",
                base=seen if expected_head is None else expected_head,
                signed=SignedBy(envelope, statement.expires),
            )

        return _until_it_wins(once, again=expected_head is None)

    def _change(
        self,
        change: Callable[[RevisionContent], tuple[RevisionContent, GateReport | None]],
        *,
        author: str,
        reason: str,
        expected_head: int | None,
        delivery: Delivery,
    ) -> Published:
        self._require_store_mode()

        def once() -> Published:
            head = self._head()
            content, gate = change(head.content)
            built = self._builder.build(self._bound(content))
            return self._deliverer.publish(
                built,
                gate,
                delivery,
                author=author,
                reason=reason,
                base=head.number if expected_head is None else expected_head,
            )

        return _until_it_wins(once, again=expected_head is None)

    def _admit(self, content: RevisionContent, edit: ConceptEdit) -> Admission:
        return in_own_thread(lambda: self._gatekeeper.admit(content, edit))

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
        self._refuse_beside_directory()
        if self._trust is not None:
            raise SignaturesRequired(
                "this service runs signed sets only (QUICKFIX_TRUSTED_KEYS): compose and sign the "
                "set, and publish it at /admin/revisions"
            )

    def _refuse_beside_directory(self) -> None:
        if self._directory_owns_edits:
            raise DirectoryOwnsEdits(
                "edits of this service come from a directory of manifests (QUICKFIX_EDITS_DIR); "
                "change the files there instead"
            )


def _until_it_wins(once: Callable[[], Published], *, again: bool) -> Published:
    """`once`, and if the head moved meanwhile, on the head that won. Raises HeadMoved."""
    for _ in range(_ATTEMPTS - 1 if again else 0):
        with suppress(HeadMoved):
            return once()
    return once()
