"""`quickfix export` as an operator uses it, on the shipped model."""

import json

import pytest
import torch
import typer
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from typer.testing import CliRunner

from edits.errors import FingerprintMismatch, ManifestInvalid, QuickFixError
from edits.export.artefact import read_artefact
from edits.export.command import export
from edits.manifests import catalog_entry
from edits.method import QUICKFIX, Editor, resolve
from edits.workbench import Workbench
from tests.export.compare import DEMO
from tests.tiny_layouts import write_layout

app = typer.Typer()
app.command()(export)
SETTINGS = {"tokens": "last", "ridge": 0.01, "preserve_weight": 0.1, "pad_weight": 1.0}


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    """Manifest files of the catalog's edits with all settings given: nothing is to be chosen."""
    folder = tmp_path_factory.mktemp("manifests")
    files = {}
    for name in ("pistol", "van-gogh", "beer"):
        document = json.loads(catalog_entry(f"remove-{name}").model_dump_json(by_alias=True))
        document["spec"]["method"] |= SETTINGS
        files[name] = folder / f"{name}.json"
        files[name].write_text(json.dumps(document))
    return files


def run(*words):
    result = CliRunner().invoke(
        app, [*map(str, words), "--model", str(DEMO), "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*words):
    return CliRunner().invoke(app, [*map(str, words), "--model", str(DEMO)]).exception


def test_edits_are_solved_together_and_written_as_one_artefact(demo, manifests, tmp_path):
    out = tmp_path / "two.safetensors"
    two = (manifests["pistol"], manifests["van-gogh"])
    report = run(*two, "--format", "safetensors", "--out", out)
    assert report["edits"] == ["remove-pistol@2", "remove-van-gogh@1"]
    assert report["bytes"] == out.stat().st_size < 40 * 1024
    assert report["base"] == Editor(demo).fingerprint
    (site,) = report["sites"]
    assert site["site"] == str(QUICKFIX)
    assert site["error"] <= 2.0**-14
    assert read_artefact(out, demo).keys() == {QUICKFIX}


def test_settings_that_a_manifest_leaves_open_are_chosen_as_when_it_is_published(tmp_path):
    bench = Workbench.open(str(DEMO))
    specs = bench.gatekeeper.choose([catalog_entry("remove-cigarette")])
    report = run("remove-cigarette", "--format", "peft", "--out", tmp_path / "a.safetensors")
    assert report["composition"] == bench.editor.compose(specs).digest


def test_with_all_settings_given_the_order_of_the_manifests_does_not_matter(manifests, tmp_path):
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    two = (manifests["pistol"], manifests["van-gogh"])
    first = run(*two, "--format", "peft", "--out", one)
    second = run(*reversed(two), "--format", "peft", "--out", other)
    assert first["composition"] == second["composition"]
    assert one.read_bytes() == other.read_bytes()


def test_a_folder_holds_the_composition_that_is_reported(manifests, tmp_path):
    out = tmp_path / "edited"
    report = run(manifests["pistol"], "--format", "folder", "--out", out)
    assert report["sites"] == [{"site": str(QUICKFIX), "error": 0.0}]
    said = json.loads((out / "quickfix-export.json").read_text())
    assert said["composition"] == report["composition"]
    assert report["bytes"] == sum(f.stat().st_size for f in out.rglob("*") if f.is_file())


def test_a_kohya_file_has_alphas(manifests, tmp_path):
    out = tmp_path / "beer.safetensors"
    report = run(manifests["beer"], "--format", "kohya", "--out", out)
    assert report["edits"] == ["remove-beer@1"]
    assert {name.rpartition(".")[2] for name in load_file(out)} == {"alpha", "weight"}


def test_a_model_in_half_precision_is_exported_in_half_precision(manifests, tmp_path):
    out = tmp_path / "edited"
    run(manifests["pistol"], "--format", "folder", "--out", out, "--dtype", "float16")
    pipeline = DiffusionPipeline.from_pretrained(out, dtype=torch.float16)
    assert resolve(pipeline.text_encoder, QUICKFIX).weight.dtype == torch.float16
    stored = load_file(out / "text_encoder" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


@pytest.mark.parametrize(
    ("layout", "not_covered"), [("sdxl", []), ("sd-3", ["text_encoder_3 (T5EncoderModel)"])]
)
def test_both_clip_encoders_are_exported_and_one_that_no_edit_reaches_is_named(
    manifests, tmp_path, layout, not_covered
):
    model = write_layout(tmp_path / layout, layout)
    out = tmp_path / "both.safetensors"
    words = ["--format", "peft", "--out", str(out), "--model", str(model), "--json"]
    result = CliRunner().invoke(app, [str(manifests["pistol"]), *words], catch_exceptions=False)
    report = json.loads(result.stdout)
    sites = [site["site"].partition(":")[0] for site in report["sites"]]
    assert sites == ["text_encoder", "text_encoder_2"]
    assert report["not_covered"] == not_covered


def test_a_target_that_holds_something_needs_force(manifests, tmp_path):
    out = tmp_path / "edit.safetensors"
    out.write_bytes(b"old")
    words = (manifests["pistol"], "--format", "safetensors", "--out", out)
    error = refused(*words)
    assert isinstance(error, QuickFixError) and "not empty" in str(error)
    assert out.read_bytes() == b"old"
    assert run(*words, "--force")["bytes"] == out.stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_refused_budget_leaves_nothing_behind(manifests, tmp_path):
    out = tmp_path / "edit.safetensors"
    error = refused(manifests["pistol"], "--format", "safetensors", "--out", out, "--max-kib", "1")
    assert isinstance(error, QuickFixError) and "1 are allowed" in str(error)
    assert not list(tmp_path.iterdir())


def test_an_export_is_no_model_to_edit_again(tmp_path):
    (tmp_path / "quickfix-export.json").write_text("{}")
    words = ["remove-pistol", "--format", "peft", "--out", str(tmp_path / "a.safetensors")]
    error = CliRunner().invoke(app, [*words, "--model", str(tmp_path)]).exception
    assert isinstance(error, QuickFixError) and "is an export itself" in str(error)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("remove-nothing",), "neither a file nor in the catalog"),
        (("remove-pistol", "--format", "folder", "--tolerance", "0.1"), "exact weights"),
        (("remove-pistol", "--format", "peft", "--max-kib", "9"), "safetensors only"),
        (("remove-pistol", "--format", "kohya", "--out", "lora.bin"), "end in .safetensors"),
    ],
)
def test_options_that_make_no_export_are_refused_before_a_model_is_loaded(
    tmp_path, monkeypatch, words, why
):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(
        app, ["--format", "peft", "--out", "a.safetensors", *words, "--model", "./none"]
    )
    assert isinstance(result.exception, QuickFixError)
    assert why in str(result.exception)


def test_an_edit_that_is_named_twice_is_refused(manifests, tmp_path):
    out = tmp_path / "twice.safetensors"
    twice = (manifests["pistol"], manifests["pistol"])
    error = refused(*twice, "--format", "peft", "--out", out)
    assert isinstance(error, ManifestInvalid) and "stands twice" in str(error)
    assert not out.exists()


def test_a_manifest_for_another_base_model_is_refused(tmp_path):
    document = json.loads(catalog_entry("remove-beer").model_dump_json(by_alias=True))
    document["spec"]["base"] = "sha256:" + "0" * 64
    manifest = tmp_path / "edit.json"
    manifest.write_text(json.dumps(document))
    out = tmp_path / "out.safetensors"
    assert isinstance(refused(manifest, "--format", "peft", "--out", out), FingerprintMismatch)
    assert not out.exists()
