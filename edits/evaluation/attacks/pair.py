"""The two encoders that an attack compares: a pipeline's own, and the one that its edits made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from edits.evaluation.attacks.encoder import EncoderView
from edits.method.fingerprint import module_digest
from edits.method.sites import TEXT_ENCODER

_DENOISERS = ("unet", "transformer")


@dataclass(frozen=True)
class EncoderPair:
    """Views of the pristine and of the edited text encoder, and the component that they are of."""

    pristine: EncoderView
    edited: EncoderView
    component: str = TEXT_ENCODER

    @property
    def passes(self) -> int:
        """Forward passes that both have run."""
        return self.pristine.passes + self.edited.passes

    def digests(self) -> list[str]:
        """SHA-256 of each encoder and of each layer that reads it."""
        return [
            module_digest(module)
            for view in (self.pristine, self.edited)
            for module in (view.module, *view.readers)
        ]


def encoder_pair(
    pipeline: Any, modules: Mapping[str, nn.Module], component: str = TEXT_ENCODER
) -> EncoderPair:
    """The pair for a pristine `pipeline` and the edited `modules` of it (`Editor.apply`).

    Where the edit lies behind the encoder, in cross-attention, both views read on through the
    layers that it changes. Raises ValueError if `modules` change nothing that this encoder feeds.
    """
    module = getattr(pipeline, component, None)
    tokenizer = getattr(pipeline, component.replace(TEXT_ENCODER, "tokenizer"), None)
    if module is None or tokenizer is None:
        raise ValueError(f"the pipeline has no {component} with a tokenizer")
    changed = [
        pair
        for name in _DENOISERS
        if name in modules
        for pair in _changed_layers(getattr(pipeline, name), modules[name])
    ]
    width = module.config.hidden_size
    if any(old.in_features != width for old, _ in changed):
        raise ValueError(
            f"the edited cross-attention reads more than {component}: attacks follow an edit "
            "behind the encoder in pipelines with one text encoder only"
        )
    if component not in modules and not changed:
        raise ValueError(f"the edits change nothing that {component} feeds; name another component")
    return EncoderPair(
        EncoderView(module, tokenizer, readers=[old for old, _ in changed]),
        EncoderView(modules.get(component, module), tokenizer, readers=[new for _, new in changed]),
        component,
    )


def _changed_layers(pristine: nn.Module, edited: nn.Module) -> list[tuple[nn.Linear, nn.Linear]]:
    """Linear layers of the same path that do not share their weight."""
    layers = {name: m for name, m in edited.named_modules() if isinstance(m, nn.Linear)}
    return [
        (old, layers[name])
        for name, old in pristine.named_modules()
        if isinstance(old, nn.Linear) and layers[name].weight is not old.weight
    ]
