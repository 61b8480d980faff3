"""`quickfix trace` from the command line to the files, on every layout."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from edits.cli import app
from edits.errors import QuickFixError, TraceConflict
from edits.tracing.journal import FILE_NAME as JOURNAL
from edits.tracing.result import TraceResult, read_result
from edits.tracing.tracer import Tracer
from tests.tiny_layouts import write_clip_model, write_layout

from .conftest import PROMPTS, write_judge

MAIN = "from edits.cli import main; main()"
TARGETS = ("text-encoder", "unet", "cross-attention")


def trace(*arguments):
    """The printed document. Raises what the library refuses."""
    result = CliRunner().invoke(app, ["trace", *map(str, arguments), "--json"])
    if isinstance(result.exception, QuickFixError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def clip_model(tmp_path_factory):
    return write_clip_model(tmp_path_factory.mktemp("clip") / "clip")


@pytest.mark.parametrize("target", TARGETS)
def test_a_trace_writes_a_document_arrays_and_a_picture_per_attribute(
    target, traced_model, tmp_path
):
    document = trace(target, "--model", traced_model, "--seeds", 2, "--out", tmp_path / "out")
    assert TraceResult.model_validate(document).options.target == target
    result, arrays = read_result(tmp_path / "out")
    assert result.model_dump(mode="json") == document
    assert set(arrays) == {"object", "style"}
    for attribute, found in document["attributes"].items():
        shape = (len(found["pairs"]), 2, 1, len(found["conditions"]), 1)
        assert arrays[attribute].shape == shape
        assert (tmp_path / "out" / f"{attribute}_judge.png").stat().st_size > 1000
        effects = found["effects"]["judge"]
        for site in effects["sites"]:
            both = site["indirect"]["mean"] + site["direct"]["mean"]
            if site["indirect"]["prompts"] == len(found["pairs"]):
                assert both == pytest.approx(effects["total"]["mean"], abs=3e-6)
    assert not (tmp_path / "out" / JOURNAL).exists()


@pytest.mark.parametrize("layout", ["sd-2.x", "sdxl", "sd-3"])
@pytest.mark.parametrize("target", ["text-encoder", "unet"])
def test_every_layout_is_traced_with_any_clip_model(layout, target, clip_model, tmp_path):
    model = write_layout(tmp_path / "model", layout)
    (model / "attributes.yaml").write_text(PROMPTS, encoding="utf-8")
    document = trace(
        target, "--model", model, "--clip-model", clip_model, "--seeds", 1, "--steps", 2,
        "--pairs", 1, "--attribute", "object", "--out", tmp_path / "out",
    )  # fmt: skip
    found = document["attributes"]["object"]
    sites = found["conditions"][2:]
    assert document["scorers"] == ["clip"]
    total = found["effects"]["clip"]["total"]["mean"]
    assert abs(total) > 1e-4
    if target == "text-encoder":
        encoders = {name.split(".")[0] for name in sites}
        count = {"sd-2.x": 1, "sdxl": 2, "sd-3": 3}[layout]
        assert len(encoders) == count
        ahead = {name.split(".")[0] for name in sites if name.endswith("@earlier")}
        assert ahead == ({"text_encoder_3"} if layout == "sd-3" else set())
    else:
        kinds = {name.rsplit(".", 1)[-1] for name in sites}
        assert kinds >= ({"attn", "ff", "ff_context"} if layout == "sd-3" else {"attn1", "attn2"})
    indirect = [site["indirect"]["mean"] for site in found["effects"]["clip"]["sites"]]
    assert np.ptp(indirect) > 1e-4


def test_the_same_seed_gives_the_same_scores_and_another_seed_others(traced_model, tmp_path):
    arguments = ("--model", traced_model, "--seeds", 1, "--attribute", "object", "--out")
    trace(*arguments, tmp_path / "a")
    trace(*arguments, tmp_path / "b")
    trace(*arguments, tmp_path / "c", "--seed", 5)
    a, b, c = (read_result(tmp_path / name)[1]["object"] for name in "abc")
    assert np.array_equal(a, b, equal_nan=True)
    assert not np.array_equal(a, c, equal_nan=True)


def test_a_finished_trace_is_not_drawn_again(traced_model, tmp_path, monkeypatch):
    arguments = ("--model", traced_model, "--seeds", 1, "--attribute", "style", "--out", tmp_path)
    first = trace(*arguments)
    monkeypatch.setattr(Tracer, "draw", lambda *_: pytest.fail("drawn again"))
    assert trace(*arguments) == first


def test_another_trace_is_refused_a_folder_and_fresh_makes_room(traced_model, tmp_path):
    arguments = ("--model", traced_model, "--attribute", "style", "--out", tmp_path / "out")
    trace(*arguments, "--seeds", 1)
    with pytest.raises(TraceConflict, match="choose another --out"):
        trace(*arguments, "--seeds", 2)
    (tmp_path / "out" / "notes.txt").write_text("mine", encoding="utf-8")
    assert trace(*arguments, "--seeds", 2, "--fresh")["options"]["seeds"] == 2
    assert (tmp_path / "out" / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_another_judge_makes_another_trace(traced_model, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(traced_model, model)
    arguments = ("--model", model, "--attribute", "style", "--seeds", 1, "--out", tmp_path / "out")
    trace(*arguments)
    write_judge(model, seed=4)
    with pytest.raises(TraceConflict, match="choose another --out"):
        trace(*arguments)


@pytest.mark.timeout(180)
def test_a_killed_trace_goes_on_where_it_was_and_ends_with_the_same_scores(traced_model, tmp_path):
    arguments = ["--model", str(traced_model), "--seeds", "3", "--batch", "8", "--out"]
    command = [sys.executable, "-c", MAIN, "trace", *arguments, str(tmp_path / "cut")]
    journal = tmp_path / "cut" / JOURNAL
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # sums of more threads round differently
    process = subprocess.Popen(
        command, env=one_thread, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {json.loads(line)["batch"] for line in journal.read_bytes().splitlines()[1:-1]}
    assert len(kept) >= 2
    drawn = []
    original = Tracer.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracer, "draw", lambda s, b, r: (drawn.append(b), original(s, b, r))[1])
        trace(*arguments, tmp_path / "cut")
    trace(*arguments, tmp_path / "whole")
    cut, whole = (read_result(tmp_path / name) for name in ("cut", "whole"))
    for attribute, array in whole[1].items():
        assert np.allclose(cut[1][attribute], array, atol=1e-6, equal_nan=True)
    batches = -(-whole[0].pictures // 8)
    assert len(drawn) <= batches - len(kept) + 1


def test_a_site_with_the_clean_embedding_has_the_whole_effect(traced_model, tmp_path):
    document = trace("--model", traced_model, "--seeds", 2, "--pairs", 1, "--attribute", "object",
                     "--position", "subject", "--position", "later", "--out", tmp_path)  # fmt: skip
    names = document["attributes"]["object"]["conditions"]
    assert names[:2] == ["clean", "corrupted"]
    assert {name.split("@")[1] for name in names[2:]} == {"subject 1", "later"}
    array = read_result(tmp_path)[1]["object"]
    attention = names.index("text_encoder.layers.0.self_attn@later")
    stream = names.index("text_encoder.layers.0.residual@later")
    assert np.array_equal(array[..., attention, :], array[..., stream, :])


def test_the_table_names_the_strongest_sites_and_the_files(traced_model, tmp_path):
    result = CliRunner().invoke(
        app, ["trace", "--model", str(traced_model), "--seeds", "1", "--top", "3",
              "--out", str(tmp_path / "out")],
        env={"COLUMNS": "160"},
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "total effect" in result.stdout
    assert "layers." in result.stdout
    assert "trace.json" in result.stdout
