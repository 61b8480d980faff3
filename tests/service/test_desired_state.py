"""A directory as the desired state: one revision per change, and bad files change nothing."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from edits.manifests import ConceptEdit, RevisionContent
from edits.publication import Admission, Gatekeeper
from service.settings import Settings

from .replica import Replica, manifest

Start = Callable[[Settings], Replica]


def write(folder: Path, *bodies: dict[str, object]) -> None:
    for body in bodies:
        name = body["metadata"]["name"]  # type: ignore[index]
        (folder / f"{name}.json").write_text(json.dumps(body), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "edits"
    folder.mkdir()
    return folder


@pytest.fixture
def directory_settings(settings: Settings, folder: Path) -> Settings:
    # Polls are the tests' own ticks.
    return settings.model_copy(update={"edits_dir": folder, "poll_seconds": 3600.0})


def active(replica: Replica) -> list[str]:
    return [edit["metadata"]["name"] for edit in replica.read("edits")["edits"]]


def test_the_directorys_edits_are_active_at_start(
    directory_settings: Settings, folder: Path, start_replica: Start
) -> None:
    write(folder, manifest(), manifest("remove-beer", concept="beer", anchor="juice"))
    replica = start_replica(directory_settings)
    assert replica.runtime.ready
    assert active(replica) == ["remove-beer", "remove-pistol"]
    assert len(replica.read("revisions")["revisions"]) == 1


def test_each_change_publishes_one_revision_and_no_change_none(
    directory_settings: Settings, folder: Path, start_replica: Start
) -> None:
    replica = start_replica(directory_settings)
    assert active(replica) == []
    write(folder, manifest())
    for _ in range(3):
        replica.runtime.reconciler.tick()
    assert active(replica) == ["remove-pistol"]
    (folder / "remove-pistol.json").unlink()
    for _ in range(3):
        replica.runtime.reconciler.tick()
    assert active(replica) == []
    assert [r["number"] for r in replica.read("revisions")["revisions"]] == [3, 2, 1]


@pytest.mark.parametrize(
    "text", ["{not json", json.dumps(manifest(concept="")), json.dumps({"kind": "Other"})]
)
def test_an_invalid_file_leaves_the_old_set_and_is_named(
    directory_settings: Settings, folder: Path, start_replica: Start, text: str
) -> None:
    write(folder, manifest())
    replica = start_replica(directory_settings)
    (folder / "broken.json").write_text(text, encoding="utf-8")
    replica.runtime.reconciler.tick()
    assert active(replica) == ["remove-pistol"]
    status = replica.read("status")["directory"]
    assert "broken.json" in status["last_error"]
    assert str(folder) not in status["last_error"]
    (folder / "broken.json").unlink()
    replica.runtime.reconciler.tick()
    assert replica.read("status")["directory"]["last_error"] is None


def refused() -> float | None:
    return REGISTRY.get_sample_value("quickfix_directory_refused")


def test_the_gauge_is_1_as_long_as_the_directory_is_refused(
    directory_settings: Settings, folder: Path, start_replica: Start
) -> None:
    (folder / "broken.json").write_text("{not json", encoding="utf-8")
    replica = start_replica(directory_settings)
    assert refused() == 1  # a pod that starts with it, too
    for _ in range(2):
        replica.runtime.reconciler.tick()
        assert refused() == 1
    (folder / "broken.json").unlink()
    replica.runtime.reconciler.tick()
    assert refused() == 0


def test_a_directory_that_comes_back_unchanged_is_no_longer_refused(
    directory_settings: Settings, folder: Path, start_replica: Start
) -> None:
    write(folder, manifest())
    replica = start_replica(directory_settings)
    folder.rename(folder.with_name("away"))
    replica.runtime.reconciler.tick()
    assert refused() == 1
    assert "cannot be read" in replica.read("status")["directory"]["last_error"]
    folder.with_name("away").rename(folder)
    replica.runtime.reconciler.tick()
    assert refused() == 0
    assert replica.read("status")["directory"]["last_error"] is None
    assert replica.read("status")["directory"]["edits"] == ["remove-pistol"]
    assert len(replica.read("revisions")["revisions"]) == 1


def test_a_tick_that_has_read_older_files_ends_before_the_next_begins(
    directory_settings: Settings,
    folder: Path,
    start_replica: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reconciler's own poll may fall between a change of the files and a tick."""
    write(folder, manifest())
    replica = start_replica(directory_settings)
    directory, reconciler = replica.runtime.directory, replica.runtime.reconciler
    assert directory is not None
    has_read, may_go_on = threading.Event(), threading.Event()
    publish = directory._publish_manifests

    def slow() -> tuple[str, ...]:
        try:
            return publish()
        finally:
            has_read.set()
            may_go_on.wait(20)

    monkeypatch.setattr(directory, "_publish_manifests", slow)
    (folder / "broken.json").write_text("{not json", encoding="utf-8")
    older = threading.Thread(target=reconciler.tick)
    older.start()
    assert has_read.wait(20)
    (folder / "broken.json").unlink()
    newer = threading.Thread(target=reconciler.tick)
    newer.start()
    newer.join(0.5)
    may_go_on.set()
    older.join()
    newer.join()
    assert replica.read("status")["directory"]["last_error"] is None


def test_an_edit_that_the_model_cannot_carry_is_never_published(
    directory_settings: Settings, folder: Path, start_replica: Start
) -> None:
    replica = start_replica(directory_settings)
    write(folder, manifest(method={"sites": "text_encoder:no.such.layer"}))
    replica.runtime.reconciler.tick()
    assert len(replica.read("revisions")["revisions"]) == 1
    assert replica.read("status")["directory"]["last_error"].startswith("site_unknown")
    assert replica.runtime.ready


def test_changed_content_needs_a_new_version(
    directory_settings: Settings, folder: Path, start_replica: Start
) -> None:
    write(folder, manifest())
    replica = start_replica(directory_settings)
    write(folder, manifest(anchor="robot"))
    replica.runtime.reconciler.tick()
    assert replica.read("edits")["edits"][0]["spec"]["anchor"] == "toy"
    assert replica.read("status")["directory"]["last_error"].startswith("edit_conflict")
    write(folder, manifest(anchor="robot", version=2))
    replica.runtime.reconciler.tick()
    assert replica.read("edits")["edits"][0]["spec"]["anchor"] == "robot"


def test_a_replica_that_still_sees_old_files_does_not_publish_them_over_the_new_ones(
    directory_settings: Settings, tmp_path: Path, start_replica: Start
) -> None:
    """A ConfigMap reaches the nodes one after the other."""
    late = tmp_path / "late"
    late.mkdir()
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    first = start_replica(directory_settings.model_copy(update={"store": url}))
    second = start_replica(
        directory_settings.model_copy(
            update={
                "store": url,
                "edits_dir": late,
                "state_dir": tmp_path / "state-two",
                "replica": "two",
            }
        )
    )
    write(tmp_path / "edits", manifest())
    first.runtime.reconciler.tick()
    second.runtime.reconciler.tick()
    assert active(first) == active(second) == ["remove-pistol"]
    write(late, manifest())
    second.runtime.reconciler.tick()
    assert len(first.read("revisions")["revisions"]) == 2


def test_a_config_map_swap_is_seen(
    settings: Settings, tmp_path: Path, start_replica: Start
) -> None:
    mount = tmp_path / "mount"
    for version, bodies in (("..v1", [manifest()]), ("..v2", [])):
        (mount / version).mkdir(parents=True)
        write(mount / version, *bodies)
    (mount / "..data").symlink_to("..v1")
    (mount / "remove-pistol.json").symlink_to("..data/remove-pistol.json")
    replica = start_replica(
        settings.model_copy(update={"edits_dir": mount, "poll_seconds": 3600.0})
    )
    assert active(replica) == ["remove-pistol"]
    (mount / "..data_tmp").symlink_to("..v2")
    (mount / "..data_tmp").rename(mount / "..data")
    replica.runtime.reconciler.tick()
    assert active(replica) == []


def test_a_missing_directory_and_no_head_is_not_ready(
    settings: Settings, tmp_path: Path, start_replica: Start
) -> None:
    replica = start_replica(
        settings.model_copy(update={"edits_dir": tmp_path / "gone", "poll_seconds": 3600.0})
    )
    assert not replica.runtime.ready
    answer = replica.draw()
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "not_ready")


def test_admin_writes_are_refused_with_the_reason(
    directory_settings: Settings, start_replica: Start
) -> None:
    replica = start_replica(directory_settings)
    put = replica.client.put(
        "/admin/policies", json={"name": "strict", "edits": []}, headers=replica.operator
    )
    deleted = replica.client.delete("/admin/policies?name=strict", headers=replica.operator)
    written = (replica.publish(manifest()), replica.remove("x"), replica.roll_back(1))
    promoted = replica.client.post("/admin/rollout/promote", json={}, headers=replica.operator)
    for answer in (*written, put, deleted, promoted):
        assert answer.status_code == 409
        assert answer.json()["error"]["type"] == "directory_owns_edits"
        assert "QUICKFIX_EDITS_DIR" in answer.json()["error"]["message"]
    assert replica.publish(manifest(), dry_run=True).status_code == 200


def write_policies(folder: Path, **policies: list[str]) -> None:
    body = {"apiVersion": "quickfix/v1", "kind": "Policies", "policies": policies}
    (folder / "policies.json").write_text(json.dumps(body), encoding="utf-8")


def test_policies_of_the_directory_come_change_and_go_with_their_file(
    directory_settings: Settings, folder: Path, start_replica: Start
) -> None:
    write(folder, manifest(), manifest("remove-beer", concept="beer", anchor="juice"))
    write_policies(folder, beer=["remove-beer"])
    replica = start_replica(directory_settings)
    everything = ["remove-beer", "remove-pistol"]
    assert replica.read("policies")["policies"] == {"beer": ["remove-beer"], "default": everything}
    assert replica.draw(policy="beer").status_code == 200
    write_policies(folder, beer=["remove-beer"], default=["remove-pistol"])
    replica.runtime.reconciler.tick()
    assert replica.read("policies")["policies"]["default"] == ["remove-pistol"]
    (folder / "policies.json").unlink()
    replica.runtime.reconciler.tick()
    assert replica.read("policies")["policies"] == {"default": everything}
    assert [r["number"] for r in replica.read("revisions")["revisions"]] == [3, 2, 1]


def test_a_mandatory_edit_is_admitted_beside_the_policies_of_the_directory(
    directory_settings: Settings,
    folder: Path,
    start_replica: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(folder, manifest(), manifest("remove-beer", concept="beer", anchor="juice"))
    replica = start_replica(directory_settings)
    beside = []
    admit = Gatekeeper.admit

    def watched(gatekeeper: Gatekeeper, content: RevisionContent, edit: ConceptEdit) -> Admission:
        beside.append((edit.name, dict(content.policies)))
        return admit(gatekeeper, content, edit)

    monkeypatch.setattr(Gatekeeper, "admit", watched)
    write(folder, manifest("remove-knife", concept="knife", mandatory=True))
    write_policies(folder, beer=["remove-beer", "remove-knife"], default=["remove-knife"])
    replica.runtime.reconciler.tick()
    both = ("remove-beer", "remove-pistol")
    assert beside == [("remove-knife", {"beer": ("remove-beer",), "default": both})]
    held = {"beer": ["remove-beer", "remove-knife"], "default": ["remove-knife"]}
    assert replica.read("policies")["policies"] == held


def test_a_policy_that_the_set_does_not_carry_leaves_the_old_set(
    directory_settings: Settings, folder: Path, start_replica: Start
) -> None:
    write(folder, manifest(mandatory=True))
    replica = start_replica(directory_settings)
    for policies, words in (({"a": ["gone"]}, "lacks: gone"), ({"a": []}, "leaves out mandatory")):
        write_policies(folder, **policies)
        replica.runtime.reconciler.tick()
        error = replica.read("status")["directory"]["last_error"]
        assert error.startswith("manifest_invalid") and words in error
    assert replica.read("policies")["policies"] == {"default": ["remove-pistol"]}


def test_names_and_kinds_of_files_that_are_no_manifest_neither_end_nor_block_a_tick(
    directory_settings: Settings, folder: Path, start_replica: Start
) -> None:
    """Pipes, devices and folders are left out; a name that is no text is like any other."""
    replica = start_replica(directory_settings)
    write(folder, manifest())
    os.mkfifo(folder / "pipe.yaml")
    (folder / "zero.json").symlink_to("/dev/zero")
    (folder / "folder.yaml").mkdir()
    (folder / "remove-pistol.json").rename(folder / os.fsdecode(b"\xff.json"))
    replica.runtime.reconciler.tick()
    assert replica.read("status")["directory"]["last_error"] is None
    assert active(replica) == ["remove-pistol"]
    (folder / os.fsdecode(b"\xfe.yaml")).write_bytes(b"x" * 2_000_000)
    replica.runtime.reconciler.tick()
    assert replica.read("status")["directory"]["last_error"].startswith(
        "manifest_invalid: \\xfe.yaml: the manifest has"
    )
    assert active(replica) == ["remove-pistol"]
    assert replica.runtime.alive


def test_the_head_is_followed_and_heartbeats_are_sent_while_the_gate_works(
    directory_settings: Settings,
    folder: Path,
    start_replica: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An urgent head must not wait for a manifest whose pictures are being drawn."""
    replica = start_replica(directory_settings)
    runtime = replica.runtime
    assert runtime.directory is not None
    gatekeeper = runtime.directory._gatekeeper
    admit, works, may_go_on = gatekeeper.admit, threading.Event(), threading.Event()

    def slow(content: RevisionContent, edit: ConceptEdit) -> Admission:
        works.set()
        may_go_on.wait(60)
        return admit(content, edit)

    monkeypatch.setattr(gatekeeper, "admit", slow)
    write(folder, manifest())
    ticking = threading.Thread(target=runtime.reconciler.tick)
    ticking.start()
    assert works.wait(20)
    takedown = runtime.store.publish_and_activate(
        RevisionContent(policies={"other": ()}), author="ops", reason="now", urgent=True
    )
    assert runtime.activator.wait_for(takedown.number, 20) is not None
    deadline = time.monotonic() + 20
    while runtime.store.replicas()[0].active_revision != takedown.number:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    may_go_on.set()
    ticking.join()
    runtime.reconciler.tick()  # the head has moved meanwhile: the set is made anew on it
    assert active(replica) == ["remove-pistol"]


def test_what_the_directory_publishes_is_in_the_audit_log(
    directory_settings: Settings, folder: Path, start_replica: Start
) -> None:
    replica = start_replica(directory_settings)
    write(folder, manifest())
    replica.runtime.reconciler.tick()
    event = next(e for e in replica.read("audit")["events"] if e["role"] == "directory")
    assert (event["action"], event["target"], event["outcome"]) == ("publish", "revision 2", "ok")
    assert event["actor"] == directory_settings.replica
