"""Signed sets on the command line: keys, a set from manifests, signers one after another."""

import json
import re
import shlex
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edits.cli import app, main
from edits.errors import (
    ContentMismatch,
    EditNotFound,
    EnvelopeInvalid,
    ManifestInvalid,
    QuickFixError,
    ReplayRefused,
    SignatureInvalid,
    SigningKeyInvalid,
    StatementExpired,
    StatementInvalid,
    TrustedKeysInvalid,
)
from edits.manifests import RevisionContent, catalog_entry
from edits.manifests.signing import read_signing_key, sign
from edits.manifests.statement import RevisionStatement, parse_moment
from edits.manifests.trusted_keys import TrustedKeys

ROOT = Path(__file__).resolve().parents[2]
MODEL = str(ROOT / "models" / "demo")
SET = RevisionContent((catalog_entry("remove-pistol"), catalog_entry("remove-beer")))


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A working folder with a set, two key pairs and a trusted keys file that needs both."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "revision.json").write_bytes(SET.canonical_bytes())
    entries = [run(f"keygen --out {name}.pem")["entry"] for name in ("alice", "bob")]
    (tmp_path / "trusted.yaml").write_text(json.dumps({"threshold": 2, "keys": entries}))
    return tmp_path


def run(line, **options):
    result = CliRunner().invoke(app, [*shlex.split(line), "--json"], **options)
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def refused(kind, words, line):
    error = CliRunner().invoke(app, shlex.split(line)).exception
    assert type(error) is kind, error
    assert re.search(words, error.message), error.message
    return error


VERIFY = "verify revision.json --envelope revision.dsse.json --keys trusted.yaml"


def sign_both():
    run("sign revision.json --key alice.pem --sequence 7 --expires 90d")
    return run("sign revision.json --key bob.pem")


def test_two_signers_sign_one_after_another_and_the_set_is_verified(there):
    before = datetime.now(UTC).replace(microsecond=0)
    first = run("sign revision.json --key alice.pem --sequence 7 --expires 90d")
    assert first["envelope"] == "revision.dsse.json"
    assert (first["sequence"], first["signatures"]) == (7, 1)
    assert first["content"] == SET.digest()
    assert timedelta(0) <= parse_moment(first["expires"]) - before - timedelta(days=90)
    assert parse_moment(first["expires"]) - before < timedelta(days=90, minutes=5)
    refused(SignatureInvalid, r"1 of 2 needed signatures \(alice\)", VERIFY)
    second = run("sign revision.json --key bob.pem")
    assert second["signatures"] == 2
    assert second["expires"] == first["expires"]
    assert run(VERIFY) == {
        "sequence": 7,
        "content": SET.digest(),
        "expires": first["expires"],
        "signers": ["alice", "bob"],
        "threshold": 2,
        "edits": ["remove-beer@1", "remove-pistol@2"],
    }


def test_the_tables_name_signers_and_the_digest_to_its_last_digit(there, monkeypatch):
    sign_both()
    result = CliRunner().invoke(app, shlex.split(VERIFY), env={"COLUMNS": "60"})
    assert result.exit_code == 0
    cells = "".join(re.findall(r"[^│\n]+│([^│\n]+)│", result.stdout)).replace(" ", "")
    assert SET.digest() in cells
    assert "alice,bob" in cells


def test_a_set_other_than_the_signed_one_is_refused(there):
    sign_both()
    (there / "revision.json").write_bytes(SET.without_edit("remove-beer").canonical_bytes())
    refused(ContentMismatch, "it was exchanged or changed; give the set that was signed", VERIFY)
    (there / "revision.json").write_bytes(SET.canonical_bytes() + b"\n")
    refused(ContentMismatch, "it was exchanged or changed", VERIFY)


@pytest.mark.parametrize("force", ["", " --force"])
def test_an_envelope_never_replaces_a_folder(there, force):
    (there / "papers").mkdir()
    (there / "papers" / "thesis.txt").write_text("ten years of work")
    line = "sign revision.json --key alice.pem --sequence 7 --expires 90d --out papers"
    refused(QuickFixError, "papers is a folder; name a file", line + force)
    assert [entry.name for entry in (there / "papers").iterdir()] == ["thesis.txt"]


def test_after_wants_a_higher_sequence(there):
    sign_both()
    assert run(f"{VERIFY} --after 6")["sequence"] == 7
    refused(
        ReplayRefused,
        "sequence 7 is not above 7; sign the set anew with sequence 8",
        f"{VERIFY} --after 7",
    )


def test_an_expired_set_is_neither_verified_nor_signed_further(there):
    past = datetime(2020, 1, 1, tzinfo=UTC)
    keys = [read_signing_key(there / f"{name}.pem") for name in ("alice", "bob")]
    envelope = sign(RevisionStatement(7, SET.digest(), past), keys)
    (there / "revision.dsse.json").write_bytes(envelope)
    refused(StatementExpired, "sequence 7 expired on 2020-01-01T00:00:00Z", VERIFY)
    refused(
        QuickFixError,
        "expired on 2020-01-01T00:00:00Z; give --sequence, --expires and --force to start",
        "sign revision.json --key bob.pem",
    )


def test_a_second_signer_signs_what_is_there_or_is_told_what_differs(there):
    run("sign revision.json --key alice.pem --sequence 7 --expires 2099-01-31T12:00:00Z")
    before = (there / "revision.dsse.json").read_bytes()
    sign_bob = "sign revision.json --key bob.pem"
    refused(
        QuickFixError, "has sequence 7, not 8; leave --sequence out", f"{sign_bob} --sequence 8"
    )
    refused(
        QuickFixError,
        "expires on 2099-01-31T12:00:00Z; leave --expires out",
        f"{sign_bob} --expires 90d",
    )
    (there / "revision.json").write_bytes(RevisionContent().canonical_bytes())
    refused(QuickFixError, "signs another set, sha256:", sign_bob)
    assert (there / "revision.dsse.json").read_bytes() == before
    (there / "revision.json").write_bytes(SET.canonical_bytes())
    same = f"{sign_bob} --sequence 7 --expires 2099-01-31T12:00:00Z"
    assert run(same)["signatures"] == 2


def test_force_starts_the_envelope_anew_without_its_signatures(there):
    sign_both()
    line = "sign revision.json --key alice.pem --force"
    refused(QuickFixError, "a new envelope needs --sequence, above", line)
    anew = run(f"{line} --sequence 8 --expires 12h")
    assert (anew["sequence"], anew["signatures"]) == (8, 1)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ("--expires 90d", QuickFixError, "a new envelope needs --sequence"),
        ("--sequence 7", QuickFixError, "a new envelope needs --sequence, .* and --expires"),
        ("--sequence 7 --expires soon", QuickFixError, "'soon' is not a moment such as .* '90d'"),
        ("--sequence 7 --expires 0d", QuickFixError, "'0d' is not a moment"),
        ("--sequence 7 --expires 2020-01-01T00:00:00Z", QuickFixError, "is in the past"),
        ("--sequence 0 --expires 90d", StatementInvalid, "the sequence 0 is not"),
    ],
)
def test_options_that_make_no_statement_are_refused(there, options, kind, words):
    refused(kind, words, f"sign revision.json --key alice.pem {options}")
    assert not (there / "revision.dsse.json").exists()


def test_a_file_that_is_no_set_is_not_signed(there):
    options = "--key alice.pem --sequence 7 --expires 90d"
    (there / "revision.json").write_bytes(SET.canonical_bytes() + b"\n")
    refused(ManifestInvalid, "not in canonical form", f"sign revision.json {options}")
    refused(QuickFixError, "gone.json cannot be read: No such file", f"sign gone.json {options}")
    with (there / "revision.json").open("wb") as stream:
        stream.truncate(2**34)
    refused(QuickFixError, "has more than 16777216 bytes", f"sign revision.json {options}")


def test_files_that_are_not_what_they_are_given_for_are_refused(there):
    sign_both()
    swapped = "verify revision.json --envelope %s --keys %s"
    refused(EnvelopeInvalid, "the envelope", swapped % ("revision.json", "trusted.yaml"))
    refused(TrustedKeysInvalid, "trusted keys", swapped % ("revision.dsse.json", "alice.pem"))
    with (there / "big.json").open("wb") as stream:
        stream.truncate(2**34)
    refused(QuickFixError, "more than 65536 bytes", swapped % ("big.json", "trusted.yaml"))


def test_a_refusal_is_one_line_and_exit_code_one(there, monkeypatch, capsys):
    run("sign revision.json --key alice.pem --sequence 7 --expires 90d")
    monkeypatch.setattr("sys.argv", ["quickfix", *VERIFY.split()])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert "1 of 2 needed signatures" in error
    assert "Traceback" not in error


def test_keygen_prints_an_entry_that_a_trusted_keys_file_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["keygen", "--out", "alice.pem", "--public", "alice.pub"])
    assert result.exit_code == 0
    entry = result.stdout.split("\n", 1)[1]
    trusted = TrustedKeys.parse(f"threshold: 1\nkeys:\n{entry}".encode())
    (key,) = trusted.keys
    assert key.name == "alice"
    assert key.key_id == read_signing_key(tmp_path / "alice.pem").key_id
    assert f"key id {key.key_id}" in result.stdout
    assert stat.S_IMODE((tmp_path / "alice.pem").stat().st_mode) == 0o600
    pem = (tmp_path / "alice.pub").read_text()
    entry = {"name": "a", "public": pem}
    body = json.dumps({"threshold": 1, "keys": [entry]}).encode()
    assert TrustedKeys.parse(body).keys[0].key_id == key.key_id


def test_keygen_never_writes_over_a_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("keygen --out alice.pem --public alice.pub")
    before = (tmp_path / "alice.pem").read_bytes()
    refused(SigningKeyInvalid, "alice.pem exists", "keygen --out alice.pem")
    refused(QuickFixError, "alice.pub exists", "keygen --out b.pem --public alice.pub")
    refused(QuickFixError, "are one file; name two", "keygen --out c.pem --public ./c.pem")
    assert (tmp_path / "alice.pem").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["alice.pem", "alice.pub"]
    run("keygen --out alice.pem --public alice.pub --force")
    assert (tmp_path / "alice.pem").read_bytes() != before


def test_an_encrypted_key_asks_for_its_passphrase_and_keeps_it_out_of_the_output(there):
    run("keygen --out carol.pem --encrypt", input="a long one\na long one\n")
    line = "sign revision.json --key carol.pem --sequence 7 --expires 90d"
    signed = run(line, input="a long one\n")
    assert "a long one" not in json.dumps(signed)
    assert signed["key_id"] == read_signing_key(there / "carol.pem", lambda: "a long one").key_id
    again = ["sign", "revision.json", "--key", "carol.pem"]
    wrong = CliRunner().invoke(app, again, input="wrong\n")
    assert isinstance(wrong.exception, SigningKeyInvalid)
    assert "the passphrase is wrong" in wrong.exception.message


def test_compose_writes_the_set_that_publishing_would(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = run(f"compose remove-pistol --out one.json --model {MODEL}")
    content = RevisionContent.from_bytes((tmp_path / "one.json").read_bytes())
    assert first["content"] == content.digest()
    assert first["edits"] == ["remove-pistol@2"]
    assert content.fingerprint == first["fingerprint"] != ""
    assert "remove-pistol" in content.choices
    second = run(f"compose remove-beer --base one.json --out two.json --model {MODEL}")
    assert second["edits"] == ["remove-beer@1", "remove-pistol@2"]
    back = run(f"compose --base two.json --without remove-beer --out three.json --model {MODEL}")
    assert back["content"] == first["content"]
    empty = f"compose --base one.json --without remove-pistol --out none.json --model {MODEL}"
    assert run(empty)["content"] == RevisionContent().digest()
    refused(QuickFixError, "exists and is not empty", "compose remove-beer --out one.json")
    gone = "compose --base one.json --without remove-unicorn --out x.json"
    refused(EditNotFound, "no edit 'remove-unicorn'", gone)


def test_a_composed_set_with_a_changed_choice_is_another_set(there):
    choice = {"tokens": "last", "ridge": 30.0, "preserve_weight": 0.05, "pad_weight": 1.0}
    document = json.loads(SET.canonical_bytes()) | {"choices": {"remove-beer": choice}}
    chosen = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    (there / "revision.json").write_bytes(chosen)
    sign_both()
    assert run(VERIFY)["sequence"] == 7
    (there / "revision.json").write_bytes(chosen.replace(b'"ridge":30.0', b'"ridge":31.0', 1))
    refused(ContentMismatch, "it was exchanged or changed", VERIFY)


STARTS_FAST = """
import sys
from typer.testing import CliRunner
from edits.cli import app
for line in sys.stdin.read().splitlines():
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.exception
assert "securesystemslib" in sys.modules
print([name for name in ("torch", "diffusers", "transformers", "numpy") if name in sys.modules])
"""


def test_keys_are_made_and_sets_signed_and_verified_without_loading_torch(there):
    lines = [
        "keygen --out carol.pem",
        "sign revision.json --key alice.pem --sequence 7 --expires 90d",
        "sign revision.json --key bob.pem",
        VERIFY,
    ]
    loaded = subprocess.run(
        [sys.executable, "-c", STARTS_FAST],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    ).stdout
    assert loaded.strip() == "[]"


def test_the_commands_of_the_page_run_in_their_order(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    written = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1]
    ran = []
    for line in "".join(blocks).splitlines():
        program, *words = shlex.split(line, comments=True) or ("quickfix",)
        assert program == "quickfix"
        if words:
            assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0, line
            ran.append(words[0])
        if ran == ["keygen", "keygen"]:
            (tmp_path / "trusted.yaml").write_text(with_keys(written, tmp_path))
    assert set(ran) == {"keygen", "compose", "sign", "verify", "publish", "activate"}


def with_keys(text, folder):
    """The page's trusted keys file with the keys that were made for each name."""

    def entry(match):
        public = read_signing_key(folder / f"{match[1]}.pem").public
        return f'name: {match[1]}\n    public: "{public}"'

    return re.sub(r'name: (\w+)\n    public: "[^"]+"', entry, text)
