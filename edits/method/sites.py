"""Which linear layer an edit changes, by canonical path, and where it is in a loaded model."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from edits.errors import SiteUnknown

TEXT_ENCODER = "text_encoder"
OPTIONAL_LEVEL = "text_model."  # transformers 4 nests CLIP's text tower one level deeper than 5


@dataclass(frozen=True, order=True)
class Site:
    """One linear layer: the pipeline's component and the canonical module path inside it."""

    component: str
    path: str

    def __str__(self) -> str:
        return f"{self.component}:{self.path}"


QUICKFIX = Site(TEXT_ENCODER, "text_model.encoder.layers.0.self_attn.out_proj")
PRESETS: dict[str, tuple[Site, ...]] = {"quickfix": (QUICKFIX,)}


def parse_sites(names: str | Iterable[str]) -> tuple[Site, ...]:
    """Sites of a preset's name, or of paths written `component:path`.

    Raises SiteUnknown for a name that is neither, and for no name at all.
    """
    if isinstance(names, str):
        if names in PRESETS:
            return PRESETS[names]
        names = (names,)
    sites = []
    for name in names:
        component, separator, path = name.partition(":")
        if not (separator and component and path):
            raise SiteUnknown(
                f"site {name!r} is neither a preset ({', '.join(PRESETS)}) nor "
                "'component:module.path'",
                param="spec.method.sites",
            )
        sites.append(Site(component, path))
    if not sites:
        raise SiteUnknown(
            f"no site is named; give a preset ({', '.join(PRESETS)}) or 'component:module.path'",
            param="spec.method.sites",
        )
    return tuple(sorted(set(sites)))


def resolve(encoder: nn.Module, site: Site) -> nn.Linear:
    """The site's layer inside a loaded text encoder, whichever transformers release built it.

    Raises SiteUnknown if the component is not the text encoder, or no linear layer has that path.
    """
    return _find(encoder, site)[1]


def canonical(encoder: nn.Module, site: Site) -> Site:
    """The one name of a site: two spellings of the same layer answer the same. Raises SiteUnknown.

    Without it, two edits of one layer would be solved apart and one of them lost.
    """
    name, _ = _find(encoder, site)
    return Site(site.component, _canonical_path(encoder, name))


def _find(encoder: nn.Module, site: Site) -> tuple[str, nn.Linear]:
    if site.component != TEXT_ENCODER:
        raise SiteUnknown(
            f"site {site} is not in the text encoder; sites start with '{TEXT_ENCODER}:'",
            param="spec.method.sites",
        )
    linear = {n: m for n, m in encoder.named_modules() if isinstance(m, nn.Linear)}
    for path in (site.path, site.path.removeprefix(OPTIONAL_LEVEL), OPTIONAL_LEVEL + site.path):
        if path in linear:
            return path, linear[path]
    ending = site.path.rsplit(".", 1)[-1]
    close = [name for name in linear if name.rsplit(".", 1)[-1] == ending] or list(linear)
    known = ", ".join(_canonical_path(encoder, name) for name in close[:4])
    raise SiteUnknown(
        f"the loaded text encoder has no linear layer {site.path!r}; it has {known or 'none'}",
        param="spec.method.sites",
    )


def _canonical_path(encoder: nn.Module, name: str) -> str:
    nested = hasattr(encoder, OPTIONAL_LEVEL.rstrip("."))
    return name if nested else OPTIONAL_LEVEL + name
