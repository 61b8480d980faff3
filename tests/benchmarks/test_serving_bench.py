"""The serving benchmark: its statistics, its schedule, its generator, its table, one smoke run."""

import json
import statistics
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.serving.load import Broken, closed_loop, load_of, open_loop
from benchmarks.serving.metrics_page import MetricsPage
from benchmarks.serving.plan import Plan
from benchmarks.serving.references import References
from benchmarks.serving.report import Bound, Row, table, write
from benchmarks.serving.rows.onnx import rows_of
from benchmarks.serving.servers import ADAPTIVE_STREAM, start
from benchmarks.serving.statistics import Spread, growth, percentile, ratios
from benchmarks.serving.workload import arrivals, mixed, under_policies
from service.allocator import allocator

from .picture_server import PICTURE, picture_server

ROOT = Path(__file__).resolve().parents[2]
seconds = st.floats(min_value=0.001, max_value=1000)


@given(st.lists(seconds, min_size=2, max_size=60))
def test_p95_is_that_of_the_standard_library(values):
    oracle = statistics.quantiles(values, n=20, method="inclusive")[18]
    assert percentile(values, 0.95) == pytest.approx(oracle)


@given(st.lists(seconds, min_size=1, max_size=30))
def test_median_of_a_spread_lies_between_its_extremes_and_is_the_standard_librarys(values):
    spread = Spread(tuple(values))
    assert spread.median == pytest.approx(statistics.median(values))
    assert (spread.low, spread.high) == (min(values), max(values))


def test_a_spread_of_nothing_is_refused():
    with pytest.raises(ValueError, match="one value"):
        Spread(())


def test_ratios_pair_the_repeats_that_were_measured_together():
    assert ratios(Spread((2.0, 9.0)), Spread((1.0, 3.0))).values == (2.0, 3.0)
    with pytest.raises(ValueError, match="longer"):
        ratios(Spread((1.0,)), Spread((1.0, 2.0)))


@given(st.floats(min_value=-0.5, max_value=0.5), st.integers(min_value=8, max_value=100))
def test_growth_of_a_straight_line_is_its_rise(rise, samples):
    times = np.linspace(50, 250, samples)
    found = growth(times, 1e9 * (1 + rise * (times - 50) / 200))
    assert found.by_slope == pytest.approx(rise, abs=1e-9)


def test_growth_sees_a_jump_in_the_last_quarter():
    found = growth(range(100), [1000.0] * 75 + [1030.0] * 25)
    assert found.by_quartiles == pytest.approx(0.03)
    assert found.worst >= 0.03


def test_growth_of_noise_around_a_level_is_nothing():
    noise = np.random.default_rng(0).normal(0, 1, 600)
    assert abs(growth(range(600), 1000 + noise).worst) < 0.001


def test_growth_of_too_few_samples_is_refused():
    with pytest.raises(ValueError, match="not 3"):
        growth([1, 2, 3], [1, 1, 1])


def test_arrivals_come_again_with_their_seed_and_offer_exactly_their_rate():
    first = arrivals(120, rate=2.5, seed=3)
    assert first == arrivals(120, rate=2.5, seed=3) != arrivals(120, rate=2.5, seed=4)
    assert first == sorted(first)
    assert min(first) >= 0
    assert max(first) <= 120 / 2.5


def test_gaps_between_arrivals_are_exponential():
    gaps = np.diff(arrivals(20_000, rate=4.0, seed=11))
    assert gaps.mean() == pytest.approx(0.25, rel=0.01)
    assert gaps.std() == pytest.approx(0.25, rel=0.05)
    assert (gaps > 0.5).mean() == pytest.approx(np.exp(-2), abs=0.01)


def test_mixed_requests_hold_every_combination_as_often_and_no_request_twice():
    requests = mixed(96, seed=7, steps=(8, 20, 50))
    kinds = Counter((r.steps, r.guidance_scale) for r in requests)
    assert kinds == {(steps, scale): 16 for steps in (8, 20, 50) for scale in (1.0, 3.0)}
    assert len({r.prompt for r in requests}) == len({r.seed for r in requests}) == 96
    assert requests == mixed(96, seed=7, steps=(8, 20, 50)) != mixed(96, seed=8, steps=(8, 20, 50))


def test_mixed_requests_are_shuffled():
    steps = [r.steps for r in mixed(96, seed=7, steps=(8, 20, 50))]
    assert steps != [8, 8, 20, 20, 50, 50] * 16


def test_policies_take_turns_and_the_peers_are_sent_no_field_that_they_do_not_know():
    requests = mixed(4, seed=1, steps=(8,))
    assert set(requests[0].body) == {"prompt", "seed", "steps", "guidance_scale"}
    asked = [r.body["policy"] for r in under_policies(requests, ("a", "b"))]
    assert asked == ["a", "b", "a", "b"]


def answer(intended, sent, done, *, status=200, wrong=None, difference=0):
    fields = {"intended": intended, "sent": sent, "done": done, "status": status}
    return fields | {"wrong": wrong, "difference": difference}


def result(*answers):
    return {"answers": list(answers), "cpu_seconds": 0.1, "wall_seconds": 4.0}


def test_latency_counts_from_the_intended_moment_and_throughput_from_the_first_send():
    load = load_of(result(answer(0.0, 0.5, 1.5), answer(1.0, 1.5, 4.5, difference=1)))
    assert load.latencies == (1.5, 3.5)
    assert load.lateness == (0.5, 0.5)
    assert load.throughput == pytest.approx(2 / 4.0)
    assert (load.largest_difference, load.compared) == (1, 2)
    assert load.generator_cpu == pytest.approx(0.025)


def test_an_error_and_another_image_break_the_run():
    with pytest.raises(Broken, match=r"1 of 2 .* status 503: busy"):
        load_of(result(answer(0, 0, 1), answer(0, 0, 1, status=503, wrong="busy")))
    with pytest.raises(Broken, match=r"1 of 2 images .* up to 2 of 255"):
        load_of(result(answer(0, 0, 1, difference=1), answer(0, 0, 1, difference=2)))


def test_another_image_is_found_in_half_precision_too():
    bound = replace(Plan.full(1), dtype="float16").may_differ
    rounded, another = (result(answer(0, 0, 1, difference=n)) for n in (bound, bound + 1))
    assert load_of(rounded, may_differ=bound).largest_difference == bound
    with pytest.raises(Broken, match="are not those of diffusers"):
        load_of(another, may_differ=bound)


@pytest.fixture
def requests():
    return mixed(6, seed=1, steps=(8,))


@pytest.fixture
def references(requests, tmp_path):
    return References.write({requests[0]: PICTURE}, tmp_path / "references.npz")


def test_a_closed_loop_has_so_many_requests_on_the_way_and_compares_images(requests, references):
    with picture_server(seconds=0.1) as url:
        load = closed_loop(url, requests, clients=2, references=references)
    assert len(load.latencies) == 6
    assert (load.compared, load.largest_difference) == (1, 0)
    # The server takes one at a time, so the second client always waits for the first.
    assert 0.6 <= load.seconds < 3
    assert statistics.median(load.latencies) >= 0.19


def test_an_open_loop_sends_at_its_times_and_charges_the_queue_to_the_server(requests):
    with picture_server(seconds=0.3) as url:
        load = open_loop(url, requests, at=[0.0, 0.01, 0.02, 0.03, 0.04, 0.05])
    assert max(load.lateness) < 0.2
    assert max(load.latencies) >= 6 * 0.3 - 0.06
    assert load.compared == 0


def test_the_generator_finds_an_image_that_is_not_the_reference(requests, references):
    with (
        picture_server(PICTURE + np.uint8(2)) as url,
        pytest.raises(Broken, match="1 of 1 images"),
    ):
        closed_loop(url, requests, clients=3, references=references)


def test_the_generator_finds_an_image_of_another_size(requests, references):
    with picture_server(PICTURE[:4]) as url, pytest.raises(Broken, match="1 of 6 requests"):
        closed_loop(url, requests, clients=3, references=references)


def test_the_generator_reports_a_refusal(requests):
    with picture_server(status=429) as url, pytest.raises(Broken, match=r"6 of 6 .* status 429"):
        closed_loop(url, requests, clients=3)


def page(count, total, *, batches=""):
    text = (
        "# TYPE quickfix_step_seconds histogram\n"
        f"quickfix_step_seconds_count {count}\nquickfix_step_seconds_sum {total}\n{batches}"
    )
    return MetricsPage(text, asked_at=0.0, answered_at=0.0)


def test_step_time_is_that_of_the_steps_between_two_scrapes():
    assert page(30, 4.0).step_seconds_since(page(10, 1.0)) == pytest.approx(0.15)
    with pytest.raises(Broken, match="no denoising step"):
        page(10, 1.0).step_seconds_since(page(10, 1.0))


def test_mean_batch_is_that_between_two_scrapes_and_none_without_the_metric():
    form = "# TYPE quickfix_batch_size histogram\nquickfix_batch_size_count {}\n{}\n"
    early, late = (
        page(1, 1, batches=form.format(count, f"quickfix_batch_size_sum {total}"))
        for count, total in ((10, 10), (20, 90))
    )
    assert late.mean_batch_since(early) == pytest.approx(8.0)
    assert page(2, 2).mean_batch_since(page(1, 1)) is None


def test_a_metric_that_is_not_there_breaks_the_run():
    with pytest.raises(Broken, match="quickfix_running"):
        _ = page(1, 1).running


@pytest.mark.parametrize(
    ("bound", "ratio", "verdict"),
    [
        (Bound("at most", 1.1), 1.1, "reached"),
        (Bound("at most", 1.1), 1.101, "missed"),
        (Bound("at least", 2.0), 2.0, "reached"),
        (Bound("at least", 2.0), 1.99, "missed"),
        (Bound("at least", 2.0), float("nan"), "missed"),
        (Bound("at least", 2.0), None, "not there"),
        (None, 1.0, "-"),
    ],
)
def test_a_row_is_judged_by_its_bound_alone(bound, ratio, verdict):
    assert Row("r", "a", "b", bound, ratio, missing="not there").verdict == verdict


def test_the_table_has_a_line_for_each_row_and_aligned_columns():
    spread = Spread((2.0, 2.5))
    rows = [
        Row("a", "ours: 2", "theirs: 1", Bound("at least", 2.0), 2.25, spread),
        Row("b", "a | b", "c", Bound("at most", 0.75), missing="not there"),
    ]
    assert table(rows).splitlines() == [
        "| measured | against   | to reach | ratio                  | verdict   |",
        "| -------- | --------- | -------- | ---------------------- | --------- |",
        "| ours: 2  | theirs: 1 | ≥ 2.00   | 2.250 (2.000 to 2.500) | reached   |",
        r"| a \| b   | c         | ≤ 0.75   |                        | not there |",
    ]


def test_a_smoke_run_gives_no_verdict():
    row = Row("a", "ours", "theirs", Bound("at least", 2.0), 5.0)
    assert "smoke run" in table([row], quick=True)
    assert "reached" not in table([row], quick=True)


@pytest.mark.parametrize(("runs", "option"), [("jemalloc", ""), ("glibc", " --allocator system")])
def test_a_result_tells_machine_versions_and_every_repeat(tmp_path, monkeypatch, runs, option):
    monkeypatch.setattr("benchmarks.serving.report.allocator", lambda: runs)
    spread = Spread((2.0, 2.5))
    row = Row("a", "x", "y", Bound("at least", 2.0), 2.25, spread, details={"peer": "plain"})
    path = write(tmp_path, "throughput", Plan.full(11), [row])
    found = json.loads(path.read_text())
    assert path.name == "serving_throughput.json"
    assert found["command"] == "python -m benchmarks.serving --only throughput --seed 11" + option
    assert found["allocator"] == runs
    assert found["versions"]["bentoml"] == version("bentoml")
    assert (found["seed"], found["threads"], found["quick"]) == (11, 2, False)
    assert found["device"]
    assert found["cores"] >= 1
    (written,) = found["rows"]
    assert written["ratio_by_repeat"]["values"] == [2.0, 2.5]
    assert (written["verdict"], written["peer"]) == ("reached", "plain")


def test_each_batch_size_of_the_onnx_backend_is_a_row_of_its_own():
    sides = {"torch": {"ms": 20.0}, "onnx": {"ms": 12.0}}
    slower = {"torch": {"ms": 100.0}, "onnx": {"ms": 80.0}}
    rows = rows_of({"rows": {"1": {"step": sides}, "8": {"step": slower}}})
    assert [(row.ratio, row.verdict) for row in rows] == [(0.6, "reached"), (0.8, "missed")]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_smoke_run_compares_a_real_service_with_diffusers(tmp_path):
    command = [sys.executable, "-m", "benchmarks.serving", "--quick", "--only", "alone"]
    command += ["--allocator", "system"]  # jemalloc must be fetched: test_allocator.py
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "one request alone through HTTP, 2 steps" in done.stdout
    found = json.loads((tmp_path / "serving_alone.json").read_text())
    (row,) = found["rows"]
    assert (found["threads"], found["seed"], found["quick"]) == (2, 7, True)
    assert found["allocator"] == allocator()
    assert row["seconds"]["quickfix"]["n"] == row["seconds"]["in process"]["n"] == 2
    assert row["ratio"] == pytest.approx(
        row["seconds"]["quickfix"]["median"] / row["seconds"]["in process"]["median"]
    )
    assert row["images"]["compared_with_diffusers"] == 2
    assert row["images"]["largest_difference_of_255"] <= 1


@pytest.mark.e2e
@pytest.mark.slow
def test_the_adaptive_peer_of_a_stream_may_take_20_seconds_and_serves(tmp_path):
    plan = Plan.smoke(7)
    with start(ADAPTIVE_STREAM, tmp_path, plan) as server:
        command = server.processes[0].cmdline()
        load = closed_loop(server.url, mixed(2, seed=7, steps=plan.steps), clients=2)
    assert "max_latency_ms=20000" in command
    assert len(load.latencies) == 2


def test_an_unknown_measurement_is_refused_before_anything_starts():
    command = [sys.executable, "-m", "benchmarks.serving", "--only", "speed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "speed" in done.stderr
