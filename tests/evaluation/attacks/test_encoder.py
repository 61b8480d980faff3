"""A view must see what the pipeline sees: the same ids, the same states, on every layout."""

import copy

import pytest
import torch
from torch import nn

from edits.evaluation.attacks.encoder import PLACEHOLDER, EncoderView, speaking, token_embedding
from edits.evaluation.attacks.pair import encoder_pair
from tests.evaluation.attacks.conftest import halved
from tests.tiny_layouts import build_sdxl
from tests.tiny_pipeline import build_pipeline

PROMPTS = ["", "a photo of a pistol on a red background", "a cat"]


@pytest.fixture(scope="module")
def sdxl():
    return build_sdxl()


@pytest.fixture(scope="module", params=["sd-1.x", "sd-2.x", "sdxl", "sdxl second"])
def layout(request, sdxl):
    """A text encoder and its tokenizer, of every class and padding."""
    if request.param == "sdxl":
        return sdxl.text_encoder, sdxl.tokenizer
    if request.param == "sdxl second":
        return sdxl.text_encoder_2, sdxl.tokenizer_2
    pipeline = build_pipeline(request.param)
    return pipeline.text_encoder, pipeline.tokenizer


def ids_of(tokenizer, prompts):
    return tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids


def test_ids_are_those_of_the_tokenizer_with_its_own_padding(layout):
    module, tokenizer = layout
    assert torch.equal(EncoderView(module, tokenizer).tokenise(PROMPTS), ids_of(tokenizer, PROMPTS))


def test_states_are_the_modules_own_last_hidden_states(layout):
    module, tokenizer = layout
    answer = EncoderView(module, tokenizer).from_texts(PROMPTS)
    with torch.no_grad():
        wanted = module(ids_of(tokenizer, PROMPTS)).last_hidden_state
    torch.testing.assert_close(answer.states, wanted)
    mask = tokenizer(PROMPTS, padding="max_length", return_tensors="pt").attention_mask
    assert answer.ends.tolist() == (mask.sum(1) - 1).tolist()
    assert torch.equal(answer.pooled[1], answer.states[1, mask[1].sum() - 1])
    torch.testing.assert_close(answer.mean[2], wanted[2, 1:].mean(0))


def test_pooled_state_is_what_the_projection_reads(sdxl):
    view = EncoderView(sdxl.text_encoder_2, sdxl.tokenizer_2)
    with torch.no_grad():
        wanted = sdxl.text_encoder_2(ids_of(sdxl.tokenizer_2, PROMPTS)).text_embeds
        projected = sdxl.text_encoder_2.text_projection(view.from_texts(PROMPTS).pooled)
    torch.testing.assert_close(projected, wanted)


def test_an_encoder_that_wants_the_attention_mask_gets_it(layout):
    module, tokenizer = copy.deepcopy(layout[0]), layout[1]
    module.config.use_attention_mask = True
    encoded = tokenizer(PROMPTS, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        wanted = module(encoded.input_ids, attention_mask=encoded.attention_mask).last_hidden_state
        unmasked = module(encoded.input_ids).last_hidden_state
    states = EncoderView(module, tokenizer).from_texts(PROMPTS).states
    torch.testing.assert_close(states, wanted)
    assert not torch.allclose(states, unmasked, atol=1e-3)


def test_own_embeddings_in_place_of_the_ids_change_nothing(layout):
    view = EncoderView(*layout)
    ids = view.tokenise(PROMPTS)
    torch.testing.assert_close(
        view.from_embeddings(ids, view.table[ids]).states, view.from_ids(ids).states
    )


def test_the_embedding_of_a_word_in_place_of_a_placeholder_is_that_word(layout):
    view = EncoderView(*layout)
    (word,) = view.words(["pistol"])
    assert len(word) == 1
    learned = view.from_vectors(
        view.tokenise([f"a photo of a {PLACEHOLDER} on a red background"]),
        view.table[torch.tensor(word)],
    )
    torch.testing.assert_close(learned.states, view.from_texts(PROMPTS[1:2]).states)


def test_gradients_reach_the_vectors_through_an_edited_layer_as_finite_differences_say(layout):
    module, tokenizer = layout
    view = EncoderView(halved(module).double(), tokenizer)
    ids = view.tokenise([f"a photo of a {PLACEHOLDER} {PLACEHOLDER}"])
    generator = torch.Generator().manual_seed(0)
    width = view.table.shape[1]
    vectors = torch.randn(2, width, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(width, generator=generator)

    def objective(vectors):
        # Hidden states are single precision to their readers: read them at the module.
        seen = []
        handle = view.module.register_forward_hook(
            lambda *call: seen.append(call[-1].last_hidden_state)
        )
        view.from_vectors(ids, vectors)
        handle.remove()
        return (seen[0].double() @ weights.double()).sum()

    (slope,) = torch.autograd.grad(objective(vectors), vectors)
    step = torch.randn(2, width, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        h = 1e-3
        numeric = (objective(vectors + h * step) - objective(vectors - h * step)) / (2 * h)
    assert (slope * step).sum().item() == pytest.approx(numeric.item(), rel=1e-3)
    assert slope.abs().max() > 0


def test_no_gradient_is_left_on_the_shared_parameters(tiny):
    module = copy.deepcopy(tiny.text_encoder).requires_grad_(True)
    view = EncoderView(module, tiny.tokenizer)
    ids = view.tokenise([PLACEHOLDER])
    vectors = torch.zeros(1, view.table.shape[1], requires_grad=True)
    torch.autograd.grad(view.from_vectors(ids, vectors).states.sum(), vectors)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_no_hook_is_left_behind_even_by_a_failed_pass(tiny):
    view = EncoderView(tiny.text_encoder, tiny.tokenizer)
    ids = view.tokenise(["a cat"])
    with pytest.raises(RuntimeError):
        view.from_embeddings(ids, torch.zeros(1, 3, 5))
    assert not token_embedding(tiny.text_encoder)._forward_hooks


def test_passes_count_prompts_and_a_gradient_as_two_more(tiny):
    view = EncoderView(tiny.text_encoder, tiny.tokenizer)
    view.from_texts(PROMPTS)
    assert view.passes == 3
    ids = view.tokenise([PLACEHOLDER])
    view.from_vectors(ids, torch.zeros(1, view.table.shape[1]))
    assert view.passes == 4
    view.from_vectors(ids, torch.zeros(1, view.table.shape[1], requires_grad=True))
    assert view.passes == 7


def test_a_pipeline_draws_with_vectors_as_with_the_word_that_they_are(tiny):
    view = EncoderView(tiny.text_encoder, tiny.tokenizer)
    word = torch.tensor(view.words(["pistol"])[0])

    def embed(prompt):
        return tiny.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=True)

    wanted = embed("a photo of a pistol")
    with speaking(tiny.text_encoder, view.placeholder_id, view.table[word]):
        got = embed(f"a photo of a {PLACEHOLDER}")
    torch.testing.assert_close(got[0], wanted[0])
    assert torch.equal(got[1], wanted[1])  # the empty prompt of guidance has no placeholder
    assert not torch.equal(embed(f"a photo of a {PLACEHOLDER}")[0], wanted[0])


def test_too_long_a_prompt_is_refused_and_not_cut(tiny):
    view = EncoderView(tiny.text_encoder, tiny.tokenizer)
    with pytest.raises(ValueError, match="the encoder reads 22"):
        view.tokenise(["a cat " * 12])
    assert view.tokenise(["a cat " * 11]).shape == (1, view.positions)


def test_spelled_ids_are_the_words_that_they_came_from(tiny):
    view = EncoderView(tiny.text_encoder, tiny.tokenizer)
    texts = ["pistol", "a photo of a cat", "robot toy"]
    assert view.spell(view.words(texts)) == texts


def test_an_encoder_without_clips_embeddings_is_refused(tiny):
    with pytest.raises(ValueError, match="CLIP text encoders only"):
        EncoderView(nn.Linear(2, 2), tiny.tokenizer)


def test_views_read_on_through_edited_cross_attention(tiny):
    unet = copy.deepcopy(tiny.unet)
    edited = [m for n, m in unet.named_modules() if n.endswith("attn2.to_v")]
    for layer in edited:
        layer.weight = nn.Parameter(2 * layer.weight)
    shared = copy.deepcopy(tiny.unet, {id(p): p for p in tiny.unet.parameters()})
    for name, layer in unet.named_modules():
        if name.endswith("attn2.to_v"):
            shared.get_submodule(name).weight = layer.weight
    pair = encoder_pair(tiny, {"unet": shared})
    assert len(pair.edited.readers) == len(edited) > 0
    pristine, changed = pair.pristine.from_texts(PROMPTS), pair.edited.from_texts(PROMPTS)
    torch.testing.assert_close(changed.states, 2 * pristine.states)
    assert pristine.states.shape[2] == sum(layer.out_features for layer in edited)
    assert len(set(pair.digests())) == 1 + 2 * len(edited)


def test_a_pair_of_two_equal_encoders_is_refused(tiny):
    with pytest.raises(ValueError, match="change nothing"):
        encoder_pair(tiny, {})
