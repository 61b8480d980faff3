"""Alerts, dashboard and objectives: true to the metrics, and to faults that are really made."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "k8s" / "components" / "monitoring"
RULES = MONITORING / "prometheusrule.yaml"
DASHBOARD = MONITORING / "dashboards" / "quickfix.json"
