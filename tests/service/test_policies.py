"""Policies: defined and taken out as revisions, and what a request runs under by its API key."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from httpx import Response

from service.settings import Settings

from .access import bearer, write_keys
from .live import serve
from .pictures import pixels
from .replica import Replica, manifest

Start = Callable[[Settings], Replica]
PISTOL, BEER = "remove-pistol", "remove-beer"


def define(replica: Replica, name: str, *edits: str, **fields: Any) -> Response:
    body = {"name": name, "edits": list(edits), **fields}
    return replica.client.put("/admin/policies", json=body, headers=replica.operator)


def take_out(replica: Replica, name: str, **query: Any) -> Response:
    return replica.client.delete(
        "/admin/policies", params={"name": name, **query}, headers=replica.operator
    )


def policies(replica: Replica) -> Any:
    return replica.read("policies")["policies"]


@pytest.fixture
def edited(replica: Replica) -> Replica:
    """A replica with two edits, and so with revision 3."""
    assert replica.publish(manifest()).status_code == 201
    beer = manifest(BEER, concept="beer", anchor="juice")
    assert replica.publish(beer).status_code == 201
    return replica


def test_a_policy_is_a_new_revision_and_requests_run_under_it(edited: Replica) -> None:
    with_both = pixels(edited.draw())
    answer = define(edited, "beer-only", BEER, reason="weapons are fine here")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["revision"], body["name"]) == (4, "beer-only")
    assert body["policies"] == {"beer-only": [BEER], "default": [BEER, PISTOL]} == policies(edited)
    drawn = edited.draw(policy="beer-only")
    assert drawn.headers["X-QuickFix-Digest"] == body["digest"]
    assert not np.array_equal(with_both, pixels(drawn))
    assert np.array_equal(with_both, pixels(edited.draw()))
    newest = edited.runtime.store.revisions(1)[0]
    assert (newest.author, newest.reason) == ("generated", "weapons are fine here")
    event = edited.runtime.store.audit(2)[1].event  # the list of policies is the newest
    assert (event.action, event.target, event.outcome) == ("define_policy", "beer-only", "ok")
    assert '"revision": 4' in event.detail


def test_a_policy_is_defined_anew_and_the_same_again_is_no_revision(edited: Replica) -> None:
    assert define(edited, "strict", BEER).json()["revision"] == 4
    assert define(edited, "strict", BEER, BEER).json()["revision"] == 4
    assert define(edited, "strict", BEER, PISTOL).json()["revision"] == 5
    assert define(edited, "default").json()["policies"]["default"] == []


def test_a_policy_is_taken_out_and_comes_back_with_a_roll_back(edited: Replica) -> None:
    define(edited, "strict", BEER)
    answer = take_out(edited, "strict")
    assert (answer.status_code, answer.json()["revision"]) == (200, 5)
    assert policies(edited) == {"default": [BEER, PISTOL]}
    gone = edited.draw(policy="strict")
    assert (gone.status_code, gone.json()["error"]["type"]) == (400, "policy_unknown")
    edited.roll_back(4)
    assert edited.draw(policy="strict").status_code == 200


def test_an_edit_that_is_withdrawn_leaves_every_policy(edited: Replica) -> None:
    define(edited, "strict", BEER, PISTOL)
    edited.remove(PISTOL)
    assert policies(edited) == {"default": [BEER], "strict": [BEER]}


@pytest.mark.parametrize(
    ("name", "edits", "param", "words"),
    [
        ("strict", ["gone"], "policies.strict", "lacks: gone"),
        ("strict", [BEER], "policies.strict", "leaves out mandatory edits: remove-knife"),
        ("default", [], "policies.default", "leaves out mandatory edits: remove-knife"),
        ("Strict!", ["remove-knife"], "policies", "policy name"),
    ],
)
def test_a_policy_that_the_revision_cannot_have_is_422_and_changes_nothing(
    edited: Replica, name: str, edits: list[str], param: str, words: str
) -> None:
    edited.publish(manifest("remove-knife", concept="knife", mandatory=True))
    head = edited.runtime.store.head_number()
    answer = define(edited, name, *edits)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (422, "manifest_invalid", param)
    assert words in error["message"]
    assert edited.runtime.store.head_number() == head


def test_the_default_policy_cannot_be_taken_out_and_an_unknown_one_is_404(edited: Replica) -> None:
    for name, status, kind in (
        ("default", 422, "manifest_invalid"),
        ("strict", 404, "policy_not_found"),
    ):
        answer = take_out(edited, name)
        error = answer.json()["error"]
        assert (answer.status_code, error["type"], error["param"]) == (status, kind, "name")
    assert edited.runtime.store.head_number() == 3


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"name": "strict"}', "edits"),
        (b'{"name": "strict", "edits": "remove-beer"}', "edits"),
        (b'{"name": "strict", "edits": [1]}', "edits.0"),
        (b'{"name": "", "edits": []}', "name"),
        (b'{"name": "strict", "edits": [], "extra": 1}', "extra"),
    ],
)
def test_a_body_that_is_no_policy_is_400_and_named(
    replica: Replica, body: bytes, param: str | None
) -> None:
    answer = replica.client.put("/admin/policies", content=body, headers=replica.operator)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request", param)


def test_a_stale_expected_head_is_a_conflict(edited: Replica) -> None:
    body = {"name": "strict", "edits": [BEER]}
    stale = edited.client.put(
        "/admin/policies", params={"expected_head": 2}, json=body, headers=edited.operator
    )
    assert (stale.status_code, stale.json()["error"]["type"]) == (409, "head_moved")
    define(edited, "strict", BEER)
    assert take_out(edited, "strict", expected_head=3).status_code == 409
    assert take_out(edited, "strict", expected_head=4).status_code == 200


@pytest.fixture
def keyed(settings: Settings, tmp_path: Path, start_replica: Start) -> Replica:
    """Three keys over two policies: `strict` takes the pistol out, `default` nothing."""
    path = write_keys(
        tmp_path / "keys.yaml",
        shop=("shop-key", ["strict", "default"]),
        studio=("studio-key", ["default", "strict", "later"]),
        kids=("kids-key", ["strict"]),
    )
    replica = start_replica(settings.model_copy(update={"api_keys_file": path}))
    assert replica.publish(manifest()).status_code == 201
    assert define(replica, "strict", PISTOL).status_code == 200
    assert define(replica, "default").status_code == 200
    return replica


ROUTES = ["/generate", "/v1/images/generations"]


def ask(replica: Replica, key: str, route: str = "/generate", **fields: Any) -> Response:
    body = {"prompt": "a photo of a pistol", "seed": 7, **fields}
    return replica.client.post(route, json=body, headers=bearer(key))


def test_a_request_runs_under_the_first_policy_of_its_key(keyed: Replica) -> None:
    strict, default = (pixels(ask(keyed, key)) for key in ("shop-key", "studio-key"))
    assert not np.array_equal(strict, default)
    assert np.array_equal(strict, pixels(ask(keyed, "studio-key", policy="strict")))
    assert np.array_equal(default, pixels(ask(keyed, "shop-key", policy="default")))


@pytest.mark.parametrize("route", ROUTES)
def test_a_policy_that_the_key_does_not_allow_is_403(keyed: Replica, route: str) -> None:
    for policy in ("default", "no-such-policy"):
        answer = ask(keyed, "kids-key", route, policy=policy)
        error = answer.json()["error"]
        assert answer.status_code == 403
        assert (error["type"], error["param"]) == ("policy_forbidden", "policy")
        assert "it allows: strict" in error["message"]
        assert "kids-key" not in answer.text


@pytest.mark.parametrize("route", ROUTES)
def test_a_policy_that_the_key_allows_and_the_revision_lacks_is_400_with_the_known_ones(
    keyed: Replica, route: str
) -> None:
    answer = ask(keyed, "studio-key", route, policy="later")
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "policy_unknown")
    assert "known: default, strict" in error["message"]
    assert define(keyed, "later", PISTOL).status_code == 200
    assert ask(keyed, "studio-key", route, policy="later").status_code == 200


def test_a_request_never_falls_back_to_default_when_the_first_policy_of_its_key_is_gone(
    keyed: Replica,
) -> None:
    assert take_out(keyed, "strict").status_code == 200
    for key in ("shop-key", "kids-key"):
        answer = ask(keyed, key)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "policy_unknown")


def test_keys_and_their_policies_change_without_a_restart(keyed: Replica, tmp_path: Path) -> None:
    assert ask(keyed, "shop-key", policy="default").status_code == 200
    fresh = write_keys(tmp_path / "fresh.yaml", shop=("next-key", ["strict"]))
    fresh.replace(tmp_path / "keys.yaml")
    assert ask(keyed, "shop-key").status_code == 401
    assert ask(keyed, "next-key").status_code == 200
    assert ask(keyed, "next-key", policy="default").status_code == 403
    (tmp_path / "keys.yaml").write_text("keys: [", encoding="utf-8")
    assert ask(keyed, "next-key").status_code == 200
    (tmp_path / "keys.yaml").write_text("keys: []", encoding="utf-8")
    assert ask(keyed, "next-key").status_code == 401


@pytest.mark.e2e
def test_the_official_client_is_told_of_keys_and_policies(sd1_folder: Path, tmp_path: Path) -> None:
    path = write_keys(
        tmp_path / "keys.yaml", shop=("shop-key", ["default"]), kids=("kids-key", ["strict"])
    )
    with serve(
        sd1_folder, tmp_path / "live", environ={"QUICKFIX_API_KEYS_FILE": str(path)}
    ) as service:

        def client(key: str) -> openai.OpenAI:
            return openai.OpenAI(base_url=service.url + "/v1", api_key=key, max_retries=0)

        shop = client("shop-key")
        (model,) = shop.models.list().data
        answer = shop.images.generate(model=model.id, prompt="a cat", extra_body={"steps": 1})
        assert answer.data is not None and len(answer.data) == 1
        for call in (client("wrong").models.list, client(service.token).models.list):
            with pytest.raises(openai.AuthenticationError) as unknown:
                call()
            assert unknown.value.type == "unauthenticated"
        with pytest.raises(openai.PermissionDeniedError) as forbidden:
            shop.images.generate(prompt="a cat", extra_body={"policy": "strict"})
        assert (forbidden.value.type, forbidden.value.param) == ("policy_forbidden", "policy")
        with pytest.raises(openai.BadRequestError) as lacking:
            client("kids-key").images.generate(prompt="a cat")
        assert lacking.value.type == "policy_unknown"
        with service.client() as plain:
            assert plain.get("/admin/status", headers=bearer("shop-key")).status_code == 401
            for probe in ("/livez", "/readyz", "/metrics"):
                assert plain.get(probe).status_code == 200
        log = service.log.read_text(encoding="utf-8")
        assert not any(key in log for key in ("shop-key", "kids-key"))
