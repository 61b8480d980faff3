"""How much of a concept an encoder's answer to a prompt holds, without a picture.

For the state at end-of-text and for the mean state over all positions, k = 1, 2, and with means
over the templates of the pristine encoder's answers to the concept's prompts (c), to the anchor's
(a) and to the same prompts with nobody named (n):

    o_k = (a_k + n_k) / 2
    presence(u) = 1/2 sum_k cos(u_k - o_k, c_k - o_k)

Range -1 to 1. 1: the answer stands to a prompt without the concept exactly as the pristine answers
to the concept do. 0: it stands at a right angle to them. It ranks prompts and is no probability:
what another concept shares with this one counts too (a prompt of another object reaches about 0.4
on the demo model), so it is to be read beside the presence of the concept's and of the anchor's own
prompts, which every result carries.
"""

import torch
from torch import Tensor
from torch.nn import functional

from edits.evaluation.attacks.encoder import Answer, EncoderView
from edits.evaluation.attacks.target import Target


class Presence:
    """The presence of one target, by the answers of the pristine encoder."""

    def __init__(self, pristine: EncoderView, target: Target) -> None:
        """Runs three prompts per template. Raises ValueError where concept and anchor are one."""
        concept = _summary(pristine.from_texts(target.prompts(target.concept))).mean(1)
        anchor = _summary(pristine.from_texts(target.prompts(target.anchor))).mean(1)
        nobody = _summary(pristine.from_texts(target.prompts_without())).mean(1)
        self._origin = (anchor + nobody) / 2
        self._toward = concept - self._origin
        if torch.equal(concept, anchor):
            raise ValueError(
                f"the encoder answers the same to {target.concept!r} and {target.anchor!r}"
            )

    def __call__(self, answer: Answer) -> Tensor:
        """Presence (prompts,) in each answer; gradients flow."""
        moved = _summary(answer) - self._origin[:, None]
        return functional.cosine_similarity(moved, self._toward[:, None], dim=-1).mean(0)


def _summary(answer: Answer) -> Tensor:
    """(2, prompts, width): the states at end-of-text, and the means over positions."""
    return torch.stack([answer.pooled, answer.mean])
