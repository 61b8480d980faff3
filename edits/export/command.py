"""`quickfix export`: its options and checks."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from edits.errors import QuickFixError
from edits.terminal import rows_table, show


class Format(StrEnum):
    """What may be written."""

    FOLDER = "folder"
    SAFETENSORS = "safetensors"
    PEFT = "peft"
    KOHYA = "kohya"


class Dtype(StrEnum):
    """What the model is loaded in."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


def export(
    form: Annotated[Format, typer.Option("--format", help="What to write.")],
    out: Annotated[Path, typer.Option(help="The folder, or the .safetensors file, to write.")],
    manifests: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MANIFEST...", help="Files or catalog names, as they are published."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="URL of a revision store: export what it holds, not manifests."),
    ] = None,
    revision: Annotated[
        int | None, typer.Option(min=1, help="Of the store's revisions; default: its head.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Whose edits of the revision; default: default.")
    ] = None,
    model: Annotated[str, typer.Option(help="Pipeline folder or hub id.")] = "models/demo",
    dtype: Annotated[
        Dtype, typer.Option(help="What the model runs in where the export is used.")
    ] = Dtype.FLOAT32,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Largest error of a weight, relative to its norm. Default: 2^-14 for safetensors, "
            "the dtype's rounding for LoRA files.",
        ),
    ] = None,
    max_kib: Annotated[
        float | None, typer.Option(min=0, help="Refuse a larger artefact (safetensors).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what --out holds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Write edits as files: a diffusers folder, a small artefact, a LoRA."""
    import torch

    from edits.export.edit_set import EditSet
    from edits.export.folder import CARD
    from edits.export.stored import StoredEdits
    from edits.export.target import check_target, replacing
    from edits.manifests import DEFAULT_POLICY
    from edits.workbench import Workbench, find_manifest

    _check_options(form, out, tolerance, max_kib)
    _check_source(manifests, store, revision, policy)
    check_target(out, folder=form is Format.FOLDER, force=force, model=model)
    if (Path(model) / CARD).is_file():
        raise QuickFixError(
            f"model {Path(model).name!r} is an export itself ({CARD}); edits are solved together "
            "from the pristine model: name that one, and all manifests",
            param="model",
        )
    stored = None
    if store is not None:
        stored = StoredEdits.read(store, revision, policy or DEFAULT_POLICY)
    chosen = stored.edits if stored else [find_manifest(name) for name in manifests or []]
    bench = Workbench.open(model, dtype=getattr(torch, dtype.value))
    pipeline, editor = bench.pipeline, bench.editor
    if stored is None:
        specs = bench.gatekeeper.choose(chosen)
    else:
        stored.require_base(editor.fingerprint)
        content = stored.revision.content
        specs = tuple(bench.gatekeeper.spec(content, edit) for edit in chosen)
    composition = editor.compose(specs)
    names = [f"{edit.name}@{edit.version}" for edit in chosen]
    edits = EditSet.of(composition, names=names, base=editor.fingerprint)
    with replacing(out) as path:
        sites = _write(path, form, pipeline, edits, model, tolerance, max_kib)
        size = sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
    document = {
        "format": form.value,
        "out": str(out),
        "bytes": size,
        "dtype": dtype.value,
        **(stored.document() if stored else {}),
        **edits.document(),
        "not_covered": list(editor.components.uncovered),
        "sites": sites,
    }
    show(document, as_json, rows_table(f"{out}: {size / 1024:.1f} KiB", sites))


def _write(
    path: Path,
    form: Format,
    pipeline: Any,
    edits: Any,
    model: str,
    tolerance: float | None,
    max_kib: float | None,
) -> list[dict[str, Any]]:
    """Write one format to `path`; a row for each site."""
    from edits.export.artefact import TOLERANCE, write_artefact
    from edits.export.folder import write_folder
    from edits.export.lora import write_lora

    if form is Format.FOLDER:
        write_folder(path, pipeline, edits, model=model)
        return [{"site": str(site), "error": 0.0} for site in sorted(edits.weights)]
    if form is Format.SAFETENSORS:
        wanted = TOLERANCE if tolerance is None else tolerance
        figures = write_artefact(path, pipeline, edits, tolerance=wanted, max_kib=max_kib)
        return [each.document() for each in figures]
    spelling: Literal["peft", "kohya"] = "peft" if form is Format.PEFT else "kohya"
    written = write_lora(path, pipeline, edits, spelling=spelling, tolerance=tolerance)
    return [each.document() for each in written]


def _check_options(form: Format, out: Path, tolerance: float | None, max_kib: float | None) -> None:
    if form is Format.FOLDER and tolerance is not None:
        raise QuickFixError(
            "a folder holds the exact weights: leave --tolerance out", param="format"
        )
    if form is not Format.SAFETENSORS and max_kib is not None:
        raise QuickFixError("--max-kib is for --format safetensors only", param="max_kib")
    if form is not Format.FOLDER and out.suffix != ".safetensors":
        raise QuickFixError(f"--out {out}: the file's name must end in .safetensors", param="out")


def _check_source(
    manifests: list[str] | None, store: str | None, revision: int | None, policy: str | None
) -> None:
    if store is None and (revision is not None or policy is not None):
        raise QuickFixError("--revision and --policy are of a --store; name it", param="store")
    if bool(manifests) == (store is not None):
        raise QuickFixError(
            "name manifests, or a --store whose revision is exported, and not both",
            param="manifest" if store is None else "store",
        )
