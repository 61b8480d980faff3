"""Activation: all of a revision or nothing, last good on failure, fail closed at start."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edits.errors import NonFinite, StoreUnavailable
from edits.manifests import RevisionContent, parse_manifest
from edits.plan import edit_spec
from edits.store import HEARTBEAT_SECONDS, ReplicaReport, Revision, RevisionStore
from service.activation import Activator
from service.errors import ActivationFailed
from service.generation.encoder import PromptEncoder
from service.model import ServedModel
from service.settings import Settings
from service.snapshot import SnapshotBuilder
from tests.device import DEVICE

from .replica import manifest


@pytest.fixture(scope="module")
def model(sd1_folder: Path) -> ServedModel:
    return ServedModel.load(Settings(model=str(sd1_folder), device=DEVICE, threads=1))


@pytest.fixture
def builder(model: ServedModel) -> SnapshotBuilder:
    prompts = PromptEncoder(model.pipeline.tokenizer, device=model.device, dtype=model.dtype)
    return SnapshotBuilder(model.pipeline.text_encoder, model.editor, prompts)


@pytest.fixture
def store(tmp_path: Path) -> RevisionStore:
    return RevisionStore.open(f"sqlite:///{tmp_path / 'log.db'}")


EMPTY = RevisionContent()


class Clock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def activator_of(
    store: RevisionStore,
    builder: SnapshotBuilder,
    *,
    initial: RevisionContent | None = EMPTY,
    clock: Clock | None = None,
    replica: str = "one",
    **limits: float,
) -> Activator:
    return Activator(
        store,
        builder,
        replica=replica,
        host="host",
        initial=initial,
        clock=clock or Clock(),
        **limits,
    )


def content(builder: SnapshotBuilder, *manifests: dict[str, object]) -> RevisionContent:
    edits = tuple(parse_manifest(body) for body in manifests)
    return RevisionContent(edits=edits, fingerprint=builder.fingerprint)


def publish(store: RevisionStore, content: RevisionContent) -> int:
    return store.publish_and_activate(content, author="test", reason="test").number


def test_a_brand_new_store_gets_one_empty_revision(
    store: RevisionStore, builder: SnapshotBuilder
) -> None:
    first, second = (activator_of(store, builder, replica=name) for name in ("one", "two"))
    first.refresh()
    second.refresh()
    assert first.active is not None and second.active is not None
    assert first.active.revision == second.active.revision == 1
    assert [record.number for record in store.revisions()] == [1]


def test_without_edits_requests_run_the_pristine_encoder_itself(
    store: RevisionStore, builder: SnapshotBuilder, model: ServedModel
) -> None:
    activator = activator_of(store, builder)
    activator.refresh()
    assert activator.active is not None
    assert activator.active.encoders["default"] is model.pipeline.text_encoder


def test_an_edit_changes_one_weight_and_shares_all_other_tensors(
    store: RevisionStore, builder: SnapshotBuilder, model: ServedModel
) -> None:
    before = {name: t.clone() for name, t in model.pipeline.text_encoder.state_dict().items()}
    publish(store, content(builder, manifest()))
    activator = activator_of(store, builder)
    activator.refresh()
    assert activator.active is not None
    edited = activator.active.encoders["default"].state_dict()
    pristine = model.pipeline.text_encoder.state_dict()
    moved = [name for name, t in edited.items() if t.data_ptr() != pristine[name].data_ptr()]
    assert [name.removeprefix("text_model.") for name in moved] == [
        "encoder.layers.0.self_attn.out_proj.weight"
    ]
    assert all(torch.equal(pristine[name], before[name]) for name in before)


def test_a_snapshot_once_read_stays_whole_while_the_head_moves(
    store: RevisionStore, builder: SnapshotBuilder
) -> None:
    activator = activator_of(store, builder)
    activator.refresh()
    held = activator.active
    number = publish(store, content(builder, manifest()))
    activator.refresh()
    assert held is not None and activator.active is not None
    assert (held.revision, activator.active.revision) == (1, number)
    assert held.encoders["default"] is not activator.active.encoders["default"]


def test_an_unchanged_head_composes_nothing(store: RevisionStore, builder: SnapshotBuilder) -> None:
    activator = activator_of(store, builder)
    activator.refresh()
    held = activator.active
    activator.refresh()
    assert activator.active is held


def test_policies_are_composed_each_on_its_own_edits(
    store: RevisionStore, builder: SnapshotBuilder, model: ServedModel
) -> None:
    edits = (
        parse_manifest(manifest()),
        parse_manifest(manifest("remove-beer", concept="beer", anchor="juice")),
    )
    publish(
        store,
        RevisionContent(
            edits=edits,
            policies={"beer-only": ("remove-beer",), "nothing": ()},
            fingerprint=builder.fingerprint,
        ),
    )
    activator = activator_of(store, builder)
    activator.refresh()
    assert activator.active is not None
    encoders = activator.active.encoders
    assert set(encoders) == {"default", "beer-only", "nothing"}
    assert encoders["nothing"] is model.pipeline.text_encoder
    weights = [
        encoders[name].state_dict()["encoder.layers.0.self_attn.out_proj.weight"]
        for name in ("default", "beer-only", "nothing")
    ]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (manifest(method={"sites": "text_encoder:text_model.no.such"}), "site_unknown"),
        (manifest(concept="cat " * 29 + "cat"), "concept_untraceable"),
    ],
)
def test_a_failed_activation_keeps_the_last_good_revision_and_says_why(
    store: RevisionStore, builder: SnapshotBuilder, bad: dict[str, object], kind: str
) -> None:
    good = publish(store, content(builder, manifest("remove-beer", concept="beer")))
    activator = activator_of(store, builder)
    activator.refresh()
    broken = publish(store, content(builder, bad))
    activator.refresh()
    assert activator.active is not None and activator.active.revision == good
    assert activator.state.wanted == broken
    assert activator.state.last_error is not None
    assert activator.state.last_error.startswith(kind)
    (report,) = store.replicas()
    assert (report.active_revision, report.wanted_revision) == (good, broken)
    assert report.rejected_digest == store.revision(broken).digest
    assert report.last_error == activator.state.last_error
    recovered = publish(store, content(builder))
    activator.refresh()
    assert activator.active.revision == recovered
    assert activator.state.last_error is None


def test_a_start_that_cannot_verify_the_head_activates_nothing(
    store: RevisionStore, builder: SnapshotBuilder
) -> None:
    """Fail closed: serving the pristine model would bring the removed concepts back."""
    other_base = RevisionContent(
        edits=(parse_manifest(manifest()),), fingerprint="sha256:" + "0" * 64
    )
    publish(store, other_base)
    activator = activator_of(store, builder)
    activator.refresh()
    assert activator.active is None
    assert activator.state.last_error is not None
    assert activator.state.last_error.startswith("fingerprint_mismatch")


def test_a_closed_store_is_an_error_and_not_an_end(
    store: RevisionStore, builder: SnapshotBuilder, tmp_path: Path
) -> None:
    activator = activator_of(store, builder)
    activator.refresh()
    store.close()
    database = tmp_path / "log.db"
    database.rename(tmp_path / "away.db")
    database.mkdir()  # SQLite cannot open a directory
    activator.refresh()
    assert activator.active is not None and activator.active.revision == 1
    assert activator.state.last_error is not None
    assert activator.state.last_error.startswith("store_")
    assert str(tmp_path) not in activator.state.last_error
    database.rmdir()
    (tmp_path / "away.db").rename(database)
    activator.refresh()
    assert activator.state.last_error is None


def test_a_replica_off_the_head_for_too_long_takes_no_requests_until_it_is_on_it_again(
    store: RevisionStore, builder: SnapshotBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("service.activation.time.monotonic", lambda: now[0])
    activator = activator_of(store, builder, max_staleness_seconds=60, request_seconds=5)
    activator.refresh()
    assert store.replicas()[0].lease_seconds == 60 + 5 + HEARTBEAT_SECONDS
    store.close()
    database = tmp_path / "log.db"
    database.rename(tmp_path / "away.db")
    database.mkdir()
    now[0] += 59
    activator.refresh()
    assert activator.runs.begin() is not None
    now[0] += 2
    activator.refresh()
    assert activator.stale
    assert (activator.runs.current, activator.runs.begin()) == (None, None)
    assert activator.active is not None, "what it ran last is kept"
    database.rmdir()
    (tmp_path / "away.db").rename(database)
    activator.refresh()
    assert not activator.stale
    assert activator.runs.begin() is not None


def test_a_replica_that_reads_the_head_but_cannot_report_takes_no_requests_in_the_end(
    store: RevisionStore, builder: SnapshotBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease runs from its last report: after it a fence counts it no more."""
    now = [100.0]
    monkeypatch.setattr("service.activation.time.monotonic", lambda: now[0])
    activator = activator_of(store, builder, max_staleness_seconds=60, request_seconds=5)
    activator.refresh()
    acknowledge = store.acknowledge

    def refuse(_report: ReplicaReport) -> ReplicaReport:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(store, "acknowledge", refuse)
    for _ in range(13):
        now[0] += 5
        activator.refresh()
    assert activator.stale
    assert activator.runs.begin() is None
    monkeypatch.setattr(store, "acknowledge", acknowledge)
    activator.refresh()
    assert activator.runs.begin() is not None


def test_without_a_limit_a_replica_serves_its_last_good_revision_for_ever(
    store: RevisionStore, builder: SnapshotBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("service.activation.time.monotonic", lambda: now[0])
    activator = activator_of(store, builder)
    activator.refresh()
    now[0] += 10**7
    assert activator.runs.begin() is not None
    assert store.replicas()[0].lease_seconds is None


def test_the_store_hears_of_every_activation_at_the_clocks_time(
    store: RevisionStore, builder: SnapshotBuilder
) -> None:
    clock = Clock()
    activator = activator_of(store, builder, clock=clock)
    activator.refresh()
    clock.now += timedelta(seconds=5)
    number = publish(store, content(builder, manifest()))
    activator.refresh()
    assert activator.active is not None
    assert activator.active.activated_at == clock.now
    (report,) = store.replicas()
    assert (report.id, report.active_revision) == ("one", number)
    assert report.active_digest == activator.active.digest


def test_waiting_for_a_revision_ends_with_the_reason_when_it_cannot_be_run(
    store: RevisionStore, builder: SnapshotBuilder
) -> None:
    activator = activator_of(store, builder)
    activator.refresh()
    reached = activator.wait_for(1, 0.0)
    assert reached is not None and reached.revision == 1
    assert activator.wait_for(2, 0.01) is None
    number = publish(store, content(builder, manifest(method={"sites": "text_encoder:no.such"})))
    activator.refresh()
    with pytest.raises(ActivationFailed, match="site_unknown"):
        activator.wait_for(number, 5.0)


def test_waiting_for_a_revision_outlasts_a_store_that_is_away_for_a_moment(
    store: RevisionStore, builder: SnapshotBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    activator = activator_of(store, builder)
    activator.refresh()
    number = publish(store, content(builder, manifest()))

    def fail(_number: int) -> Revision:
        raise StoreUnavailable("the connection was reset")

    with monkeypatch.context() as away:
        away.setattr(store, "revision", fail)
        activator.refresh()
    assert activator.state.last_error is not None
    assert activator.wait_for(number, 0.01) is None
    activator.refresh()
    reached = activator.wait_for(number, 0.0)
    assert reached is not None and reached.revision == number


def test_an_encoder_that_moves_the_empty_prompt_is_never_activated(
    store: RevisionStore, builder: SnapshotBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    activator = activator_of(store, builder)
    activator.refresh()
    apply = builder._editor.apply

    def faulty(composition: Any) -> dict[str, nn.Module]:
        modules = apply(composition)
        for module in modules.values():
            layer = next(m for m in module.modules() if type(m).__name__ == "PinnedLinear")
            layer.weight.data += 0.1
            layer._basis.zero_()
        return modules

    monkeypatch.setattr(builder._editor, "apply", faulty)
    number = publish(store, content(builder, manifest(concept="a pistol nobody made before")))
    activator.refresh()
    assert activator.state.wanted == number
    assert activator.active is not None and activator.active.revision == 1
    assert activator.state.last_error is not None
    assert "moves the empty prompt" in activator.state.last_error


def test_a_set_that_moves_what_is_to_stay_beyond_the_bound_is_never_activated(
    store: RevisionStore, builder: SnapshotBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever signs a set, or writes the store, passes no gate."""
    activator = activator_of(store, builder)
    activator.refresh()
    wanted = content(
        builder,
        manifest(
            preserve=["cat", "knife"],
            method={"ridge": 1e-9, "preserve_weight": 0.0, "tokens": "last"},
        ),
    )
    drift = builder._editor.compose([edit_spec(wanted.edits[0])]).preserve_drift()
    assert 0.1 < drift < 2
    number = publish(store, wanted)
    monkeypatch.setattr("service.snapshot._MAX_DRIFT", 0.99 * drift)
    activator.refresh()
    assert activator.active is not None and activator.active.revision == 1
    assert activator.state.last_error is not None
    assert f"moves what is to stay by {drift:.2g} times" in activator.state.last_error
    monkeypatch.setattr("service.snapshot._MAX_DRIFT", 1.01 * drift)
    activator.refresh()
    assert activator.active.revision == number


def test_the_self_test_passes_every_concept_under_every_encoder_once_and_many_at_a_time(
    builder: SnapshotBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[tuple[nn.Module, tuple[str, ...]]] = []
    encode = builder._prompts.encode
    monkeypatch.setattr(
        builder._prompts,
        "encode",
        lambda encoder, *prompts: passes.append((encoder, prompts)) or encode(encoder, *prompts),
    )
    edits = [manifest(f"remove-{n}", concept=f"self-tested thing {n}") for n in range(40)]
    every = tuple(edit["metadata"]["name"] for edit in edits)
    policies = {"same": every, "less": every[1:], "none": ()}
    built = builder.build(
        RevisionContent(
            tuple(map(parse_manifest, edits)), policies, fingerprint=builder.fingerprint
        )
    )
    assert built.encoders["same"] is built.encoders["default"]
    for policy in ("default", "less"):
        own = [prompts for encoder, prompts in passes if encoder is built.encoders[policy]]
        assert sorted(sum(own, ())) == sorted(["", *(edit["spec"]["concept"] for edit in edits)])
        assert len(own) == 3  # the empty prompt alone: its bits are compared
    assert len(passes) == 6


def test_an_encoder_that_is_not_finite_for_one_concept_of_many_is_refused(
    builder: SnapshotBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = builder._prompts.encode

    def overflowing(encoder: nn.Module, *prompts: str) -> torch.Tensor:
        states = encode(encoder, *prompts).clone()
        for i, prompt in enumerate(prompts):
            if prompt == "overflowing thing 33":
                states[i, 3, 0] = float("inf")
        return states

    monkeypatch.setattr(builder._prompts, "encode", overflowing)
    edits = [manifest(f"remove-{n}", concept=f"overflowing thing {n}") for n in range(40)]
    with pytest.raises(NonFinite, match=r"remove-0, remove-1, .* is not finite"):
        builder.build(content(builder, *edits))


def test_the_same_content_is_computed_once(builder: SnapshotBuilder) -> None:
    first = builder.build(content(builder, manifest()))
    assert builder.build(content(builder, manifest())) is first
    assert first.seconds > 0


def test_computing_an_edit_never_runs_the_encoder_that_serves(
    builder: SnapshotBuilder, model: ServedModel
) -> None:
    """Captures hook and abort the module that they run; a request must never meet that."""
    ran: list[nn.Module] = []
    serving = model.pipeline.text_encoder
    hook = serving.register_forward_pre_hook(lambda module, _: ran.append(module))
    built = builder.build(content(builder, manifest(concept="a pistol of its own")))
    assert ran == []
    assert built.encoders["default"] is not serving
    serving(torch.zeros(1, 8, dtype=torch.long, device=model.device))
    hook.remove()
    assert ran == [serving], "the hook tells of every run"
