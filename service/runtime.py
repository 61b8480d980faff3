"""The parts of one replica, built in order and stopped in reverse."""

import logging
import socket
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from edits.evaluation.pictures import picture_check
from edits.manifests import RevisionContent
from edits.publication import Gatekeeper
from edits.store import RevisionStore
from service import metrics
from service.activation import Activator
from service.allocator import allocator
from service.api.api_keys import FileApiKeys
from service.api.auth import FileTokens, GeneratedToken, Tokens
from service.delivery import Deliverer
from service.desired_state import DesiredState
from service.gauges import forget_dead_processes
from service.generation.backends import Backend, embedding_shape, load_backend
from service.generation.batch import Batches
from service.generation.decode import MAX_DECODED, Decoder
from service.generation.embed import Embedder
from service.generation.encoder import PromptEncoder
from service.generation.engine import Engine
from service.generation.loop import DenoisingLoop
from service.generation.queue import WaitingRoom
from service.generation.schedulers import Schedulers
from service.generation.warm_up import warm_up
from service.model import ServedModel
from service.publishing import Publisher
from service.reconcile import Reconciler
from service.settings import Settings
from service.snapshot import SnapshotBuilder
from service.trace_check import TraceCheck
from service.tracing import TraceJobs
from service.trust import SetTrust

__all__ = ["Runtime"]

_log = logging.getLogger("quickfix.runtime")

# torch gives the interpreter's lock up in every operation, and whoever computes in Python meanwhile
# keeps it for as long as this. On a GPU, which an operation keeps for microseconds, CPython's 5 ms
# let such a thread stop the loop; on a CPU fewer changes serve more (docs/benchmarks.md, "Beside a
# Python thread").
_GPU_SWITCH_SECONDS = 0.0001


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that the routes need; one per process."""

    settings: Settings
    started_at: datetime
    model: ServedModel
    backend: Backend
    prompts: PromptEncoder
    store: RevisionStore
    builder: SnapshotBuilder
    directory: DesiredState | None
    activator: Activator
    trust: SetTrust | None
    reconciler: Reconciler
    publisher: Publisher
    engine: Engine
    trace_check: TraceCheck
    traces: TraceJobs
    tokens: Tokens
    api_keys: FileApiKeys | None  # None: the public routes need no key

    @classmethod
    def start(cls, settings: Settings) -> Self:
        """Load the model, open the store, activate the head, start the threads.

        On a GPU it sets the interpreter's switch interval, for the whole process.
        Raises ModelLoadError, StoreUnavailable, TokensInvalid, ApiKeysInvalid, GraphsUnexportable,
        BackendUnavailable or BackendMismatch. A head that cannot be activated is no error: the
        replica starts, says why it is not ready, and tries again.
        """
        forget_dead_processes()
        metrics.STARTED_AT.set(time.time())
        metrics.MAX_QUEUE.set(settings.max_queue)
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        tokens: Tokens = (
            FileTokens(settings.tokens_file)
            if settings.tokens_file is not None
            else GeneratedToken(settings.state_dir)
        )
        keys_file = settings.api_keys_file
        api_keys = None if keys_file is None else FileApiKeys(keys_file)
        trust = None
        if settings.trusted_keys is not None:
            trust = SetTrust(settings.trusted_keys, settings.state_dir)
        began = time.monotonic()
        model = ServedModel.load(settings)
        metrics.MODEL_LOAD_SECONDS.set(time.monotonic() - began)
        metrics.MODEL_PARAMETERS.set(model.parameters)
        pipeline = model.pipeline
        backend = load_backend(pipeline, settings)
        if settings.warm_up_seconds:
            native = model.sizes.native
            warm_up(
                backend,
                latents=model.latent_shape(native, native),
                embedding=embedding_shape(pipeline),
                dtype=model.dtype,
                device=model.device,
                rows=2 * settings.max_batch,
                images=min(MAX_DECODED, settings.max_batch),
                seconds=settings.warm_up_seconds,
            )
        prompts = PromptEncoder(pipeline.tokenizer, device=model.device, dtype=model.dtype)
        builder = SnapshotBuilder(
            pipeline.text_encoder,
            model.editor,
            prompts,
            presets=model.defaults.presets,
            edited_unets=backend.supports_edited_unet,
        )
        gatekeeper = Gatekeeper(
            model.editor,
            presets=model.defaults.presets,
            pictures=picture_check(pipeline, model.defaults, settings.model),
        )
        store = RevisionStore.open(settings.store_url)
        directory = None
        if settings.edits_dir is not None:
            directory = DesiredState(
                settings.edits_dir,
                store,
                builder,
                gatekeeper,
                replica=settings.replica,
                trust=trust,
            )
        activator = Activator(
            store,
            builder,
            replica=settings.replica,
            host=socket.gethostname(),
            initial=RevisionContent() if directory is None and trust is None else None,
            max_staleness_seconds=settings.max_staleness_seconds,
            request_seconds=settings.request_timeout_seconds,
            trust=trust,
        )
        room = WaitingRoom(settings.max_queue)
        loop = DenoisingLoop(
            activator.runs,
            room,
            embedder=Embedder(prompts, cache_bytes=settings.embedding_cache_mib * 2**20),
            schedulers=Schedulers(pipeline.scheduler),
            batches=Batches(backend),
            decoder=Decoder(backend, pipeline, max_waiting=2 * settings.max_batch),
            latent_shape=model.latent_shape,
            max_batch=settings.max_batch,
        )
        engine = Engine(
            activator.runs, room, loop, timeout_seconds=settings.request_timeout_seconds
        )
        reconciler = Reconciler(
            activator,
            directory,
            store,
            poll_seconds=settings.poll_seconds,
            after_tick=lambda: _ready(activator, engine),
        )
        publisher = Publisher(
            store,
            builder,
            gatekeeper,
            Deliverer(store, activator, reconciler, given_up=lambda: engine.draining),
            directory_owns_edits=directory is not None,
            trust=trust,
        )
        trace_check = TraceCheck(model, settings.model)
        traces = TraceJobs(
            settings.state_dir / "traces",
            device=str(model.device),
            dtype=settings.dtype,
            threads=settings.threads,
        )
        if model.device.type == "cuda":
            # Not run by the tests without a GPU.
            sys.setswitchinterval(_GPU_SWITCH_SECONDS)
        engine.start()
        reconciler.start()
        _log.info(
            "started model=%s layout=%s backend=%s provider=%s allocator=%s",
            model.name,
            model.layout,
            backend.name,
            backend.provider,
            allocator(),
        )
        return cls(
            settings=settings,
            started_at=datetime.now(UTC),
            model=model,
            backend=backend,
            prompts=prompts,
            store=store,
            builder=builder,
            directory=directory,
            activator=activator,
            trust=trust,
            reconciler=reconciler,
            publisher=publisher,
            engine=engine,
            trace_check=trace_check,
            traces=traces,
            tokens=tokens,
            api_keys=api_keys,
        )

    @property
    def ready(self) -> bool:
        """A revision is active, not too old, and new requests are admitted."""
        return _ready(self.activator, self.engine)

    @property
    def alive(self) -> bool:
        """All threads run on a device that works; what ended one is cured by a restart only."""
        return self.engine.alive and self.reconciler.alive

    def drain(self) -> None:
        """Refuse what is new and what waits, finish what is drawn within the settings' time."""
        self.engine.drain(self.settings.drain_seconds)

    def stop(self) -> None:
        """Stop a running trace, drain, close the store.

        A trace keeps what it has drawn and goes on when it is asked for again.
        """
        self.traces.stop()
        self.drain()
        self.reconciler.stop()
        self.store.close()


def _ready(activator: Activator, engine: Engine) -> bool:
    ready = activator.runs.current is not None and not engine.draining
    metrics.READY.set(ready)
    return ready
