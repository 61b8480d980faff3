"""`quickfix keygen`, `compose`, `sign` and `verify`: signed sets as files, without a service."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from edits.errors import QuickFixError, ReplayRefused
from edits.manifests import RevisionContent, digest
from edits.manifests.statement import RevisionStatement, moment_text
from edits.signed_set import MAX_SET_BYTES, SigningRequest, read_bounded, read_set
from edits.terminal import show

Revision = Annotated[Path, typer.Argument(metavar="REVISION", help="A set: revision.json.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def keygen(
    out: Annotated[Path, typer.Option(help="File of the private key, for its user only.")],
    public: Annotated[Path | None, typer.Option(help="File of the public key (PEM).")] = None,
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Ask for a passphrase and encrypt the private key.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make an ed25519 key pair, and print its entry for a trusted keys file."""
    from edits.export.target import check_target
    from edits.manifests.signing import SigningKey, write_signing_key

    if public is not None:
        check_target(public, folder=False, force=force)
        if public.resolve() == out.resolve():
            raise QuickFixError("--public and --out are one file; name two", param="public")
    passphrase = None
    if encrypt:
        passphrase = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    key = SigningKey.generate()
    write_signing_key(key, out, passphrase=passphrase, force=force)
    if public is not None:
        public.write_bytes(key.public_pem())
    document = {
        "key_id": key.key_id,
        "private": str(out),
        "entry": {"name": out.stem, "public": key.public},
    }
    show(document, as_json)
    if not as_json:
        typer.echo(f"key id {key.key_id}, private key in {out}; for the trusted keys file:")
        typer.echo(f'  - name: {out.stem}\n    public: "{key.public}"')


def compose(
    out: Annotated[Path, typer.Option(help="The set to write: revision.json.")],
    manifests: Annotated[
        list[str] | None,
        typer.Argument(metavar="MANIFEST...", help="Files or catalog names to add, in order."),
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="A set to start from; default: the empty set.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Take this edit out of the base; may be repeated.")
    ] = None,
    model: Annotated[str, typer.Option(help="Pipeline folder or hub id.")] = "models/demo",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a set of edits as a file to sign; each is checked on the model as for publishing."""
    from edits.export.target import check_target, replacing
    from edits.workbench import Workbench, find_manifest

    check_target(out, folder=False, force=force or out == base)
    content = read_set(base)[0] if base is not None else RevisionContent()
    for name in without or []:
        content = content.without_edit(name)
    edits = [find_manifest(name) for name in manifests or []]
    bench = Workbench.open(model)
    for edit in edits:
        content = bench.gatekeeper.admit(content, edit).content
    # An empty set fits every model.
    content = replace(content, fingerprint=bench.editor.fingerprint if content.edits else "")
    with replacing(out) as path:
        path.write_bytes(content.canonical_bytes())
    document = {
        "revision": str(out),
        "content": content.digest(),
        "fingerprint": content.fingerprint,
        "edits": _labels(content),
    }
    show(document, as_json, _fields_table("set", document))


def sign(
    revision: Revision,
    key: Annotated[Path, typer.Option(help="Private key file (PEM).")],
    sequence: Annotated[
        int | None, typer.Option(help="Place in the order of sets; above that of the last one.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="'90d', '12h', or a moment '2027-01-31T12:00:00Z'.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The envelope; default: REVISION's name with .dsse.json.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Start the envelope anew, without its signatures.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Sign a set, or add a signature to the envelope of the same set that is there."""
    from edits.export.target import check_target, replacing
    from edits.manifests.envelope import MAX_BYTES, read_envelope, unverified_statement
    from edits.manifests.signing import add_signature, read_signing_key
    from edits.manifests.signing import sign as new_envelope

    content = read_set(revision)[1]
    target = out or revision.with_suffix(".dsse.json")
    check_target(target, folder=False, force=True)
    existing = read_bounded(target, MAX_BYTES) if target.exists() and not force else None
    asked = SigningRequest(content, sequence, expires, datetime.now(UTC))
    if existing is None:
        statement = asked.statement()
    else:
        statement = unverified_statement(existing)
        asked.require(statement, target)
    signing_key = read_signing_key(
        key, lambda: str(typer.prompt(f"Passphrase of {key}", hide_input=True, err=True))
    )
    envelope = (
        new_envelope(statement, [signing_key])
        if existing is None
        else add_signature(existing, signing_key)
    )
    with replacing(target) as path:
        path.write_bytes(envelope)
    document = {
        "envelope": str(target),
        "key_id": signing_key.key_id,
        **_statement_document(statement),
        "signatures": len(read_envelope(envelope).signatures),
    }
    show(document, as_json, _fields_table("signed", document))


def verify(
    revision: Revision,
    envelope: Annotated[Path, typer.Option(help="The envelope: revision.dsse.json.")],
    keys: Annotated[Path, typer.Option(help="The trusted keys file (YAML).")],
    after: Annotated[
        int | None, typer.Option(min=0, help="The sequence must be higher than this one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a set against its envelope: signatures, content, expiry, and order with --after."""
    from edits.manifests.envelope import MAX_BYTES
    from edits.manifests.trust import verify as verify_envelope
    from edits.manifests.trusted_keys import TrustedKeys

    data = read_bounded(revision, MAX_SET_BYTES)
    trusted = TrustedKeys.read(keys)
    verified = verify_envelope(
        read_bounded(envelope, MAX_BYTES),
        trusted,
        content_digest=digest(data),
        now=datetime.now(UTC),
    )
    statement = verified.statement
    if after is not None and statement.sequence <= after:
        raise ReplayRefused(
            f"sequence {statement.sequence} is not above {after}; "
            f"sign the set anew with sequence {after + 1} or higher",
            param="sequence",
        )
    document = {
        **_statement_document(statement),
        "signers": list(verified.signers),
        "threshold": trusted.threshold,
        "edits": _labels(RevisionContent.from_bytes(data)),
    }
    show(document, as_json, _fields_table("verified", document))


def _statement_document(statement: RevisionStatement) -> dict[str, Any]:
    return {
        "sequence": statement.sequence,
        "content": statement.content,
        "expires": moment_text(statement.expires),
    }


def _fields_table(title: str, document: dict[str, Any]) -> Table:
    """One row a field, and nothing cut: a digest is compared to its last digit."""
    table = Table("")
    table.add_column(title, overflow="fold")
    for name, value in document.items():
        table.add_row(name, ", ".join(value) if isinstance(value, list) else str(value))
    return table


def _labels(content: RevisionContent) -> list[str]:
    return [f"{edit.name}@{edit.version}" for edit in content.edits]
