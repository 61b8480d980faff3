"""`quickfix export --store`: what is written is what a service runs of that revision."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from edits.cli import app
from edits.errors import (
    FingerprintMismatch,
    PolicyNotFound,
    QuickFixError,
    RevisionNotFound,
    StoreUnavailable,
)
from edits.manifests import Choice, RevisionContent, catalog_entry
from edits.method import QUICKFIX, resolve
from edits.store import RevisionStore
from edits.workbench import Workbench
from service.generation.encoder import PromptEncoder
from service.snapshot import SnapshotBuilder
from tests.export.compare import DEMO

# Not what the gate would choose today.
STORED = Choice(tokens="last", ridge=3.0, preserve_weight=0.2, pad_weight=1.0)


@pytest.fixture(scope="module")
def bench():
    return Workbench.open(str(DEMO))


@pytest.fixture
def store(bench, tmp_path):
    """Two revisions: a pistol with stored settings, then beer beside it; the first is the head."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    content = RevisionContent().with_edit(catalog_entry("remove-pistol"), STORED)
    first = replace(content, fingerprint=bench.editor.fingerprint)
    second = first.with_edit(catalog_entry("remove-beer"), STORED)
    second = second.with_policy("beer", ("remove-beer",)).with_policy("none", ())
    with RevisionStore.open(url) as log:
        log.activate(log.publish(first, author="ops", reason="").number)
        log.publish(second, author="ops", reason="")
    return url


def export(*words):
    given = ["export", *map(str, words), "--model", str(DEMO), "--json"]
    result = CliRunner().invoke(app, given)
    return result.exception or json.loads(result.stdout)


@pytest.mark.parametrize(
    ("words", "number", "policy", "names"),
    [
        ((), 1, "default", ["remove-pistol@2"]),
        (("--revision", 2), 2, "default", ["remove-beer@1", "remove-pistol@2"]),
        (("--revision", 2, "--policy", "beer"), 2, "beer", ["remove-beer@1"]),
    ],
)
def test_the_exported_weights_are_those_of_a_snapshot_of_the_revision(
    bench, store, tmp_path, words, number, policy, names
):
    out = tmp_path / "served"
    report = export("--store", store, *words, "--format", "folder", "--out", out)
    assert (report["revision"], report["policy"], report["edits"]) == (number, policy, names)
    with RevisionStore.open(store) as log:
        revision = log.revision(number)
    assert report["digest"] == revision.digest
    pipeline = bench.pipeline
    prompts = PromptEncoder(pipeline.tokenizer, device=torch.device("cpu"), dtype=torch.float32)
    builder = SnapshotBuilder(
        pipeline.text_encoder, bench.editor, prompts, presets=bench.defaults.presets
    )
    served = resolve(builder.build(revision.content).encoders[policy], QUICKFIX).weight
    written = load_file(out / "text_encoder" / "model.safetensors")
    (weight,) = (t for name, t in written.items() if name.endswith(f"{QUICKFIX.path[11:]}.weight"))
    assert torch.equal(weight, served)
    anew = bench.editor.compose(bench.gatekeeper.choose([catalog_entry("remove-pistol")]))
    assert report["composition"] != anew.digest, "nothing is chosen anew"


@pytest.mark.parametrize(
    ("words", "kind", "why"),
    [
        (("--revision", 9), RevisionNotFound, "9"),
        (("--policy", "strict"), PolicyNotFound, "no policy 'strict'; it has default"),
        (("--revision", 2, "--policy", "none"), QuickFixError, "has no edits"),
        (("remove-pistol",), QuickFixError, "and not both"),
        (("--dtype", "float16"), FingerprintMismatch, "revision 1 is for base model"),
    ],
)
def test_what_the_store_does_not_hold_for_this_model_is_refused(store, tmp_path, words, kind, why):
    out = tmp_path / "out.safetensors"
    error = export("--store", store, *words, "--format", "peft", "--out", out)
    assert type(error) is kind, error
    assert why in error.message
    assert not out.exists()


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    url = f"sqlite:///{tmp_path / 'none.db'}"
    error = export("--store", url, "--format", "peft", "--out", tmp_path / "a.safetensors")
    assert isinstance(error, StoreUnavailable)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [(), ("remove-pistol", "--revision", 1)])
def test_a_revision_needs_a_store_and_an_export_something_to_export(tmp_path, words):
    error = export(*words, "--format", "peft", "--out", tmp_path / "a.safetensors")
    assert isinstance(error, QuickFixError)
    assert "--store" in error.message
