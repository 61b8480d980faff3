"""Which site is the causal one, if any, and the linear layer that an edit would change for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from edits.errors import TraceSiteUnknown
from edits.method.sites import Site, canonical
from edits.tracing.effects import Effects, Estimate, SiteEffect, difference, ranked
from edits.tracing.layout import Layout
from edits.tracing.plan import CLEAN
from edits.tracing.text_encoder import TextSite

EDITABLE = ("self_attn", "mlp")  # the residual stream is no layer of its own


@dataclass(frozen=True)
class Verdict:
    """The strongest site, the next one that is another site, and the paired difference of both."""

    best: SiteEffect
    runner_up: SiteEffect | None
    difference: Estimate | None

    @property
    def excludes_zero(self) -> bool:
        """Whether the best site's interval lies above zero."""
        return bool(self.best.indirect.low > 0)

    @property
    def excludes_runner_up(self) -> bool:
        """Whether the interval lies above the runner-up, and the paired difference above zero."""
        if self.runner_up is None or self.difference is None:
            return True
        above = self.best.indirect.low > self.runner_up.indirect.mean
        return bool(above and self.difference.low > 0)

    @property
    def is_causal(self) -> bool:
        """Whether one site stands out."""
        return self.excludes_zero and self.excludes_runner_up


def verdict(
    scores: np.ndarray,
    conditions: Sequence[str],
    effects: Effects,
    *,
    resamples: int,
    editable_only: bool = False,
) -> Verdict | None:
    """The verdict on scores (prompts, seeds, draws, conditions); None if there is no site.

    With `editable_only`, sites are linear layers of a text encoder: each counts with its strongest
    position, and the runner-up is another layer. Sites that always draw the same pictures are one,
    and a site that always draws the clean picture is none: all that comes of the words passes
    through it by the network's build, as through the UNet's blocks behind the last cross-attention.
    """
    column = {name: number for number, name in enumerate(conditions)}

    def same(a: str, b: str) -> bool:
        return np.array_equal(scores[..., column[a]], scores[..., column[b]], equal_nan=True)

    order = [effect for effect in ranked(effects) if not same(effect.site, CLEAN)]
    if editable_only:
        order = [effect for effect in order if TextSite.parse(effect.site).module in EDITABLE]
    if not order:
        return None
    best = order[0]

    def is_other(effect: SiteEffect) -> bool:
        if editable_only and _layer(effect.site) == _layer(best.site):
            return False
        return not same(effect.site, best.site)

    runner_up = next((effect for effect in order[1:] if is_other(effect)), None)
    if runner_up is None:
        return Verdict(best, None, None)
    paired = difference(
        scores, list(conditions), best.site, runner_up.site, resamples=resamples, seed=0
    )
    return Verdict(best, runner_up, paired)


def edit_site(layout: Layout, name: str) -> Site:
    """The linear layer behind a text site: the last one of its module (out_proj, fc2).

    Raises TraceSiteUnknown if edits cannot act there: another encoder than the first, or the
    residual stream.
    """
    site = TextSite.parse(name)
    encoder = layout.encoder(site.component)
    if site.component != "text_encoder" or site.module not in EDITABLE:
        raise TraceSiteUnknown(
            f"site {name} is causal, but edits act on self_attn and mlp of text_encoder only"
        )
    module = encoder.layers[site.layer].module(site.module)
    linear = [child for child in module.modules() if isinstance(child, nn.Linear)]
    for path, child in encoder.model.named_modules():
        if linear and child is linear[-1]:
            return canonical(encoder.model, Site(site.component, path))
    raise TraceSiteUnknown(f"the module of site {name} ends in no linear layer")


def _layer(name: str) -> tuple[str, int, str]:
    site = TextSite.parse(name)
    return site.component, site.layer, site.module
