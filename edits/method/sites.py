"""Which linear layer an edit changes, by canonical path, and where that layer is in a loaded model."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from edits.errors import SiteUnknown

TEXT_ENCODER = "text_encoder"
_OPTIONAL_LEVEL = "text_model."  # transformers 4 nests CLIP's text tower one level deeper than 5


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

    Raises SiteUnknown for a name that is neither.
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
                f"site {name!r} is neither a preset ({', '.join(PRESETS)}) nor 'component:module.path'",
                param="spec.method.sites",
            )
        sites.append(Site(component, path))
    return tuple(sorted(set(sites)))


def resolve(encoder: nn.Module, site: Site) -> nn.Linear:
    """The site's layer inside a loaded text encoder, whichever transformers release built it.

    Raises SiteUnknown if the component is not the text encoder, or no linear layer has that path.
    """
    if site.component != TEXT_ENCODER:
        raise SiteUnknown(
            f"site {site} is not in the text encoder; sites start with '{TEXT_ENCODER}:'",
            param="spec.method.sites",
        )
    modules = dict(encoder.named_modules())
    paths = (site.path, site.path.removeprefix(_OPTIONAL_LEVEL), _OPTIONAL_LEVEL + site.path)
    layer = next((modules[path] for path in paths if path in modules), None)
    if isinstance(layer, nn.Linear):
        return layer
    ending = site.path.rsplit(".", 1)[-1]
    close = [n for n, m in modules.items() if isinstance(m, nn.Linear) and n.endswith(ending)][:4]
    raise SiteUnknown(
        f"the loaded text encoder has no linear layer {site.path!r}; it has {', '.join(close) or 'none'}",
        param="spec.method.sites",
    )
