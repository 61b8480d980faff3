"""Every metric of the service, made once.

BentoML runs prometheus_client in its multi-process mode: gauges say how processes are combined,
label sets can never be removed, so no label holds a digest, a prompt, a seed or a revision.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "ACTIVATIONS",
    "ACTIVATION_SECONDS",
    "ACTIVE_EDITS",
    "ACTIVE_POLICIES",
    "ACTIVE_REVISION",
    "ACTIVE_SET_NUMBER",
    "AUDIT_FAILURES",
    "BATCH_SIZE",
    "BATCH_SPLITS",
    "CANARY",
    "CANCELLED",
    "DECODE_SECONDS",
    "DIRECTORY_REFUSED",
    "DIRECTORY_SYNCS",
    "EDITS",
    "EDIT_SECONDS",
    "ENCODE_CACHE",
    "ENCODE_SECONDS",
    "HEAD_READ_AT",
    "MAX_QUEUE",
    "MODEL_LOAD_SECONDS",
    "MODEL_PARAMETERS",
    "QUEUE_DEPTH",
    "QUEUE_WAIT_SECONDS",
    "READY",
    "REJECTED",
    "REQUESTS",
    "REQUEST_SECONDS",
    "RESTARTS",
    "ROLLOUTS",
    "RUNNING",
    "SAFETY_CHECKED",
    "SAFETY_FLAGGED",
    "SET_EXPIRES_AT",
    "SET_PUBLISHED_AT",
    "STARTED_AT",
    "STEP_SECONDS",
    "STORE_READ_AT",
    "TRACES",
    "WANTED_REVISION",
]

# An objective can be read exactly only at a bucket's bound, so the bounds are the objectives.
_REQUEST_BUCKETS: Final = (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 8, 12, 20, 30, 60)
_WAIT_BUCKETS: Final = (0.005, 0.025, *_REQUEST_BUCKETS)
_PHASE_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15),
    *(0.25, 0.5, 1, 2.5, 5),
)

QUEUE_WAIT_SECONDS = Histogram(
    "quickfix_queue_wait_seconds", "From admission to the first step.", buckets=_WAIT_BUCKETS
)
ENCODE_SECONDS = Histogram(
    "quickfix_encode_seconds", "Prompt to embeddings.", buckets=_PHASE_BUCKETS
)
ENCODE_CACHE = Counter(
    "quickfix_encode_cache", "Prompts looked up among embeddings that are held.", ["result"]
)
STEP_SECONDS = Histogram(
    "quickfix_step_seconds", "One denoising step of a batch.", buckets=_PHASE_BUCKETS
)
BATCH_SIZE = Histogram(
    "quickfix_batch_size",
    "Images that took a denoising step together.",
    buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64),
)
BATCH_SPLITS = Counter(
    "quickfix_batch_splits", "Batches that failed and were tried again in halves."
)
DECODE_SECONDS = Histogram(
    "quickfix_decode_seconds", "Latents to the images of a batch.", buckets=_PHASE_BUCKETS
)
REQUEST_SECONDS = Histogram(
    "quickfix_request_seconds",
    "From admission to the answer.",
    ["outcome"],
    buckets=_REQUEST_BUCKETS,
)
REQUESTS = Counter("quickfix_requests", "Generation requests by outcome.", ["outcome"])
REJECTED = Counter("quickfix_rejected", "Generation requests not admitted.", ["reason"])
CANCELLED = Counter("quickfix_cancelled", "Admitted requests given up.", ["cause"])
QUEUE_DEPTH = Gauge("quickfix_queue_depth", "Requests that wait.", multiprocess_mode="livesum")
RUNNING = Gauge("quickfix_running", "Requests being drawn.", multiprocess_mode="livesum")

# livemin and livemax: if processes ever disagree, the pair shows it.
ACTIVE_REVISION = Gauge(
    "quickfix_active_revision", "Revision that requests run under.", multiprocess_mode="livemin"
)
WANTED_REVISION = Gauge(
    "quickfix_wanted_revision",
    "Revision that this replica is to run: the head, or as a canary the one on trial.",
    multiprocess_mode="livemax",
)
ACTIVE_SET_NUMBER = Gauge(
    "quickfix_active_set_number",
    "First 52 bits of the digest of the set that runs: equal where the same set runs.",
    multiprocess_mode="livemin",
)
ACTIVE_EDITS = Gauge(
    "quickfix_active_edits", "Edits of the set that runs.", multiprocess_mode="livemin"
)
ACTIVE_POLICIES = Gauge(
    "quickfix_active_policies", "Policies of the set that runs.", multiprocess_mode="livemin"
)
SET_PUBLISHED_AT = Gauge(
    "quickfix_set_published_timestamp_seconds",
    "When the set that runs was published, in seconds since 1970.",
    multiprocess_mode="livemin",
)
STORE_READ_AT = Gauge(
    "quickfix_store_read_timestamp_seconds",
    "When the store last answered, in seconds since 1970.",
    multiprocess_mode="livemin",
)
HEAD_READ_AT = Gauge(
    "quickfix_head_read_timestamp_seconds",
    "When this replica last was on the head, in seconds since 1970.",
    multiprocess_mode="livemin",
)
SET_EXPIRES_AT = Gauge(
    "quickfix_set_expiry_timestamp_seconds",
    "When the signatures of the set that runs expire, in seconds since 1970; 0: not signed.",
    multiprocess_mode="livemin",
)
CANARY = Gauge(
    "quickfix_canary",
    "Whether this replica runs a revision on trial, and not the head.",
    multiprocess_mode="livemax",
)
ROLLOUTS = Counter(
    "quickfix_rollouts", "Rollouts that this replica has ended, by result.", ["result"]
)
RESTARTS = Counter(
    "quickfix_restarts", "Running requests that started over under an urgent revision."
)
ACTIVATION_SECONDS = Histogram(
    "quickfix_activation_seconds",
    "From a new head read to the reference assignment.",
    buckets=_PHASE_BUCKETS,
)
ACTIVATIONS = Counter("quickfix_activations", "Activations by result.", ["result"])
EDIT_SECONDS = Histogram(
    "quickfix_edit_seconds", "Captions to edited weights.", buckets=_PHASE_BUCKETS
)
EDITS = Counter("quickfix_edits", "Edits computed by result.", ["result"])
DIRECTORY_SYNCS = Counter(
    "quickfix_directory_syncs", "Changes of the edits directory by result.", ["result"]
)
DIRECTORY_REFUSED = Gauge(
    "quickfix_directory_refused",
    "Whether the edits directory, as it is now, is refused or cannot be read.",
    multiprocess_mode="livemax",
)
TRACES = Counter("quickfix_traces", "Causal traces that ended, by result.", ["result"])
AUDIT_FAILURES = Counter("quickfix_audit_failures", "Admin calls that could not be recorded.")

READY = Gauge(
    "quickfix_ready",
    "Whether this replica takes requests, as the readiness probe says.",
    multiprocess_mode="livemin",
)
STARTED_AT = Gauge(
    "quickfix_start_timestamp_seconds",
    "When this process began to load its model, in seconds since 1970.",
    multiprocess_mode="livemax",
)
MODEL_LOAD_SECONDS = Gauge(
    "quickfix_model_load_seconds", "From the start to a loaded model.", multiprocess_mode="livemax"
)
MODEL_PARAMETERS = Gauge(
    "quickfix_model_parameters",
    "Parameters of UNet, VAE and text encoder.",
    multiprocess_mode="livemax",
)
MAX_QUEUE = Gauge(
    "quickfix_max_queue", "Requests that may wait, as configured.", multiprocess_mode="livesum"
)
SAFETY_CHECKED = Counter("quickfix_safety_checked", "Images that the model's safety checker saw.")
SAFETY_FLAGGED = Counter("quickfix_safety_flagged", "Images that it turned black.")

# Series that exist from the start: a rate over a series that appears later misses its first event.
for _outcome in ("ok", "invalid", "rejected", "cancelled", "failed"):
    REQUESTS.labels(_outcome)
    REQUEST_SECONDS.labels(_outcome)
for _reason in ("queue_full", "not_ready"):
    REJECTED.labels(_reason)
for _cause in ("client_left", "deadline", "drain"):
    CANCELLED.labels(_cause)
for _result in ("hit", "miss"):
    ENCODE_CACHE.labels(_result)
for _result in ("ok", "failed"):
    ACTIVATIONS.labels(_result)
    EDITS.labels(_result)
    DIRECTORY_SYNCS.labels(_result)
for _result in ("promoted", "halted"):
    ROLLOUTS.labels(_result)
for _result in ("finished", "failed", "cancelled", "interrupted"):
    TRACES.labels(_result)
