"""A real Prometheus on real services: every query answers, and real faults raise their alerts.

The tests hold in any order: what one leaves behind, the others look up. Only `for` is shortened.
"""

import json
import re
import threading
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import httpx
import pytest

from edits.manifests import RevisionContent, parse_manifest
from edits.store import RevisionStore
from tests.prometheus import Prometheus, shipped_rules
from tests.service.live import LiveService
from tests.service.replica import manifest

from . import DASHBOARD, RULES
from .conftest import Fleet
from .signed_service import SignedService

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ALERTS = [
    rule for group in shipped_rules(RULES)["groups"] for rule in group["rules"] if "alert" in rule
]
HEAVY = {"prompt": "a cat", "n": 10, "steps": 150, "size": "64x64"}


def draw_at_once(service: LiveService, bodies: list[dict[str, Any]]) -> Counter[int]:
    """Send all bodies at the same moment; how many answers had which status."""
    statuses: Counter[int] = Counter()

    def send(body: dict[str, Any]) -> None:
        with httpx.Client(base_url=service.url, timeout=300) as client:
            statuses[client.post("/v1/images/generations", json=body).status_code] += 1

    threads = [threading.Thread(target=send, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def leave_after(service: LiveService, seconds: float) -> None:
    with pytest.raises(httpx.ReadTimeout), service.client() as client:
        client.post("/v1/images/generations", json=HEAVY, timeout=seconds)


@pytest.fixture(scope="module")
def loaded(fleet: Fleet, signed_service: SignedService, watching: Prometheus) -> Prometheus:
    """After answers of every kind, an activation and a signed set."""
    signed_service.publish(1, timedelta(days=30))
    with fleet.first.client(headers=fleet.first.operator) as admin:
        assert admin.post("/admin/edits", json=manifest()).status_code == 201
    for service in (fleet.first, fleet.second, signed_service.live):
        for _ in range(3):
            assert set(draw_at_once(service, [{"prompt": "a cat"}] * 2)) == {200}
        with service.client() as client:
            assert client.post("/generate", json={"prompt": "a " * 500}).status_code == 400
        leave_after(service, 0.5)
    refused = draw_at_once(fleet.first, [{"prompt": "a cat", "steps": 10, "n": 4}] * 24)
    assert set(refused) == {200, 429} and refused[429] >= 4, refused
    time.sleep(6)  # two scrapes and an evaluation after it
    return watching


def test_every_rule_is_healthy_and_every_recorded_one_has_data(loaded: Prometheus) -> None:
    for rule in loaded.rules():
        assert rule["health"] == "ok" and not rule.get("lastError"), rule
        if rule["type"] == "recording":
            assert loaded.query(rule["name"]), rule["name"]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_every_series_that_an_alert_looks_at_is_there(
    alert: dict[str, Any], loaded: Prometheus
) -> None:
    """An empty comparison looks as a misspelt series does: ask for its operands."""
    selectors = re.findall(r"\b(?:quickfix[_:][\w:]+|up)(?:\{[^}]*\})?(?:\[\w+\])?", alert["expr"])
    assert selectors
    for selector in selectors:
        expression = f"count_over_time({selector})" if selector.endswith("]") else selector
        assert loaded.query(expression), selector


def test_every_dashboard_query_has_data(loaded: Prometheus) -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]
    assert len(queries) > 30
    for expression in queries:
        asked = expression.replace("$__rate_interval", "10m").replace("$namespace", ".*")
        assert "$" not in asked
        samples = loaded.query(asked)
        assert samples, expression
        assert any(sample["value"][1] != "NaN" for sample in samples), expression
    for annotation in dashboard["annotations"]["list"]:
        asked = annotation["expr"].replace("$namespace", ".*").replace("[1m]", "[10m]")
        assert loaded.query(asked), annotation["expr"]


def test_figures_are_those_of_the_load(loaded: Prometheus, fleet: Fleet) -> None:
    fleets = '{namespace="fleet", job="quickfix"}'
    assert loaded.value(f"count(quickfix_ready{fleets} == 1)") == 2
    with RevisionStore.open(fleet.store_url) as store:
        head = store.head()
    assert head is not None
    for replica in ("min", "max"):
        assert loaded.value(f"{replica}(quickfix_active_edits{fleets})") == len(head.content.edits)
    assert loaded.value(f"count(count_values('set', quickfix_active_set_number{fleets}))") == 1
    assert loaded.value("quickfix:requests:rate5m" + fleets) > 0  # type: ignore[operator]
    errors = loaded.value("quickfix:errors:ratio_rate5m" + fleets)
    assert errors is not None and 0 < errors < 1
    capacity = loaded.value("sum(quickfix_max_queue" + fleets + ")")
    assert capacity == 8


def test_a_replica_cut_off_from_the_store_raises_stale_and_diverged(
    loaded: Prometheus, fleet: Fleet
) -> None:
    assert not {"QuickFixStoreStale", "QuickFixReplicasDiverged"} & loaded.firing()
    fleet.second_link.cut()
    with fleet.first.client(headers=fleet.first.operator) as admin:
        answer = admin.post("/admin/edits", json=manifest("remove-knife", concept="knife"))
        assert answer.status_code == 201, answer.text
    loaded.wait_until_firing("QuickFixReplicasDiverged", "QuickFixStoreStale")
    fleet.second_link.mend()
    loaded.wait(
        lambda: not {"QuickFixStoreStale", "QuickFixReplicasDiverged"} & loaded.firing(),
        "resolved after the link was mended",
    )


def test_a_head_that_no_replica_can_run_raises_activation_failed_and_behind(
    loaded: Prometheus, fleet: Fleet
) -> None:
    foreign = RevisionContent(edits=(parse_manifest(manifest()),), fingerprint="sha256:" + "0" * 64)
    with RevisionStore.open(fleet.store_url) as store:
        good = store.head_number()
        assert good is not None
        store.publish_and_activate(foreign, author="test", reason="made for another model")
    loaded.wait_until_firing("QuickFixActivationFailed", "QuickFixReplicaBehind")
    assert draw_at_once(fleet.first, [{"prompt": "a cat"}]) == {200: 1}  # on the last good set
    with fleet.first.client(headers=fleet.first.operator) as admin:
        assert admin.post("/admin/rollback", json={"to": good}).status_code == 200
    loaded.wait(
        lambda: not {"QuickFixActivationFailed", "QuickFixReplicaBehind"} & loaded.firing(),
        "resolved after the roll back",
    )


def test_images_that_take_longer_than_the_objective_raise_slow(
    loaded: Prometheus, fleet: Fleet
) -> None:
    before = loaded.value('quickfix:slow:ratio_rate5m{namespace="fleet"}')
    assert before is not None
    if before <= 0.05:  # a machine that is busy enough is too slow without our doing
        assert "QuickFixSlow" not in loaded.firing()
    for service in (fleet.first, fleet.second):
        started = time.monotonic()
        while time.monotonic() - started < 30 and "QuickFixSlow" not in loaded.firing():
            draw_at_once(service, [HEAVY] * 4)
    loaded.wait_until_firing("QuickFixSlow", patience=20)


def test_signatures_that_run_out_raise_expiring_and_then_expired(
    loaded: Prometheus, signed_service: SignedService
) -> None:
    assert not {"QuickFixSetExpiring", "QuickFixSetExpired"} & loaded.firing()
    signed_service.publish(2, timedelta(seconds=20))
    loaded.wait_until_firing("QuickFixSetExpiring", patience=15)
    loaded.wait_until_firing("QuickFixSetExpired", patience=60)
    with signed_service.live.client() as client:  # it runs on: to drop it would bring back
        assert client.get("/readyz").status_code == 200
