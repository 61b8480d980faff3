"""Is the site with the larger indirect effect the better place to edit?

For every linear layer that an edit can change in the text encoder (self_attn.out_proj and mlp.fc2
of every layer), each traced object and style is removed by an edit at that layer alone, once with
each token mode. Efficacy is how far the judge's probability of the concept falls on held-out
prompts; harm is how far that of other concepts falls. Both are ranked against the site's indirect
effect in a finished trace (Spearman), with 95 % intervals from resampling concepts.

    quickfix trace --seeds 2 --out out/trace/text-encoder
    python -m benchmarks.edit_at_traced_sites --trace out/trace/text-encoder --out out/sites.json
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from edits.evaluation.drawing import Sampling, draw
from edits.evaluation.judge import Judge
from edits.evaluation.prompts import Probe, object_probes, style_probes
from edits.evaluation.report import load_judge
from edits.loading import load_pipeline
from edits.method import Editor, EditSpec, Site, with_components
from edits.method.spec import TokenMode
from edits.model_card import ModelDefaults
from edits.tracing.causal import EDITABLE, edit_site
from edits.tracing.effects import spearman
from edits.tracing.layout import Layout
from edits.tracing.result import TraceResult, read_result
from edits.tracing.text_encoder import TextSite

MODES: tuple[TokenMode, ...] = ("last", "last+pad")
KINDS = ("object", "style")
POSITIONS = ("last", "later")
RESAMPLES = 2000
Floats = NDArray[np.float64]


def main(
    trace: Path = Path("out/trace/text-encoder"),
    model: str = "models/demo",
    targets: int = 6,
    others: int = 4,
    seed: int = 81_000,
    out: Path = Path("out/sites.json"),
) -> None:
    """Edit at every site, judge, correlate; writes the JSON that it prints the summary of."""
    result, arrays = read_result(trace)
    pipeline, judge, defaults = (
        load_pipeline(model),
        load_judge(model),
        ModelDefaults.read(Path(model)),
    )
    layout = Layout.of(pipeline)
    editor = Editor(pipeline, ordinary=defaults.ordinary_captions)
    sampling = Sampling(defaults.steps, defaults.guidance_scale)
    names = [f"text_encoder.layers.{n}.{m}@last" for n in range(len(layout.encoders[0].layers))
             for m in EDITABLE]  # fmt: skip
    sites = [edit_site(layout, name) for name in names]
    concepts = _concepts(result)
    efficacy = np.zeros((len(concepts), len(sites), len(MODES)))
    harm = np.zeros_like(efficacy)
    for i, (kind, pair) in enumerate(track(concepts, description="concepts")):
        wanted, kept = _probes(judge, kind, pair["wanted"], targets, others, seed)
        before = _presence(pipeline, judge, kind, wanted, kept, sampling)
        for j, site in enumerate(sites):
            for k, mode in enumerate(MODES):
                modules = editor.apply(editor.compose([_spec(kind, pair, site, mode)]))
                edited = with_components(pipeline, modules)
                after = _presence(edited, judge, kind, wanted, kept, sampling)
                efficacy[i, j, k], harm[i, j, k] = before[0] - after[0], before[1] - after[1]
    effects = {p: _indirect(result, arrays, concepts, names, p) for p in POSITIONS}
    document: dict[str, Any] = {
        "trace": result.identity,
        "concepts": [[kind, pair["concept"]] for kind, pair in concepts],
        "targets": targets,
        "others": others,
        "seed": seed,
        "sites": [
            {
                "site": str(site),
                **{f"indirect_{p}": _round(effects[p][:, j].mean()) for p in POSITIONS},
                **{f"efficacy_{m}": _round(efficacy[:, j, k].mean()) for k, m in enumerate(MODES)},
                **{f"harm_{m}": _round(harm[:, j, k].mean()) for k, m in enumerate(MODES)},
            }
            for j, site in enumerate(sites)
        ],
        "rank_correlation": [
            {
                "concepts": group,
                "indirect_effect_at": position,
                "tokens": mode,
                "of": measure,
                **_correlation(effects[position][rows], values[rows][:, :, k]),
            }
            for group, rows in _groups(concepts).items()
            for position in POSITIONS
            for k, mode in enumerate(MODES)
            for measure, values in (("efficacy", efficacy), ("harm", harm))
        ],
        "efficacy": np.round(efficacy, 4).tolist(),
        "harm": np.round(harm, 4).tolist(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    summary = {key: document[key] for key in ("sites", "rank_correlation")}
    print(json.dumps(summary, indent=1))


def _concepts(result: TraceResult) -> list[tuple[str, dict[str, str]]]:
    """Every traced pair of an object or style, once per concept."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for kind in KINDS:
        for pair in result.attributes[kind].pairs:
            found.setdefault((kind, pair.concept), pair.model_dump())
    return [(kind, pair) for (kind, _), pair in found.items()]


def _groups(concepts: Sequence[tuple[str, Any]]) -> dict[str, list[int]]:
    groups = {kind: [i for i, (k, _) in enumerate(concepts) if k == kind] for kind in KINDS}
    return {"all": list(range(len(concepts))), **groups}


def _spec(kind: str, pair: dict[str, str], site: Site, mode: TokenMode) -> EditSpec:
    return EditSpec(
        name="site",
        concept=pair["concept"],
        anchor=_replacement(pair["caption"], pair["concept"], pair["anchor_caption"]),
        kind="style" if kind == "style" else "object",
        sites=(site,),
        tokens=mode,
    )


def _replacement(caption: str, concept: str, anchor_caption: str) -> str:
    """The words that stand in the anchor's caption where the concept stands in the other."""
    start = caption.index(concept)
    after = len(caption) - start - len(concept)
    return anchor_caption[start : len(anchor_caption) - after].strip()


def _probes(
    judge: Judge, kind: str, wanted: str, targets: int, others: int, seed: int
) -> tuple[list[Probe], list[Probe]]:
    """Held-out prompts of the concept, and of other concepts of its kind."""
    objects, colours = judge.classes["object"], judge.classes["colour"]
    styles = judge.classes["style"][1:]
    if kind == "object":
        rest = [name for name in objects if name != wanted][:: max(1, len(objects) // others)]
        return (
            list(object_probes([wanted], colours, each=targets, seed=seed)),
            list(object_probes(rest[:others], colours, each=1, seed=seed + 500)),
        )
    rest = [name for name in styles if name != wanted]
    return (
        list(style_probes([wanted], objects[::3], colours, each=targets, seed=seed)),
        list(style_probes(rest[:others], objects[1::3], colours, each=1, seed=seed + 500)),
    )


def _presence(
    pipeline: Any,
    judge: Judge,
    kind: str,
    wanted: list[Probe],
    kept: list[Probe],
    sampling: Sampling,
) -> tuple[float, float]:
    """Mean probability of the wanted class over the concept's pictures, and over the others'."""
    probes = [*wanted, *kept]
    verdicts = judge.look(draw(pipeline, probes, sampling, batch=len(probes)))
    shares = [v.probabilities[kind][p.wanted[kind]] for v, p in zip(verdicts, probes, strict=True)]
    return float(np.mean(shares[: len(wanted)])), float(np.mean(shares[len(wanted) :]))


def _indirect(
    result: TraceResult,
    arrays: dict[str, Floats],
    concepts: Sequence[tuple[str, dict[str, str]]],
    names: Sequence[str],
    position: str,
) -> Floats:
    """Indirect effects (concepts, sites) by the first scorer, at one position."""
    rows = []
    for kind, pair in concepts:
        found = result.attributes[kind]
        index = [p.model_dump() for p in found.pairs].index(pair)
        runs = arrays[kind][index, ..., 0].reshape(-1, len(found.conditions))
        columns = [
            found.conditions.index(str(TextSite(s.component, s.layer, s.module, position)))
            for s in map(TextSite.parse, names)
        ]
        rows.append((runs[:, columns] - runs[:, 1:2]).mean(axis=0))
    return np.array(rows)


def _correlation(indirect: Floats, measured: Floats) -> dict[str, float]:
    """Spearman over sites of the means over concepts; interval from resampling concepts."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(indirect), (RESAMPLES, len(indirect)))
    found = [spearman(indirect[p].mean(axis=0), measured[p].mean(axis=0)) for p in picks]
    low, high = np.nanquantile(found, (0.025, 0.975))
    rho = spearman(indirect.mean(axis=0), measured.mean(axis=0))
    return {"rho": _round(rho), "low": _round(low), "high": _round(high),
            "sites": indirect.shape[1], "n": len(indirect)}  # fmt: skip


def _round(value: float) -> float:
    return round(float(value), 4)


if __name__ == "__main__":
    typer.run(main)
