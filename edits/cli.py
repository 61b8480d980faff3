"""`quickfix`: thin commands over the library. Every one prints a table, or JSON with `--json`."""

import os
import shlex
import signal
import socket
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from edits.audit_commands import audit
from edits.errors import QuickFixError
from edits.evaluation.attacks.command import attack
from edits.export.command import export
from edits.graph_commands import onnx
from edits.rollout_commands import rollout
from edits.store_commands import activate, migrate, publish, rollback, status
from edits.terminal import (
    console,
    demo_table,
    evaluation_tables,
    model_table,
    progress,
    rows_table,
    show,
)
from edits.tracing.command import trace
from edits.trust_commands import compose, keygen, sign, verify

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(trace)
app.command()(export)
app.command()(onnx)
app.command()(attack)
for _command in (publish, activate, rollback, status, migrate, keygen, compose, sign, verify):
    app.command()(_command)
app.add_typer(audit, name="audit")
app.add_typer(rollout, name="rollout")

DEMO_MODEL = "models/demo"

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Model = Annotated[str, typer.Option(help="Pipeline folder or hub id.")]
Manifest = Annotated[str, typer.Argument(help="A manifest file, or a name of the catalog.")]


def main() -> None:
    """Run the command line; what the library refuses ends in one line and exit code 1."""
    try:
        app()
    except QuickFixError as error:
        where = f" [{error.param}]" if error.param else ""
        console.print(f"quickfix: {error.message}{where}", style="red", markup=False)
        raise SystemExit(1) from None


@app.command()
def serve(
    host: str = "127.0.0.1",
    port: int = 3000,
    model: Model = DEMO_MODEL,
    store: Annotated[str, typer.Option(help="URL of the revision store.")] = "",
    edits_dir: Annotated[str, typer.Option(help="Directory of manifests as desired state.")] = "",
) -> None:
    """Serve a model until interrupted."""
    from edits.serving import serve_command

    given = {"QUICKFIX_MODEL": model, "QUICKFIX_STORE": store, "QUICKFIX_EDITS_DIR": edits_dir}
    command = serve_command(host, port)
    # In the place of this process: what a supervisor ends is the server, and it drains.
    # `env` leaves the rest of the environment to it without this library reading it.
    pairs = [f"{name}={text}" for name, text in given.items() if text]
    os.execvp("env", ["env", *pairs, *command])  # noqa: S606, S607 - our own command


@app.command()
def demo(
    model: Model = DEMO_MODEL,
    out: Annotated[Path, typer.Option(help="Folder of the picture and the report.")] = Path(
        "out/demo"
    ),
    seed: int = 4000,
    as_json: Json = False,
) -> None:
    """Serve the demo model, remove two concepts while it serves, and show what changed."""
    from edits.demo import groups, run_demo
    from edits.evaluation.report import load_judge
    from edits.serving import local_service

    # A demo that is told to end must end its service too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    judge = load_judge(model)
    chosen = groups(judge, targets=12, seed=seed)
    images = 3 * sum(len(group.probes) for group in chosen)
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="quickfix-") as folder,
        local_service(
            Path(folder), port=_free_port(), settings={"QUICKFIX_MODEL": str(Path(model).resolve())}
        ) as service,
        service.client() as client,
        progress("images", images) as advance,
    ):
        report = {"seed": seed, **run_demo(client, judge, chosen, out, progress=advance)}
    show(report, as_json, demo_table(report))
    if not as_json:
        typer.echo(f"wrote {out / 'before_after.png'} and {out / 'report.json'}")


@app.command()
def edit(
    manifest: Manifest,
    model: Model = DEMO_MODEL,
    out: Annotated[
        Path | None, typer.Option(help="Write the delta as an artefact (safetensors).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute an edit and report how it came out; publishes nothing."""
    from edits.export.artefact import write_artefact
    from edits.export.edit_set import EditSet
    from edits.export.target import check_target, replacing
    from edits.plan import choice_of
    from edits.workbench import Workbench, find_manifest

    if out is not None:
        check_target(out, folder=False, force=True)
    concept_edit = find_manifest(manifest)
    bench = Workbench.open(model)
    editor = bench.editor
    (spec,) = bench.gatekeeper.choose([concept_edit])
    composition = editor.compose([spec])
    document: dict[str, Any] = {
        "name": concept_edit.name,
        "settings": choice_of(spec).model_dump(mode="json"),
        "not_covered": list(editor.components.uncovered),
        "not_preserved": list(
            dict.fromkeys(name for r in composition.reports for name in r.not_preserved)
        ),
        "digest": composition.digest,
        "base": editor.fingerprint,
        "sites": [
            {
                "site": str(r.site),
                "rows": r.rows,
                "residual": r.residual,
                "preserve_drift": r.preserve_drift,
                "empty_prompt_drift": r.empty_prompt_drift,
                "edit_ms": round(1000 * r.seconds, 2),
            }
            for r in composition.reports
        ],
    }
    if out is not None:
        names = [f"{concept_edit.name}@{concept_edit.version}"]
        edits = EditSet.of(composition, names=names, base=editor.fingerprint)
        with replacing(out) as path:
            write_artefact(path, bench.pipeline, edits)
    show(document, as_json, rows_table("edit", document["sites"]))
    if document["not_preserved"] and not as_json:
        dropped = ", ".join(document["not_preserved"])
        typer.echo(f"not preserved, since a removed name stands in it: {dropped}")


@app.command()
def evaluate(
    manifests: Annotated[
        list[str] | None,
        typer.Argument(help="Files or catalog names, applied together; none: no edit."),
    ] = None,
    model: Model = DEMO_MODEL,
    targets: Annotated[int, typer.Option(min=1, help="Pictures of every target group.")] = 100,
    each: Annotated[int, typer.Option(min=1, help="At least so many of every other class.")] = 8,
    groups: Annotated[
        str | None, typer.Option(help="Only these groups, comma between; default: all.")
    ] = None,
    seed: int = 7000,
    steps: Annotated[int | None, typer.Option(min=1, help="Default: the model's.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.json, report.md and report.html.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge what the model draws: before and after edits, or without any."""
    from edits.evaluation.document import evaluation_document
    from edits.evaluation.drawing import Sampling
    from edits.evaluation.report import (
        evaluate_edits,
        evaluate_model,
        load_judge,
        model_suite,
        write_report,
    )
    from edits.evaluation.suite import edit_suite
    from edits.workbench import Workbench, find_manifest

    bench = Workbench.open(model)
    pipeline, editor, defaults = bench.pipeline, bench.editor, bench.defaults
    judge = load_judge(model)
    sampling = Sampling(steps or defaults.steps, defaults.guidance_scale)
    if not manifests:
        if groups or out:
            raise QuickFixError("--groups and --out need an edit to evaluate; name a manifest")
        probes = model_suite(judge, each=each, seed=seed)
        with progress("images", len(probes)) as advance:
            document = evaluate_model(pipeline, judge, probes, sampling, progress=advance)
        show({"seed": seed, **document}, as_json, model_table(document))
        return
    specs = bench.gatekeeper.choose([find_manifest(name) for name in manifests])
    chosen = {"kinds": [name.strip() for name in groups.split(",")]} if groups else {}
    suite = edit_suite(pipeline, judge, specs, targets=targets, each=each, seed=seed, **chosen)
    options = {"--model": model, "--targets": targets, "--each": each, "--groups": groups}
    options |= {"--seed": seed, "--steps": steps, "--out": out}
    command = ["quickfix", "evaluate", *manifests]
    given = {name: str(value) for name, value in options.items() if value is not None}
    command += [word for pair in given.items() for word in pair]
    with progress("images", 2 * len(suite.probes)) as advance:
        result, provenance = evaluate_edits(
            pipeline, editor, judge, suite, sampling, model=model, progress=advance
        )
    provenance = {"command": shlex.join(command), **provenance}
    document = evaluation_document(result, provenance)
    show(document, as_json, *evaluation_tables(document))
    if out is not None:
        written = write_report(result, out, provenance)
        if not as_json:
            typer.echo(f"wrote {', '.join(map(str, written))}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
