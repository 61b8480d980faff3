"""What of a revision store is exported: the edits of one policy, with what was chosen for them."""

from dataclasses import dataclass
from typing import Any

from edits.errors import FingerprintMismatch, PolicyNotFound, QuickFixError, RevisionNotFound
from edits.manifests import ConceptEdit
from edits.store import Revision
from edits.store_option import open_existing


@dataclass(frozen=True)
class StoredEdits:
    """The edits of one policy of a stored revision; they are solved with its stored choices."""

    revision: Revision
    policy: str

    @classmethod
    def read(cls, url: str, number: int | None, policy: str) -> "StoredEdits":
        """Of the head, or of the revision `number`.

        Raises StoreUnavailable, RevisionNotFound, StoreCorrupt, PolicyNotFound; QuickFixError for a
        policy without edits.
        """
        with open_existing(url) as log:
            revision = log.head() if number is None else log.revision(number)
        if revision is None:
            raise RevisionNotFound("the store has no head yet; name a --revision", param="revision")
        policies = revision.content.policies
        if policy not in policies:
            raise PolicyNotFound(
                f"revision {revision.number} has no policy {policy!r:.80}; it has "
                f"{', '.join(policies)}",
                param="policy",
            )
        if not policies[policy]:
            raise QuickFixError(
                f"the policy {policy!r} of revision {revision.number} has no edits: there is "
                "nothing to export; name another one",
                param="policy",
            )
        return cls(revision, policy)

    @property
    def edits(self) -> tuple[ConceptEdit, ...]:
        """The policy's edits, sorted by name."""
        content = self.revision.content
        return tuple(content.edit(name) for name in content.policies[self.policy])

    def require_base(self, fingerprint: str) -> None:
        """Raise FingerprintMismatch if the revision is for another base model than this one."""
        base = self.revision.content.fingerprint
        if base not in ("", fingerprint):
            raise FingerprintMismatch(
                f"revision {self.revision.number} is for base model {base}, the loaded one is "
                f"{fingerprint}; name the model that serves it, pristine and in its dtype "
                "(--model, --dtype)",
                param="model",
            )

    def document(self) -> dict[str, Any]:
        """Which revision it is, as JSON."""
        return {
            "revision": self.revision.number,
            "digest": self.revision.digest,
            "policy": self.policy,
        }
