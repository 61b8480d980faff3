"""Every closed-form peer against the formula, written out once more; and our editor with it."""

import torch

from benchmarks.peers import closed_form
from edits.method import Editor, EditSpec, parse_sites, resolve
from edits.method.sites import QUICKFIX
from tests.benchmarks.oracle import CAPTIONS, first_attention, last_state, prompt_states, solved

PRESERVE = ("robot", "cat", "a photo of a knife")


def layers(pipeline):
    return dict(closed_form.cross_attention_layers(pipeline.unet))


def close(actual, expected):
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=1e-5)


def test_uce_is_its_formula_at_every_key_and_value_projection(pipeline, specs):
    edited = closed_form.uce(
        pipeline, specs, PRESERVE, ridge=0.5, erase_scale=2.0, preserve_scale=0.7
    )
    assert len(layers(pipeline)) >= 4
    for name, layer in layers(pipeline).items():
        old = layer.weight.double()
        rows = [
            (last_state(pipeline, s.concept), old @ last_state(pipeline, s.anchor), 2.0)
            for s in specs
        ]
        keys = [last_state(pipeline, text) for text in PRESERVE]
        rows += [(key, old @ key, 0.7) for key in keys]
        close(layers(edited)[name].weight, solved(layer.weight, rows, 0.5))
        assert (layers(edited)[name].weight - layer.weight).norm() > 0.1 * layer.weight.norm()


def test_locoedit_is_its_formula_in_the_layers_of_the_kind_and_changes_no_other(
    pipeline, specs, changed
):
    where = {"object": ("mid_block.",), "style": ("up_blocks.",)}
    edited = closed_form.locoedit(pipeline, specs, where, ridge=0.01)
    for name, layer in layers(pipeline).items():
        if not name.startswith("mid_block."):
            continue
        rows = [
            (
                last_state(pipeline, text.format("pistol")),
                layer.weight.double() @ last_state(pipeline, text.format("toy")),
                1.0,
            )
            for text in CAPTIONS
        ]
        close(layers(edited)[name].weight, solved(layer.weight, rows, 0.01))
    names = {name.removeprefix("unet.").split(".")[0] for name in changed(pipeline, edited)}
    assert names == {"mid_block", "up_blocks"}


def test_time_maps_all_positions_and_keeps_what_stands_before_the_concept(pipeline, specs):
    edited = closed_form.time(pipeline, specs, ridge=0.1)
    name, layer = next(iter(layers(pipeline).items()))
    rows = []
    for spec in specs:
        for text in CAPTIONS:
            states, last = prompt_states(pipeline, text.format(spec.concept))
            wanted, other = prompt_states(pipeline, text.format(spec.anchor))
            for place, key in enumerate(states):
                at = min(place, other) if place < last else place - last + other
                rows.append((key, layer.weight.double() @ wanted[min(at, len(states) - 1)], 1.0))
    close(layers(edited)[name].weight, solved(layer.weight, rows, 0.1))


def test_time_of_a_concept_to_itself_changes_nothing_but_rounding(pipeline):
    same = EditSpec(name="same", concept="pistol", anchor="pistol")
    edited = closed_form.time(pipeline, [same], ridge=0.1)
    for name, layer in layers(pipeline).items():
        torch.testing.assert_close(layers(edited)[name].weight, layer.weight)


def test_released_sums_its_rows_over_concepts_with_the_bias_counted_twice(pipeline, specs):
    edited = closed_form.released(pipeline, specs, ridge=0.01)
    layer = resolve(pipeline.text_encoder, QUICKFIX)
    assert layer.bias.abs().max() > 0.01
    rows = []
    for spec in specs:
        for text in CAPTIONS:
            keys, _, last = first_attention(pipeline, text.format(spec.concept))
            _, values, other = first_attention(pipeline, text.format(spec.anchor))
            for offset in range(len(keys) - last):
                at = min(other + offset, len(keys) - 1)
                rows.append((keys[last + offset], values[at], 1.0))
    expected = solved(layer.weight, rows, 0.01)
    close(resolve(edited.text_encoder, QUICKFIX).weight, expected)


def test_released_with_one_concept_is_the_editors_parity_mode(pipeline):
    spec = EditSpec(name="a", concept="pistol", anchor="toy", parity=True, tokens="last+pad")
    ours = Editor(pipeline).compose([spec]).weights
    edited = closed_form.released(pipeline, [spec], ridge=spec.ridge)
    close(resolve(edited.text_encoder, QUICKFIX).weight, ours[QUICKFIX].double())


def test_editor_in_parity_mode_at_cross_attention_is_the_formula(pipeline):
    spec = EditSpec(
        name="a",
        concept="pistol",
        anchor="toy",
        parity=True,
        sites=parse_sites("time"),
        tokens="last",
        ridge=0.1,
    )
    weights = Editor(pipeline).compose([spec]).weights
    assert len(weights) == len(layers(pipeline))
    for site, weight in weights.items():
        old = layers(pipeline)[site.path].weight
        rows = [
            (
                last_state(pipeline, text.format("pistol")),
                old.double() @ last_state(pipeline, text.format("toy")),
                1.0,
            )
            for text in CAPTIONS
        ]
        close(weight, solved(old, rows, 0.1))


def test_edits_leave_the_pipeline_that_they_were_given_bit_for_bit(pipeline, specs, state_of):
    before = state_of(pipeline)
    closed_form.released(pipeline, specs, ridge=0.01)
    closed_form.uce(pipeline, specs, PRESERVE, ridge=0.5, erase_scale=1.0, preserve_scale=1.0)
    closed_form.time(pipeline, specs, ridge=0.1)
    after = state_of(pipeline)
    assert all(torch.equal(before[name], after[name]) for name in before)
