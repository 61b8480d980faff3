"""Everything the library refuses, as one tree.

QuickFixError
├── ManifestInvalid          a manifest or a set of them breaks the schema or its rules
├── EditRefused              a well-formed edit that this model cannot carry
│   ├── SiteUnknown          the loaded model has no such linear layer
│   ├── FingerprintMismatch  the manifest was written for another base model
│   ├── ConceptUntraceable   the concept's tokens cannot be found inside a caption
│   ├── NonFinite            captures or the solution contain NaN or infinity
│   └── GateRefused          the edit does less, or harms more, than its manifest accepts
├── ModelLoadError           a pipeline folder or hub id that cannot be loaded
├── GraphsError
│   ├── GraphsDamaged        exported graphs are not those of the model, or not as exported
│   └── GraphsUnexportable   the model or its dtype cannot be exported to ONNX
├── TraceError
│   ├── TracePromptsInvalid  a file of caption pairs breaks its schema or its rules
│   ├── PipelineUntraceable  a pipeline whose parts cannot be observed one by one
│   ├── TraceSiteUnknown     no module, kind or position has that name
│   ├── TraceInvalid         options that make no trace: zero seeds, an empty window
│   └── TraceConflict        the output folder holds another trace
├── TrustError
│   ├── StatementInvalid     a signed statement breaks its form or its bounds
│   ├── EnvelopeInvalid      an envelope breaks its form, its limits or its type
│   ├── SignatureInvalid     fewer good signatures of trusted keys than the threshold
│   ├── ContentMismatch      the statement was signed for another set than the one at hand
│   ├── StatementExpired     the statement's last moment has passed
│   ├── ReplayRefused        an older statement, or other content under a sequence seen before
│   ├── TrustedKeysInvalid   the trusted keys file cannot be read or breaks its schema
│   ├── SigningKeyInvalid    a private key that cannot be read, decrypted or written
│   └── LedgerInvalid        the record of the last verified sequence cannot be read or written
└── StoreError
    ├── RevisionNotFound     no revision with that number
    ├── EditNotFound         the head has no edit with that name
    ├── PolicyNotFound       the head has no policy with that name
    ├── EditConflict         same name, and the version does not allow the change
    ├── HeadMoved            the head is not the one the caller expected
    ├── RolloutOpen          another revision is on trial, and the change is not urgent
    ├── RolloutRefused       a rollout that cannot begin, or none to decide on
    ├── StoreUnavailable     the database cannot be opened or reached
    └── StoreCorrupt         stored bytes do not match their digest
"""


class QuickFixError(Exception):
    """Base of all errors that the library raises on purpose."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class ManifestInvalid(QuickFixError):
    """A manifest breaks the schema; `param` is the dotted path of the field."""


class EditRefused(QuickFixError):
    """The edit is well formed but this model cannot carry it."""


class SiteUnknown(EditRefused):
    """The loaded model has no linear layer at that path."""


class FingerprintMismatch(EditRefused):
    """The manifest names another base model than the loaded one."""


class ConceptUntraceable(EditRefused):
    """The concept's tokens do not stand inside the tokenised caption."""


class NonFinite(EditRefused):
    """A capture or a solution contains NaN or infinity."""


class GateRefused(EditRefused):
    """The edit does less, or harms more, than its manifest accepts; the message has the figures."""


class ModelLoadError(QuickFixError):
    """A pipeline cannot be loaded from that folder or hub id."""


class GraphsError(QuickFixError):
    """ONNX graphs of a model were refused or cannot be made."""


class GraphsDamaged(GraphsError):
    """Exported graphs are those of another model, or their bytes do not match their digest."""


class GraphsUnexportable(GraphsError):
    """The model, or its dtype, cannot be exported to ONNX."""


class TraceError(QuickFixError):
    """A causal trace was refused or failed."""


class TracePromptsInvalid(TraceError):
    """A file of caption pairs breaks its schema; `param` is the dotted path of the field."""


class PipelineUntraceable(TraceError):
    """The pipeline's parts cannot be observed and restored one by one."""


class TraceSiteUnknown(TraceError):
    """The pipeline has no module, kind or position of that name."""


class TraceInvalid(TraceError):
    """The options make no trace."""


class TraceConflict(TraceError):
    """The output folder holds another trace."""


class TrustError(QuickFixError):
    """A signed set is not to be trusted, or what decides it cannot be read."""


class StatementInvalid(TrustError):
    """A signed statement breaks its form or its bounds."""


class EnvelopeInvalid(TrustError):
    """An envelope breaks its form, its limits or its payload type."""


class SignatureInvalid(TrustError):
    """Fewer good signatures of trusted keys than the threshold; the message has the names."""


class ContentMismatch(TrustError):
    """The statement was signed for another set than the one at hand."""


class StatementExpired(TrustError):
    """The statement's last moment has passed."""


class ReplayRefused(TrustError):
    """A statement older than the last verified one, or its sequence with other content."""


class TrustedKeysInvalid(TrustError):
    """The trusted keys file cannot be read or breaks its schema; `param` is the field."""


class SigningKeyInvalid(TrustError):
    """A private key cannot be read, decrypted or written."""


class LedgerInvalid(TrustError):
    """The record of the last verified sequence cannot be read or written."""


class StoreError(QuickFixError):
    """The revision store refused or failed."""


class RevisionNotFound(StoreError):
    """No revision has that number."""


class EditNotFound(StoreError):
    """The set has no edit with that name."""


class PolicyNotFound(StoreError):
    """The set has no policy with that name."""


class EditConflict(StoreError):
    """An edit of that name exists and its version forbids the change."""


class HeadMoved(StoreError):
    """The head is not the revision that the caller expected."""

    def __init__(self, message: str, *, expected: int | None, actual: int | None) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class RolloutOpen(StoreError):
    """A revision is on trial on some replicas; only an urgent change may overtake it."""


class RolloutRefused(StoreError):
    """A rollout that cannot begin, or none is there to decide on."""


class StoreUnavailable(StoreError):
    """The database cannot be opened or reached."""


class StoreCorrupt(StoreError):
    """Stored bytes do not match the digest beside them."""
