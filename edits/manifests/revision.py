"""What a revision says: a set of concept edits and the policies over them, as one value.

A policy is a named subset of the edits; every request runs under exactly one. `default` always
exists, and a mandatory edit is in every policy.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from edits.errors import (
    EditConflict,
    EditNotFound,
    FingerprintMismatch,
    ManifestInvalid,
    PolicyNotFound,
)
from edits.manifests.canonical import canonical_json, digest
from edits.manifests.parse import parse_manifest
from edits.manifests.schema import Choice, ConceptEdit

DEFAULT_POLICY = "default"

_HEADER = {"apiVersion": "quickfix/v1", "kind": "RevisionContent"}
_KEYS = {*_HEADER, "edits", "fingerprint", "policies"}
_OPTIONAL_KEYS = {"choices"}
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_FINGERPRINT = re.compile(r"(sha256:[0-9a-f]{64})?")


@dataclass(frozen=True, slots=True)
class RevisionContent:
    """An immutable set of edits with its policies; `fingerprint` is the base model's, or "".

    `choices` holds, by the edit's name, what was chosen for it where its manifest left it open.

    Edits are kept sorted by name, and so are the names inside a policy: two contents are equal
    exactly when they mean the same. Without a `default` policy, `default` is all edits.

    Raises ManifestInvalid when a name stands twice, or a policy names an edit that is not there or
    leaves out a mandatory one; FingerprintMismatch when an edit is bound to another base model.
    """

    edits: tuple[ConceptEdit, ...] = ()
    policies: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    fingerprint: str = ""
    choices: Mapping[str, Choice] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        edits = tuple(sorted(self.edits, key=lambda edit: edit.name))
        everything = tuple(edit.name for edit in edits)
        policies = {DEFAULT_POLICY: everything, **self.policies}
        object.__setattr__(self, "edits", edits)
        object.__setattr__(
            self,
            "policies",
            MappingProxyType(
                {name: tuple(sorted(set(policies[name]))) for name in sorted(policies)}
            ),
        )
        chosen = {name: self.choices[name] for name in sorted(self.choices)}
        object.__setattr__(self, "choices", MappingProxyType(chosen))
        if unknown := sorted(set(chosen) - set(everything)):
            raise ManifestInvalid(
                f"settings are chosen for edits that the revision lacks: {', '.join(unknown)}",
                param="choices",
            )
        self._check_edits()
        self._check_policies()

    def _check_edits(self) -> None:
        if not _FINGERPRINT.fullmatch(self.fingerprint):
            raise ManifestInvalid(
                f"the base fingerprint {self.fingerprint!r:.90} is not 'sha256:' and 64 digits",
                param="fingerprint",
            )
        for before, edit in zip(self.edits, self.edits[1:], strict=False):
            if before.name == edit.name:
                raise ManifestInvalid(
                    f"the edit {edit.name!r} stands twice in one revision; keep one of them",
                    param="metadata.name",
                )
        for edit in self.edits:
            if self.fingerprint and edit.spec.base not in (None, self.fingerprint):
                raise FingerprintMismatch(
                    f"the edit {edit.name!r} is for the base model {edit.spec.base}, "
                    f"this revision is for {self.fingerprint}",
                    param="spec.base",
                )

    def _check_policies(self) -> None:
        known = {edit.name for edit in self.edits}
        mandatory = {edit.name for edit in self.edits if edit.spec.mandatory}
        for policy, names in self.policies.items():
            if not _LABEL.fullmatch(policy):
                raise ManifestInvalid(
                    f"the policy name {policy!r:.80} is not 1 to 63 lower-case letters, digits and "
                    "inner hyphens",
                    param="policies",
                )
            if unknown := sorted(set(names) - known):
                raise ManifestInvalid(
                    f"the policy {policy!r} names edits that the revision lacks: "
                    f"{', '.join(unknown)}",
                    param=f"policies.{policy}",
                )
            if dropped := sorted(mandatory - set(names)):
                raise ManifestInvalid(
                    f"the policy {policy!r} leaves out mandatory edits: {', '.join(dropped)}; "
                    "add them",
                    param=f"policies.{policy}",
                )

    def edit(self, name: str) -> ConceptEdit:
        """The edit of that name. Raises EditNotFound."""
        for edit in self.edits:
            if edit.name == name:
                return edit
        known = ", ".join(edit.name for edit in self.edits) or "none"
        raise EditNotFound(f"no edit {name!r:.80} is active; active: {known}", param="name")

    def with_edit(self, edit: ConceptEdit, choice: Choice | None = None) -> "RevisionContent":
        """This content with `edit` added, or in place of a lower version of the same name.

        `choice` is what was chosen for it.

        A new edit joins `default`, a mandatory one every policy. The same edit again changes
        nothing. Raises EditConflict when the version does not allow the change.
        """
        current = next((active for active in self.edits if active.name == edit.name), None)
        if current == edit:
            return self
        if current and edit.version <= current.version:
            raise EditConflict(
                f"version {current.version} of {edit.name!r} is active with other content; "
                f"publish this one as version {current.version + 1} or higher",
                param="metadata.version",
            )
        policies = {
            policy: (*names, edit.name)
            if edit.spec.mandatory or (current is None and policy == DEFAULT_POLICY)
            else names
            for policy, names in self.policies.items()
        }
        others = tuple(other for other in self.edits if other is not current)
        choices = {name: kept for name, kept in self.choices.items() if name != edit.name}
        if choice is not None:
            choices[edit.name] = choice
        return replace(self, edits=(*others, edit), policies=policies, choices=choices)

    def without_edit(self, name: str) -> "RevisionContent":
        """This content without that edit, in every policy. Raises EditNotFound."""
        withdrawn = self.edit(name)
        return replace(
            self,
            edits=tuple(edit for edit in self.edits if edit is not withdrawn),
            policies={
                policy: tuple(kept for kept in names if kept != name)
                for policy, names in self.policies.items()
            },
            choices={kept: choice for kept, choice in self.choices.items() if kept != name},
        )

    def with_policy(self, name: str, edits: tuple[str, ...]) -> "RevisionContent":
        """This content with that policy, in place of one of the same name."""
        return replace(self, policies={**self.policies, name: edits})

    def without_policy(self, name: str) -> "RevisionContent":
        """This content without that policy. Raises PolicyNotFound; ManifestInvalid for default."""
        if name == DEFAULT_POLICY:
            raise ManifestInvalid(
                f"the policy {name!r} always exists; define it anew instead", param="name"
            )
        if name not in self.policies:
            known = ", ".join(self.policies)
            raise PolicyNotFound(f"no policy {name!r:.80} is there; known: {known}", param="name")
        return replace(self, policies={n: kept for n, kept in self.policies.items() if n != name})

    def canonical_bytes(self) -> bytes:
        """The bytes that are stored, signed and digested."""
        chosen = {name: choice.model_dump(mode="json") for name, choice in self.choices.items()}
        return canonical_json(
            {
                **_HEADER,
                **({"choices": chosen} if chosen else {}),
                "edits": [edit.model_dump(mode="json", by_alias=True) for edit in self.edits],
                "fingerprint": self.fingerprint,
                "policies": {name: list(names) for name, names in self.policies.items()},
            }
        )

    def digest(self) -> str:
        """`sha256:...` of the canonical bytes."""
        return digest(self.canonical_bytes())

    def policy_digest(self, policy: str) -> str:
        """`sha256:...` of what decides a policy's weights: its edits and what was chosen for them.

        Equal for policies with the same edits, in this content or another. Raises KeyError.
        """
        names = set(self.policies[policy])
        own = RevisionContent(
            edits=tuple(edit for edit in self.edits if edit.name in names),
            fingerprint=self.fingerprint if names else "",
            choices={name: chosen for name, chosen in self.choices.items() if name in names},
        )
        return own.digest()

    @classmethod
    def from_bytes(cls, data: bytes) -> "RevisionContent":
        """The content that `canonical_bytes` wrote. Raises ManifestInvalid for other bytes.

        Bytes that an older version wrote stay readable when a field is added: only their form must
        be canonical, the defaults that they lack are filled in.
        """
        try:
            document = json.loads(data)
            canonical = canonical_json(document) == data
        except (ValueError, RecursionError) as error:
            raise ManifestInvalid(f"the revision content is not JSON: {error}") from None
        # One comparison refuses duplicate keys, white space and any second spelling.
        if not canonical or not isinstance(document, dict) or not _has_shape(document):
            raise ManifestInvalid("the revision content is not in canonical form")
        return cls(
            edits=tuple(parse_manifest(edit) for edit in document["edits"]),
            policies={name: tuple(names) for name, names in document["policies"].items()},
            fingerprint=document["fingerprint"],
            choices={
                name: _choice(name, chosen) for name, chosen in document.get("choices", {}).items()
            },
        )


def _has_shape(document: dict[str, Any]) -> bool:
    return (
        set(document) - _OPTIONAL_KEYS == _KEYS
        and isinstance(document.get("choices", {}), dict)
        and all(document[key] == value for key, value in _HEADER.items())
        and isinstance(document["fingerprint"], str)
        and isinstance(document["edits"], list)
        and all(isinstance(edit, dict) for edit in document["edits"])
        and isinstance(document["policies"], dict)
        and all(_are_names(names) for names in document["policies"].values())
    )


def _choice(name: str, document: object) -> Choice:
    try:
        return Choice.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("choices", name, *first["loc"]))
        raise ManifestInvalid(f"{where}: {first['msg']}", param=where) from None


def _are_names(names: object) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)
