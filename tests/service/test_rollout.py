"""Progressive rollout over real replicas: one tries the revision, the others keep the head."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edits.manifests import RevisionContent, parse_manifest
from edits.store import RolloutPlan
from service.settings import Settings

from .replica import Replica, manifest


@pytest.fixture
def fleet(
    store_url: str, tmp_path: Path, settings: Settings, start_replica: Callable[[Settings], Replica]
) -> dict[str, Replica]:
    """Three replicas on one store."""
    return {
        name: start_replica(
            settings.model_copy(
                update={
                    "store": store_url,
                    "state_dir": tmp_path / name,
                    "replica": name,
                    "poll_seconds": 0.1,
                }
            )
        )
        for name in ("one", "two", "three")
    }


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def revisions(fleet: dict[str, Replica]) -> dict[str, int]:
    """What an image of every replica says."""
    return {name: int(r.draw().headers["X-QuickFix-Revision"]) for name, r in fleet.items()}


def begin(fleet: dict[str, Replica], soak: float = 600) -> tuple[str, dict[str, Replica]]:
    """The canary, once it runs revision 2, and the other replicas."""
    answer = fleet["one"].publish(manifest(), canary=0.3, soak=soak)
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert (body["revision"], body["rollout"]["base"], body["rollout"]["outcome"]) == (2, 1, None)
    (canary,) = body["rollout"]["canaries"]
    tried = fleet[canary].runtime.activator
    eventually(lambda: tried.active is not None and tried.active.revision == 2, "no canary")
    return canary, {name: r for name, r in fleet.items() if name != canary}


def rollout(fleet: dict[str, Replica]) -> dict[str, object]:
    found: dict[str, object] = fleet["one"].read("rollout")["rollout"]
    return found


def test_only_the_canary_draws_under_it_until_the_soak_is_over(fleet: dict[str, Replica]) -> None:
    canary, others = begin(fleet, soak=3)
    assert revisions({canary: fleet[canary]}) == {canary: 2}
    assert set(revisions(others).values()) == {1}
    status = fleet["one"].read("status")
    assert status["head"]["revision"] == 1
    assert status["rollout"]["canaries"] == [canary]
    assert fleet[canary].read("status")["replica"]["canary"] is True
    eventually(lambda: rollout(fleet)["outcome"] == "promoted", "not promoted")
    eventually(lambda: set(revisions(fleet).values()) == {2}, "a replica stayed behind")
    assert fleet[canary].read("status")["replica"]["canary"] is False
    assert fleet["one"].read("status")["rollout"] is None
    events = fleet["one"].read("audit")["events"]
    (event,) = [event for event in events if event["action"] == "promote_rollout"]
    assert (event["actor"] in fleet, event["role"]) == (True, "replica")
    assert fleet["one"].read("audit/verify")["holds"]


def test_an_operator_halts_it_and_the_canary_goes_back(fleet: dict[str, Replica]) -> None:
    canary, _ = begin(fleet)
    one = fleet["one"]
    answer = one.client.post(
        "/admin/rollout/halt", json={"reason": "looks wrong"}, headers=one.operator
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["rollout"]["detail"] == "looks wrong"
    eventually(lambda: set(revisions(fleet).values()) == {1}, "the canary stayed")
    assert rollout(fleet)["outcome"] == "halted"
    # What was tried may be tried again, and its number is still its own.
    assert begin(fleet)[0] == canary


def test_an_operator_promotes_it_and_may_wait_for_the_fence(fleet: dict[str, Replica]) -> None:
    begin(fleet)
    one = fleet["one"]
    answer = one.client.post(
        "/admin/rollout/promote", params={"wait": 20}, json={}, headers=one.operator
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["fence"]["closed"]
    assert set(revisions(fleet).values()) == {2}


def test_a_set_that_a_canary_cannot_run_never_reaches_the_others(fleet: dict[str, Replica]) -> None:
    foreign = RevisionContent(edits=(parse_manifest(manifest()),), fingerprint="sha256:" + "0" * 64)
    store = fleet["one"].runtime.store
    number = store.publish(foreign, author="test", reason="made for another model").number
    begun = store.rollouts.begin(number, RolloutPlan(0.3, 600), author="test", base=1)
    eventually(lambda: rollout(fleet)["outcome"] == "halted", "not halted")
    ended = store.rollouts.newest()
    assert ended is not None and ended.detail is not None
    assert ended.detail.startswith(f"{begun.canaries[0]}: fingerprint_mismatch")
    assert set(revisions(fleet).values()) == {1}
    for replica in fleet.values():
        eventually(
            lambda replica=replica: replica.runtime.activator.state.last_error is None,  # type: ignore[misc]
            "the refusal of a halted rollout stays",
        )


def test_images_that_fail_on_a_canary_halt_it(
    fleet: dict[str, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    canary, _ = begin(fleet)
    assert fleet[canary].draw().status_code == 200
    backend = fleet[canary].runtime.backend

    def breaks(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(backend, "decode", breaks)
    assert fleet[canary].draw().status_code == 500
    monkeypatch.undo()
    eventually(lambda: rollout(fleet)["outcome"] == "halted", "not halted")
    assert rollout(fleet)["detail"] == "the model failed 1 of 2 requests"
    eventually(lambda: set(revisions(fleet).values()) == {1}, "the canary stayed")


def test_a_canary_that_ends_halts_it(fleet: dict[str, Replica]) -> None:
    canary, others = begin(fleet)
    fleet[canary].runtime.reconciler.stop()
    someone = next(iter(others.values()))
    for other in others.values():
        # They have heard of all for long enough to know what silence means.
        other.runtime.activator.rollouts.reached_since -= 60
    eventually(lambda: someone.read("rollout")["rollout"]["outcome"] == "halted", "not halted")
    assert someone.read("rollout")["rollout"]["detail"] == f"lost: {canary}"
    assert set(revisions(others).values()) == {1}


def test_a_takedown_does_not_wait_for_a_rollout(fleet: dict[str, Replica]) -> None:
    begin(fleet)
    refused = fleet["two"].publish(manifest("remove-gun"))
    assert (refused.status_code, refused.json()["error"]["type"]) == (409, "rollout_open")
    taken = fleet["two"].publish(manifest("remove-gun"), urgency="immediate", wait=20)
    assert taken.status_code == 201, taken.text
    assert set(revisions(fleet).values()) == {taken.json()["revision"]}
    assert rollout(fleet)["outcome"] == "superseded"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"canary": 0}, "canary"),
        ({"canary": 1}, "canary"),
        ({"canary": "nan"}, "canary"),
        ({"canary": 0.5, "soak": -1}, "soak"),
        ({"soak": 60}, "soak"),
        ({"canary": 0.5, "wait": 1}, "canary"),
        ({"canary": 0.5, "urgency": "immediate"}, "canary"),
    ],
)
def test_a_share_that_is_none_is_refused(
    replica: Replica, query: dict[str, object], param: str
) -> None:
    answer = replica.publish(manifest(), **query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


def test_a_roll_back_goes_to_all_replicas(replica: Replica) -> None:
    assert replica.publish(manifest()).status_code == 201
    answer = replica.client.post(
        "/admin/rollback", params={"canary": 0.5}, json={"to": 1}, headers=replica.operator
    )
    assert (answer.status_code, answer.json()["error"]["type"]) == (409, "rollout_refused")


def test_one_replica_alone_tries_it_and_then_keeps_it(replica: Replica) -> None:
    answer = replica.publish(manifest(), canary=0.5, soak=0)
    assert answer.status_code == 202
    eventually(lambda: replica.runtime.store.head_number() == 2, "not promoted")
    assert revisions({"it": replica}) == {"it": 2}
