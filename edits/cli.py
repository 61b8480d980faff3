"""`quickfix`: thin commands over the library. Every one prints a table, or JSON with `--json`."""

import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from edits.errors import QuickFixError
from edits.manifests import ConceptEdit, RevisionContent, catalog, catalog_entry, load_manifest
from edits.store import RevisionStore
from edits.terminal import (
    console,
    demo_table,
    evaluation_table,
    model_table,
    progress,
    rows_table,
    show,
)
from edits.tracing.command import trace

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(trace)

DEMO_MODEL = "models/demo"
DEFAULT_STORE = "sqlite:///.quickfix/quickfix.db"

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Model = Annotated[str, typer.Option(help="Pipeline folder or hub id.")]
Store = Annotated[str, typer.Option(help="URL of the revision store.")]
Manifest = Annotated[str, typer.Argument(help="A manifest file, or a name of the catalog.")]
Author = Annotated[str, typer.Option(help="Who answers for the change.")]


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
    variables = [f"{name}={text}" for name, text in given.items() if text]
    code = subprocess.call(["env", *variables, *serve_command(host, port)])  # noqa: S603, S607
    raise SystemExit(code)


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
        Path | None, typer.Option(help="Write the edited weights (safetensors).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute an edit and report how it came out; publishes nothing."""
    from safetensors.torch import save_file

    from edits.plan import check_base, edit_spec

    concept_edit = _manifest(manifest)
    _pipeline, editor, defaults = _load(model)
    check_base(concept_edit, editor.fingerprint)
    composition = editor.compose([edit_spec(concept_edit, defaults.edit_sites)])
    document = {
        "name": concept_edit.name,
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
        tensors = {str(site): weight for site, weight in composition.weights.items()}
        save_file(tensors, out, metadata={"name": concept_edit.name, "base": editor.fingerprint})
    show(document, as_json, rows_table("edit", document["sites"]))


@app.command()
def evaluate(
    manifest: Annotated[str, typer.Argument(help="A file or catalog name; none: no edit.")] = "",
    model: Model = DEMO_MODEL,
    targets: Annotated[int, typer.Option(min=1, help="Pictures of the concept.")] = 100,
    each: Annotated[int, typer.Option(min=1, help="Pictures of every other object and style.")] = 8,
    seed: int = 7000,
    steps: Annotated[int | None, typer.Option(min=1, help="Default: the model's.")] = None,
    as_json: Json = False,
) -> None:
    """Judge what the model draws: before and after an edit, or without any."""
    from edits.evaluation.drawing import Sampling
    from edits.evaluation.report import (
        EditSuite,
        evaluate_edit,
        evaluate_model,
        load_judge,
        model_suite,
    )
    from edits.plan import edit_spec

    pipeline, editor, defaults = _load(model)
    judge = load_judge(model)
    sampling = Sampling(steps or defaults.steps, defaults.guidance_scale)
    if manifest:
        spec = edit_spec(_manifest(manifest), defaults.edit_sites)
        suite = EditSuite.of(judge, spec, targets=targets, each=each, seed=seed)
        with progress("images", 2 * len(suite.probes)) as advance:
            document = evaluate_edit(
                pipeline, editor, judge, spec, suite, sampling, progress=advance
            )
        table = evaluation_table(document)
    else:
        probes = model_suite(judge, each=each, seed=seed)
        with progress("images", len(probes)) as advance:
            document = evaluate_model(pipeline, judge, probes, sampling, progress=advance)
        table = model_table(document)
    show({"seed": seed, **document}, as_json, table)


@app.command()
def publish(
    manifest: Manifest, store: Store = DEFAULT_STORE, author: Author = "cli", as_json: Json = False
) -> None:
    """Add an edit to the newest content and append it as a revision; the head does not move."""
    concept_edit = _manifest(manifest)
    with _open(store) as log:
        head = log.head()
        content = (head.content if head else RevisionContent()).with_edit(concept_edit)
        revision = log.publish(content, author=author, reason=concept_edit.metadata.reason)
    document = {"revision": revision.number, "digest": revision.digest}
    show(document, as_json, rows_table("published", [document]))


@app.command()
def activate(number: int, store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """Make a published revision the head; every replica follows."""
    with _open(store) as log:
        revision = log.activate(number)
    document = {"revision": revision.number, "digest": revision.digest}
    show(document, as_json, rows_table("head", [document]))


@app.command()
def rollback(
    to: int,
    store: Store = DEFAULT_STORE,
    author: Author = "cli",
    reason: str = "",
    as_json: Json = False,
) -> None:
    """Publish a new revision with the content of an old one, and make it the head."""
    with _open(store) as log:
        revision = log.rollback(to, author=author, reason=reason or f"roll back to {to}")
    document = {"revision": revision.number, "digest": revision.digest}
    show(document, as_json, rows_table("head", [document]))


@app.command()
def status(store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """The head, its edits, and what every replica runs."""
    with _open(store) as log:
        head, replicas = log.head(), log.replicas()
    document: dict[str, Any] = {
        "head": head.number if head else None,
        "digest": head.digest if head else None,
        "edits": [f"{e.name}@{e.version}" for e in head.content.edits] if head else [],
        "replicas": [
            {"id": r.id, "active": r.active_revision, "last_error": r.last_error} for r in replicas
        ],
    }
    rows = document["replicas"] or [{"id": "(none)", "active": None, "last_error": None}]
    title = f"head {document['head']}: {', '.join(document['edits']) or 'no edits'}"
    show(document, as_json, rows_table(title, rows))


def _open(url: str) -> RevisionStore:
    if url == DEFAULT_STORE:  # a folder that was named by hand must exist: a typo makes no new log
        Path(".quickfix").mkdir(mode=0o700, exist_ok=True)
    return RevisionStore.open(url)


def _manifest(name: str) -> ConceptEdit:
    if Path(name).is_file():
        return load_manifest(Path(name))
    if name in {entry.name for entry in catalog()}:
        return catalog_entry(name)
    known = ", ".join(entry.name for entry in catalog())
    raise QuickFixError(f"{name!r} is neither a file nor in the catalog ({known})")


def _load(model: str) -> tuple[Any, Any, Any]:
    from edits.loading import load_pipeline
    from edits.method import Editor
    from edits.model_card import ModelDefaults

    pipeline = load_pipeline(model)
    defaults = ModelDefaults.read(Path(model))
    editor = Editor(pipeline.text_encoder, pipeline.tokenizer, ordinary=defaults.ordinary_captions)
    editor.warm(defaults.edit_sites)
    return pipeline, editor, defaults


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
