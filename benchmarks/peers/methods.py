"""The methods by name: each makes an edited copy of a pipeline, with its published settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import closed_form
from benchmarks.peers.concept_ablation import AblationSettings, concept_ablation
from benchmarks.peers.esd import EsdSettings, esd
from benchmarks.peers.sets import removed
from edits.method import Editor, EditSpec, with_components
from edits.method.captions import naming

# Windows of two cross-attention layers with the largest direct effect (docs/findings/
# cross-attention-2, `quickfix trace cross-attention --window 2`): objects 0.94, styles 0.91.
LOCALISED = {
    "object": ("mid_block.", "up_blocks.1.attentions.0."),
    "style": ("up_blocks.1.attentions.0.", "up_blocks.1.attentions.1."),
}

_NUMBERS = ("ridge", "preserve_weight", "pad_weight", "neighbours")


@dataclass(frozen=True)
class Method:
    """`edit` takes a pipeline and edits and answers another pipeline; neither is changed."""

    name: str
    edit: Callable[[Any, Sequence[EditSpec]], Any]
    settings: str
    source: str


def method_table(ordinary: Sequence[str], *, seed: int = 0) -> dict[str, Method]:
    """All methods. `ordinary` are the names that those which preserve something preserve."""

    def quickfix(pipeline: Any, specs: Sequence[EditSpec]) -> Any:
        editor = Editor(pipeline, ordinary=ordinary)
        return with_components(pipeline, editor.apply(editor.compose(specs)))

    def released(pipeline: Any, specs: Sequence[EditSpec]) -> Any:
        return closed_form.released(pipeline, specs, ridge=0.01)

    def uce(pipeline: Any, specs: Sequence[EditSpec]) -> Any:
        gone = naming(ordinary, [spec.concept for spec in specs])
        preserve = [text for text in ordinary if text not in gone]
        return closed_form.uce(
            pipeline, specs, preserve, ridge=0.5, erase_scale=1.0, preserve_scale=1.0
        )

    def time(pipeline: Any, specs: Sequence[EditSpec]) -> Any:
        return closed_form.time(pipeline, specs, ridge=0.1)

    def locoedit(pipeline: Any, specs: Sequence[EditSpec]) -> Any:
        return closed_form.locoedit(pipeline, specs, LOCALISED, ridge=0.01)

    fine_tuned = EsdSettings(seed=seed)
    ablated = AblationSettings(seed=seed)
    table = (
        Method(
            "unedited",
            lambda pipeline, _specs: pipeline,
            "the model as it is",
            "",
        ),
        Method(
            "quickfix",
            quickfix,
            f"ours, the product's default settings: {_defaults()}; preserves the model's ordinary "
            "names",
            "this repository",
        ),
        Method(
            "released",
            released,
            "first self-attention's out_proj; 4 captions; last subject token and all positions "
            "behind it; bias counted twice; lambda 0.01; nothing preserved; several concepts as "
            "one sum",
            "Basu et al., ICLR 2024 (arXiv 2310.13730), as its notebook computes",
        ),
        Method(
            "uce",
            uce,
            "all cross-attention to_k and to_v; bare names, last subject token; erase scale 1, "
            "preserve scale 1, lambda 0.5; preserves the model's ordinary names",
            "Gandikota et al., WACV 2024 (arXiv 2308.14761)",
        ),
        Method(
            "time",
            time,
            "all cross-attention to_k and to_v; 4 captions, all positions; lambda 0.1; nothing "
            "preserved; published for one pair, here all pairs in one solve",
            "Orgad et al., ICCV 2023 (arXiv 2303.08084)",
        ),
        Method(
            "locoedit",
            locoedit,
            "to_k and to_v of the two consecutive cross-attention layers with the largest direct "
            "effect of the concept's kind; 4 captions, last subject token; lambda 0.01",
            "Basu et al., ICML 2024 (arXiv 2405.01008)",
        ),
        Method(
            "esd",
            lambda pipeline, specs: esd(pipeline, specs, fine_tuned),
            f"cross-attention trained, no anchor: {fine_tuned.summary}",
            "Gandikota et al., ICCV 2023 (arXiv 2303.07345), ESD-x",
        ),
        Method(
            "ablation",
            lambda pipeline, specs: concept_ablation(pipeline, specs, ablated),
            f"cross-attention to_k and to_v trained, model-based: {ablated.summary}",
            "Kumari et al., ICCV 2023 (arXiv 2303.13516)",
        ),
    )
    return {method.name: method for method in table}


def _defaults() -> str:
    spec = removed(1)[0]
    return ", ".join(f"{name} {getattr(spec, name):g}" for name in _NUMBERS) + (
        f", tokens {spec.tokens}, at {', '.join(map(str, spec.sites))}"
    )
