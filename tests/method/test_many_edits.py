"""Many edits at once: sums by buckets, and what one edit more or less changes."""

import random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edits.method import PRESETS, QUICKFIX, Editor, EditSpec, resolve
from edits.method.captions import naming
from edits.method.fingerprint import weights_digest
from edits.method.moments import BUCKETS, BucketedSums
from tests.tiny_layouts import build_sdxl

from .conftest import ORDINARY

WORDS = ("cat", "house", "tree", "robot", "knife", "gun", "beer", "juice", "toy", "photo")
MANY = [EditSpec(f"e{i}", f"{a} {b}", "toy") for i, (a, b) in enumerate(
    (a, b) for a in WORDS[:6] for b in WORDS[:5] if a != b
)]  # fmt: skip


def relative(a, b):
    return float((a - b).norm() / b.norm())


def test_sums_over_many_edits_solve_what_their_rows_do(pipeline, editor, monkeypatch):
    in_sums = editor.compose(MANY).weights[QUICKFIX].double()
    monkeypatch.setattr("edits.method.joint._FEW", len(MANY))
    in_rows = Editor(pipeline, ordinary=ORDINARY).compose(MANY).weights[QUICKFIX].double()
    pristine = resolve(pipeline.text_encoder, QUICKFIX).weight.double()
    assert relative(in_sums - pristine, in_rows - pristine) < 1e-4
    assert relative(in_sums, pristine) > 1e-3


def test_one_of_many_taken_out_and_put_back_leaves_no_trace(pipeline, editor):
    before = editor.compose(MANY)
    without = editor.compose(MANY[1:])
    assert without.digest != before.digest
    assert without.digest == Editor(pipeline, ordinary=ORDINARY).compose(MANY[1:]).digest
    assert editor.compose(list(reversed(MANY))).digest == before.digest


def test_one_edit_more_captures_no_other_again(editor, monkeypatch):
    editor.compose(MANY)
    captured = []
    own = editor._keys._pair_rows
    monkeypatch.setattr(
        editor._keys,
        "_pair_rows",
        lambda source, spec, *rest: captured.append(spec) or own(source, spec, *rest),
    )
    newcomer = EditSpec("one more", "beer gun", "toy")
    editor.compose([*MANY, newcomer])
    assert captured == [newcomer]
    editor.compose(MANY)
    assert captured == [newcomer]


def test_one_edit_less_sums_one_bucket_again_for_each_source_and_kind(monkeypatch):
    """SDXL has two sources; each keeps the sums of its own edits and of what they preserve."""
    editor = Editor(build_sdxl(), ordinary=ORDINARY)
    names = [chr(a) + chr(b) for a in range(ord("a"), ord("z")) for b in range(ord("a"), ord("z"))]
    many = [
        EditSpec(f"e{i}", name, "toy", preserve=(2 * name,), sites=PRESETS["quickfix"])
        for i, name in enumerate(names[:48])
    ]
    before = editor.compose(many)
    fewer = Editor(build_sdxl(), ordinary=ORDINARY).compose(many[1:])
    summed = []
    total = BucketedSums.total

    def watched(sums, kind, items, moments):
        return total(sums, kind, items, lambda part: summed.append(kind) or moments(part))

    monkeypatch.setattr(BucketedSums, "total", watched)
    assert editor.compose(many[1:]).digest == fewer.digest
    kinds = {(what, source.component) for what, source in summed}
    sources = ("text_encoder", "text_encoder_2")
    assert kinds == {(what, source) for what in ("edits", "names") for source in sources}
    assert len(summed) == len(kinds)
    assert editor.compose(many).digest == before.digest
    assert len(summed) == len(kinds), "the sums of both sets are kept"


def test_sums_of_many_kinds_do_not_pile_up():
    sums, made = BucketedSums(), []
    for _ in range(2):
        for kind in range(5):
            sums.total(kind, {"a": 1}, lambda names: made.append(names) or (torch.ones(1),))
    assert len(made) == 10
    sums.total(4, {"a": 1}, lambda names: made.append(names) or (torch.ones(1),))
    assert len(made) == 10


def test_many_edits_leave_the_pinned_directions_still(pipeline, editor):
    weight = editor.compose(MANY).weights[QUICKFIX].double()
    delta = weight - resolve(pipeline.text_encoder, QUICKFIX).weight.double()
    spanned = editor._keys.spanned(QUICKFIX)
    assert float((delta @ spanned.T).norm()) < 1e-5 * float(delta.norm())


def test_what_is_not_preserved_is_named_and_no_neighbour_that_is_removed_is(editor):
    """A name in which a removed one stands cannot stay, whichever edit removes it."""
    cat = EditSpec("cat", "cat", "toy", preserve=("cat by van gogh", "small house", "knife"))
    assert editor.compose([cat]).report("cat")[0].not_preserved == ("cat by van gogh",)
    house = EditSpec("house", "house", "toy", preserve=("knife",))
    both = editor.compose([cat, house])
    assert both.report("cat")[0].not_preserved == ("cat by van gogh", "small house")
    assert both.report("house")[0].not_preserved == ()
    assert not {"cat", "house"} & {n for r in both.reports for n in r.neighbours}


def test_neighbours_are_names_of_the_list_that_no_edit_removes(editor):
    for report in editor.compose(MANY).reports:
        assert set(report.neighbours) <= set(ORDINARY)
    (report,) = editor.compose([EditSpec("e", "cat", "toy")]).reports
    assert "cat" not in report.neighbours
    assert naming(report.neighbours, ["cat"]) == ()


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.text(min_size=1, max_size=5), st.floats(-1e3, 1e3), min_size=1),
    st.randoms(use_true_random=False),
)
def test_bucketed_sums_depend_on_the_items_alone(items, random):
    sums = BucketedSums()
    for _ in range(3):
        some = {name: items[name] for name in items if random.random() < 0.5} or items
        sums.total("kind", some, lambda names: (torch.tensor(sum(items[n] for n in names)),))
    (total,) = sums.total(
        "kind", items, lambda names: (torch.tensor(sum(items[n] for n in names)),)
    )
    (fresh,) = BucketedSums().total(
        "kind", items, lambda names: (torch.tensor(sum(items[n] for n in names)),)
    )
    assert torch.equal(total, fresh)
    assert float(total) == torch.tensor(sum(items.values())).float().item() or abs(
        float(total) - sum(items.values())
    ) < 1e-2 * max(1.0, abs(sum(items.values())))
    assert BUCKETS == 16


def test_two_hundred_random_histories_end_in_the_bits_of_their_set(pipeline, editor):
    """Edits come and go in any order; what is left decides the weights, and nothing leaves all."""
    choose = random.Random(200)
    pristine = weights_digest({QUICKFIX: resolve(pipeline.text_encoder, QUICKFIX).weight})
    digests = {}
    for _ in range(200):
        present = []
        for _ in range(choose.randrange(1, 12)):
            if present and choose.random() < 0.4:
                present.remove(choose.choice(present))
            elif left := [spec for spec in MANY[:12] if spec not in present]:
                present.insert(choose.randrange(len(present) + 1), choose.choice(left))
            last = editor.compose(present)
        left = frozenset(spec.name for spec in present)
        assert digests.setdefault(left, last.digest) == last.digest
        assert editor.apply(editor.compose([])) == {}
    assert len(set(digests.values())) == len(digests) > 100
    assert weights_digest({QUICKFIX: resolve(pipeline.text_encoder, QUICKFIX).weight}) == pristine
    for left, digest in choose.sample(sorted(digests.items(), key=str), 20):
        fresh = Editor(pipeline, ordinary=ORDINARY)
        assert fresh.compose([spec for spec in MANY if spec.name in left]).digest == digest
