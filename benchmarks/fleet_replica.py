"""One replica process of `benchmarks.fleet`: the service's own parts around a small model."""

import logging
import signal
import threading
from typing import Any

import torch

from edits.manifests import RevisionContent
from edits.method import Editor
from edits.store import RevisionStore
from service.activation import Activator
from service.generation.encoder import PromptEncoder
from service.reconcile import Reconciler
from service.snapshot import SnapshotBuilder
from tests.tiny_pipeline import build_pipeline

POLL_SECONDS = 1.0  # the service's default; LISTEN is what should be fast


def make_pipeline() -> Any:
    """The small model of every replica."""
    torch.set_num_threads(1)
    return build_pipeline("sd-1.x")


# Made once, where the replicas are forked from: a restart is that of the store and the edits.
_PIPELINE = make_pipeline()


def replica(url: str, name: str) -> None:
    """One replica until it is killed or told to end."""
    logging.disable(logging.CRITICAL)
    pipeline = _PIPELINE
    editor = Editor(pipeline)
    prompts = PromptEncoder(pipeline.tokenizer, device=torch.device("cpu"), dtype=torch.float32)
    store = RevisionStore.open(url)
    builder = SnapshotBuilder(pipeline.text_encoder, editor, prompts)
    activator = Activator(store, builder, replica=name, host="here", initial=RevisionContent())
    reconciler = Reconciler(activator, None, store, poll_seconds=POLL_SECONDS)
    reconciler.start()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    reconciler.stop()
    store.close()
