"""Which site is the causal one, if any, and the linear layer that an edit would change for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import nn

from edits.errors import TraceSiteUnknown
from edits.method.sites import Site, canonical
from edits.tracing.effects import Effects, Estimate, SiteEffect, difference, ranked
from edits.tracing.layout import Layout
from edits.tracing.plan import CLEAN
from edits.tracing.text_encoder import TextSite

By = Literal["indirect", "direct"]
EDITABLE = ("self_attn", "mlp")  # the residual stream is no layer of its own


@dataclass(frozen=True)
class Verdict:
    """The strongest site, the next one that is another site, and the paired difference of both."""

    site: str
    effect: Estimate
    runner_up: str | None
    runner_up_effect: Estimate | None
    difference: Estimate | None

    @property
    def excludes_zero(self) -> bool:
        """Whether the best site's interval lies above zero."""
        return bool(self.effect.low > 0)

    @property
    def excludes_runner_up(self) -> bool:
        """Whether the interval lies above the runner-up, and the paired difference above zero."""
        if self.runner_up_effect is None or self.difference is None:
            return True
        return bool(self.effect.low > self.runner_up_effect.mean and self.difference.low > 0)

    @property
    def is_causal(self) -> bool:
        """Whether one site stands out."""
        return self.excludes_zero and self.excludes_runner_up


def verdict(
    scores: np.ndarray,
    conditions: Sequence[str],
    effects: Effects,
    *,
    by: By = "indirect",
    resamples: int = 2000,
    editable_only: bool = False,
) -> Verdict | None:
    """The verdict on scores (prompts, seeds, draws, conditions); None if no site can be compared.

    Compared are sites that all prompts have. The residual stream of a text encoder is left out: it
    carries all that lies below it. So is a site that always draws the clean picture: all that comes
    of the words passes through it by the network's build, as through the UNet's blocks behind the
    last cross-attention. Sites that always draw the same pictures are one. With `editable_only`,
    sites are linear layers: each counts with its strongest position, the runner-up is another one.
    """
    column = {name: number for number, name in enumerate(conditions)}

    def same(a: str, b: str) -> bool:
        return np.array_equal(scores[..., column[a]], scores[..., column[b]], equal_nan=True)

    def effect(site: SiteEffect) -> Estimate:
        return site.indirect if by == "indirect" else site.direct

    order = [
        site
        for site in ranked(effects, by)
        if effect(site).prompts == effects.total.prompts
        and not (by == "indirect" and same(site.site, CLEAN))
        and _is_module(site.site)
    ]
    if not order:
        return None
    best = order[0]
    others = (
        site
        for site in order[1:]
        if not same(site.site, best.site)
        and not (editable_only and _layer(site.site) == _layer(best.site))
    )
    runner_up = next(others, None)
    if runner_up is None:
        return Verdict(best.site, effect(best), None, None, None)
    # direct(a) - direct(b) is indirect(b) - indirect(a): the clean run is the same
    a, b = (best, runner_up) if by == "indirect" else (runner_up, best)
    paired = difference(scores, list(conditions), a.site, b.site, resamples=resamples)
    return Verdict(best.site, effect(best), runner_up.site, effect(runner_up), paired)


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


def _is_module(name: str) -> bool:
    return "@" not in name or TextSite.parse(name).module in EDITABLE


def _layer(name: str) -> tuple[str, int, str]:
    site = TextSite.parse(name)
    return site.component, site.layer, site.module
