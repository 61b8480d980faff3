"""Progressive rollout: who tries a revision, and what promotes or halts it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError

from edits.errors import HeadMoved, RevisionNotFound, RolloutOpen, RolloutRefused
from edits.store import ReplicaReport, RevisionStore, Rollout, RolloutPlan
from edits.store.rollouts import choose_canaries, judge

from .conftest import START
from .contents import content

BY = {"author": "ana", "reason": "test"}
DIGEST = "sha256:" + "a" * 64
PLAN = RolloutPlan(share=0.25, soak_seconds=100)
TRIED = Rollout(1, 7, DIGEST, 6, PLAN, ("a", "b"), "ana", START)


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now

    def forward(self, seconds):
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock():
    return Clock()


def report(identity, active=6, **fields):
    return ReplicaReport(identity, "host", START, active_revision=active, **fields)


def heard(reports, seconds):
    return [replace(r, heartbeat_at=START + timedelta(seconds=seconds)) for r in reports]


@given(
    live=st.integers(1, 60),
    dead=st.integers(0, 5),
    percent=st.integers(1, 99),
    revision=st.integers(1, 1000),
)
def test_canaries_are_the_share_rounded_up_and_of_several_replicas_never_all(
    live, dead, percent, revision
):
    reports = [report(f"pod-{n}", heartbeat_at=START) for n in range(live)]
    reports += [report(f"gone-{n}", stopped_at=START) for n in range(dead)]
    plan = RolloutPlan(percent / 100, 0)
    chosen = choose_canaries(reports, plan, revision, START)
    assert set(chosen) <= {r.id for r in reports[:live]}
    rounded_up = -(-percent * live // 100)
    assert len(chosen) == len(set(chosen)) == max(1, min(rounded_up, live - 1))
    again = choose_canaries(reports[::-1], plan, revision, START)
    assert again == chosen, "the order of the reports decides nothing"


def test_other_revisions_are_tried_by_other_replicas():
    reports = [report(f"pod-{n}", heartbeat_at=START) for n in range(10)]
    plan = RolloutPlan(0.1, 0)
    chosen = {choose_canaries(reports, plan, revision, START) for revision in range(50)}
    assert len(chosen) > 5


def test_a_fleet_without_a_live_replica_tries_nothing():
    with pytest.raises(RolloutRefused, match="no live replica"):
        choose_canaries([report("a", stopped_at=START)], PLAN, 7, START)


@pytest.mark.parametrize(
    ("share", "soak", "param"),
    [
        (0, 1, "canary"),
        (1, 1, "canary"),
        (-1, 1, "canary"),
        (float("nan"), 1, "canary"),
        (0.5, -1, "soak"),
        (0.5, 1e9, "soak"),
        (0.5, float("nan"), "soak"),
    ],
)
def test_a_plan_that_is_no_part_of_a_fleet_or_no_time_is_refused(share, soak, param):
    with pytest.raises(RolloutRefused) as refused:
        RolloutPlan(share, soak)
    assert refused.value.param == param


REFUSED = {"last_error": "non_finite: no", "rejected_digest": DIGEST}


@pytest.mark.parametrize(
    ("seconds", "reports", "expected"),
    [
        (0, [report("a"), report("b")], None),
        (99, [report("a", 7), report("b", 7)], None),
        (100, [report("a", 7), report("b", 7)], ("promoted", "2 canaries, 0 images")),
        (100, [report("a", 7), report("b")], None),
        (159, [report("a", 7), report("b")], None),
        (160, [report("a", 7), report("b")], ("halted", "did not switch: b")),
        (1, [report("a", 7), report("b", **REFUSED)], ("halted", "b: non_finite: no")),
        # An error about something else is not this revision's.
        (1, [report("a", 7), report("b", last_error="store_unavailable: away")], None),
        (1, [report("a", 7), report("b", 7, stopped_at=START)], ("halted", "lost: b")),
        (1, [report("a", 7)], ("halted", "lost: b")),
        (1, [report("a", 7, drawn=99, failed=1), report("b", 7)], None),
        (
            1,
            [report("a", 7, drawn=97, failed=1), report("b", 7, drawn=0, failed=1)],
            ("halted", "the model failed 2 of 99 requests"),
        ),
        (
            100,
            [report("a", 7, drawn=300, failed=0), report("b", 7, drawn=12, failed=0)],
            ("promoted", "2 canaries, 312 images"),
        ),
    ],
)
def test_the_reports_of_canaries_promote_or_halt(seconds, reports, expected):
    now = START + timedelta(seconds=seconds)
    others = [report("c", 6, last_error="x", rejected_digest=DIGEST, failed=50)]
    assert judge(TRIED, [*heard(reports, seconds), *heard(others, seconds)], now) == expected


def test_silence_of_a_canary_halts_only_where_somebody_could_have_heard_it():
    reports = [report("a", 7, heartbeat_at=START), report("b", 7, heartbeat_at=START)]
    now = START + timedelta(seconds=110)
    assert judge(TRIED, reports, now) == ("halted", "lost: a, b")
    assert judge(TRIED, reports, now, heard=False) is None


@pytest.fixture
def fleet(store):
    """Revision 1 is the head of four replicas, revision 2 is published."""
    store.publish_and_activate(content("a"), **BY)
    for name in "abcd":
        store.acknowledge(report(name, 1))
    store.publish(content("a", "b"), **BY)
    return store


def follow(store, *, wrong=()):
    """Every replica reports what it is wanted to run."""
    pointer = store.pointer()
    for name in "abcd":
        if name not in wrong:
            store.acknowledge(report(name, pointer.wanted(name)))


def test_canaries_run_the_revision_and_all_others_the_head(fleet):
    begun = fleet.rollouts.begin(2, PLAN, author="ana", base=1)
    (canary,) = begun.canaries
    pointer = fleet.pointer()
    assert pointer.number == 1
    assert {name: pointer.wanted(name) for name in "abcd"} == {
        name: 2 if name == canary else 1 for name in "abcd"
    }
    assert fleet.rollouts.begin(2, PLAN, author="ana", base=1) == begun, "asked twice, one rollout"
    assert fleet.rollouts.newest() == begun


def test_a_quiet_soak_makes_it_the_head_and_the_audit_says_so(fleet, clock):
    fleet.rollouts.begin(2, PLAN, author="ana", base=1)
    assert fleet.rollouts.settle(by="a") is None
    clock.forward(100)
    follow(fleet)
    ended = fleet.rollouts.settle(by="a")
    assert ended is not None and (ended.outcome, ended.ended_at) == ("promoted", clock.now)
    assert fleet.head_number() == 2
    assert fleet.pointer().rollout is None
    assert fleet.rollouts.settle(by="b") is None
    (entry,) = fleet.audit()
    assert (entry.event.actor, entry.event.role) == ("a", "replica")
    assert (entry.event.action, entry.event.target) == ("promote_rollout", "revision 2")
    assert fleet.verify_audit().broken is None


def test_a_refusal_halts_it_the_head_stays_and_it_may_be_tried_again(fleet):
    begun = fleet.rollouts.begin(2, PLAN, author="ana", base=1)
    (canary,) = begun.canaries
    refusal = {"last_error": "non_finite: no", "rejected_digest": begun.digest}
    fleet.acknowledge(report(canary, 1, wanted_revision=2, **refusal))
    ended = fleet.rollouts.settle(by="d")
    assert ended is not None and ended.outcome == "halted"
    assert ended.detail == f"{canary}: non_finite: no"
    assert fleet.head_number() == 1
    assert [fleet.pointer().wanted(name) for name in "abcd"] == [1, 1, 1, 1]
    assert fleet.audit()[0].event.action == "halt_rollout"
    follow(fleet)
    again = fleet.rollouts.begin(2, PLAN, author="ana", base=1)
    assert (again.id, again.canaries) == (2, begun.canaries)


@pytest.mark.parametrize("said", ["refusal", "failures"])
def test_what_a_canary_said_of_an_earlier_rollout_does_not_halt_the_next(fleet, said):
    begun = fleet.rollouts.begin(2, PLAN, author="ana", base=1)
    (canary,) = begun.canaries
    told = {
        "refusal": report(canary, 1, last_error="x", rejected_digest=begun.digest),
        "failures": report(canary, 2, drawn=3, failed=3),
    }[said]
    fleet.acknowledge(told)
    assert fleet.rollouts.settle(by="d") is not None
    fleet.rollouts.begin(2, PLAN, author="ana", base=1)
    assert fleet.rollouts.settle(by="d") is None
    fleet.acknowledge(told)
    assert fleet.rollouts.settle(by="d") is not None, "said anew, it counts"


def test_an_operator_may_end_it_either_way(fleet):
    fleet.rollouts.begin(2, PLAN, author="ana", base=1)
    halted = fleet.rollouts.halt("pictures look wrong")
    assert (halted.outcome, halted.detail) == ("halted", "pictures look wrong")
    fleet.rollouts.begin(2, PLAN, author="ana", base=1)
    assert fleet.rollouts.promote("enough").outcome == "promoted"
    assert fleet.head_number() == 2
    for end in (fleet.rollouts.halt, fleet.rollouts.promote):
        with pytest.raises(RolloutRefused, match="no revision is on trial"):
            end("again")


def test_only_an_urgent_change_overtakes_a_rollout(fleet):
    fleet.rollouts.begin(2, PLAN, author="ana", base=1)
    with pytest.raises(RolloutOpen, match="revision 2 is on trial on 1 replicas"):
        fleet.publish_and_activate(content("c"), **BY)
    assert [r.number for r in fleet.revisions()] == [2, 1], "a refused change leaves nothing behind"
    urgent = fleet.publish_and_activate(content("c"), urgent=True, **BY)
    assert fleet.pointer().restart_below == fleet.head_number() == urgent.number == 3
    ended = fleet.rollouts.newest()
    assert (ended.outcome, ended.detail) == ("superseded", "by revision 3")
    assert fleet.pointer().rollout is None


def test_content_that_is_the_head_already_disturbs_no_rollout(fleet):
    fleet.rollouts.begin(2, PLAN, author="ana", base=1)
    assert fleet.publish_and_activate(content("a"), **BY).number == 1
    assert fleet.pointer().rollout is not None


def test_activating_the_revision_on_trial_promotes_it(fleet):
    fleet.rollouts.begin(2, PLAN, author="ana", base=1)
    fleet.activate(2)
    assert (fleet.head_number(), fleet.rollouts.newest().outcome) == (2, "promoted")


def test_a_rollout_that_cannot_begin_leaves_nothing_behind(fleet):
    with pytest.raises(HeadMoved, match="the head is revision 1"):
        fleet.rollouts.begin(2, PLAN, author="ana", base=2)
    with pytest.raises(RevisionNotFound):
        fleet.rollouts.begin(9, PLAN, author="ana", base=1)
    with pytest.raises(RolloutRefused, match="nothing to try out"):
        fleet.rollouts.begin(1, PLAN, author="ana", base=1)
    fleet.rollouts.begin(2, PLAN, author="ana", base=1)
    fleet.publish(content("c"), **BY)
    with pytest.raises(RolloutOpen):
        fleet.rollouts.begin(3, PLAN, author="ana", base=1)
    assert fleet.rollouts.newest().id == 1


def test_of_many_that_settle_at_once_one_does(url, fleet, clock):
    fleet.rollouts.begin(2, PLAN, author="ana", base=1)
    clock.forward(100)
    follow(fleet)

    def settle(name):
        with RevisionStore.open(url, clock=clock) as other:
            return other.rollouts.settle(by=name)

    with ThreadPoolExecutor(8) as pool:
        ended = [found for found in pool.map(settle, "abcdefgh") if found is not None]
    assert len(ended) == len(fleet.audit()) == 1
    assert fleet.head_number() == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rollouts SET outcome = 'halted'",
        "DELETE FROM rollouts",
        "INSERT INTO rollouts SELECT * FROM rollouts",
    ],
)
def test_the_database_keeps_the_record_of_a_rollout(fleet, url, statement):
    fleet.rollouts.begin(2, PLAN, author="ana", base=1)
    fleet.rollouts.halt("over")
    engine = create_engine(url)
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
    assert fleet.rollouts.newest().detail == "over"
