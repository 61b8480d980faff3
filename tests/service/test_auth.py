"""Bearer tokens: hashed, rotated without a restart, and never more rights than their role."""

import hashlib
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from service.api.auth import FileTokens, GeneratedToken, Principal, authenticate
from service.errors import Forbidden, TokensInvalid, Unauthenticated
from service.settings import Settings

from .replica import Replica, manifest


def write_tokens(path: Path, **tokens: tuple[str, str]) -> Path:
    """`name=(role, token)`"""
    entries = [
        {"name": name, "role": role, "sha256": hashlib.sha256(token.encode()).hexdigest()}
        for name, (role, token) in tokens.items()
    ]
    path.write_text(yaml.safe_dump({"tokens": entries}), encoding="utf-8")
    return path


def test_a_known_token_gives_its_name_and_role(tmp_path: Path) -> None:
    tokens = FileTokens(
        write_tokens(tmp_path / "t.yaml", ci=("operator", "secret"), eye=("viewer", "see"))
    )
    assert authenticate(tokens, "Bearer secret") == Principal("ci", "operator")
    assert authenticate(tokens, "bearer see") == Principal("eye", "viewer")


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic secret", "secret"]
)
def test_anything_else_is_refused(tmp_path: Path, header: str | None) -> None:
    tokens = FileTokens(write_tokens(tmp_path / "t.yaml", ci=("operator", "secret")))
    with pytest.raises(Unauthenticated):
        authenticate(tokens, header)


def test_a_viewer_may_not_do_what_an_operator_may() -> None:
    Principal("ci", "operator").require("operator")
    Principal("ci", "operator").require("viewer")
    Principal("eye", "viewer").require("viewer")
    with pytest.raises(Forbidden, match="eye"):
        Principal("eye", "viewer").require("operator")


def test_a_changed_file_counts_at_the_next_call(tmp_path: Path) -> None:
    path = write_tokens(tmp_path / "t.yaml", ci=("operator", "old"))
    tokens = FileTokens(path)
    fresh = write_tokens(tmp_path / "fresh.yaml", ci=("operator", "new-token"))
    fresh.replace(path)
    assert authenticate(tokens, "Bearer new-token").name == "ci"
    with pytest.raises(Unauthenticated):
        authenticate(tokens, "Bearer old")


def test_a_file_that_turns_bad_leaves_the_last_good_tokens(tmp_path: Path) -> None:
    path = write_tokens(tmp_path / "t.yaml", ci=("operator", "secret"))
    tokens = FileTokens(path)
    path.write_text("tokens: [", encoding="utf-8")
    assert authenticate(tokens, "Bearer secret").name == "ci"
    path.unlink()
    assert authenticate(tokens, "Bearer secret").name == "ci"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tokens: []",
        "tokens: [{name: a, role: admin, sha256: " + "0" * 64 + "}]",
        "tokens: [{name: a, role: viewer, sha256: short}]",
        "tokens: [{name: a, role: viewer, token: plain}]",
        "!!python/object/apply:os.system [id]",
    ],
)
def test_a_bad_file_at_start_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TokensInvalid):
        FileTokens(path)


def test_two_tokens_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    entry = {"name": "ci", "role": "viewer", "sha256": "0" * 64}
    path.write_text(yaml.safe_dump({"tokens": [entry, entry]}), encoding="utf-8")
    with pytest.raises(TokensInvalid, match="one name"):
        FileTokens(path)


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


ROUTES = [
    ("POST", "/admin/edits", "operator"),
    ("GET", "/admin/edits", "viewer"),
    ("DELETE", "/admin/edits?name=nothing", "operator"),
    ("GET", "/admin/revisions", "viewer"),
    ("POST", "/admin/rollback", "operator"),
    ("GET", "/admin/status", "viewer"),
    ("GET", "/admin/audit", "viewer"),
    ("POST", "/admin/traces", "operator"),
    ("GET", "/admin/traces", "viewer"),
    ("DELETE", "/admin/traces?id=nothing", "operator"),
]


@pytest.fixture
def guarded(
    settings: Settings, tmp_path: Path, start_replica: Callable[[Settings], Replica]
) -> Replica:
    path = write_tokens(tmp_path / "t.yaml", ci=("operator", "write"), eye=("viewer", "read"))
    return start_replica(settings.model_copy(update={"tokens_file": path}))


def test_every_admin_route_has_a_row_in_the_matrix(guarded: Replica) -> None:
    paths = guarded.client.get("/openapi.json").json()["paths"]
    there = {
        (method.upper(), path)
        for path, methods in paths.items()
        if path.startswith("/admin")
        for method in methods
    }
    assert there == {(method, path.partition("?")[0]) for method, path, _role in ROUTES}


@pytest.mark.parametrize(("method", "path", "role"), ROUTES)
def test_routes_ask_for_their_role_and_record_every_call(
    guarded: Replica, method: str, path: str, role: str
) -> None:
    store = guarded.runtime.store
    expected = {
        None: (401, "unauthenticated", ""),
        "wrong": (401, "unauthenticated", ""),
        "read": (403 if role == "operator" else 200, None, "eye"),
        "write": (None, None, "ci"),
    }
    for token, (status, kind, actor) in expected.items():
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        answer = guarded.client.request(method, path, headers=headers, content=b"{broken")
        if status is not None:
            assert answer.status_code == status
        else:
            assert answer.status_code not in (401, 403)
        if kind is not None:
            assert answer.json()["error"]["type"] == kind
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        newest = store.audit(1)[0].event
        assert newest.actor == actor
        assert (newest.outcome == "ok") == (answer.status_code == 200)
    assert store.head_number() == 1  # nothing changed
    assert store.verify_audit() is None


def test_the_author_of_a_revision_is_the_tokens_name(guarded: Replica) -> None:
    answer = guarded.client.post(
        "/admin/edits", json=manifest(), headers={"Authorization": "Bearer write"}
    )
    assert answer.status_code == 201
    assert guarded.runtime.store.revisions(1)[0].author == "ci"
