"""Which pictures are drawn, in which batches, and how their scores find their place."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edits.tracing.plan import (
    CLEAN,
    CORRUPTED,
    ROW_MULTIPLE,
    Conditions,
    Task,
    Unit,
    denoiser_plan,
    text_plan,
    with_clean_rows,
)

MAKERS = {"text": text_plan, "denoiser": denoiser_plan}


def own(sites):
    return Conditions({name: name for name in (CLEAN, CORRUPTED, *sites)})


def test_conditions_with_one_embedding_are_drawn_once():
    alias = Conditions({CLEAN: CLEAN, CORRUPTED: CORRUPTED, "a": "a", "b": "a", "c": CLEAN})
    plan = text_plan({("object", 0): alias}, seeds=(0, 1), draws=1, batch=8)
    assert plan.pictures == 2 * 3
    scores = {n: [[hash((t.unit.seed, t.condition)) % 97] for t in b]
              for n, b in enumerate(plan.batches)}  # fmt: skip
    array = plan.assemble(scores, 1)["object"]
    names = plan.conditions("object")
    assert names == (CLEAN, CORRUPTED, "a", "b", "c")
    assert np.array_equal(array[..., 2, :], array[..., 3, :])
    assert np.array_equal(array[..., 4, :], array[..., 0, :])


def test_the_clean_picture_is_drawn_once_for_all_draws():
    plan = text_plan({("object", 0): own(["a"])}, seeds=(5,), draws=3, batch=64)
    tasks = [task for batch in plan.batches for task in batch]
    assert [t.unit.draw for t in tasks if t.condition == CLEAN] == [0]
    assert [t.unit.draw for t in tasks if t.condition == "a"] == [0, 1, 2]


@given(
    sites=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    seeds=st.integers(1, 3),
    draws=st.integers(1, 3),
    batch=st.integers(2, 20),
    maker=st.sampled_from(sorted(MAKERS)),
)
def test_every_picture_is_drawn_once_and_no_batch_is_too_large(sites, seeds, draws, batch, maker):
    pairs = {("object", i): own([f"s{k}" for k in range(n)]) for i, n in enumerate(sites)}
    plan = MAKERS[maker](pairs, seeds=tuple(range(seeds)), draws=draws, batch=batch)
    tasks = [task for part in plan.batches for task in part]
    assert len(tasks) == len(set(tasks)) == plan.pictures
    expected = sum(seeds * (draws * (n + 1) + 1) for n in sites)
    assert plan.pictures == expected
    assert plan.rows % ROW_MULTIPLE == 0
    for part in plan.batches:
        rows = list(with_clean_rows(part)) if maker == "denoiser" else list(part)
        assert len(part) >= 1
        assert len(rows) <= batch
    scores = {n: [[float(n), float(i)] for i in range(len(p))] for n, p in enumerate(plan.batches)}
    array = plan.assemble(scores, 2)["object"]
    assert array.shape == (len(sites), seeds, draws, 2 + max(sites), 2)
    assert np.isnan(array[..., 0]).sum() == sum(seeds * draws * (max(sites) - n) for n in sites)


@given(sites=st.integers(0, 30), batch=st.integers(2, 12))
def test_every_unit_of_a_denoisers_batch_has_exactly_one_clean_row(sites, batch):
    pairs = {("a", i): own([f"s{k}" for k in range(sites)]) for i in range(3)}
    plan = denoiser_plan(pairs, seeds=(0,), draws=2, batch=batch)
    for part in plan.batches:
        rows = [task for task, _ in with_clean_rows(part)]
        for unit in {task.unit for task in part}:
            assert rows.count(Task(unit, CLEAN)) == 1


def test_subject_tokens_stand_in_order_when_a_longer_subject_comes_later():
    short = own(["e.layers.0.mlp@subject 1", "e.layers.0.mlp@last"])
    long = own([f"e.layers.0.mlp@subject {n}" for n in (1, 2, 3)] + ["e.layers.0.mlp@last"])
    plan = text_plan({("o", 0): short, ("o", 1): long}, seeds=(0,), draws=1, batch=8)
    names = [name.partition("@")[2] for name in plan.conditions("o")[2:]]
    assert names == ["subject 1", "subject 2", "subject 3", "last"]


def test_a_unit_is_known_by_its_pair_seed_and_draw():
    assert Unit("object", 3, 1, 0).key == ("object", 3)
