"""Which linear layers an edit changes, by canonical path, and where they are in a loaded model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from edits.errors import SiteUnknown

TEXT_ENCODER = "text_encoder"
OPTIONAL_LEVEL = "text_model."  # transformers 4 nests CLIP's text tower one level deeper than 5
_PATTERN = frozenset("*?[")


@dataclass(frozen=True, order=True)
class Site:
    """One linear layer: the pipeline's component and the canonical module path inside it.

    Both may hold shell-style patterns until `expand` has found the layers that they name.
    """

    component: str
    path: str

    def __str__(self) -> str:
        return f"{self.component}:{self.path}"

    @property
    def is_pattern(self) -> bool:
        """Whether it may name several layers."""
        return bool(_PATTERN.intersection(self.component + self.path))


QUICKFIX = Site(TEXT_ENCODER, "text_model.encoder.layers.0.self_attn.out_proj")
CROSS_ATTENTION = Site("unet", "*.attn2.to_[kv]")
# LocoEdit's layers 8 and 9 of Stable Diffusion 1.x, counted over the sorted names of attn2.
LOCALISED = (
    Site("unet", "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_[kv]"),
    Site("unet", "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_[kv]"),
)

PRESETS: dict[str, tuple[Site, ...]] = {
    "quickfix": (Site(TEXT_ENCODER + "*", QUICKFIX.path),),  # SDXL has two encoders
    "uce": (CROSS_ATTENTION,),
    "time": (CROSS_ATTENTION,),
    "locoedit": LOCALISED,
}


def parse_sites(
    names: str | Iterable[str], presets: Mapping[str, tuple[Site, ...]] = PRESETS
) -> tuple[Site, ...]:
    """Sites of a preset's name, or of paths written `component:path`; both may be patterns.

    Raises SiteUnknown for a name that is neither, and for no name at all.
    """
    if isinstance(names, str):
        if names in presets:
            return presets[names]
        names = (names,)
    sites: list[Site] = []
    for name in names:
        component, separator, path = name.partition(":")
        if not (separator and component and path):
            raise SiteUnknown(
                f"site {name!r} is neither a preset ({', '.join(presets)}) nor "
                "'component:module.path'",
                param="spec.method.sites",
            )
        sites.append(Site(component, path))
    if not sites:
        raise SiteUnknown(
            f"no site is named; give a preset ({', '.join(presets)}) or 'component:module.path'",
            param="spec.method.sites",
        )
    return tuple(sorted(set(sites)))


def resolve(module: nn.Module, site: Site) -> nn.Linear:
    """The site's layer inside its loaded component, whichever transformers release built it.

    Raises SiteUnknown if no linear layer has that path.
    """
    return locate(module, site)[1]


def locate(module: nn.Module, site: Site) -> tuple[str, nn.Linear]:
    """The site's path inside its loaded component, and the layer there. Raises SiteUnknown."""
    for path in (site.path, site.path.removeprefix(OPTIONAL_LEVEL), OPTIONAL_LEVEL + site.path):
        try:
            layer = module.get_submodule(path)
        except AttributeError:
            continue
        if isinstance(layer, nn.Linear):
            return path, layer
    linear = _linear(module)
    ending = site.path.rsplit(".", 1)[-1]
    close = [name for name in linear if name.rsplit(".", 1)[-1] == ending] or list(linear)
    known = ", ".join(_canonical_path(module, name) for name in close[:4])
    raise SiteUnknown(
        f"{site.component} has no linear layer {site.path!r}; it has {known or 'none'}",
        param="spec.method.sites",
    )


def canonical(module: nn.Module, site: Site) -> Site:
    """The one name of a site: two spellings of the same layer answer the same. Raises SiteUnknown.

    Without it, two edits of one layer would be solved apart and one of them lost.
    """
    name, _ = locate(module, site)
    return Site(site.component, _canonical_path(module, name))


def expand(sites: Iterable[Site], components: Mapping[str, nn.Module]) -> tuple[Site, ...]:
    """The canonical sites that `sites` name in the loaded components, sorted, each once.

    Raises SiteUnknown for a site or a pattern that names no linear layer.
    """
    found: set[Site] = set()
    for site in sites:
        mine = {
            name: module for name, module in components.items() if fnmatchcase(name, site.component)
        }
        if not mine:
            raise SiteUnknown(
                f"site {site} lies in no editable component; this model has "
                f"{', '.join(components)}",
                param="spec.method.sites",
            )
        for name, module in mine.items():
            if Site("", site.path).is_pattern:
                found.update(_matches(name, module, site.path))
            else:
                found.add(canonical(module, Site(name, site.path)))
    return tuple(sorted(found))


def _matches(component: str, module: nn.Module, pattern: str) -> list[Site]:
    paths = (_canonical_path(module, name) for name in _linear(module))
    sites = [Site(component, path) for path in paths if fnmatchcase(path, pattern)]
    if not sites:
        raise SiteUnknown(
            f"no linear layer of {component} matches {pattern!r}", param="spec.method.sites"
        )
    return sites


def _linear(module: nn.Module) -> dict[str, nn.Linear]:
    return {name: m for name, m in module.named_modules() if isinstance(m, nn.Linear)}


def _canonical_path(module: nn.Module, name: str) -> str:
    if name.startswith(OPTIONAL_LEVEL) or not hasattr(module, "get_input_embeddings"):
        return name
    nested = hasattr(module, OPTIONAL_LEVEL.rstrip("."))
    return name if nested else OPTIONAL_LEVEL + name
