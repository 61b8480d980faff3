"""The rule file: valid, tested, documented, and written from the objectives' one table."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from service import metrics
from tests.prometheus import hastened, promtool, shipped_rules

from . import DASHBOARD, MONITORING, ROOT, RULES

ALERT_TESTS = Path(__file__).parent / "alerts.test.yaml"
ALERTS_PAGE = ROOT / "docs" / "operations" / "alerts.md"
OBJECTIVES_PAGE = ROOT / "docs" / "operations" / "objectives.md"
SHIPPED = shipped_rules(RULES)
ALL = [rule for group in SHIPPED["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in ALL if "alert" in rule}
BURNS = ("QuickFixErrorBudgetBurnsFast", "QuickFixErrorBudgetBurns")
RECORDED = {rule["record"]: rule["expr"] for rule in ALL if "record" in rule}


def write_rules(folder: Path, text: str) -> Path:
    path = folder / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_promtool_accepts_every_rule(tmp_path: Path) -> None:
    said = promtool("check", "rules", str(write_rules(tmp_path, yaml.safe_dump(SHIPPED))))
    assert f"SUCCESS: {len(ALL)} rules found" in said


def test_every_alert_fires_on_its_fault_and_on_nothing_else(tmp_path: Path) -> None:
    write_rules(tmp_path, yaml.safe_dump(SHIPPED))
    promtool("test", "rules", shutil.copy(ALERT_TESTS, tmp_path))


def test_the_unit_tests_notice_every_alert_that_comes_too_late(tmp_path: Path) -> None:
    late = hastened(SHIPPED)
    for group in late["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["for"] = "5d"
    write_rules(tmp_path, yaml.safe_dump(late))
    with pytest.raises(AssertionError) as refused:
        promtool("test", "rules", shutil.copy(ALERT_TESTS, tmp_path))
    assert set(re.findall(r"alertname: ?(\w+)", str(refused.value))) == set(ALERTS)


def test_the_unit_tests_see_each_alert_silent_too() -> None:
    tests = yaml.safe_load(ALERT_TESTS.read_text(encoding="utf-8"))["tests"]
    silent, fired = set(), set()
    for case in tests:
        for each in case.get("alert_rule_test", []):
            (fired if each["exp_alerts"] else silent).add(each["alertname"])
    assert fired == silent == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_severity_a_summary_and_a_section_that_says_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["runbook_url"] == f"docs/operations/alerts.md#{name.lower()}"
    section = re.search(
        rf"^## {name}\n(.*?)(?=^## |\Z)", ALERTS_PAGE.read_text(encoding="utf-8"), re.M | re.S
    )
    assert section, name
    for part in ("Means:", "Look at:", "Do:"):
        assert part in section[1], (name, part)


def test_the_page_has_no_section_of_an_alert_that_is_not_there() -> None:
    told = re.findall(r"^## (QuickFix\w+)$", ALERTS_PAGE.read_text(encoding="utf-8"), re.M)
    assert sorted(told) == sorted(ALERTS)


def test_the_page_tells_how_to_go_back_wherever_sets_may_come_from() -> None:
    """A roll back is 409 beside an edits directory and under trusted keys."""
    text = ALERTS_PAGE.read_text(encoding="utf-8")
    section = re.search(r"^## To go back\n(.*?)(?=^## )", text, re.M | re.S)
    assert section
    for told in ("directory_owns_edits", "signatures_required", "/admin/rollback"):
        assert told in section[1]
    assert "/admin/rollback" not in text.replace(section[1], "")
    for name in ("QuickFixActivationFailed", "QuickFixAbsent"):
        alert = re.search(rf"^## {name}\n(.*?)(?=^## )", text, re.M | re.S)
        assert alert and "(#to-go-back)" in alert[1]


def series_named(expression: str) -> set[str]:
    return set(re.findall(r"\bquickfix[_:][\w:]+", expression))


def exposed() -> set[str]:
    names = set()
    for name in metrics.__all__:
        metric: MetricWrapperBase = getattr(metrics, name)
        (family,) = metric.describe()
        suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count"]}
        names |= {family.name + suffix for suffix in suffixes[family.type]}
    return names


def test_rules_and_dashboard_name_only_series_that_there_are() -> None:
    known = exposed() | set(RECORDED)
    for rule in ALL:
        assert series_named(rule["expr"]) <= known, rule
    text = DASHBOARD.read_text(encoding="utf-8")
    expressions = re.findall(r'"expr": "(.*)"', text)
    assert len(expressions) > 30
    for expression in expressions:
        assert series_named(expression) and series_named(expression) <= known, expression


def objectives() -> dict[str, tuple[float, float | None]]:
    """Of the page's table: share that may miss, and the bound in seconds, by name."""
    text = OBJECTIVES_PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) % \| (?:([\d.]+) s)? *\|", text, re.M)
    return {
        name: (round(1 - float(share) / 100, 6), float(bound) if bound else None)
        for name, share, bound in rows
    }


def test_rules_hold_exactly_the_objectives_of_the_page_and_buckets_hold_their_bounds() -> None:
    told = objectives()
    assert set(told) == {"answered", "fast", "activated"}
    allowed, _ = told["answered"]
    for name in BURNS:
        assert set(re.findall(r"ratio_\w+ > .*?(0\.\d+)", ALERTS[name]["expr"])) == {f"{allowed:g}"}
    slow, seconds = told["fast"]
    assert f"quickfix:slow:ratio_rate5m > {slow:g}" in ALERTS["QuickFixSlow"]["expr"]
    for record in ("quickfix:slow:ratio_rate5m", "quickfix:slow:ratio_rate1h"):
        assert re.findall(r'le="([\d.]+)"', RECORDED[record]) == [str(seconds)]
    assert seconds in metrics.REQUEST_SECONDS._kwargs["buckets"]
    _, seconds = told["activated"]
    record = RECORDED["quickfix:slow_activations:ratio_rate1h"]
    assert re.findall(r'le="([\d.]+)"', record) == [str(seconds)]
    assert seconds in metrics.ACTIVATION_SECONDS._kwargs["buckets"]


def test_the_burn_rates_windows_are_recorded() -> None:
    for name in BURNS:
        assert series_named(ALERTS[name]["expr"]) <= set(RECORDED)


def test_one_failure_alone_is_below_the_bound_of_every_window_with_enough_requests() -> None:
    allowed, _ = objectives()["answered"]
    seconds = {"5m": 300, "30m": 1800, "6h": 21600}
    expressions = " ".join(ALERTS[name]["expr"] for name in BURNS)
    floors = re.findall(r"requests:rate(\w+) > ([\d.]+)", expressions)
    assert [window for window, _ in floors] == ["5m", "30m", "6h"]
    for (window, floor), burn in zip(floors, (14.4, 6, 1), strict=True):
        assert 1 / (float(floor) * seconds[window]) < burn * allowed, window


def test_the_hastened_rules_differ_in_nothing_but_time() -> None:
    def without_time(rules: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {key: text for key, text in rule.items() if key != "for"}
            for group in rules["groups"]
            for rule in group["rules"]
        ]

    assert without_time(hastened(SHIPPED)) == without_time(SHIPPED)


def test_the_dashboard_reaches_grafana_by_its_label() -> None:
    kustomization = yaml.safe_load((MONITORING / "kustomization.yaml").read_text("utf-8"))
    assert RULES.name in kustomization["resources"]
    (generator,) = [
        each for each in kustomization["configMapGenerator"] if each["name"] == "quickfix-dashboard"
    ]
    assert generator["files"] == [str(DASHBOARD.relative_to(MONITORING))]
    assert generator["options"]["labels"]["grafana_dashboard"] == "1"
