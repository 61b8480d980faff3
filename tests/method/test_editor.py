"""Edits on real text encoders: what is computed, what is shared, what is refused."""

import copy
import itertools
import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from edits.loading import load_pipeline
from edits.manifests import catalog_entry
from edits.method import QUICKFIX, Editor, EditSpec, Site, resolve, weights_digest
from edits.method.captions import PAPER_TEMPLATES, ordinary_names
from edits.plan import edit_spec
from tests.tiny_pipeline import POSITIONS

from .conftest import ORDINARY, NestedEncoder, bits, same_bits

FLAT = Site("text_encoder", "encoder.layers.0.self_attn.out_proj")
SECOND = Site("text_encoder", "text_model.encoder.layers.1.self_attn.out_proj")

PISTOL = EditSpec("remove-pistol", "pistol", "toy", aliases=("gun",), preserve=("knife", "robot"))
STYLE = EditSpec("remove-van-gogh", "van gogh", "painting", kind="style", ridge=0.05)
BEER = EditSpec("remove-beer", "beer", "juice", tokens="last+pad", preserve_weight=0.5)
EDITS = (PISTOL, STYLE, BEER)


def _pipeline(text_encoder, tokenizer):
    return SimpleNamespace(text_encoder=text_encoder, tokenizer=tokenizer)


def relative(a, b):
    return float((a - b).norm() / b.norm())


def site_reads(pipeline, text):
    """Keys, outputs (positions, hidden) of the site in a full forward pass, and the last token.

    As the released code finds it: the token before the first end-of-text.
    """
    seen = []
    layer = resolve(pipeline.text_encoder, QUICKFIX)
    handle = layer.register_forward_hook(lambda _, read, wrote: seen.append((read[0], wrote)))
    ids = pipeline.tokenizer(text, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        pipeline.text_encoder(ids)
    handle.remove()
    keys, outputs = (tensor[0].double() for tensor in seen[0])
    return keys, outputs, ids[0].tolist().index(pipeline.tokenizer.eos_token_id) - 1


def released_rows(pipeline, concept, anchor, *, pad):
    K, V = [], []
    for template in PAPER_TEMPLATES:
        keys, _, last = site_reads(pipeline, template.format(x=concept))
        _, outputs, anchor_last = site_reads(pipeline, template.format(x=anchor))
        for offset in range(POSITIONS - last if pad else 1):
            K.append(keys[last + offset])
            V.append(outputs[min(anchor_last + offset, POSITIONS - 1)])
    return torch.stack(K).T, torch.stack(V).T


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("pair", [("van gogh", "painting"), ("gun", "a toy robot and a cat")])
def test_parity_reproduces_the_released_formula(pipeline, editor, pair, pad):
    """W = (l W0 + V K^T)(l I + K K^T)^-1, values with the bias, keys from a full forward pass."""
    tokens = "last+pad" if pad else "last"
    spec = EditSpec("e", *pair, tokens=tokens, ridge=0.1, parity=True)
    K, V = released_rows(pipeline, *pair, pad=pad)
    W0 = resolve(pipeline.text_encoder, QUICKFIX).weight.double()
    eye = torch.eye(len(K), dtype=torch.float64)
    expected = (0.1 * W0 + V @ K.T) @ torch.linalg.inv(0.1 * eye + K @ K.T)
    composition = editor.compose([spec])
    assert relative(composition.weights[QUICKFIX].double(), expected) < 1e-6
    assert composition.reports[0].rows == K.shape[1]


def test_an_edit_to_itself_changes_nothing_and_parity_adds_the_bias(pipeline, editor):
    """Why values carry no bias: the layer adds it again."""
    layer = resolve(pipeline.text_encoder, QUICKFIX)
    same = editor.compose([EditSpec("e", "pistol", "pistol")])
    assert torch.equal(same.weights[QUICKFIX], layer.weight)
    assert same.reports[0].residual == 0.0
    spec = EditSpec("e", "pistol", "pistol", tokens="last", ridge=1e-6, parity=True)
    parity = editor.compose([spec])
    key, output, last = site_reads(pipeline, "pistol")
    moved = key[last] @ (parity.weights[QUICKFIX].double() - layer.weight.double()).T
    assert relative(moved, layer.bias.double()) < 1e-3
    assert float(output[last].norm()) > 0


def test_a_concept_takes_its_anchors_output_at_the_site(pipeline, editor):
    """Pinned keys may take most of so small a space; what the report says must be what happened."""
    spec = EditSpec("e", "pistol", "toy", tokens="last", preserve_weight=0, ridge=1e-4)
    composition = editor.compose([spec])
    weight = composition.weights[QUICKFIX].double()
    layer = resolve(pipeline.text_encoder, QUICKFIX)
    key, before, last = site_reads(pipeline, "a photo of a pistol")
    _, wanted, anchor_last = site_reads(pipeline, "a photo of a toy")
    after = key[last] @ weight.T + layer.bias.double()
    missed = (after - wanted[anchor_last]).norm() / (before[last] - wanted[anchor_last]).norm()
    assert float(missed) < 0.8
    assert composition.reports[0].residual < 0.8


@pytest.mark.parametrize(("tokens", "rows"), [("last", 4), ("last+pad", None)])
def test_token_modes_choose_the_rows(pipeline, editor, tokens, rows):
    spec = EditSpec("e", "van gogh", "painting", tokens=tokens, parity=True)
    lasts = [site_reads(pipeline, t.format(x="van gogh"))[2] for t in PAPER_TEMPLATES]
    expected = rows or sum(POSITIONS - last for last in lasts)
    assert editor.compose([spec]).reports[0].rows == expected


def test_the_order_of_edits_does_not_matter_to_the_bit(editor):
    compositions = [editor.compose(order) for order in itertools.permutations(EDITS)]
    assert len({c.digest for c in compositions}) == 1
    assert [r.name for r in compositions[-1].reports] == sorted(e.name for e in EDITS)


def test_the_history_of_an_editor_does_not_matter_to_the_bit(pipeline, editor):
    """A replica that started now answers the weights of one that has composed for weeks."""
    for subset in ([STYLE], [BEER, PISTOL], [EditSpec("other", "cat", "toy", kind="style")]):
        editor.compose(subset)
    fresh = Editor(pipeline, ordinary=ORDINARY)
    assert editor.compose(EDITS).digest == fresh.compose(EDITS).digest


def test_an_edit_that_is_taken_out_leaves_no_trace(editor):
    before = editor.compose([PISTOL, BEER])
    editor.apply(editor.compose(EDITS))
    after = editor.compose([PISTOL, BEER])
    assert torch.equal(before.weights[QUICKFIX], after.weights[QUICKFIX])
    assert before.digest == after.digest == weights_digest(after.weights)
    assert editor.compose(EDITS).digest != before.digest


def test_no_edits_change_no_component(editor):
    composition = editor.compose([])
    assert editor.apply(composition) == {}
    assert (dict(composition.weights), composition.reports) == ({}, ())


def test_every_unedited_tensor_shares_its_storage(pipeline, editor):
    edited = editor.apply(editor.compose(EDITS))["text_encoder"]
    pristine = dict(pipeline.text_encoder.named_parameters())
    pristine |= dict(pipeline.text_encoder.named_buffers())
    ours = {**dict(edited.named_parameters()), **dict(edited.named_buffers())}
    layer = "encoder.layers.0.self_attn.out_proj"
    own = {f"{layer}._pristine_weight", f"{layer}._basis"}
    assert ours.keys() == pristine.keys() | own
    assert edited.state_dict().keys() == pipeline.text_encoder.state_dict().keys()
    assert ours[f"{layer}._pristine_weight"].data_ptr() == pristine[f"{layer}.weight"].data_ptr()
    ours = {name: tensor for name, tensor in ours.items() if name not in own}
    apart = [n for n in ours if ours[n].data_ptr() != pristine[n].data_ptr()]
    assert apart == ["encoder.layers.0.self_attn.out_proj.weight"]
    assert not any(module.training for module in edited.modules())


def test_the_pristine_encoder_stays_bit_identical(pipeline, editor, encode):
    before, prompt = bits(pipeline.text_encoder), encode(pipeline.text_encoder, "a pistol")
    chance = random.Random(7)
    for _ in range(50):
        chosen = chance.sample(EDITS, chance.randint(0, len(EDITS)))
        modules = editor.apply(editor.compose(chosen))
        encode(modules.get("text_encoder", pipeline.text_encoder), "a pistol")
    assert same_bits(pipeline.text_encoder, before)
    assert torch.equal(encode(pipeline.text_encoder, "a pistol"), prompt)


def test_the_empty_prompt_stays_and_the_concept_moves(pipeline, editor, encode):
    """The unconditional branch of guidance is the same with and without edits."""
    edited = editor.apply(editor.compose(EDITS))["text_encoder"]
    assert torch.equal(encode(edited, ""), encode(pipeline.text_encoder, ""))
    moved = relative(encode(edited, "a pistol"), encode(pipeline.text_encoder, "a pistol"))
    assert moved > 1e-2
    assert [r.empty_prompt_drift for r in editor.compose(EDITS).reports] == [0.0, 0.0, 0.0]


def test_preserved_names_move_less_the_more_they_weigh(editor):
    drifts = [
        editor.compose([EditSpec("e", "pistol", "toy", preserve=("knife",), preserve_weight=w)])
        .reports[0]
        .preserve_drift
        for w in (0.0, 1.0, 100.0)
    ]
    assert drifts[0] > drifts[1] > drifts[2] > 0
    assert drifts[2] < 0.05 * drifts[0]


def test_reports_are_finite_when_nothing_is_preserved(pipeline):
    bare = Editor(pipeline)
    report = bare.compose([EditSpec("e", "pistol", "toy")]).reports[0]
    figures = (report.residual, report.preserve_drift, report.empty_prompt_drift, report.seconds)
    assert all(math.isfinite(figure) for figure in figures)
    assert report.preserve_drift == 0.0


def test_a_name_that_another_edit_removes_is_not_preserved(editor):
    """One edit keeps "robot" still; once another removes it, it must be free to move."""
    robot = EditSpec("remove-robot", "robot", "cat")
    with_preserve = EditSpec("e", "pistol", "toy", preserve=("knife", "robot"))
    without = EditSpec("e", "pistol", "toy", preserve=("knife",))
    assert editor.compose([with_preserve, robot]).digest == editor.compose([without, robot]).digest
    assert editor.compose([with_preserve]).digest != editor.compose([without]).digest


def test_two_spellings_of_a_site_are_one_site(editor):
    """Otherwise each would be solved alone, and the one applied last would undo the other."""
    flat = EditSpec("remove-beer", "beer", "juice", sites=(FLAT,))
    named = EditSpec("remove-beer", "beer", "juice", sites=(QUICKFIX,))
    composition = editor.compose([PISTOL, flat])
    assert set(composition.weights) == {QUICKFIX}
    assert composition.digest == editor.compose([PISTOL, named]).digest
    both = EditSpec("remove-beer", "beer", "juice", sites=(FLAT, QUICKFIX))
    assert editor.compose([PISTOL, both]).digest == composition.digest


def test_several_sites_are_each_solved_from_the_pristine_encoder(editor, pipeline):
    both = EditSpec("e", "pistol", "toy", sites=(QUICKFIX, SECOND))
    alone = EditSpec("e", "pistol", "toy", sites=(SECOND,))
    composition = editor.compose([both])
    assert torch.equal(composition.weights[SECOND], editor.compose([alone]).weights[SECOND])
    edited = editor.apply(composition)["text_encoder"]
    assert torch.equal(resolve(edited, SECOND).weight, composition.weights[SECOND])
    assert resolve(pipeline.text_encoder, SECOND).weight is not resolve(edited, SECOND).weight


def test_a_nested_encoder_gets_the_same_weights_and_fingerprint(pipeline, editor):
    nested = NestedEncoder(pipeline.text_encoder)
    other = Editor(_pipeline(nested, pipeline.tokenizer), ordinary=ORDINARY)
    assert other.fingerprint == editor.fingerprint
    assert other.compose(EDITS).digest == editor.compose(EDITS).digest
    edited = other.apply(other.compose(EDITS))["text_encoder"]
    assert resolve(edited, QUICKFIX) is edited.text_model.encoder.layers[0].self_attn.out_proj


def test_the_fingerprint_names_the_weights_and_the_tokenizer(pipeline, editor, tmp_path):
    pipeline.text_encoder.save_pretrained(tmp_path / "encoder")
    pipeline.tokenizer.save_pretrained(tmp_path / "tokenizer")
    encoder = type(pipeline.text_encoder).from_pretrained(tmp_path / "encoder")
    tokenizer = type(pipeline.tokenizer).from_pretrained(tmp_path / "tokenizer")
    assert Editor(_pipeline(encoder, tokenizer)).fingerprint == editor.fingerprint
    assert editor.fingerprint.startswith("sha256:")
    assert len(editor.fingerprint) == 71
    padded = copy.deepcopy(tokenizer)
    padded.pad_token = "a"
    assert Editor(_pipeline(encoder, padded)).fingerprint != editor.fingerprint
    with torch.no_grad():
        encoder.final_layer_norm.bias[0] += 1
    assert Editor(_pipeline(encoder, tokenizer)).fingerprint != editor.fingerprint


def test_a_trainable_encoder_in_training_mode_gets_the_same_detached_weights(pipeline, editor):
    expected = editor.compose(EDITS).digest
    pipeline.text_encoder.requires_grad_(True).train()
    trainable = Editor(pipeline, ordinary=ORDINARY)
    composition = trainable.compose(EDITS)
    assert composition.digest == expected
    assert not composition.weights[QUICKFIX].requires_grad
    assert pipeline.text_encoder.training


def test_half_precision_weights_keep_their_dtype(pipeline):
    half = Editor(
        _pipeline(pipeline.text_encoder.to(torch.bfloat16), pipeline.tokenizer), ordinary=ORDINARY
    )
    composition = half.compose(EDITS)
    assert composition.weights[QUICKFIX].dtype == torch.bfloat16
    assert composition.digest == half.compose(EDITS).digest


def test_threads_compose_while_the_pristine_encoder_serves(pipeline, editor, encode):
    """Captures stop a forward pass half way: never one that belongs to somebody else."""
    subsets = [s for n in (1, 2, 3) for s in itertools.combinations(EDITS, n)]
    alone = Editor(pipeline, ordinary=ORDINARY)
    expected = {s: alone.compose(s).digest for s in subsets}
    served = encode(pipeline.text_encoder, "a cat")
    ids = pipeline.tokenizer("a cat", padding="max_length", return_tensors="pt").input_ids

    def compose(number):
        chosen = random.Random(number).sample(subsets, len(subsets))
        return all(editor.compose(s).digest == expected[s] for s in chosen)

    def edit_and_encode(_):
        edited = editor.apply(editor.compose([PISTOL]))["text_encoder"]
        with torch.no_grad():
            return bool(torch.isfinite(edited(ids).last_hidden_state).all())

    def serve(_):
        with torch.no_grad():
            return torch.equal(pipeline.text_encoder(ids).last_hidden_state[0], served)

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(compose, n) for n in range(8)]
        jobs += [pool.submit(job, n) for n in range(20) for job in (edit_and_encode, serve)]
        assert all(job.result() for job in jobs)


def test_a_new_edit_takes_less_than_a_tenth_of_a_second(editor):
    """Best of several: other processes of the machine are not what is measured."""
    editor.warm([QUICKFIX])
    taken = []
    for n in range(8):
        started = time.perf_counter()
        spec = EditSpec("e", f"pistol {n}", "toy", aliases=(f"gun {n}",), preserve=(f"cat {n}",))
        editor.check(spec)
        editor.apply(editor.compose([spec]))
        taken.append(time.perf_counter() - started)
    assert min(taken) < 0.1


def test_the_smallest_ridge_is_solved_on_a_trained_encoder_too():
    """What an edit would move is looked for in the precision of its solve: its keys are alike."""
    editor = Editor(load_pipeline("models/demo"), ordinary=ordinary_names())
    spec = replace(edit_spec(catalog_entry("remove-beer")), ridge=1e-9)
    (report,) = editor.compose([spec]).report(spec.name)
    assert report.residual < 0.5
    assert report.neighbours[:3] == ("star", "knife", "tree")
