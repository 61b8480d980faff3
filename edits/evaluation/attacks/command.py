"""`quickfix attack`: look for ways around an edit, draw the worst, and harden the edit by them."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from edits.errors import QuickFixError
from edits.terminal import progress, rows_table, show

ADMITS = "admits it"  # what the gate says of an edit that may be published
_FIRST_SEED = 1000


def attack(
    manifest: Annotated[str, typer.Argument(help="A manifest file, or a name of the catalog.")],
    model: Annotated[str, typer.Option(help="Pipeline folder or hub id.")] = "models/demo",
    attacks: Annotated[
        str | None, typer.Option(help="Only these, comma between; default: all.")
    ] = None,
    budget: Annotated[int, typer.Option(min=1, help="Forward passes of each attack.")] = 20_000,
    worst: Annotated[int, typer.Option(min=1, help="Finds of each attack that are drawn.")] = 8,
    pictures: Annotated[int, typer.Option(min=1, help="Pictures of each find.")] = 2,
    sites: Annotated[
        str | None, typer.Option(help="A preset or a site in place of the manifest's.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Spellings that are drawn unsearched.")] = 50,
    harden: Annotated[
        int,
        typer.Option(min=0, help="Take so many texts that got past into the edit; attack again."),
    ] = 0,
    gated: Annotated[
        bool, typer.Option("--gated", help="Take only texts with which the gate admits the edit.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="How often, while something gets past.")] = 1,
    seed: int = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for what is found; a run there goes on.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Search for prompts and vectors that bring a removed concept back."""
    from edits.evaluation.attacks.attack import ATTACKS, AttackOptions
    from edits.evaluation.attacks.drawing import removed_class
    from edits.evaluation.attacks.hardening import hardening
    from edits.evaluation.report import load_judge
    from edits.evaluation.subject import subject_of
    from edits.manifests import Method
    from edits.plan import choice_of
    from edits.workbench import Workbench, find_manifest

    edit = find_manifest(manifest)
    if sites is not None:
        own = edit.spec.model_copy(update={"method": Method(sites=sites)})
        edit = edit.model_copy(update={"spec": own})
    bench = Workbench.open(model)
    judge = load_judge(model)
    (spec,) = bench.gatekeeper.choose([edit])
    subject = subject_of(judge, spec)
    removed_class(subject)  # before the searches, whose finds nobody could count otherwise
    names = tuple(attacks.split(",")) if attacks else tuple(ATTACKS)
    try:
        options = AttackOptions(attacks=names, budget=budget, seed=seed, worst=worst, sample=sample)
    except ValueError as error:
        raise QuickFixError(str(error)) from None
    parts: list[dict[str, Any]] = []
    last = rounds if harden else 0
    for number in range(1 + last):
        title = f"hardened {number}" if number else "first"
        folder = None if out is None else out / title.replace(" ", "-")
        with progress("attacks", len(names)) as advance:
            edited, unedited, figures = _round(
                bench, judge, spec, subject, options, folder, pictures, lambda: advance(1)
            )
        parts.append({"round": title, "gate": _verdict(bench, edit, spec), **figures})
        if number < last:
            admits = partial(_admits, bench, edit, spec) if gated else None
            taken = hardening(spec, edited, unedited, harden, admits=admits)
            parts[-1]["taken"] = asdict(taken)
            if not taken:
                break  # the same edit would be attacked in the same way
            spec, edit = taken.spec(spec), taken.manifest(edit)
    document = {
        "edit": edit.name,
        "seed": seed,
        "budget": budget,
        "settings": choice_of(spec).model_dump(mode="json"),
        "rounds": parts,
    }
    if out is not None:
        (out / "attacks.json").write_text(json.dumps(document, indent=1, ensure_ascii=False))
        if last:
            (out / "hardened.json").write_text(
                _as_attacked(edit, spec).model_dump_json(indent=1, by_alias=True, exclude_none=True)
            )
    rows = [
        {"round": part["round"], **{k: row[k] for k in ("attack", "edited", "unedited", "passes")}}
        for part in parts
        for row in part["attacks"]
    ]
    verdicts = [
        {
            "round": part["round"],
            "the gate": part["gate"],
            "taken on": "\n".join((*taken.get("aliases", ()), *taken.get("preserve", ()))),
            "left out": "\n".join(taken.get("refused", ())),
        }
        for part in parts
        for taken in (part.get("taken", {}),)
    ]
    show(
        document,
        as_json,
        rows_table(f"{edit.name}: pictures that show the concept", rows),
        rows_table("with the settings that were attacked", verdicts),
    )


def _as_attacked(edit: Any, spec: Any) -> Any:
    """The manifest with the settings that were attacked: open ones would be chosen anew."""
    from edits.plan import choice_of

    method = edit.spec.method
    if method.parity:  # it has none
        return edit
    method = method.model_copy(update=choice_of(spec).model_dump())
    return edit.model_copy(update={"spec": edit.spec.model_copy(update={"method": method})})


def _verdict(bench: Any, edit: Any, spec: Any) -> str:
    """What the gate says of the edit as it was attacked, alone: that it admits it, or why not."""
    from edits.errors import EditRefused
    from edits.manifests import RevisionContent

    try:
        bench.gatekeeper.admit(RevisionContent(), _as_attacked(edit, spec))
    except EditRefused as error:
        return f"refuses it: {error.message}"
    return ADMITS


def _admits(bench: Any, edit: Any, spec: Any, more: Any) -> bool:
    """Whether the gate admits the edit hardened by `more`, with the settings it was attacked in."""
    return _verdict(bench, more.manifest(edit), more.spec(spec)) == ADMITS


def _round(
    bench: Any,
    judge: Any,
    spec: Any,
    subject: Any,
    options: Any,
    folder: Path | None,
    pictures: int,
    advance: Any,
) -> tuple[Any, Any, dict[str, Any]]:
    """Attack one edit as it is; the worst finds drawn by both models, and their figures."""
    from edits.evaluation.attacks.drawing import draw_attacks
    from edits.evaluation.attacks.pair import encoder_pair
    from edits.evaluation.attacks.run import run_attacks
    from edits.evaluation.attacks.target import Target
    from edits.evaluation.drawing import Sampling
    from edits.method import with_components

    modules = bench.editor.apply(bench.editor.compose([spec]))
    result = run_attacks(
        encoder_pair(bench.pipeline, modules),
        Target.of(spec),
        options,
        out=folder,
        on_attack=lambda _outcome: advance(),
    )
    sampling = Sampling(bench.defaults.steps, bench.defaults.guidance_scale)
    edited, unedited = (
        draw_attacks(
            pipeline, result, judge, subject, sampling, pictures=pictures, first_seed=_FIRST_SEED
        )
        for pipeline in (with_components(bench.pipeline, modules), bench.pipeline)
    )
    rows = []
    for outcome, after, before in zip(result.outcomes, edited, unedited, strict=True):
        rows.append(
            {
                "attack": outcome.attack,
                "edited": f"{after.success.hits} of {after.success.count}",
                "unedited": f"{before.success.hits} of {before.success.count}",
                "passes": outcome.passes,
                "tried": outcome.tried,
                "seconds": outcome.seconds,
                **after.document(),
            }
        )
    return edited, unedited, {"presence": result.document()["presence"], "attacks": rows}
