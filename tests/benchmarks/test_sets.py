from itertools import pairwise

from benchmarks.peers.cells import probes_of
from benchmarks.peers.sets import COUNTS, removed, untouched
from edits.method.captions import caption_pairs


def test_sets_are_nested_and_mix_objects_with_styles():
    for small, large in pairwise(COUNTS):
        assert removed(large)[:small] == removed(small)
        assert {spec.kind for spec in removed(large)} == {"object", "style"}
    assert [len(removed(count)) for count in COUNTS] == [1, 2, 4, 8, 16]


def test_largest_set_leaves_twelve_objects_and_two_styles(judge):
    styles = judge.classes["style"][1:]
    assert len(untouched(judge.classes["object"], removed(16))) >= 12
    assert len(untouched(styles, removed(16))) >= 2


def test_no_anchor_is_a_concept_of_any_set():
    concepts = {spec.concept for spec in removed(16)}
    assert not concepts & {spec.anchor for spec in removed(16)}


def test_probes_of_a_cell_are_enough_and_have_seeds_of_their_own(judge):
    for count in COUNTS:
        probes = probes_of(judge, removed(count), targets=100, each=7, seed=5)
        assert len(probes.target) >= 100
        assert len(probes.plain) + len(probes.styled) >= 100
        seeds = [probe.seed for probe in probes.all]
        assert len(set(seeds)) == len(seeds)


def test_no_probe_is_a_caption_that_an_edit_is_solved_with(judge):
    probes = probes_of(judge, removed(16), targets=100, each=7, seed=5)
    solved = {pair.concept.text for spec in removed(16) for pair in caption_pairs(spec)}
    assert not solved & {probe.prompt for probe in probes.all}


def test_kept_pictures_are_the_same_in_every_cell_and_name_nothing_removed(judge):
    kept = {
        count: {
            (probe.prompt, probe.seed)
            for cell in [probes_of(judge, removed(count), targets=16, each=2, seed=5)]
            for probe in (*cell.plain, *cell.styled)
        }
        for count in COUNTS
    }
    assert kept[16] < kept[8] < kept[4] < kept[2] < kept[1]
    gone = [spec.concept for spec in removed(16)]
    assert not any(f" {name} " in f" {prompt} " for prompt, _ in kept[16] for name in gone)
