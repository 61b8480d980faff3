"""Presence must tell the pristine answer to the concept from all that an edit may leave of it."""

import pytest
import torch
from torch.nn import functional

from edits.evaluation.attacks.encoder import Answer
from edits.evaluation.attacks.presence import Presence
from edits.evaluation.attacks.target import Target, without
from tests.evaluation.attacks.conftest import TARGET


def test_presence_is_the_formula_of_its_docstring(pair):
    view = pair.pristine

    def mean_state(prompts, part):
        return torch.stack([part(view.from_texts([prompt])) for prompt in prompts]).mean(0)

    parts = (
        lambda answer: answer.states[0, answer.ends[0]],
        lambda answer: answer.states[0, 1:].mean(0),
    )
    cosines = []
    for part in parts:
        concept = mean_state(TARGET.prompts("pistol"), part)
        anchor = mean_state(TARGET.prompts("toy"), part)
        nobody = mean_state(["", "a photo of on a red background"], part)
        origin = (anchor + nobody) / 2
        seen = part(view.from_texts(["a small house"]))
        cosines.append(functional.cosine_similarity(seen - origin, concept - origin, dim=0))
    got = Presence(view, TARGET)(view.from_texts(["a small house"]))
    assert got.item() == pytest.approx(sum(cosines).item() / 2, abs=1e-5)


def test_presence_is_one_for_the_concepts_answer_and_minus_one_for_its_opposite(pair):
    target = Target("pistol", "toy", templates=("a photo of {ax}",))
    presence = Presence(pair.pristine, target)
    concept, anchor, nobody = (
        pair.pristine.from_texts([text])
        for text in ("a photo of a pistol", "a photo of a toy", without("a photo of {ax}"))
    )
    assert presence(concept).item() == pytest.approx(1.0, abs=1e-5)
    end = concept.ends.item()
    states = concept.states.clone()
    origin_end = (anchor.pooled + nobody.pooled) / 2
    origin_mean = (anchor.mean + nobody.mean) / 2
    states[0, end] = 2 * origin_end[0] - concept.pooled[0]
    wanted_sum = (2 * origin_mean[0] - concept.mean[0]) * (states.shape[1] - 1)
    states[0, end + 1] += wanted_sum - states[0, 1:].sum(0)
    assert presence(Answer(states, concept.ends)).item() == pytest.approx(-1.0, abs=1e-4)


def test_a_concept_that_is_its_anchor_is_refused(pair):
    with pytest.raises(ValueError, match="answers the same"):
        Presence(pair.pristine, Target("pistol", "pistol", templates=("{x}", "a {x}")))
