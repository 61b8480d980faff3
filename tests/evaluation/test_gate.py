"""The gate on the shipped model: what is chosen, what passes, what is refused and says why."""

from dataclasses import replace
from pathlib import Path

import pytest

from edits.errors import GateRefused
from edits.evaluation.confusion import Confusion, ConfusionTest
from edits.evaluation.gate import (
    NEIGHBOURS,
    GateReport,
    _neighbours,
    choose,
    examine,
    halves,
)
from edits.evaluation.rates import Rate
from edits.evaluation.standing import ENOUGH, LOOKED_AT, StandingTest, undone
from edits.manifests import (
    Accept,
    RevisionContent,
    catalog_entry,
    load_manifest,
    parse_manifest,
)
from edits.method import Editor, EditSpec
from edits.method.captions import HELD_OUT, TEMPLATES
from edits.plan import OPEN_FIELDS
from edits.workbench import Workbench
from tests.tiny_pipeline import build_pipeline

MODEL = str(Path(__file__).resolve().parents[2] / "models" / "demo")
METHOD = {"tokens": "last", "ridge": 0.01, "preserve_weight": 0.1, "pad_weight": 1.0}
PISTOL = EditSpec("remove-pistol", "pistol", "toy", aliases=("gun",))


@pytest.fixture(scope="module")
def bench():
    return Workbench.open(MODEL)


def manifest(**spec):
    return parse_manifest(
        {
            "apiVersion": "quickfix/v1",
            "kind": "ConceptEdit",
            "metadata": {"name": "e", "version": 1},
            "spec": {"concept": "pistol", "anchor": "toy", "type": "object", **spec},
        }
    )


@pytest.mark.parametrize("kind", ["object", "style", "fact"])
def test_the_halves_are_apart_and_no_edit_is_solved_with_either(kind):
    choosing, deciding = halves(EditSpec("e", "x", "y", kind=kind))
    assert set(choosing) | set(deciding) == set(HELD_OUT[kind])
    assert not set(choosing) & set(deciding)
    assert not set(HELD_OUT[kind]) & set(TEMPLATES[kind])


def test_no_held_out_caption_mentions_what_is_removed():
    """Without cats "a cat beside a dog" cannot stay as it is."""
    house = EditSpec("other", "x", "y", aliases=("house",))
    assert "a cat beside {ax}" in sum(halves(EditSpec("e", "dog", "toy")), ())
    left = sum(halves(EditSpec("e", "cat", "toy"), [house]), ())
    assert set(HELD_OUT["object"]) - set(left) == {
        "a cat beside {ax}",
        "a photo of my {x} and a house",
    }


def test_a_half_in_which_every_caption_mentions_something_removed_stays_whole():
    things = [EditSpec(name, name, "toy") for name in ("fish", "tree", "dog", "apple")]
    style = EditSpec("e", "van gogh", "photo", kind="style")
    assert halves(style, things)[0] == halves(style)[0]
    assert len(halves(style, things[:3])[0]) == 1


def test_a_concept_that_a_held_out_caption_mentions_needs_no_large_delta(bench):
    (chosen,) = bench.gatekeeper.choose([manifest(concept="cat", anchor="toy")])
    assert chosen.ridge == 100.0


def test_a_removal_whose_delta_is_larger_than_the_weight_is_not_chosen(bench):
    """Spellings that no caption has would draw the concept: 36 of the worst 48 pictures did."""
    accented = {
        "aliases": ["gun", "handgun", "ṕistol"],
        "preserve": ["knife", "robot", "rocket", "car", "ball", "flower"],
        "accept": {"max_target_rate": 0.05, "max_drop": 0.03},
    }
    with pytest.raises(GateRefused, match="still reads as the concept"):
        bench.gatekeeper.admit(RevisionContent(), manifest(**accented))
    pinned = manifest(**accented, method={"ridge": 1.0, "preserve_weight": 0.1})
    admitted = bench.gatekeeper.admit(RevisionContent(), pinned)
    assert bench.editor.compose([admitted.spec]).size() > 2.0


def test_where_every_delta_is_too_large_the_author_is_asked_for_a_ridge(bench, monkeypatch):
    monkeypatch.setattr("edits.evaluation.gate._LARGEST_DELTA", 0.1)
    with pytest.raises(GateRefused, match="larger than the layer's weight") as caught:
        choose(bench.editor, PISTOL, [], OPEN_FIELDS)
    assert caught.value.param == "spec.method.ridge"
    without_ridge = [field for field in OPEN_FIELDS if field != "ridge"]
    assert choose(bench.editor, PISTOL, [], without_ridge).ridge == PISTOL.ridge


def test_an_unedited_model_reads_the_concept_and_an_edited_one_does_not(bench):
    test = ConfusionTest(bench.editor, PISTOL, halves(PISTOL)[1], ("knife", "cat", "tree"))
    before = test.run({})
    assert before.target.value == 1.0
    assert (before.drop, before.reached, before.moved) == (0.0, 0.0, 0.0)
    after = test.run(bench.editor.apply(bench.editor.compose([PISTOL])))
    assert after.target.value < 0.5
    assert after.reached > 0.6
    assert after.moved < 0.3
    assert after.score > before.score


def test_cross_attention_edits_are_read_at_their_own_layers(bench):
    spec = EditSpec("e", "pistol", "toy", sites=bench.gatekeeper.choose(
        [manifest(method={"sites": "uce"})]
    )[0].sites)  # fmt: skip
    test = ConfusionTest(bench.editor, spec, halves(spec)[1], ("knife", "cat"))
    assert test.run({}).target.value == 1.0
    assert test.run(bench.editor.apply(bench.editor.compose([spec]))).target.value < 0.5


def test_the_sweep_never_answers_worse_settings_than_it_was_given(bench):
    weak = EditSpec("e", "pixel art", "photo", kind="style", tokens="last", ridge=0.01)
    chosen = choose(bench.editor, weak, [], OPEN_FIELDS)
    choosing, _ = halves(weak)
    test = ConfusionTest(bench.editor, weak, choosing, ("mondrian", "seurat", "hokusai"))
    scores = [
        test.run(bench.editor.apply(bench.editor.compose([spec]))).score for spec in (weak, chosen)
    ]
    assert scores[1] > scores[0]
    assert chosen.tokens == "last+pad", "the subject's own row alone leaves pixel art"


def test_settings_that_the_manifest_names_are_not_chosen(bench):
    (spec,) = bench.gatekeeper.choose([manifest(method={"tokens": "last", "ridge": 0.05})])
    assert (spec.tokens, spec.ridge) == ("last", 0.05)


def test_what_is_chosen_stands_beside_the_manifest_and_is_chosen_once(bench):
    edit = catalog_entry("remove-pistol")
    first = bench.gatekeeper.admit(RevisionContent(), edit)
    assert first.content.edits == (edit,)
    assert first.content.choices.keys() == {"remove-pistol"}
    assert first.report.embeddings.target.hits == 0
    again = bench.gatekeeper.admit(first.content, edit)
    assert again.content is first.content
    assert again.report is None
    assert again.spec == first.spec


def crowd():
    """A content of nine edits that leave hardly anything else as it is."""
    content = RevisionContent()
    others = ("knife", "bomb", "robot", "skull", "guitar", "rocket", "frog", "bird", "key")
    for number, name in enumerate(others):
        other = manifest(concept=name, anchor="toy", method={
            "tokens": "last+pad", "ridge": 1e-6, "preserve_weight": 0.0, "pad_weight": 1.0
        })  # fmt: skip
        renamed = other.metadata.model_copy(update={"name": f"other-{number}"})
        content = content.with_edit(other.model_copy(update={"metadata": renamed}))
    return content


@pytest.mark.parametrize(
    ("spec", "param", "words"),
    [
        (
            {"method": {"ridge": 1e9}, "accept": {"max_target_rate": 0.05}},
            "spec.accept.max_target_rate",
            "captions read as the concept",
        ),
        ({"concept": "cat", "anchor": "kitten"}, "spec.anchor", "one thing"),
        (
            {"method": {"ridge": 1e-6, "preserve_weight": 0.0}, "accept": {"max_drop": 0.0}},
            "spec.accept.max_drop",
            "of what is to stay is lost",
        ),
    ],
)
def test_a_refusal_names_the_bound_and_the_figures(bench, spec, param, words):
    # Alone it harms nothing: with nine others it does.
    content = crowd() if param == "spec.accept.max_drop" else RevisionContent()
    with pytest.raises(GateRefused) as caught:
        bench.gatekeeper.admit(content, manifest(**spec))
    assert caught.value.param == param
    assert words in caught.value.message


HARSH = {"method": {"ridge": 1e-6, "preserve_weight": 0.0}, "accept": {"max_drop": 0.05}}


def test_a_neighbour_that_is_gone_altogether_is_no_chance():
    """Four flips of 32 captions may be chance, unless they are all captions of one name."""
    spread = Confusion(Rate(0, 8), Rate(28, 32), 1.0, 0.0, ("cat", "dog", "key", "cup"))
    assert spread.harm == pytest.approx(0.0497, abs=1e-4)
    assert replace(spread, lost=("cat",), gone=("cat",)).harm == 0.125


def test_names_that_an_author_preserves_replace_no_neighbour(bench):
    spec = replace(PISTOL, preserve=tuple(f"nothing like it {n}" for n in range(8)))
    alone, preserved = (_neighbours(bench.editor, edit, ()) for edit in (PISTOL, spec))
    assert len(alone) == NEIGHBOURS
    assert preserved == (*spec.preserve, *alone)


def test_an_edit_that_goes_half_of_the_way_does_not_pass_a_bound_on_the_target(bench):
    """Its captions read as the anchor, and pictures show the concept again."""
    spec = replace(PISTOL, ridge=600.0, tokens="last", preserve_weight=0.1)
    modules = bench.editor.apply(bench.editor.compose([spec]))
    found = examine(bench.editor, modules, spec, (), None).embeddings
    assert found.target.hits == 0
    assert 0 < found.reached < ENOUGH
    with pytest.raises(GateRefused, match="% of the way to 'toy'") as refused:
        examine(bench.editor, modules, spec, (), Accept(max_target_rate=0.05))
    assert refused.value.param == "spec.method.ridge"
    assert examine(bench.editor, modules, spec, (), Accept(max_target_rate=0.5)).embeddings == found


def test_a_mandatory_edit_is_examined_beside_the_edits_of_every_policy(bench):
    everything = crowd()
    names = everything.policies["default"]
    content = everything.with_policy("default", ()).with_policy("crowd", names)
    alone = bench.gatekeeper.admit(content, manifest(**HARSH))
    assert alone.content.policies == {"crowd": names, "default": ("e",)}
    mandatory = manifest(**HARSH, mandatory=True)
    with pytest.raises(GateRefused, match=r"policy 'crowd': .* of what is to stay is") as caught:
        bench.gatekeeper.admit(content, mandatory)
    assert caught.value.param == "spec.accept.max_drop"
    calm = content.with_policy("crowd", ()).with_policy("also-empty", ())
    assert bench.gatekeeper.admit(calm, mandatory).spec == alone.spec


def test_an_edit_that_default_does_not_hold_is_examined_where_it_is_held(bench):
    first = manifest(concept="cat", anchor="dog", method={"ridge": 1.0})
    content = crowd().with_edit(first)
    names = content.policies["default"]
    content = content.with_policy("default", ()).with_policy("crowd", names)
    second = manifest(**HARSH).model_copy(
        update={"metadata": first.metadata.model_copy(update={"version": 2})}
    )
    with pytest.raises(GateRefused, match="of what is to stay is lost"):
        bench.gatekeeper.admit(content, second)


def test_as_many_sets_are_examined_as_are_worth_the_time(bench, monkeypatch):
    content = crowd()
    for number in range(12):
        content = content.with_policy(f"p-{number:02}", content.policies["default"][: number % 9])
    beside, drawn = [], []

    def examined(_editor, _modules, _spec, others, _accept, *, pictures, on_pictures):
        beside.append(len(others))
        drawn.append(on_pictures)
        return GateReport(Confusion(Rate(0, 1), Rate(1, 1), 1.0, 0.0, ()), None, 1.0)

    monkeypatch.setattr("edits.publication.examine", examined)
    report = bench.gatekeeper.admit(content, manifest(method=METHOD, mandatory=True)).report
    assert beside == [9, 8, 7, 6, 5, 4, 3, 2]
    assert drawn == [True] + 7 * [False], "pictures take their time: in one set only"
    assert report.seconds == 8.0


def test_a_fact_must_read_as_its_new_target_and_not_only_no_longer_as_the_concept(bench):
    fact = EditSpec("new-sidearm", "pistol", "star", kind="fact")
    elsewhere = EditSpec("e", "pistol", "cat", tokens="last+pad", ridge=0.1)
    modules = bench.editor.apply(bench.editor.compose([elsewhere]))
    test = ConfusionTest(bench.editor, fact, halves(fact)[1], ("cat", "tree", "knife"))
    assert test.run(modules).target.value == 1.0
    removal = replace(fact, kind="object")
    gone = ConfusionTest(bench.editor, removal, halves(removal)[1], ("cat", "tree", "knife"))
    assert gone.run(modules).target.value == 0.0
    with pytest.raises(GateRefused, match=r"\d of \d captions do not read as 'star'") as caught:
        examine(bench.editor, modules, fact, [], Accept(max_target_rate=0.05))
    assert caught.value.param == "spec.accept.max_target_rate"


def test_the_example_of_a_fact_is_admitted(bench):
    edit = load_manifest(Path(MODEL).parents[1] / "docs" / "examples" / "new-emblem.yaml")
    report = bench.gatekeeper.admit(RevisionContent(), edit).report
    assert report.embeddings.target.hits == 0
    assert report.embeddings.target.count > 0


def test_a_bound_over_no_captions_is_refused():
    """This random model reads no caption of the knife as a knife."""
    editor = Editor(build_pipeline(), ordinary=("cat", "robot", "house", "tree"))
    spec = EditSpec("e", "knife", "a toy robot")
    modules = editor.apply(editor.compose([spec]))
    assert examine(editor, modules, spec, [], Accept(max_drop=1.0)).embeddings.target.count == 0
    with pytest.raises(GateRefused, match="reads no caption of 'knife' as it even") as caught:
        examine(editor, modules, spec, [], Accept(max_target_rate=1.0))
    assert caught.value.param == "spec.accept.max_target_rate"


def test_pictures_are_drawn_and_judged_where_the_manifest_asks_for_them(bench):
    edit = manifest(accept={"max_target_rate": 0.5, "max_drop": 0.5, "images": 2})
    admission = bench.gatekeeper.admit(RevisionContent(), edit)
    assert admission.report.pictures.target_rate <= 0.5
    figures = admission.report.document()["pictures"]
    assert figures["targets"]["name"]["n"] == 2
    assert all(change["before"]["n"] >= 2 for change in figures["retained"].values())


def test_an_edit_that_undoes_another_is_refused_with_the_share_that_is_left(bench):
    content = bench.gatekeeper.admit(RevisionContent(), catalog_entry("remove-pistol")).content
    stifling = manifest(concept="cat", anchor="dog", method={"preserve_weight": 300.0})
    with pytest.raises(GateRefused, match=r"remove-pistol from 0\.\d+ to 0\.[01]") as caught:
        bench.gatekeeper.admit(content, stifling)
    assert caught.value.param == "spec.method"


def test_settings_that_undo_another_edit_are_passed_over(bench):
    pistol = bench.gatekeeper.choose([catalog_entry("remove-pistol")])[0]
    cat = EditSpec("e", "cat", "dog", preserve_weight=300.0)
    chosen = choose(bench.editor, cat, [pistol], ["ridge", "preserve_weight"])
    assert chosen.preserve_weight < 300.0
    test = StandingTest(bench.editor, cat, [pistol])
    shares = [
        test.run(bench.editor.apply(bench.editor.compose([pistol, other])))["remove-pistol"]
        for other in (cat, chosen)
    ]
    assert shares[0] < 0.2
    assert shares[1] > ENOUGH


def test_of_many_edits_the_nearest_are_looked_at(bench):
    judged = bench.defaults.ordinary_captions[:25]
    others = [EditSpec(f"e-{n}", name, "toy") for n, name in enumerate(judged) if name != "knife"]
    looked_at = StandingTest(bench.editor, EditSpec("e", "knife", "toy"), others).run({})
    assert len(looked_at) == LOOKED_AT < len(others)
    assert all(share == pytest.approx(0.0, abs=1e-4) for share in looked_at.values())
    assert StandingTest(bench.editor, PISTOL, []).run({}) == {}


def test_undone_is_what_no_longer_goes_two_thirds_of_its_way_and_went_farther():
    before = {"kept": 0.9, "weaker": 0.9, "gone": 0.7, "worn": 0.6, "same": 0.6, "never": 0.3}
    after = {"kept": 0.9, "weaker": 0.7, "gone": 0.6, "worn": 0.5, "same": 0.595, "never": 0.1}
    assert undone(before, after) == ("gone", "worn")


def test_what_other_edits_removed_is_no_loss_of_this_one(bench):
    content = bench.gatekeeper.admit(RevisionContent(), catalog_entry("remove-pistol")).content
    edit = manifest(concept="knife", accept={"max_drop": 0.03, "images": 2})
    figures = bench.gatekeeper.admit(content, edit).report.document()["pictures"]
    assert figures["targets"]["name"]["n"] == 2
    assert figures["retained"]["objects"]["after"]["n"] == 24, "neither the knife nor the pistol"


def test_pictures_of_what_the_judge_does_not_know_are_refused(bench):
    edit = manifest(concept="zebra", accept={"images": 2})
    with pytest.raises(GateRefused, match="judge knows neither") as caught:
        bench.gatekeeper.admit(RevisionContent(), edit)
    assert caught.value.param == "spec.accept.images"


@pytest.mark.parametrize("preset", ["uce", "time", "locoedit"])
def test_every_preset_of_cross_attention_is_admitted_on_the_shipped_model(bench, preset):
    admission = bench.gatekeeper.admit(RevisionContent(), manifest(method={"sites": preset}))
    assert admission.report.embeddings.target.value < 0.5
    assert {site.component for site in bench.editor.sites(admission.spec)} == {"unet"}
    assert admission.content.choices == {}, "a preset of another method has its own settings"


def test_pictures_without_a_judge_are_refused(bench):
    edit = manifest(accept={"images": 2})
    (spec,) = bench.gatekeeper.choose([edit])
    modules = bench.editor.apply(bench.editor.compose([spec]))
    with pytest.raises(GateRefused, match="no judge") as caught:
        examine(bench.editor, modules, spec, [], edit.spec.accept)
    assert caught.value.param == "spec.accept.images"
