"""Learned vectors must undo an edit that can be undone, and say how far they came."""

import copy

import pytest
import torch

from edits.evaluation.attacks.encoder import EncoderView
from edits.evaluation.attacks.inversion import InversionOptions, _error, learn_vectors, spaced
from edits.evaluation.attacks.pair import EncoderPair
from edits.evaluation.attacks.target import Target
from tests.evaluation.attacks.conftest import TARGET

OPTIONS = InversionOptions(steps=60)


def learn(pair, target=TARGET, *, count=1, budget=10_000, seed=0, options=OPTIONS):
    return learn_vectors(
        pair.pristine, pair.edited, target, options, count=count, budget=budget, seed=seed
    )


def test_an_edit_of_one_embedding_is_undone_by_one_vector(tiny):
    edited = copy.deepcopy(tiny.text_encoder)
    pristine = EncoderView(tiny.text_encoder, tiny.tokenizer)
    (pistol,), (toy,) = pristine.words(["pistol", "toy"])
    with torch.no_grad():
        edited.embeddings.token_embedding.weight[pistol] = pristine.table[toy]
    pair = EncoderPair(pristine, EncoderView(edited, tiny.tokenizer))
    found = learn(pair, options=InversionOptions(steps=150))
    assert found.start == pytest.approx(found.anchor, rel=1e-4)
    assert found.ratio_to_start < 0.02
    assert found.ratio_to_anchor == found.loss / found.anchor


def test_one_vector_comes_nearer_than_the_concepts_own_embedding_to_a_halved_layer(pair):
    found = learn(pair)
    assert found.vectors.shape == (1, pair.edited.table.shape[1])
    assert 0 < found.ratio_to_start < 0.85


def test_the_start_is_what_the_edit_does_to_the_concepts_prompts(pair):
    found = learn(pair, options=InversionOptions(steps=1))
    errors = []
    for template in TARGET.templates:
        prompt = (
            spaced(template, "pistol") if "{ax}" not in template else TARGET.prompts("pistol")[1]
        )
        old, new = (view.from_texts([prompt]).states[0] for view in (pair.pristine, pair.edited))
        last = pair.pristine.words([prompt])[0].index(pair.pristine.words(["pistol"])[0][0]) + 1
        errors.append((new[last:] - old[last:]).square().mean())
    assert found.start == pytest.approx(torch.stack(errors).mean().item(), rel=1e-4)
    assert found.ratio_to_start == found.loss / found.start


def test_an_encoder_without_edits_needs_no_learning(tiny):
    views = [EncoderView(tiny.text_encoder, tiny.tokenizer) for _ in range(2)]
    found = learn(EncoderPair(*views), options=InversionOptions(steps=1))
    assert found.start == 0.0
    assert found.loss < 0.1 * found.anchor  # only the noise that the vectors start with


def test_vectors_repeat_themselves_with_a_seed(pair):
    options = InversionOptions(steps=5)
    one, same, other = (learn(pair, seed=s, options=options).vectors for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_learning_ends_with_the_budget(pair):
    before = pair.edited.passes
    learn(pair, budget=100, options=InversionOptions(steps=1000))
    assert pair.edited.passes - before <= 100 + len(TARGET.templates)


def test_states_are_compared_by_their_offset_from_the_subject():
    long, short = torch.arange(6.0)[:, None], torch.arange(4.0)[:, None] + 1
    assert _error([long], [short]).item() == pytest.approx(1.0)


def test_a_name_before_a_comma_stays_a_token_of_its_own(pair):
    target = Target("pistol", "toy", templates=("{x}, a red background",))
    assert learn(pair, target, options=InversionOptions(steps=2)).vectors.shape[0] == 1


@pytest.mark.parametrize("vectors", [(), (0,), (5,)])
def test_counts_that_are_no_inversion_are_refused(vectors):
    with pytest.raises(ValueError, match="1 to 4 vectors"):
        InversionOptions(vectors=vectors)
