"""`quickfix publish|activate|rollback|status|migrate`: the revision store, without a service."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from edits.errors import ContentMismatch, HeadMoved
from edits.manifests import RevisionContent
from edits.rollout_commands import show_rollout
from edits.store import (
    ANY_HEAD,
    SOAK_SECONDS,
    Revision,
    RevisionStore,
    RolloutPlan,
    SignedBy,
    standing,
)
from edits.store_option import DEFAULT_STORE, Author, Json, Store, open_store, recorded
from edits.terminal import rows_table, show

__all__ = ["LAGGING", "activate", "migrate", "publish", "rollback", "status"]

LAGGING = 3  # exit code: it is the head, but some replica may still answer with something older

Wait = Annotated[
    float | None,
    typer.Option(min=0, help="Seconds to wait until nothing older runs on any replica."),
]
Urgent = Annotated[
    bool, typer.Option("--urgent", help="Requests that run start over under this revision.")
]


def publish(
    manifest: Annotated[
        str, typer.Argument(help="A manifest file, or a name of the catalog; or a signed set.")
    ],
    model: Annotated[str, typer.Option(help="Pipeline folder or hub id.")] = "models/demo",
    store: Store = DEFAULT_STORE,
    author: Author = "cli",
    envelope: Annotated[
        Path | None,
        typer.Option(help="MANIFEST is a signed set: publish it with this envelope, as it is."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check an edit on the model, and append the newest content with it; the head does not move."""
    if envelope is not None:
        _publish_signed(Path(manifest), envelope, store, author, as_json)
        return
    from edits.workbench import Workbench, find_manifest

    concept_edit = find_manifest(manifest)
    with open_store(store) as log:
        head = log.head()
        bench = Workbench.open(model)
        before = head.content if head else RevisionContent()
        target = f"{concept_edit.name}@{concept_edit.version}"
        with recorded(log, "publish", target, author=author) as facts:
            admission = bench.gatekeeper.admit(before, concept_edit)
            revision = log.publish(
                replace(admission.content, fingerprint=bench.editor.fingerprint),
                author=author,
                reason=concept_edit.metadata.reason,
                expected_head=head.number if head else None,
            )
            facts["revision"] = revision.number
    published = {"revision": revision.number, "digest": revision.digest}
    gate = admission.report.document() if admission.report else None
    show({**published, "gate": gate}, as_json, rows_table("published", [published]))


def _publish_signed(
    file: Path, envelope_file: Path, store: str, author: str, as_json: bool
) -> None:
    """Append a signed set; whoever runs it verifies the signatures, nothing here does."""
    from edits.manifests.envelope import MAX_BYTES, unverified_statement
    from edits.signed_set import read_bounded, read_set

    content, digest = read_set(file)
    envelope = read_bounded(envelope_file, MAX_BYTES)
    statement = unverified_statement(envelope)
    if statement.content != digest:
        raise ContentMismatch(
            f"{envelope_file.name} signs {statement.content}, and {file.name} is {digest}; "
            "give the envelope of this set"
        )
    reason = f"signed set, sequence {statement.sequence}"
    with (
        open_store(store) as log,
        recorded(log, "publish", reason, author=author) as facts,
    ):
        signed = SignedBy(envelope, statement.expires)
        revision = log.publish(content, author=author, reason=reason, signed=signed)
        facts["revision"] = revision.number
    published = {"revision": revision.number, "digest": revision.digest}
    show(published, as_json, rows_table("published", [published]))


def activate(
    number: int,
    store: Store = DEFAULT_STORE,
    wait: Wait = None,
    urgent: Urgent = False,
    canary: Annotated[
        float | None,
        typer.Option(help="Try it on this share of the replicas first, as 0.1; see `rollout`."),
    ] = None,
    soak: Annotated[
        float | None,
        typer.Option(help=f"Seconds that canaries run it; {SOAK_SECONDS:g} if unsaid."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Also on another head than it was made on: what came between is undone."
        ),
    ] = False,
    author: Author = "cli",
    as_json: Json = False,
) -> None:
    """Make a published revision the head, if it was made on it; every replica follows."""
    if canary is not None and (urgent or wait is not None):
        message = "goes to some replicas first: leave out --urgent and --wait"
        raise typer.BadParameter(message, param_hint="--canary")
    if canary is None and soak is not None:
        message = "without --canary it would go to all replicas at once: name their share"
        raise typer.BadParameter(message, param_hint="--soak")
    with open_store(store) as log:
        head = log.head_number()
        with recorded(log, "activate", f"revision {number}", author=author) as facts:
            if not force:
                _require_made_on(log, number, head)
            if canary is not None and head is not None:  # before the first head none is to keep
                plan = RolloutPlan(canary, SOAK_SECONDS if soak is None else soak)
                begun = log.rollouts.begin(number, plan, author=author, base=head)
                facts["canaries"] = begun.canaries
            else:
                begun = None
                revision = log.activate(number, urgent=urgent, expected_head=head)
        if begun is not None:
            show_rollout(begun, as_json)
        else:
            _show_head(log, revision, wait, as_json)


def rollback(
    to: int,
    store: Store = DEFAULT_STORE,
    author: Author = "cli",
    reason: str = "",
    wait: Wait = None,
    urgent: Urgent = False,
    expected_head: Annotated[
        int | None, typer.Option(help="Refuse when the head is not this revision any more.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Publish a new revision with the content of an old one, and make it the head."""
    with open_store(store) as log:
        reason = reason or f"roll back to {to}"
        with recorded(log, "rollback", f"revision {to}", author=author) as facts:
            revision = log.rollback(
                to,
                author=author,
                reason=reason,
                urgent=urgent,
                expected_head=ANY_HEAD if expected_head is None else expected_head,
            )
            facts["revision"] = revision.number
        _show_head(log, revision, wait, as_json)


def status(store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """The head, its edits, and what every replica runs."""
    with open_store(store) as log:
        head, replicas, now = log.head(), log.replicas(), log.now()
        rollout = log.pointer().rollout
    document: dict[str, Any] = {
        "head": head.number if head else None,
        "digest": head.digest if head else None,
        "edits": [f"{e.name}@{e.version}" for e in head.content.edits] if head else [],
        "rollout": None if rollout is None else rollout.document(),
        "replicas": [
            {
                "id": r.id,
                "standing": standing(r, now),
                "active": r.active_revision,
                "last_error": r.last_error,
            }
            for r in replicas
        ],
    }
    nobody = {"id": "(none)", "standing": None, "active": None, "last_error": None}
    rows = document["replicas"] or [nobody]
    title = f"head {document['head']}: {', '.join(document['edits']) or 'no edits'}"
    show(document, as_json, rows_table(title, rows))


def migrate(
    store: Store = DEFAULT_STORE,
    store_file: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="File with the URL, so that no argument shows it."
        ),
    ] = None,
    grant: Annotated[
        str | None,
        typer.Option(help="Database user that gets the rights of a replica (PostgreSQL)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Create or upgrade the store's schema, as the owner of its tables; repeating it is safe."""
    url = store if store_file is None else store_file.read_text(encoding="utf-8").strip()
    with open_store(url) as log:
        if grant is not None:
            log.grant(grant)
        document = {"schema": log.schema_version(), "granted_to": grant}
    show(document, as_json, rows_table("migrated", [document]))


def _require_made_on(log: RevisionStore, number: int, head: int | None) -> None:
    """Raise HeadMoved where revision `number` holds the edits of another head than this one.

    A signed set was not made on any head: its sequence orders it.
    """
    base = log.revision(number).parent
    if head in (number, base) or log.envelope(number) is not None:
        return
    was = "before the first head" if base is None else f"on revision {base}"
    now = "there is none" if head is None else f"the head is revision {head}"
    raise HeadMoved(
        f"revision {number} was made {was}, and {now} now: it would undo what came between; "
        "publish the manifest again, or activate it with --force",
        expected=base,
        actual=head,
    )


def _show_head(log: RevisionStore, revision: Revision, wait: float | None, as_json: bool) -> None:
    """Say what the head is; with `wait`, when nothing older runs, or who is in the way (exit 3)."""
    document: dict[str, Any] = {"revision": revision.number, "digest": revision.digest}
    tables = [rows_table("head", [dict(document)])]
    fence = None if wait is None else log.fence(revision.number, wait)
    if fence is not None:
        document["fence"] = fence.document()
        state = f"fence closed on {fence.replicas} replicas after {fence.seconds:.2f} s"
        if not fence.closed:
            state = f"{len(fence.laggards)} of {fence.replicas} replicas lag"
        rows = document["fence"]["laggards"] or [{"laggards": "none"}]
        tables.append(rows_table(state, rows))
    show(document, as_json, *tables)
    if fence is not None and not fence.closed:
        raise typer.Exit(LAGGING)
