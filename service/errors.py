"""What the service refuses, and the one table from error class to HTTP status and wire type.

QuickFixError (edits.errors)
├── SettingsInvalid      a variable is unknown or out of range; only at start
├── TokensInvalid        the tokens file cannot be read or breaks its schema; only at start
├── ApiKeysInvalid       the API keys file, likewise
├── BackendUnavailable   not the provider that was asked for; only at start
├── BackendMismatch      other numbers than torch's; only at start
├── RequestInvalid       a generation request that this model cannot serve
├── PolicyUnknown        the active revision has no policy of that name
├── PolicyForbidden      the API key does not allow that policy
├── Unauthenticated      no token or API key, or one that is not known
├── Forbidden            a known token whose role does not allow the call
├── DirectoryOwnsEdits   admin writes while a directory is the desired state
├── SignaturesRequired   only signed sets run here, or there are no keys for one
├── TraceRunning         another trace runs; only one does at a time
├── TraceNotFound        no trace has that id
├── QueueFull            the waiting room is full; carries `retry_after`
├── AdminBusy            admin calls before this one hang, most likely on the store
├── NotReady             no active revision, or the replica drains
├── ActivationFailed     published, but this replica could not run it in time
├── DeadlineExceeded     the request's time is over
├── Cancelled            nobody waits for the image any more
└── GenerationFailed     the model gave numbers that are not an image
"""

from dataclasses import dataclass
from typing import Any

from edits import errors as library
from edits.errors import QuickFixError

__all__ = ["HTTP_ERRORS", "HTTP_TYPES", "Problem", "describe", "wire_body"]


class SettingsInvalid(QuickFixError):
    """A variable of the environment is unknown or out of range."""


class TokensInvalid(QuickFixError):
    """The tokens file cannot be read or breaks its schema."""


class ApiKeysInvalid(QuickFixError):
    """The API keys file cannot be read or breaks its schema."""


class BackendUnavailable(QuickFixError):
    """The backend does not run on the device that it was asked to run on."""


class BackendMismatch(QuickFixError):
    """The backend's numbers are further from torch's than its bound."""


class RequestInvalid(QuickFixError):
    """The request is well formed, but this model cannot serve it."""


class PolicyUnknown(QuickFixError):
    """The active revision has no policy of that name."""


class PolicyForbidden(QuickFixError):
    """The API key is known and does not allow the policy."""


class Unauthenticated(QuickFixError):
    """No bearer token or API key, or one that is not known."""


class Forbidden(QuickFixError):
    """The token is known and its role does not allow the call."""


class DirectoryOwnsEdits(QuickFixError):
    """Edits come from a directory; admin writes would be undone by it."""


class SignaturesRequired(QuickFixError):
    """This service runs signed sets only, or has no keys to verify one with."""


class TraceRunning(QuickFixError):
    """Another trace runs, and only one does at a time."""


class TraceNotFound(QuickFixError):
    """No trace has that id."""


class QueueFull(QuickFixError):
    """The waiting room is full."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AdminBusy(QuickFixError):
    """No place for one more admin call became free in time; this one did nothing."""


class NotReady(QuickFixError):
    """The replica has no active revision, or it drains."""


class ActivationFailed(QuickFixError):
    """The revision is published, and this replica does not run it."""


class DeadlineExceeded(QuickFixError):
    """The request's deadline has passed."""


class Cancelled(QuickFixError):
    """The client left; no one reads this answer."""


class GenerationFailed(QuickFixError):
    """The model gave numbers that are not an image."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as the wire shows it."""

    status: int
    type: str
    message: str
    param: str | None = None
    retry_after: int | None = None  # seconds


HTTP_ERRORS: dict[type[QuickFixError], tuple[int, str]] = {
    library.ManifestInvalid: (422, "manifest_invalid"),
    library.SiteUnknown: (422, "site_unknown"),
    library.FingerprintMismatch: (422, "fingerprint_mismatch"),
    library.ConceptUntraceable: (422, "concept_untraceable"),
    library.NonFinite: (422, "non_finite"),
    library.GateRefused: (422, "gate_refused"),
    library.EditRefused: (422, "edit_refused"),
    library.TracePromptsInvalid: (422, "trace_prompts_invalid"),
    library.PipelineUntraceable: (422, "pipeline_untraceable"),
    library.TraceSiteUnknown: (422, "trace_site_unknown"),
    library.TraceInvalid: (422, "trace_invalid"),
    library.TraceConflict: (409, "trace_conflict"),
    library.TraceError: (422, "trace_error"),
    library.StatementInvalid: (422, "statement_invalid"),
    library.EnvelopeInvalid: (422, "envelope_invalid"),
    library.SignatureInvalid: (422, "signature_invalid"),
    library.ContentMismatch: (422, "content_mismatch"),
    library.StatementExpired: (422, "statement_expired"),
    library.ReplayRefused: (409, "replay_refused"),
    library.LedgerInvalid: (503, "ledger_invalid"),
    library.TrustError: (422, "trust_error"),
    library.RevisionNotFound: (404, "revision_not_found"),
    library.EditNotFound: (404, "edit_not_found"),
    library.PolicyNotFound: (404, "policy_not_found"),
    library.EditConflict: (409, "edit_conflict"),
    library.HeadMoved: (409, "head_moved"),
    library.RolloutOpen: (409, "rollout_open"),
    library.RolloutRefused: (409, "rollout_refused"),
    library.StoreUnavailable: (503, "store_unavailable"),
    library.StoreCorrupt: (503, "store_corrupt"),
    library.StoreError: (503, "store_error"),
    RequestInvalid: (400, "invalid_request"),
    PolicyUnknown: (400, "policy_unknown"),
    PolicyForbidden: (403, "policy_forbidden"),
    Unauthenticated: (401, "unauthenticated"),
    Forbidden: (403, "forbidden"),
    DirectoryOwnsEdits: (409, "directory_owns_edits"),
    SignaturesRequired: (409, "signatures_required"),
    TraceRunning: (409, "trace_running"),
    TraceNotFound: (404, "trace_not_found"),
    QueueFull: (429, "queue_full"),
    AdminBusy: (503, "admin_busy"),
    NotReady: (503, "not_ready"),
    ActivationFailed: (503, "activation_failed"),
    DeadlineExceeded: (504, "deadline_exceeded"),
    Cancelled: (499, "cancelled"),
    GenerationFailed: (500, "generation_failed"),
}

# What HTTP itself refuses, before any of our code is asked.
HTTP_TYPES: dict[int, str] = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_too_slow",
    413: "body_too_large",
    414: "target_too_long",
    415: "encoding_not_served",
    431: "headers_too_large",
}

# Their messages name files or databases of this machine: the log has them, the wire has not.
_WIRE_MESSAGES: dict[str, str] = {
    "store_unavailable": "the revision store cannot be reached",
    "store_corrupt": "the revision store holds bytes that do not match their digest",
    "store_error": "the revision store failed",
}

_INTERNAL = Problem(500, "internal_error", "the server failed; the request id names the log line")


def describe(error: Exception) -> Problem:
    """The wire form of an error: the table's row of its nearest class, 500 for all others."""
    if not isinstance(error, QuickFixError):
        return _INTERNAL
    for parent in type(error).__mro__:
        row = HTTP_ERRORS.get(parent)
        if row is not None:
            status, kind = row
            retry_after = error.retry_after if isinstance(error, QueueFull) else None
            message = _WIRE_MESSAGES.get(kind, error.message)
            return Problem(status, kind, message, error.param, retry_after)
    return _INTERNAL


def wire_body(problem: Problem) -> dict[str, Any]:
    """The one JSON shape of every error."""
    return {
        "error": {"type": problem.type, "message": problem.message, "param": problem.param},
    }
