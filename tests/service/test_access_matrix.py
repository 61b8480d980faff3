"""Who may call what: every route against every kind of caller, and what the audit log says of it.

The rows are checked against the app's own routes, so a new route without a row fails.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from service.api.app import create_api
from service.settings import Settings
from tests.device import DEVICE

from .access import bearer, write_keys, write_tokens
from .replica import Replica, manifest


@dataclass(frozen=True)
class Row:
    """One route: who may call it, and how an allowed call of this one ends."""

    method: str
    path: str
    action: str
    role: str
    status: int = 200
    outcome: str = "ok"  # also the error's type, where it is one
    call: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


BROKEN = {"content": b"{broken"}
NOTHING = {"params": {"name": "nothing"}}
ADMIN = [
    Row("GET", "/admin/edits", "list_edits", "viewer"),
    Row("POST", "/admin/edits", "publish_edit", "operator", 422, "manifest_invalid", BROKEN),
    Row("DELETE", "/admin/edits", "remove_edit", "operator", 404, "edit_not_found", NOTHING),
    Row("GET", "/admin/policies", "list_policies", "viewer"),
    Row("PUT", "/admin/policies", "define_policy", "operator", 400, "invalid_request", BROKEN),
    Row("DELETE", "/admin/policies", "remove_policy", "operator", 404, "policy_not_found", NOTHING),
    Row("GET", "/admin/revisions", "list_revisions", "viewer"),
    Row(
        "POST", "/admin/revisions", "publish_signed_set", "operator", 400, "invalid_request", BROKEN
    ),
    Row("POST", "/admin/rollback", "roll_back", "operator", 400, "invalid_request", BROKEN),
    Row("GET", "/admin/rollout", "read_rollout", "viewer"),
    Row(
        "POST",
        "/admin/rollout/promote",
        "promote_rollout",
        "operator",
        409,
        "rollout_refused",
        {"json": {}},
    ),
    Row(
        "POST",
        "/admin/rollout/halt",
        "halt_rollout",
        "operator",
        400,
        "invalid_request",
        BROKEN,
    ),
    Row("GET", "/admin/status", "read_status", "viewer"),
    Row("GET", "/admin/audit", "read_audit", "viewer"),
    Row("GET", "/admin/audit/verify", "verify_audit", "viewer"),
    Row("GET", "/admin/traces", "read_traces", "viewer"),
    Row("POST", "/admin/traces", "start_trace", "operator", 400, "invalid_request", BROKEN),
    Row(
        "DELETE",
        "/admin/traces",
        "remove_trace",
        "operator",
        404,
        "trace_not_found",
        {"params": {"id": "nothing"}},
    ),
]
CAT = {"json": {"prompt": "a cat", "steps": 1}}
PUBLIC = [
    Row("POST", "/v1/images/generations", "", "key", call=CAT),
    Row("POST", "/generate", "", "key", call=CAT),
    Row("GET", "/v1/models", "", "key"),
]
PAGES = {
    ("GET", "/"),
    ("GET", "/docs"),
    ("GET", "/docs/oauth2-redirect"),
    ("GET", "/openapi.json"),
}

OPERATOR, VIEWER, KEY = "operators-own-token", "viewers-own-token", "the-shops-own-key"
STRANGERS: dict[str, dict[str, str]] = {
    "no token": {},
    "wrong token": bearer("wrong"),
    "empty token": {"Authorization": "Bearer "},
    "no scheme": {"Authorization": OPERATOR},
    "other scheme": {"Authorization": f"Basic {OPERATOR}"},
    "two tokens": bearer(f"{OPERATOR} {KEY}"),
    "cut token": bearer(OPERATOR[:-1]),
}
CALLERS = {
    **STRANGERS,
    "viewer": bearer(VIEWER),
    "operator": bearer(OPERATOR),
    "API key": bearer(KEY),
}


def start(folder: Path, model: Path, *, keys: bool) -> Replica:
    tokens = write_tokens(folder / "t.yaml", ci=("operator", OPERATOR), eye=("viewer", VIEWER))
    shop = write_keys(folder / "k.yaml", shop=(KEY, ["default"]))
    return Replica(
        Settings(
            model=str(model),
            device=DEVICE,
            threads=1,
            state_dir=folder / "state",
            tokens_file=tokens,
            api_keys_file=shop if keys else None,
        )
    )


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, sd1_folder: Path) -> Iterator[Replica]:
    replica = start(tmp_path_factory.mktemp("keyed"), sd1_folder, keys=True)
    yield replica
    replica.runtime.stop()


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory, sd1_folder: Path) -> Iterator[Replica]:
    replica = start(tmp_path_factory.mktemp("keyless"), sd1_folder, keys=False)
    yield replica
    replica.runtime.stop()


def served() -> list[tuple[str, str]]:
    """Method and path of everything that the app routes, shown in its document or not."""
    api, _edge = create_api()
    return [
        (method, str(route.path))
        for route in iter_route_contexts(api.routes)
        for method in route.methods or ()
        if method != "HEAD"  # of the pages, beside GET
    ]


def test_every_route_of_the_app_has_one_row() -> None:
    rows = [(row.method, row.path) for row in (*ADMIN, *PUBLIC)]
    assert sorted(served()) == sorted([*rows, *PAGES])


def call(replica: Replica, row: Row, headers: dict[str, str]) -> tuple[int, str]:
    """Status and the error's type, or `ok`; what holds of every refusal is checked."""
    options = {**row.call, "headers": headers}
    answer = replica.client.request(row.method, row.path, **options)
    if answer.status_code < 300:
        return answer.status_code, "ok"
    error = answer.json()["error"]
    assert set(error) == {"type", "message", "param"}
    assert ("WWW-Authenticate" in answer.headers) == (answer.status_code == 401)
    for secret in (OPERATOR, VIEWER, KEY):
        assert secret not in answer.text
    return answer.status_code, error["type"]


def allowed(row: Row, caller: str) -> tuple[int, str]:
    """What the table says of an admin route."""
    if caller not in ("viewer", "operator"):
        return 401, "unauthenticated"
    if caller == "viewer" and row.role == "operator":
        return 403, "forbidden"
    return row.status, row.outcome


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("row", ADMIN, ids=str)
def test_an_admin_route_answers_its_callers_and_records_every_call(
    keyed: Replica, row: Row, caller: str
) -> None:
    store = keyed.runtime.store
    recorded = store.verify_audit().last.entry
    status, kind = call(keyed, row, CALLERS[caller])
    assert (status, kind) == allowed(row, caller)
    (entry,) = store.audit(limit=1)
    assert entry.id == recorded + 1, "one call, one entry"
    who = {"viewer": ("eye", "viewer"), "operator": ("ci", "operator")}.get(caller, ("", ""))
    event = entry.event
    assert (event.actor, event.role) == who
    assert (event.action, event.outcome) == (row.action, kind)
    for secret in (OPERATOR, VIEWER, KEY):
        assert secret not in f"{event.target}{event.detail}"
    assert store.verify_audit().broken is None
    assert store.head_number() == 1, "nothing changed"


@pytest.mark.parametrize("row", ADMIN, ids=str)
def test_no_parameter_and_no_body_is_looked_at_before_the_token(keyed: Replica, row: Row) -> None:
    worst = {"params": {"limit": "x", "wait": "x", "expected_head": "x"}, "content": b"\xff{"}
    options = {**worst, "headers": {"Content-Type": "application/json"}}
    assert keyed.client.request(row.method, row.path, **options).status_code == 401


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("row", PUBLIC, ids=str)
def test_a_public_route_needs_a_key_where_there_are_keys(
    keyed: Replica, row: Row, caller: str
) -> None:
    recorded = keyed.runtime.store.verify_audit().last
    expected = (200, "ok") if caller == "API key" else (401, "unauthenticated")
    assert call(keyed, row, CALLERS[caller]) == expected
    assert keyed.runtime.store.verify_audit().last == recorded, "images are no admin calls"


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("row", PUBLIC, ids=str)
def test_a_public_route_asks_for_nothing_where_there_are_no_keys(
    keyless: Replica, row: Row, caller: str
) -> None:
    recorded = keyless.runtime.store.verify_audit().last
    assert call(keyless, row, CALLERS[caller]) == (200, "ok")
    assert keyless.runtime.store.verify_audit().last == recorded


@pytest.mark.parametrize("content", [b"{nope", b"\xff", b"[]", b'{"prompt": ""}'])
@pytest.mark.parametrize("row", PUBLIC[:2], ids=str)
def test_no_body_is_looked_at_before_the_key(keyed: Replica, row: Row, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    refused = keyed.client.request(row.method, row.path, content=content, headers=headers)
    assert refused.status_code == 401
    headers |= bearer(KEY)
    refused = keyed.client.request(row.method, row.path, content=content, headers=headers)
    assert refused.status_code == 400


@pytest.mark.parametrize("path", sorted(path for _method, path in PAGES))
def test_pages_about_the_api_are_open(keyed: Replica, path: str) -> None:
    assert keyed.client.get(path, follow_redirects=True).status_code == 200


def test_the_author_of_a_revision_is_the_tokens_name(tmp_path: Path, sd1_folder: Path) -> None:
    replica = start(tmp_path, sd1_folder, keys=False)
    try:
        answer = replica.client.post("/admin/edits", json=manifest(), headers=bearer(OPERATOR))
        assert answer.status_code == 201
        assert replica.runtime.store.revisions(1)[0].author == "ci"
    finally:
        replica.runtime.stop()
