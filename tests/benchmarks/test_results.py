import json
import math

import numpy as np
import pytest

from benchmarks.peers.cells import Cell
from benchmarks.peers.journal import Journal
from benchmarks.peers.results import document, estimates, figures, markdown, plot
from edits.evaluation.rates import Rate


def cell(method, *, target, objects, styles=(1, 1), colours=(1, 1, 1, 1, 1, 1), count=1):
    return Cell(
        method=method,
        count=count,
        seconds=0.5,
        target=tuple(map(bool, target)),
        kept={
            "object": tuple(map(bool, objects)),
            "style": tuple(map(bool, styles)),
            "colour": tuple(map(bool, colours)),
        },
        classes={
            "target": ("pistol",) * len(target),
            "object": ("cat", "cat", "dog", "dog"),
            "style": ("seurat", "seurat"),
        },
    )


UNEDITED = cell("unedited", target=(1, 1, 1, 1), objects=(1, 1, 1, 0))


def test_score_is_the_harmonic_mean_of_removal_and_relative_retention():
    found = figures(cell("uce", target=(0, 0, 0, 1), objects=(1, 0, 0, 0)), UNEDITED)
    relative = (0.25 + 1 + 1) / (0.75 + 1 + 1)
    assert found["target"]["rate"] == 0.25
    assert found["retained"]["value"] == pytest.approx(relative, abs=1e-4)
    assert found["score"]["value"] == pytest.approx(
        2 * 0.75 * relative / (0.75 + relative), abs=1e-4
    )
    assert found["worst"] == {"class": "cat", "drop": 0.5}


def test_what_changes_nothing_retains_exactly_all_and_scores_nothing():
    found = figures(UNEDITED, UNEDITED)
    assert found["retained"]["value"] == 1.0
    assert found["score"]["value"] == found["score"]["low"] == 0.0


def test_a_retention_above_the_unedited_models_is_told_and_not_rewarded():
    found = figures(cell("uce", target=(0, 0, 0, 0), objects=(1, 1, 1, 1)), UNEDITED)
    assert found["retained"]["value"] > 1
    assert found["score"]["value"] == 1.0


def test_pictures_that_are_all_right_prove_no_more_than_their_number():
    """At 100 of 100, 24 of 24 and 124 of 124 the bounds of Wilson are 96.3, 86.2 and 97.0."""
    kept = (Rate(100, 100), Rate(24, 24), Rate(124, 124))
    found = estimates(Rate(0, 100), kept, 1.0)
    short = math.hypot(*((1 - rate.interval[0]) / 3 for rate in kept))
    assert found["retained"] == {"value": 1.0, "low": round(1 - short, 4), "high": 1.0}
    assert found["score"]["value"] == found["score"]["high"] == 1.0
    assert 0.95 < found["score"]["low"] < 0.975
    many = estimates(Rate(0, 10_000), tuple(Rate(10_000, 10_000) for _ in kept), 1.0)
    assert found["score"]["low"] < many["score"]["low"] < 1.0


def test_an_interval_holds_what_a_bootstrap_over_many_pictures_finds():
    """Where every rate lies inside 0 and 1 the two agree."""
    rates = (Rate(80, 400), Rate(300, 400), Rate(200, 400), Rate(250, 400))
    generator = np.random.default_rng(0)
    target, *kept = (generator.binomial(r.count, r.value, 20_000) / r.count for r in rates)
    retained = sum(kept) / 3
    scores = 2 * (1 - target) * retained / (1 - target + retained)
    found = estimates(rates[0], rates[1:], 1.0)
    for name, draws in (("retained", retained), ("score", scores)):
        bounds = (found[name]["low"], found[name]["high"])
        assert bounds == pytest.approx(np.quantile(draws, (0.025, 0.975)), abs=0.004)


def test_intervals_hold_the_value_and_come_again_with_the_same_cells():
    changed = cell("uce", target=(0, 0, 1, 0), objects=(1, 1, 0, 0))
    first, second = figures(changed, UNEDITED), figures(changed, UNEDITED)
    assert first == second
    for part in (first["retained"], first["score"]):
        assert part["low"] < part["value"] <= part["high"]


def test_table_and_plot_have_every_method_and_count(tmp_path):
    cells = [
        cell(method, target=(0, 0, 0, 1), objects=(1, 1, 1, 0), count=count)
        for method in ("unedited", "uce")
        for count in (1, 2)
    ]
    options = {"targets": 4, "each": 2, "seed": 1, "steps": 4, "guidance_scale": 3.0}
    found = document(cells, {}, options)
    assert sum(line.startswith("| uce |") for line in markdown(found).splitlines()) == 2
    plot(found | {"methods": {"uce": {}}}, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


def test_journal_finds_a_cell_under_its_own_options_and_settings_only(tmp_path):
    path = tmp_path / "cells.jsonl"
    Journal(path, {"seed": 1}).add(UNEDITED, "as it is")
    assert Journal(path, {"seed": 1}).find("unedited", "as it is", 1) == UNEDITED
    assert Journal(path, {"seed": 2}).find("unedited", "as it is", 1) is None
    assert Journal(path, {"seed": 1}).find("unedited", "otherwise", 1) is None
    assert Journal(path, {"seed": 1}).find("unedited", "as it is", 2) is None


def test_journal_passes_over_a_half_written_line(tmp_path):
    path = tmp_path / "cells.jsonl"
    Journal(path, {}).add(UNEDITED, "")
    line = path.read_text("utf-8")
    path.write_text(line + line[: len(line) // 2], encoding="utf-8")
    assert Journal(path, {}).find("unedited", "", 1) == UNEDITED
    assert json.loads(line)["cell"]["count"] == 1
