"""What is exported: the edited weights of a composition, and what they are called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edits.errors import QuickFixError, SiteUnknown
from edits.method import Composition, Site, resolve


@dataclass(frozen=True)
class EditSet:
    """Edited weights (d_out, d_in) by site, in the model's dtype.

    names: `name@version` of each edit. base: fingerprint of the pristine model. composition: digest
    of the weights.
    """

    names: tuple[str, ...]
    base: str
    composition: str
    weights: Mapping[Site, Tensor]

    @classmethod
    def of(cls, composition: Composition, *, names: Sequence[str], base: str) -> "EditSet":
        """A composition as it is exported. Raises QuickFixError if it changes no weight."""
        if not composition.weights:
            raise QuickFixError("there is nothing to export: no edit is named", param="manifest")
        return cls(tuple(sorted(names)), base, composition.digest, composition.weights)

    @property
    def components(self) -> tuple[str, ...]:
        """The parts of the pipeline in which weights change."""
        return tuple(sorted({site.component for site in self.weights}))

    def document(self) -> dict[str, Any]:
        """What the exported files say of themselves, as JSON."""
        return {"edits": list(self.names), "base": self.base, "composition": self.composition}


@dataclass(frozen=True)
class SiteFigures:
    """A site as it was written: the rank kept, and |D - written|_F / |W|_F."""

    site: Site
    rank: int
    error: float

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"site": str(self.site), "rank": self.rank, "error": self.error}


def pristine_weight(pipeline: Any, site: Site) -> Tensor:
    """The weight (d_out, d_in) of a site as the pipeline holds it. Raises SiteUnknown."""
    module = getattr(pipeline, site.component, None)
    if not isinstance(module, torch.nn.Module):
        raise SiteUnknown(f"the pipeline has no {site.component}, and site {site} lies there")
    return resolve(module, site).weight.detach()
