"""Traces as jobs of a real replica: their processes, states, results, and what is refused."""

import json
import os
import re
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from httpx import Response
from typer.testing import CliRunner

from edits.cli import app
from edits.evaluation.judge import Judge
from edits.tracing.progress import Progress, read_progress, write_plan
from service import metrics
from service.settings import Settings
from service.trace_process import refusal
from service.tracing import TraceJobs
from tests.device import DEVICE
from tests.tiny_layouts import write_layout

from .pictures import pixels
from .replica import Replica
from .test_auth import write_tokens

SECONDS = 240.0  # a process loads torch first, and may have to share its core
PAIRS = [
    {
        "caption": "a photo of a pistol on a red background",
        "concept": "pistol",
        "anchor_caption": "a photo of a cat on a red background",
    },
    {
        "caption": "an image of a robot",
        "concept": "robot",
        "anchor_caption": "an image of a cat",
    },
]
PROMPTS: dict[str, Any] = {
    "apiVersion": "quickfix/v1",
    "kind": "TracePrompts",
    "attributes": {"object": {"pairs": PAIRS}},
}
# One pair under one seed, one site of each layer: what is slow is the start of the process.
QUICK: dict[str, Any] = {
    "steps": 2,
    "seeds": 1,
    "pairs": 1,
    "positions": ["last"],
    "modules": ["mlp"],
    "attributes": ["object"],
}
LONG: dict[str, Any] = {"steps": 2, "seeds": 3, "pairs": 1, "batch": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that heeds its captions, with prompts and a judge of random weights."""
    model = write_layout(tmp_path_factory.mktemp("models") / "tiny-traced", "sd-1.x")
    (model / "attributes.yaml").write_text(yaml.safe_dump(PROMPTS), encoding="utf-8")
    torch.manual_seed(0)
    Judge({"object": ["pistol", "cat", "robot"]}).save(model / "judge.safetensors")
    return model


def settings_of(model: Path, state: Path) -> Settings:
    return Settings(
        model=str(model),
        device=DEVICE,
        threads=1,
        state_dir=state,
        poll_seconds=0.05,
        replica="replica-under-test",
    )


@pytest.fixture
def traced(folder: Path, tmp_path: Path, start_replica: Callable[[Settings], Replica]) -> Replica:
    return start_replica(settings_of(folder, tmp_path / "state"))


@pytest.fixture(scope="module")
def idle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A replica for all tests that start no process."""
    replica = Replica(settings_of(folder, tmp_path_factory.mktemp("idle") / "state"))
    yield replica
    replica.runtime.stop()


def ask(replica: Replica, **body: Any) -> Response:
    return replica.client.post("/admin/traces", json=body, headers=replica.operator)


def delete(replica: Replica, trace: str) -> Response:
    return replica.client.delete("/admin/traces", params={"id": trace}, headers=replica.operator)


def started(replica: Replica, **body: Any) -> str:
    answer = ask(replica, **body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def process_of(replica: Replica) -> int:
    holder = replica.runtime.traces._slot.holder()
    assert holder is not None
    return holder.process


def watch(replica: Replica, trace: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What is told about a trace, once it is as wanted."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        told = replica.read("traces", id=trace)
        if until(told):
            return dict(told)
        time.sleep(0.02)
    raise AssertionError(f"the trace stays {told}")


def ended(told: dict[str, Any]) -> bool:
    return bool(told["state"] != "running")


def has_drawn(told: dict[str, Any]) -> bool:
    return ended(told) or bool(told["pictures"]["done"])


def by_command(model: Path, out: Path, *words: str) -> dict[str, Any]:
    command = ["trace", "text-encoder", "--json", "--model", str(model), "--out", str(out), *words]
    answer = CliRunner().invoke(app, command, catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return dict(json.loads(answer.stdout))


def same_but_for_time(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Equal documents; they hold the digest of all scores."""
    return {**a, "seconds": 0} == {**b, "seconds": 0}


def error_of(answer: Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    assert error["message"]
    return answer.status_code, error["type"], error["param"]


def test_a_trace_runs_beside_image_generation_and_gives_the_result_of_the_command(
    traced: Replica, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUICKFIX_MODEL", "not for the child")
    finished = metrics.TRACES.labels("finished")._value.get()
    before = pixels(traced.draw())

    answer = ask(traced, **QUICK)
    assert answer.status_code == 202
    told = answer.json()
    trace = told["id"]
    assert re.fullmatch(r"[0-9a-f]{16}", trace)
    assert (told["state"], told["target"], told["error"]) == ("running", "text-encoder", None)
    process = process_of(traced)
    assert os.getpriority(os.PRIO_PROCESS, process) == max(10, os.getpriority(os.PRIO_PROCESS, 0))
    environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    assert not [line for line in environment if line.startswith(b"QUICKFIX_")]
    assert b"OMP_NUM_THREADS=1" in environment

    again = ask(traced, **QUICK)
    assert (again.status_code, again.json()["id"]) == (200, trace)
    other = ask(traced, **{**QUICK, "seed": 1})
    assert error_of(other) == (409, "trace_running", None)
    assert trace in other.json()["error"]["message"]
    assert np.array_equal(before, pixels(traced.draw()))
    (listed,) = traced.read("traces")["traces"]
    assert (listed["id"], listed["state"]) == (trace, "running")
    assert traced.read("traces", id=trace)["result"] is None

    told = watch(traced, trace, ended)
    assert (told["state"], told["error"]) == ("finished", None)
    result = told["result"]
    assert told["pictures"] == {"done": result["pictures"], "total": result["pictures"]}
    assert result["identity"].startswith(f"sha256:{trace}")
    words = "--steps 2 --seeds 1 --pairs 1 --position last --module mlp --attribute object"
    assert same_but_for_time(result, by_command(folder, tmp_path / "out", *words.split()))

    done = ask(traced, **QUICK)
    assert (done.status_code, done.json()["state"]) == (200, "finished")
    job = traced.runtime.settings.state_dir / "traces" / trace
    assert stat.S_IMODE(job.stat().st_mode) == 0o700
    left = {path.name for path in (job / "result").iterdir()}
    assert left == {"trace.json", "scores.safetensors", "object_judge.png"}
    assert metrics.TRACES.labels("finished")._value.get() == finished + 1
    events = traced.read("audit", limit=1000)["events"]
    told = [(e["target"], e["outcome"]) for e in events if e["action"] == "start_trace"]
    assert [outcome for _, outcome in told] == ["ok", "trace_running", "ok", "ok"]
    assert [target == trace for target, _ in told] == [True, False, True, True]

    assert delete(traced, trace).json()["state"] == "deleted"
    assert traced.read("traces")["traces"] == []
    assert not job.exists()


def test_a_trace_that_was_killed_goes_on_where_it_was_and_ends_with_the_same_scores(
    traced: Replica, folder: Path, tmp_path: Path
) -> None:
    trace = started(traced, **LONG)
    told = watch(traced, trace, has_drawn)
    assert told["state"] == "running"
    total = told["pictures"]["total"]
    os.kill(process_of(traced), signal.SIGKILL)
    told = watch(traced, trace, ended)
    assert told["state"] == "interrupted"
    assert told["error"] == "the trace was ended by SIGKILL"
    kept = told["pictures"]["done"]
    assert 0 < kept < total

    assert started(traced, **LONG) == trace
    told = traced.read("traces", id=trace)
    assert (told["state"], told["error"]) == ("running", None)
    assert told["pictures"] == {"done": kept, "total": total}
    told = watch(traced, trace, ended)
    assert told["state"] == "finished"
    assert told["pictures"] == {"done": total, "total": total}
    words = "--steps 2 --seeds 3 --pairs 1 --batch 2"
    assert same_but_for_time(told["result"], by_command(folder, tmp_path / "out", *words.split()))


def test_a_replica_that_stops_ends_its_trace_and_the_next_one_finds_it_interrupted(
    traced: Replica, start_replica: Callable[[Settings], Replica]
) -> None:
    trace = started(traced, **QUICK)
    process = process_of(traced)
    traced.runtime.stop()
    assert not Path(f"/proc/{process}").exists()
    successor = start_replica(traced.runtime.settings)
    told = successor.read("traces", id=trace)
    assert (told["state"], told["error"]) == ("interrupted", None)
    assert started(successor, **QUICK) == trace
    assert error_of(ask(traced, **QUICK))[0] == 401  # its token is the old one
    assert delete(successor, trace).json()["state"] == "cancelled"


def test_a_stopped_trace_is_cancelled_and_makes_room_and_a_second_call_deletes_it(
    traced: Replica,
) -> None:
    first = started(traced, **QUICK)
    process = process_of(traced)
    answer = delete(traced, first)
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert not Path(f"/proc/{process}").exists()
    second = started(traced, **{**QUICK, "seed": 1})
    assert [job["id"] for job in traced.read("traces")["traces"]] == [second, first]
    assert delete(traced, second).json()["state"] == "cancelled"
    assert started(traced, **QUICK) == first  # a cancelled trace may be asked for again
    assert [job["id"] for job in traced.read("traces")["traces"]] == [first, second]
    for trace, states in ((first, ["cancelled", "deleted"]), (second, ["deleted"])):
        assert [delete(traced, trace).json()["state"] for _ in states] == states
        assert error_of(delete(traced, trace)) == (404, "trace_not_found", "id")
    assert traced.read("traces")["traces"] == []
    names = {path.name for path in (traced.runtime.settings.state_dir / "traces").iterdir()}
    assert names == {"running.lock"}


def test_a_trace_whose_replica_was_killed_is_seen_as_running_and_can_be_stopped(
    traced: Replica,
) -> None:
    trace = started(traced, **QUICK)
    process = process_of(traced)
    # What a replica on the same state directory sees: the process is nobody's child there.
    state_dir = traced.runtime.settings.state_dir
    other = TraceJobs(state_dir / "traces", device=DEVICE, dtype="float32", threads=1)
    assert other.find(trace).state == "running"
    other.stop()  # ends only what it has started
    assert other.find(trace).state == "running"
    assert other.remove(trace).state == "cancelled"
    assert watch(traced, trace, ended)["state"] == "cancelled"
    assert not Path(f"/proc/{process}").exists()


def test_a_trace_that_refuses_to_go_on_has_failed_and_says_why_without_paths(
    traced: Replica,
) -> None:
    fields = {"steps": 2, "seeds": 1}
    trace = traced.runtime.trace_check(fields).id
    result = traced.runtime.settings.state_dir / "traces" / trace / "result"
    result.mkdir(parents=True)
    (result / "trace.journal").write_text('{"trace": "sha256:another"}\n', encoding="utf-8")
    assert started(traced, **fields) == trace
    told = watch(traced, trace, ended)
    assert told["state"] == "failed"
    assert told["error"] == (
        "result holds an unfinished trace with other options, prompts or model; "
        "finish that one, or choose another --out"
    )
    assert traced.runtime.traces.jobs()[0].error == told["error"]


BAD: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"seeds": 0}, 422, "trace_invalid", "seeds"),
    ({"seeds": "1"}, 400, "invalid_request", "seeds"),
    ({"seeds": True}, 400, "invalid_request", "seeds"),
    ({"seed": -1}, 422, "trace_invalid", "seed"),
    ({"draws": 0}, 422, "trace_invalid", "draws"),
    ({"noise": 0}, 422, "trace_invalid", "noise"),
    ({"target": "vae"}, 422, "trace_invalid", "target"),
    ({"target": 1}, 400, "invalid_request", "target"),
    ({"positions": []}, 400, "invalid_request", "positions"),
    ({"positions": ["first"]}, 422, "trace_site_unknown", "positions"),
    ({"positions": "last"}, 400, "invalid_request", "positions"),
    ({"positions": ["last", 1]}, 400, "invalid_request", "positions.1"),
    ({"modules": ["resnet"]}, 422, "trace_site_unknown", "modules"),
    ({"target": "unet", "modules": ["mid.none"]}, 422, "trace_site_unknown", "modules"),
    ({"target": "cross-attention", "window": 99}, 422, "trace_invalid", "window"),
    ({"first_step": 4}, 422, "trace_invalid", "options"),
    ({"last_step": 9}, 422, "trace_invalid", "options"),
    ({"branches": "negative"}, 422, "trace_invalid", "branches"),
    ({"steps": 0}, 422, "trace_invalid", "steps"),
    ({"guidance_scale": -1.0}, 422, "trace_invalid", "guidance_scale"),
    ({"batch": 1}, 422, "trace_invalid", "batch"),
    ({"resamples": 100}, 400, "invalid_request", "resamples"),
    ({"device": "cuda"}, 400, "invalid_request", "device"),
    ({"model": "else"}, 400, "invalid_request", "model"),
    ({"pairs": 0}, 422, "trace_invalid", "pairs"),
    ({"attributes": ["taste"]}, 422, "trace_prompts_invalid", "attributes"),
    ({"attributes": ["\ud800"]}, 400, "invalid_request", "attributes.0"),
    ({"prompts": {}}, 422, "trace_prompts_invalid", "apiVersion"),
    ({"prompts": 5}, 400, "invalid_request", "prompts"),
    ({"prompts": "a: &x [*x]"}, 422, "trace_prompts_invalid", "a"),
    ({"prompts": "\ud800"}, 422, "trace_prompts_invalid", None),
]


def bad_pair(**fields: Any) -> dict[str, Any]:
    pairs = [PAIRS[0], {**PAIRS[1], **fields}]
    return {"prompts": {**PROMPTS, "attributes": {"object": {"pairs": pairs}}}}


BAD_PAIRS: list[tuple[dict[str, Any], str]] = [
    ({"concept": "knife"}, "attributes.object.pairs.1.concept"),
    ({"anchor_caption": "a robot"}, "attributes.object.pairs.1.anchor_caption"),
    ({"class": "beer"}, "attributes.object.pairs.1.class"),
    ({"colour": "red"}, "attributes.object.pairs.1.colour"),
    ({"caption": "a " * 40 + "robot"}, "attributes.object.pairs.1.caption"),
]


@pytest.mark.parametrize(("body", "status", "kind", "param"), BAD)
def test_a_bad_request_is_refused_with_its_field_and_starts_nothing(
    idle: Replica, body: dict[str, Any], status: int, kind: str, param: str | None
) -> None:
    answer = idle.client.post(
        "/admin/traces", content=json.dumps(body).encode(), headers=idle.operator
    )
    assert error_of(answer) == (status, kind, param)
    assert idle.read("traces")["traces"] == []


@pytest.mark.parametrize(("fields", "param"), BAD_PAIRS)
def test_a_bad_pair_is_refused_with_its_field(
    idle: Replica, fields: dict[str, Any], param: str
) -> None:
    assert error_of(ask(idle, **bad_pair(**fields))) == (422, "trace_prompts_invalid", param)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"seed": 1, "seed": 2}', b'{"prompts":' + b"[" * 10**5],
)
def test_a_body_that_is_no_object_is_400(idle: Replica, body: bytes) -> None:
    answer = idle.client.post("/admin/traces", content=body, headers=idle.operator)
    assert error_of(answer) == (400, "invalid_request", None)


@pytest.mark.parametrize("depth", [30, 400, 900, 980])
def test_prompts_that_nest_deep_are_refused(idle: Replica, depth: int) -> None:
    nested = '{"prompts": ' + '{"a": ' * depth + "1" + "}" * (depth + 1)
    answer = idle.client.post("/admin/traces", content=nested, headers=idle.operator)
    assert error_of(answer)[:2] in ((422, "trace_prompts_invalid"), (400, "invalid_request"))


@pytest.mark.parametrize("trace", ["0" * 16, "..", ".", "*", "running.lock", "../traces", "%2e"])
def test_an_id_that_is_not_there_is_404(idle: Replica, trace: str) -> None:
    for method in ("GET", "DELETE"):
        answer = idle.client.request(
            method, "/admin/traces", params={"id": trace}, headers=idle.operator
        )
        assert error_of(answer) == (404, "trace_not_found", "id")


def test_deleting_without_an_id_is_400(idle: Replica) -> None:
    answer = idle.client.delete("/admin/traces", headers=idle.operator)
    assert error_of(answer) == (400, "invalid_request", "id")


def test_the_same_trace_has_one_id_however_it_is_asked_for(idle: Replica) -> None:
    check = idle.runtime.trace_check
    known = check({}).id
    as_text, as_object = yaml.safe_dump(PROMPTS).encode(), json.dumps(PROMPTS).encode()
    assert check({"steps": 4, "seeds": 2}, prompts=as_text).id == known
    assert check({}, attributes=["object"], pairs=2, prompts=as_object).id == known
    others = [check({"seed": 1}).id, check({"target": "unet"}).id, check({}, pairs=1).id]
    assert len({known, *others}) == 4


def test_a_model_without_prompts_or_scorer_is_refused(replica: Replica) -> None:
    assert error_of(ask(replica)) == (422, "trace_prompts_invalid", "prompts")
    refused = ask(replica, prompts=PROMPTS)
    assert error_of(refused) == (422, "trace_invalid", None)
    assert "judge.safetensors" in refused.json()["error"]["message"]


def test_a_viewer_reads_and_an_operator_writes(
    folder: Path, tmp_path: Path, start_replica: Callable[[Settings], Replica]
) -> None:
    tokens = write_tokens(tmp_path / "t.yaml", ci=("operator", "write"), eye=("viewer", "read"))
    settings = settings_of(folder, tmp_path / "state")
    replica = start_replica(settings.model_copy(update={"tokens_file": tokens}))

    def call(method: str, token: str, query: str = "") -> int:
        return replica.client.request(
            method, f"/admin/traces{query}", headers={"Authorization": f"Bearer {token}"}
        ).status_code

    assert [call("GET", token) for token in ("read", "write", "none")] == [200, 200, 401]
    assert [call("POST", token) for token in ("read", "write", "none")] == [403, 400, 401]
    found = [call("DELETE", token, "?id=0") for token in ("read", "write", "none")]
    assert found == [403, 404, 401]


def test_a_replica_that_shuts_down_starts_no_trace(traced: Replica) -> None:
    traced.runtime.traces.stop()
    assert error_of(ask(traced, **QUICK)) == (503, "not_ready", None)


def test_the_last_refusal_of_a_log_is_told_without_field_and_paths(tmp_path: Path) -> None:
    log = tmp_path / "stderr.log"
    assert refusal(log) is None
    log.write_text("Traceback\n  File '/srv/x.py'\nValueError: /srv/secret\n", encoding="utf-8")
    assert refusal(log) is None
    log.write_text(
        "quickfix: first\nwarning\nquickfix: no /srv/models/a.bin or ./b/c, self_attn/mlp [out]\n",
        encoding="utf-8",
    )
    assert refusal(log) == "no (a path) or (a path) self_attn/mlp"


def test_progress_counts_whole_batches_once(tmp_path: Path) -> None:
    assert read_progress(tmp_path) == Progress(None, None)
    write_plan(tmp_path, 9)
    batch = {"batch": 0, "seconds": 1.0, "scores": [[0.5], [0.25]]}
    lines = [{"trace": "sha256:x"}, batch, {**batch, "batch": 2}, batch]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "trace.journal").write_text(text + '{"batch": 3, "sco', encoding="utf-8")
    assert read_progress(tmp_path) == Progress(4, 9)
