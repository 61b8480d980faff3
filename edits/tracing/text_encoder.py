"""Clean, corrupted and restored runs of a pipeline's text encoders.

The corrupted run adds Gaussian noise to the token embeddings of the subject, in every encoder that
the pipeline has. A restored run is the corrupted one in which some outputs, at some positions, are
those of the clean run (Basu et al., ICLR 2024, section on causal tracing; the restoration itself is
that of ROME, Meng et al. 2022).

A restored run computes the layers from its lowest restored one on; what lies below, and every other
encoder, answers what the corrupted run has computed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edits.method.captions import Caption
from edits.tracing.hooks import answering, first, hooked, with_first
from edits.tracing.layout import Conditioning, Encoder, Layout
from edits.tracing.positions import NAMED, SUBJECT, position_groups, subject_positions

MODULES = ("self_attn", "mlp", "residual")

# Every pass runs this many copies, so that all have one shape and a value that no restoration
# changes keeps its bits: matrix products of different shapes are rounded differently.
ROWS = 16


@dataclass(frozen=True, order=True)
class TextSite:
    """One restored unit: the output of one module of one layer at one named position."""

    component: str
    layer: int
    module: str
    position: str

    def __str__(self) -> str:
        return f"{self.component}.layers.{self.layer}.{self.module}@{self.position}"

    @classmethod
    def parse(cls, name: str) -> "TextSite":
        """Read what `str` wrote."""
        path, position = name.split("@")
        component, _, layer, module = path.split(".")
        return cls(component, int(layer), module, position)


@dataclass(frozen=True)
class _Pass:
    """What the modules of one encoder answered in one run: one of the ROWS equal rows."""

    outputs: Mapping[tuple[int, str], Any]

    def hidden(self, layer: int, module: str) -> Tensor:
        return first(self.outputs[layer, module])


def subject_noise(
    encoder: Encoder, caption: Caption, *, noise: float, draw: str, param: str = "prompts"
) -> Tensor:
    """Gaussian noise (limit, width) on the subject's tokens, zero elsewhere.

    `noise` is its standard deviation in multiples of that of the encoder's token embeddings. The
    same `draw` and caption give the same noise on every machine.
    """
    positions = subject_positions(encoder, caption, param=param)
    weight = encoder.embeddings[0].weight
    name = f"{draw}/{encoder.component}/{caption.text}"
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
    generator = torch.Generator("cpu").manual_seed(seed)
    drawn = torch.randn(len(positions), weight.shape[1], generator=generator)
    full = torch.zeros(encoder.limit, weight.shape[1])
    full[list(positions)] = noise * encoder.embedding_std * drawn
    return full.to(weight.device, weight.dtype)


class TextRuns:
    """The three kinds of runs of one caption under one draw of the noise.

    `noise` and `draw` are those of `subject_noise`.
    """

    def __init__(
        self, layout: Layout, caption: Caption, *, noise: float, draw: str, param: str = "prompts"
    ) -> None:
        self._layout = layout
        self._caption = caption
        self._param = param
        self._noise = {
            encoder.component: subject_noise(encoder, caption, noise=noise, draw=draw, param=param)
            for encoder in layout.encoders
        }
        self._clean, clean = self._record(corrupt=False)
        self._corrupted, corrupted = self._record(corrupt=True)
        self.clean = clean.pick([0])
        self.corrupted = corrupted.pick([0])

    def sites(
        self, positions: Sequence[str], modules: Sequence[str] = MODULES
    ) -> tuple[TextSite, ...]:
        """All sites of this caption. `earlier` is added for encoders that read ahead."""
        sites = []
        for encoder in self._layout.encoders:
            names = tuple(positions)
            if self._reads_ahead(encoder) and "earlier" not in names:
                names = (*names, "earlier")
            groups = position_groups(encoder, self._caption, names, param=self._param)
            sites += [
                TextSite(encoder.component, layer, module, position)
                for layer in range(len(encoder.layers))
                for module in modules
                for position in groups
            ]
        return tuple(sites)

    def everything(self) -> frozenset[TextSite]:
        """A set of sites that together restore every position of every encoder."""
        return frozenset(
            TextSite(encoder.component, layer, module, position)
            for encoder in self._layout.encoders
            for layer in range(len(encoder.layers))
            for module in MODULES
            for position in ("earlier", *self._subject_names(encoder), "later")
        )

    @torch.inference_mode()
    def restored(self, runs: Sequence[frozenset[TextSite]]) -> Conditioning:
        """One row per run, each restoring its set of sites; an empty set restores nothing."""
        rows: list[Conditioning | None] = [None] * len(runs)
        groups: dict[tuple[tuple[str, int], ...], list[int]] = {}
        for number, sites in enumerate(runs):
            lowest: dict[str, int] = {}
            for site in sites:
                lowest[site.component] = min(lowest.get(site.component, site.layer), site.layer)
            groups.setdefault(tuple(sorted(lowest.items())), []).append(number)
        for starts, numbers in groups.items():
            for begin in range(0, len(numbers), ROWS):
                part = numbers[begin : begin + ROWS]
                encoded = self._resume(dict(starts), [runs[number] for number in part])
                for row, number in enumerate(part):
                    rows[number] = encoded.pick([row])
        return Conditioning.stack([row for row in rows if row is not None])

    def _resume(self, starts: Mapping[str, int], runs: list[frozenset[TextSite]]) -> Conditioning:
        """Encode with the layers below `starts` answered by the corrupted run."""
        skipped, after = [], []
        for encoder in self._layout.encoders:
            start = starts.get(encoder.component, len(encoder.layers))
            recorded = self._corrupted[encoder.component]
            for number, layer in enumerate(encoder.layers):
                if number < start:
                    skipped.append(
                        (layer.residual, _repeated(recorded.outputs[number, "residual"]))
                    )
        for encoder in self._layout.encoders:
            after += self._restorations(encoder, runs)
        with answering(skipped), hooked(after=[*self._corruptions(), *after]):
            return self._layout.encode([self._caption.text] * ROWS)

    def _restorations(
        self, encoder: Encoder, runs: list[frozenset[TextSite]]
    ) -> list[tuple[nn.Module, Any]]:
        groups = position_groups(encoder, self._caption, (SUBJECT, *NAMED), param=self._param)
        places: dict[tuple[int, str], list[tuple[int, int]]] = {}
        for row, sites in enumerate(runs):
            for site in sites:
                if site.component == encoder.component:
                    cells = places.setdefault((site.layer, site.module), [])
                    cells += [(row, position) for position in groups.get(site.position, ())]
        clean = self._clean[encoder.component]
        hooks = []
        for (layer, module), cells in places.items():
            rows, positions = (torch.tensor(axis) for axis in zip(*cells, strict=True))
            hooks.append(
                (
                    encoder.layers[layer].module(module),
                    _restoration(clean.hidden(layer, module), rows, positions),
                )
            )
        return hooks

    @torch.inference_mode()
    def _record(self, *, corrupt: bool) -> tuple[dict[str, _Pass], Conditioning]:
        outputs: dict[str, dict[tuple[int, str], Any]] = {}
        after: list[tuple[nn.Module, Any]] = self._corruptions() if corrupt else []
        for encoder in self._layout.encoders:
            mine = outputs.setdefault(encoder.component, {})
            for number, layer in enumerate(encoder.layers):
                for name in MODULES:
                    after.append((layer.module(name), _recorder(mine, (number, name))))
        with hooked(after=after):
            encoded = self._layout.encode([self._caption.text] * ROWS)
        return {component: _Pass(mine) for component, mine in outputs.items()}, encoded

    def _corruptions(self) -> list[tuple[nn.Module, Any]]:
        hooks: list[tuple[nn.Module, Any]] = []
        for encoder in self._layout.encoders:
            noise = self._noise[encoder.component]
            hooks += [(module, _corruption(noise)) for module in encoder.embeddings]
        return hooks

    def _reads_ahead(self, encoder: Encoder) -> bool:
        """Whether the corruption changed anything in front of the subject: no causal mask."""
        groups = position_groups(encoder, self._caption, ("earlier",), param=self._param)
        earlier = list(groups.get("earlier", ()))
        top = len(encoder.layers) - 1
        clean, corrupted = self._clean[encoder.component], self._corrupted[encoder.component]
        return not torch.equal(
            clean.hidden(top, "residual")[0, earlier], corrupted.hidden(top, "residual")[0, earlier]
        )

    def _subject_names(self, encoder: Encoder) -> list[str]:
        return list(position_groups(encoder, self._caption, (SUBJECT,), param=self._param))


def _recorder(outputs: dict[tuple[int, str], Any], key: tuple[int, str]) -> Any:
    def hook(_module: nn.Module, _arguments: Any, output: Any) -> None:
        outputs[key] = with_first(output, first(output)[:1].clone())

    return hook


def _repeated(output: Any) -> Any:
    """A recorded output with ROWS rows again."""
    return with_first(output, first(output).expand(ROWS, -1, -1).contiguous())


def _restoration(clean: Tensor, rows: Tensor, positions: Tensor) -> Any:
    def hook(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        hidden = first(output).clone()
        hidden[rows, positions] = clean[0, positions]
        return with_first(output, hidden)

    return hook


def _corruption(noise: Tensor) -> Any:
    def hook(_module: nn.Module, _arguments: Any, output: Tensor) -> Tensor:
        return output + noise

    return hook
