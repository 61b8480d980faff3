"""Attack an edit of the catalog on the demo model, draw the worst, and print all figures as JSON.

    python -m tests.evaluation.attacks.measure remove-pistol --budget 20000 --worst 8 --seeds 2

Text finds are drawn with the unedited pipeline too: what it does not show, the edit has brought.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from edits.evaluation.attacks.attack import ATTACKS, AttackOptions
from edits.evaluation.attacks.drawing import draw_attacks
from edits.evaluation.attacks.pair import encoder_pair
from edits.evaluation.attacks.result import finds
from edits.evaluation.attacks.run import run_attacks
from edits.evaluation.attacks.target import Target
from edits.evaluation.drawing import Sampling
from edits.evaluation.report import load_judge
from edits.evaluation.subject import subject_of
from edits.loading import load_pipeline
from edits.manifests import catalog_entry
from edits.method import Editor, parse_sites
from edits.method.components import with_components
from edits.model_card import ModelDefaults
from edits.plan import edit_spec

MODEL = Path(__file__).resolve().parents[3] / "models" / "demo"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("edit")
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS))
    parser.add_argument("--budget", type=int, default=20_000)
    parser.add_argument("--worst", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=2, help="pictures of each prompt")
    parser.add_argument("--sites", help="a preset or a path in place of the manifest's")
    parser.add_argument("--out", type=Path, help="folder of the journal")
    options = parser.parse_args()
    torch.set_num_threads(1)

    pipeline = load_pipeline(str(MODEL))
    card = ModelDefaults.read(MODEL)
    spec = edit_spec(catalog_entry(options.edit))
    if options.sites:
        spec = replace(spec, sites=parse_sites(options.sites))
    editor = Editor(pipeline, ordinary=card.ordinary_captions)
    composition = editor.compose([spec])
    modules = editor.apply(composition)
    judge = load_judge(str(MODEL))
    result = run_attacks(
        encoder_pair(pipeline, modules),
        Target.of(spec),
        AttackOptions(
            attacks=tuple(options.attacks),
            budget=options.budget,
            seed=options.seed,
            worst=options.worst,
        ),
        out=options.out,
    )
    drawn = {}
    for name, drawing in (
        ("edited", with_components(pipeline, modules)),
        ("unedited", pipeline),
    ):
        started = time.perf_counter()
        attacks = draw_attacks(
            drawing,
            result,
            judge,
            subject_of(judge, spec),
            Sampling(card.steps, card.guidance_scale),
            seeds=range(1000, 1000 + options.seeds),
        )
        drawn[name] = {
            "seconds": round(time.perf_counter() - started, 1),
            "attacks": [attack.document() for attack in attacks],
        }
    document = {
        "edit": options.edit,
        "sites": [str(site) for site in composition.weights],
        "digest": composition.digest,
        **result.document(),
        "drawn": drawn,
        "aliases": finds(result, options.worst),
    }
    for outcome in document["attacks"]:
        for find in outcome["finds"]:
            find.pop("vectors", None)
    print(json.dumps(document, indent=1, ensure_ascii=False))  # noqa: T201


if __name__ == "__main__":
    main()
