"""Files of hashed secrets: rotated without a restart; and tokens that give no more than a role."""

import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.api.api_keys import ApiKey, FileApiKeys, identify, policy_of
from service.api.auth import FileTokens, GeneratedToken, Principal, authenticate
from service.errors import (
    ApiKeysInvalid,
    Forbidden,
    PolicyForbidden,
    TokensInvalid,
    Unauthenticated,
)

from .access import hashed, write_keys, write_tokens


class Kind:
    """One of the two files: how it is written, read and asked."""

    def __init__(self, *, keys: bool) -> None:
        self.keys = keys
        self.open = FileApiKeys if keys else FileTokens
        self.invalid = ApiKeysInvalid if keys else TokensInvalid

    def write(self, path: Path, name: str, secret: str) -> Path:
        if self.keys:
            return write_keys(path, **{name: (secret, ["default"])})
        return write_tokens(path, **{name: ("viewer", secret)})

    def name(self, file: Any, header: str | None) -> str:
        return (identify if self.keys else authenticate)(file, header).name


@pytest.fixture(params=[False, True], ids=["tokens", "keys"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(keys=request.param)


def test_a_known_token_gives_its_name_and_role(tmp_path: Path) -> None:
    tokens = FileTokens(
        write_tokens(tmp_path / "t.yaml", ci=("operator", "secret"), eye=("viewer", "see"))
    )
    assert authenticate(tokens, "Bearer secret") == Principal("ci", "operator")
    assert authenticate(tokens, "bearer see") == Principal("eye", "viewer")


def test_a_known_key_gives_its_name_and_policies(tmp_path: Path) -> None:
    keys = FileApiKeys(write_keys(tmp_path / "k.yaml", shop=("open", ["strict", "default"])))
    assert identify(keys, "Bearer open") == ApiKey("shop", ("strict", "default"))


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic secret", "secret"]
)
def test_anything_else_is_refused(tmp_path: Path, kind: Kind, header: str | None) -> None:
    file = kind.open(kind.write(tmp_path / "f.yaml", "ci", "secret"))
    with pytest.raises(Unauthenticated):
        kind.name(file, header)


def test_the_hash_itself_opens_nothing(tmp_path: Path, kind: Kind) -> None:
    file = kind.open(kind.write(tmp_path / "f.yaml", "ci", "secret"))
    with pytest.raises(Unauthenticated):
        kind.name(file, f"Bearer {hashed('secret')}")


def test_a_viewer_may_not_do_what_an_operator_may() -> None:
    Principal("ci", "operator").require("operator")
    Principal("ci", "operator").require("viewer")
    Principal("eye", "viewer").require("viewer")
    with pytest.raises(Forbidden, match="eye"):
        Principal("eye", "viewer").require("operator")


def test_the_first_policy_of_a_key_is_the_one_of_a_request_that_names_none() -> None:
    key = ApiKey("shop", ("strict", "default"))
    assert policy_of(key, None) == "strict"
    assert policy_of(key, "default") == "default"
    with pytest.raises(PolicyForbidden, match=r"'shop' does not allow .*: strict, default") as no:
        policy_of(key, "open")
    assert no.value.param == "policy"


def test_without_keys_every_policy_may_be_asked_for() -> None:
    assert policy_of(None, None) == "default"
    assert policy_of(None, "strict") == "strict"


def test_a_changed_file_counts_at_the_next_call(tmp_path: Path, kind: Kind) -> None:
    path = kind.write(tmp_path / "f.yaml", "ci", "old")
    file = kind.open(path)
    kind.write(tmp_path / "fresh.yaml", "ci", "new-secret").replace(path)
    assert kind.name(file, "Bearer new-secret") == "ci"
    with pytest.raises(Unauthenticated):
        kind.name(file, "Bearer old")


def test_a_mounted_secret_is_followed_through_its_symlink(tmp_path: Path, kind: Kind) -> None:
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        kind.write(tmp_path / version / "f.yaml", "ci", version)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "f.yaml").symlink_to("..data/f.yaml")
    file = kind.open(tmp_path / "f.yaml")
    assert kind.name(file, "Bearer one") == "ci"
    (tmp_path / "swap").symlink_to("two")
    (tmp_path / "swap").replace(tmp_path / "..data")
    assert kind.name(file, "Bearer two") == "ci"
    with pytest.raises(Unauthenticated):
        kind.name(file, "Bearer one")


def test_new_content_counts_although_date_and_size_are_those_of_the_old(
    tmp_path: Path, kind: Kind
) -> None:
    path = kind.write(tmp_path / "f.yaml", "ci", "old")
    before = path.stat()
    file = kind.open(path)
    kind.write(path, "ci", "new")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert kind.name(file, "Bearer new") == "ci"


def test_a_file_that_turns_bad_leaves_the_last_good_one_and_says_so_once(
    tmp_path: Path, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    path = kind.write(tmp_path / "f.yaml", "ci", "secret")
    file = kind.open(path)
    good = path.read_text(encoding="utf-8")
    bad = ["x: [", "[" * 100_000, "2026-99-99", "tokens: 1", "keys: 1", good + good[7:]]
    for text in bad:
        path.write_text(text, encoding="utf-8")
        assert kind.name(file, "Bearer secret") == "ci"
    path.write_bytes(b"\xff")
    assert kind.name(file, "Bearer secret") == "ci"
    path.unlink()
    caplog.clear()
    with caplog.at_level(logging.ERROR, "quickfix.auth"):
        for _ in range(3):
            assert kind.name(file, "Bearer secret") == "ci"
    (record,) = caplog.records
    assert "cannot be read" in record.getMessage()
    assert str(tmp_path) not in caplog.text
    kind.write(path, "back", "secret")
    assert kind.name(file, "Bearer secret") == "back"


def test_a_file_that_could_not_be_read_for_a_moment_is_read_at_the_next_call(
    tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that was taken out must not stay good because no file could be opened just then."""
    path = kind.write(tmp_path / "f.yaml", "ci", "old")
    file = kind.open(path)
    kind.write(path, "ci", "new")
    with monkeypatch.context() as full:
        full.setattr(Path, "read_bytes", lambda _path: os.open(path / "no descriptor is left", 0))
        assert kind.name(file, "Bearer old") == "ci"
    assert kind.name(file, "Bearer new") == "ci"
    with pytest.raises(Unauthenticated):
        kind.name(file, "Bearer old")


def entry(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "role": "viewer", "sha256": "0" * 64} | fields


def key_entry(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "sha256": "0" * 64, "policies": ["default"]} | fields


OTHER = {"sha256": "1" * 64}
BAD_TOKENS: list[Any] = [
    {"tokens": []},
    {"tokens": [entry(role="admin")]},
    {"tokens": [entry(sha256="short")]},
    {"tokens": [entry(token="plain")]},
    {"tokens": [entry(), entry(**OTHER)]},
    {"tokens": [entry(), entry(name="b")]},
    {"keys": [key_entry()]},
]
BAD_KEYS: list[Any] = [
    {"keys": [key_entry(policies=[])]},
    {"keys": [key_entry(policies=["Strict"])]},
    {"keys": [key_entry(policies=["a", "a"])]},
    {"keys": [key_entry(policies="default")]},
    {"keys": [key_entry(role="viewer")]},
    {"keys": [key_entry(), key_entry(**OTHER)]},
    {"keys": [key_entry(), key_entry(name="b")]},
    {"tokens": [entry()]},
]
NO_FILES = ["", "tokens: [", "!!python/object/apply:os.system [id]", "tokens: 2026-99-99"]


@pytest.mark.parametrize("text", [*NO_FILES, *map(json.dumps, BAD_TOKENS)])
def test_a_bad_tokens_file_at_start_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(TokensInvalid, match=r"^the tokens file"):
        FileTokens(tmp_path / "f.yaml")


@pytest.mark.parametrize("text", [*NO_FILES, *map(json.dumps, BAD_KEYS)])
def test_a_bad_keys_file_at_start_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ApiKeysInvalid, match=r"^the API keys file"):
        FileApiKeys(tmp_path / "f.yaml")


def test_a_file_that_is_not_there_at_start_is_refused_without_its_path(
    tmp_path: Path, kind: Kind
) -> None:
    with pytest.raises(kind.invalid, match=r"cannot be read: No such file") as refused:
        kind.open(tmp_path / "gone.yaml")
    assert str(tmp_path) not in refused.value.message


def test_a_secret_that_was_written_in_place_of_its_hash_is_not_repeated(
    tmp_path: Path, kind: Kind
) -> None:
    path = kind.write(tmp_path / "f.yaml", "ci", "x")
    for text in (path.read_text().replace(hashed("x"), "my-secret"), "my-secret: ["):
        path.write_text(text)
        with pytest.raises(kind.invalid) as refused:
            kind.open(path)
        assert "my-secret" not in refused.value.message


def test_an_empty_keys_file_locks_everybody_out(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "k.yaml", shop=("open", ["default"]))
    keys = FileApiKeys(path)
    path.write_text(yaml.safe_dump({"keys": []}))
    with pytest.raises(Unauthenticated):
        identify(keys, "Bearer open")


def test_the_generated_token_is_for_its_own_user_only_and_new_at_every_start(
    tmp_path: Path,
) -> None:
    first = GeneratedToken(tmp_path)
    text = first.path.read_text(encoding="utf-8").strip()
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    assert len(text) >= 40
    assert authenticate(first, f"Bearer {text}").role == "operator"
    second = GeneratedToken(tmp_path)
    with pytest.raises(Unauthenticated):
        authenticate(second, f"Bearer {text}")
    assert [path.name for path in tmp_path.iterdir()] == ["operator.token"]
