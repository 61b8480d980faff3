"""The file kind `Policies`: what a directory says about policies beside its manifests."""

from collections.abc import Mapping

from edits.errors import ManifestInvalid

KIND = "Policies"
_HEADER = {"apiVersion": "quickfix/v1", "kind": KIND}


def read_policies(document: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """The policies of a document of this kind. Raises ManifestInvalid.

    Only its form is checked: which names and edits may be is the revision's rule.
    """
    unknown = sorted(set(document) - {*_HEADER, "policies"})
    if unknown or document.get("apiVersion") != _HEADER["apiVersion"]:
        wrong = unknown[0] if unknown else "apiVersion"
        raise ManifestInvalid(
            f"{wrong}: a file of policies holds 'apiVersion: quickfix/v1', 'kind: {KIND}' and "
            "'policies', nothing else",
            param=wrong,
        )
    policies = document.get("policies")
    if not isinstance(policies, Mapping):
        raise ManifestInvalid("policies: must be a mapping of names to lists", param="policies")
    return {str(name): _edits(str(name), edits) for name, edits in policies.items()}


def _edits(policy: str, names: object) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        where = f"policies.{policy:.63}"
        raise ManifestInvalid(f"{where}: must be a list of names of edits", param=where)
    return tuple(names)
