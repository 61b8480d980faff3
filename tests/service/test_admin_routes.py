"""Admin routes on a real replica: what they change, what they refuse, what they leave alone."""

import threading
from typing import Any

import numpy as np
import pytest
import yaml

from edits.manifests import RevisionContent, parse_manifest
from service.snapshot import BuiltContent, SnapshotBuilder

from .pictures import pixels
from .replica import Replica, manifest


def test_a_published_edit_changes_its_concept_and_taking_it_out_restores_the_bits(
    replica: Replica,
) -> None:
    before = pixels(replica.draw())
    published = replica.publish(manifest())
    assert published.status_code == 201
    answer = published.json()
    assert (answer["revision"], answer["name"]) == (2, "remove-pistol")
    assert answer["digest"].startswith("sha256:")
    assert answer["report"]["rows"] > 0
    assert 0 < answer["report"]["edit_ms"] < 5000
    assert 0 < answer["activation_ms"] < 5000
    edited = replica.draw()
    assert edited.headers["X-QuickFix-Revision"] == "2"
    assert edited.headers["X-QuickFix-Digest"] == answer["digest"]
    assert not np.array_equal(before, pixels(edited))
    removed = replica.remove("remove-pistol")
    assert (removed.status_code, removed.json()["revision"]) == (200, 3)
    restored = replica.draw()
    assert restored.headers["X-QuickFix-Revision"] == "3"
    assert np.array_equal(before, pixels(restored))


def test_yaml_and_json_bodies_mean_the_same(replica: Replica) -> None:
    answer = replica.client.post(
        "/admin/edits?dry_run=true",
        content=yaml.safe_dump(manifest()),
        headers={**replica.operator, "Content-Type": "application/yaml"},
    )
    assert answer.status_code == 200
    assert answer.json()["digest"] == replica.publish(manifest()).json()["digest"]


def test_a_dry_run_reports_and_changes_nothing(replica: Replica) -> None:
    answer = replica.publish(manifest(), dry_run=True)
    assert answer.status_code == 200
    assert answer.json()["dry_run"] is True
    assert answer.json()["report"]["rows"] > 0
    assert replica.read("edits")["edits"] == []
    assert len(replica.read("revisions")["revisions"]) == 1


BAD: list[tuple[Any, int, str, str | None]] = [
    ({"metadata": {"owners": "x"}}, 422, "manifest_invalid", "metadata.owners"),
    ({"spec": {"concept": ""}}, 422, "manifest_invalid", "spec.concept"),
    ({"spec": {"concept": "x" * 121}}, 422, "manifest_invalid", "spec.concept"),
    ({"spec": {"anchor": "Pistol"}}, 422, "manifest_invalid", "spec.anchor"),
    ({"spec": {"concept": 5}}, 422, "manifest_invalid", "spec.concept"),
    ({"spec": {"method": {"ridge": -1}}}, 422, "manifest_invalid", "spec.method.ridge"),
    (
        {"spec": {"method": {"sites": "text_encoder:text_model.no.layer"}}},
        422,
        "site_unknown",
        "spec.method.sites",
    ),
    ({"spec": {"method": {"sites": "unet:mid"}}}, 422, "site_unknown", "spec.method.sites"),
    ({"spec": {"base": "sha256:" + "0" * 64}}, 422, "fingerprint_mismatch", "spec.base"),
    ({"spec": {"concept": "cat " * 25 + "cat"}}, 422, "concept_untraceable", "spec.concept"),
]


@pytest.mark.parametrize(("changes", "status", "kind", "param"), BAD)
def test_a_bad_manifest_is_refused_with_its_field_and_changes_nothing(
    replica: Replica, changes: dict[str, Any], status: int, kind: str, param: str | None
) -> None:
    body = manifest()
    for section, fields in changes.items():
        body[section] = {**body[section], **fields}
    for query in ({}, {"dry_run": True}):
        answer = replica.publish(body, **query)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert (error["type"], error["param"]) == (kind, param)
        assert error["message"]
    assert replica.runtime.store.head_number() == 1
    assert replica.runtime.activator.state.last_error is None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"a: &x [*x]", b"spec: .nan"])
def test_a_body_that_is_no_manifest_is_422(replica: Replica, body: bytes) -> None:
    answer = replica.client.post("/admin/edits", content=body, headers=replica.operator)
    assert answer.status_code == 422
    assert answer.json()["error"]["type"] == "manifest_invalid"


def test_the_same_name_and_version_with_other_content_is_a_conflict(replica: Replica) -> None:
    assert replica.publish(manifest()).status_code == 201
    conflict = replica.publish(manifest(anchor="robot"))
    assert conflict.status_code == 409
    assert conflict.json()["error"]["type"] == "edit_conflict"
    assert replica.publish(manifest(anchor="robot", version=2)).status_code == 201
    assert replica.publish(manifest()).status_code == 409
    assert replica.read("edits")["edits"][0]["spec"]["anchor"] == "robot"


def test_publishing_the_same_twice_is_one_revision(replica: Replica) -> None:
    first, again = replica.publish(manifest()), replica.publish(manifest())
    assert first.json()["revision"] == again.json()["revision"] == 2
    assert len(replica.read("revisions")["revisions"]) == 2


def test_a_stale_expected_head_is_a_conflict(replica: Replica) -> None:
    assert replica.publish(manifest(), expected_head=1).status_code == 201
    stale = replica.publish(manifest("remove-beer", concept="beer"), expected_head=1)
    assert stale.status_code == 409
    assert stale.json()["error"]["type"] == "head_moved"
    assert "revision 2" in stale.json()["error"]["message"]


def test_concurrent_publishers_all_end_up_in_the_head(replica: Replica) -> None:
    names = ["pistol", "gun", "knife", "beer", "robot", "cat"]
    statuses: list[int] = []

    def publish(name: str) -> None:
        body = manifest(f"remove-{name}", concept=name)
        statuses.append(replica.publish(body).status_code)

    threads = [threading.Thread(target=publish, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.count(201) == len(names) - statuses.count(409)
    listed = {edit["spec"]["concept"] for edit in replica.read("edits")["edits"]}
    assert len(listed) == statuses.count(201) >= 5


def test_removing_what_is_not_there_is_404(replica: Replica) -> None:
    answer = replica.remove("no-such-edit")
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "edit_not_found"


def test_a_roll_back_is_a_new_revision_with_the_old_content(replica: Replica) -> None:
    replica.publish(manifest())
    under_two = pixels(replica.draw())
    replica.remove("remove-pistol")
    answer = replica.roll_back(2)
    assert (answer.status_code, answer.json()["revision"]) == (200, 4)
    listed = replica.read("revisions")["revisions"]
    assert [revision["number"] for revision in listed] == [4, 3, 2, 1]
    assert listed[0]["digest"] == listed[2]["digest"]
    assert np.array_equal(under_two, pixels(replica.draw()))


def test_a_roll_back_to_nowhere_is_404(replica: Replica) -> None:
    answer = replica.roll_back(99)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "revision_not_found"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"to": "1"}', b'{"to": 0}', b'{"to": 1, "x": 2}'])
def test_a_bad_roll_back_body_is_400(replica: Replica, body: bytes) -> None:
    answer = replica.client.post("/admin/rollback", content=body, headers=replica.operator)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request"


@pytest.mark.parametrize("query", ["wait=-1", "wait=nan", "wait=soon", "expected_head=x"])
def test_bad_query_values_are_400_and_named(replica: Replica, query: str) -> None:
    answer = replica.client.post(f"/admin/edits?{query}", json=manifest(), headers=replica.operator)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == query.partition("=")[0]


@pytest.mark.parametrize("route", ["revisions", "audit"])
def test_a_page_before_a_number_that_no_database_has_is_400(replica: Replica, route: str) -> None:
    def page(before: int) -> int:
        query = {"before": before}
        answer = replica.client.get(f"/admin/{route}", params=query, headers=replica.operator)
        return answer.status_code

    assert page(2**63 - 1) == 200
    assert page(2**63) == 400


@pytest.mark.parametrize("field", ["name", "owner", "reason"])
def test_a_null_character_in_a_manifest_is_422_with_its_field(replica: Replica, field: str) -> None:
    body = manifest()
    body["metadata"][field] = "a\0b"
    answer = replica.publish(body)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == f"metadata.{field}"


def test_a_wait_that_is_too_short_names_who_lags_and_the_revision_is_published(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica.runtime.reconciler, "tick", lambda: None)
    answer = replica.publish(manifest(), wait=0.05)
    assert answer.status_code == 202
    assert answer.json()["revision"] == replica.runtime.store.head_number() == 2
    (laggard,) = answer.json()["fence"]["laggards"]
    assert (laggard["id"], laggard["reason"]) == ("replica-under-test", "runs revision 1")


def test_status_shows_the_head_this_replica_and_all_replicas(replica: Replica) -> None:
    digest = replica.publish(manifest()).json()["digest"]
    status = replica.read("status")
    assert status["head"]["revision"] == status["replica"]["active_revision"] == 2
    assert status["head"]["digest"] == status["replica"]["active_digest"] == digest
    assert status["replica"]["ready"] is True
    (row,) = status["replicas"]
    assert (row["id"], row["lag"], row["live"]) == ("replica-under-test", 0, True)
    assert row["last_error"] is None


def test_status_answers_while_the_store_is_away(replica: Replica) -> None:
    replica.runtime.reconciler.stop()  # its polls would open the file again
    replica.runtime.store.close()
    (replica.runtime.settings.state_dir / "quickfix.db").write_bytes(b"x" * 8192)
    status = replica.read("status")
    assert status["store_error"] == "the revision store cannot be reached"
    assert status["replica"]["active_revision"] == 1


def test_a_lost_race_is_tried_again_on_the_head_that_won(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = replica.runtime
    build = runtime.builder.build
    rival = parse_manifest(manifest("remove-beer", concept="beer"))

    def publish_between(_self: SnapshotBuilder, content: RevisionContent) -> BuiltContent:
        """Another publisher moves the head after it was read here."""
        if runtime.store.head_number() == 1:
            runtime.store.publish_and_activate(
                RevisionContent(edits=(rival,), fingerprint=runtime.builder.fingerprint),
                author="rival",
                reason="first",
            )
        return build(content)

    monkeypatch.setattr(SnapshotBuilder, "build", publish_between)
    answer = replica.publish(manifest())
    assert (answer.status_code, answer.json()["revision"]) == (201, 3)
    names = [edit["metadata"]["name"] for edit in replica.read("edits")["edits"]]
    assert names == ["remove-beer", "remove-pistol"]


def test_the_audit_log_tells_who_did_what_and_how_it_ended(replica: Replica) -> None:
    replica.publish(manifest())
    replica.publish(manifest(anchor="robot"))
    replica.client.get("/admin/status")
    events = replica.read("audit")["events"]
    told = [(e["actor"], e["action"], e["target"], e["outcome"]) for e in reversed(events)]
    assert told == [
        ("generated", "publish_edit", "remove-pistol@1", "ok"),
        ("generated", "publish_edit", "remove-pistol@1", "edit_conflict"),
        ("", "read_status", "", "unauthenticated"),
    ]
    assert replica.runtime.store.verify_audit().broken is None


def test_edits_list_shows_manifests_and_policies(replica: Replica) -> None:
    replica.publish(manifest(aliases=["gun"]))
    listed = replica.read("edits")
    assert listed["edits"][0]["spec"]["aliases"] == ["gun"]
    assert listed["edits"][0]["apiVersion"] == "quickfix/v1"
    assert listed["policies"] == {"default": ["remove-pistol"]}


def test_an_edit_that_does_not_pass_the_gate_is_422_with_figures_and_changes_nothing(
    replica: Replica,
) -> None:
    before = pixels(replica.draw())
    weak = manifest()
    weak["spec"] |= {"method": {"ridge": 1e9}, "accept": {"max_target_rate": 0.05}}
    for dry_run in (True, False):
        answer = replica.publish(weak, dry_run=dry_run)
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (422, "gate_refused")
        assert error["param"] == "spec.accept.max_target_rate"
        assert "captions read as the concept" in error["message"]
    assert replica.read("edits")["edits"] == []
    assert len(replica.read("revisions")["revisions"]) == 1
    assert np.array_equal(before, pixels(replica.draw()))


def test_pictures_are_refused_where_the_model_ships_no_judge(replica: Replica) -> None:
    asked = manifest()
    asked["spec"]["accept"] = {"images": 8}
    error = replica.publish(asked).json()["error"]
    assert (error["type"], error["param"]) == ("gate_refused", "spec.accept.images")
    assert "no judge" in error["message"]


def test_the_report_says_what_was_chosen_and_what_the_gate_found(replica: Replica) -> None:
    report = replica.publish(manifest()).json()["report"]
    assert report["chosen"].keys() == {"tokens", "ridge", "preserve_weight", "pad_weight"}
    assert report["gate"]["embeddings"]["target"]["n"] > 0
    assert report["empty_prompt_drift"] == 0.0
    assert replica.publish(manifest()).json()["report"]["gate"] is None, "it is published already"


def test_the_active_edits_are_listed_with_what_was_chosen_for_them(replica: Replica) -> None:
    given = manifest("remove-beer", concept="beer", anchor="juice")
    given["spec"]["method"] = {"tokens": "last", "ridge": 1.0, "preserve_weight": 0.1}
    given["spec"]["method"] |= {"pad_weight": 1.0}
    assert replica.publish(given).status_code == 201
    chosen = replica.publish(manifest()).json()["report"]["chosen"]
    listed = replica.read("edits")
    assert listed["choices"] == {"remove-pistol": chosen}
    assert {edit["metadata"]["name"] for edit in listed["edits"]} == {
        "remove-beer",
        "remove-pistol",
    }


def test_the_report_names_what_is_not_preserved(replica: Replica) -> None:
    edit = manifest(preserve=["toy pistol", "knife"])
    report = replica.publish(edit).json()["report"]
    assert report["not_preserved"] == report["gate"]["not_preserved"] == ["toy pistol"]


def test_a_cross_attention_edit_is_activated_and_taken_back_like_any_other(
    replica: Replica,
) -> None:
    before = pixels(replica.draw())
    edit = manifest()
    edit["spec"]["method"] = {"sites": "uce"}
    published = replica.publish(edit)
    assert published.status_code == 201
    sites = {site["site"] for site in published.json()["report"]["sites"]}
    assert all(site.startswith("unet:") and "attn2.to_" in site for site in sites)
    assert not np.array_equal(before, pixels(replica.draw()))
    replica.remove("remove-pistol")
    assert np.array_equal(before, pixels(replica.draw()))


def test_an_edit_that_no_caption_can_examine_is_refused_with_what_to_do(replica):
    """So long for this encoder that none of the gate's captions fits."""
    long = manifest("long", concept="http_error", anchor="WWW-Authenticate")
    answer = replica.publish(long)
    assert answer.status_code == 422, answer.text
    assert "shorten" in answer.json()["error"]["message"]
    assert replica.runtime.store.head_number() == 1
