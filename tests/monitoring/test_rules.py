"""Alert rules and dashboard without a farm: promtool's own checks, and that each alert has a test."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from coordinator.census import Census
from coordinator.metrics.gauges import Gauges
from coordinator.metrics.observed import Metrics
from kernfarm import exposition, process
from kernfarm.settings import WorkerSettings
from tests.prometheus import DASHBOARD, ROOT, RULES, promtool
from worker.exporter import Machine

UNIT_TESTS = ROOT / "tests/monitoring/rules.yaml"


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def exposed() -> str:
    """What coordinator and exporter serve."""
    coordinator, worker = exposition.registry_of("coordinator"), exposition.registry_of("worker")
    Metrics(coordinator)
    coordinator.register(Gauges(Census, lambda: 0.0))
    worker.register(Machine(WorkerSettings()))
    return (generate_latest(coordinator) + generate_latest(worker)).decode()


def test_the_rules_are_sound_and_do_what_they_should() -> None:
    checked = promtool("check", "rules", "--lint-fatal", str(RULES))
    assert checked.code == 0, checked.output.decode()
    tested = promtool("test", "rules", str(UNIT_TESTS))
    assert tested.code == 0, tested.output.decode()


def test_each_alert_is_tested_when_it_must_fire_and_when_it_must_not() -> None:
    cases = [case for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    for fires in (True, False):
        tested = {case["alertname"] for case in cases if bool(case["exp_alerts"]) is fires}
        assert tested == {alert["alert"] for alert in alerts()}


def test_each_alert_says_what_it_means_and_the_page_what_to_do() -> None:
    page = (ROOT / "docs/howto/monitor.md").read_text()
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning"), alert
        assert alert["annotations"]["summary"] and alert["annotations"]["description"], alert
        assert f"`{alert['alert']}`" in page, alert["alert"]


@pytest.mark.parametrize("program", ["coordinator", "worker"])
def test_names_and_units_follow_the_conventions(program: str) -> None:
    registry = exposition.registry_of(program)
    if program == "coordinator":
        Metrics(registry)
        registry.register(Gauges(Census, lambda: 0.0))
    else:
        registry.register(Machine(WorkerSettings()))
    checked = promtool("check", "metrics", input=generate_latest(registry))
    assert (checked.code, checked.output) == (0, b"")


def test_rules_and_dashboard_use_only_metrics_that_are_served() -> None:
    served = {line.partition(" ")[0].partition("{")[0] for line in exposed().splitlines() if not line.startswith("#")}
    board = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    used = {name for text in [*queries, *(alert["expr"] for alert in alerts())] for name in re.findall(r"\b(?:kernfarm|process)_\w+", text)}
    assert used <= served
    # Each of our own is on the dashboard or in an alert, but for what only details what others say.
    unused = {name for name in served if name.startswith("kernfarm_") and not name.endswith(("_sum", "_count"))} - used
    assert unused == {
        "kernfarm_builds_submitted_total",
        "kernfarm_builds_retried_total",
        "kernfarm_builds_damaged_total",
        "kernfarm_worker_leftovers",
        "kernfarm_worker_slots",
        "kernfarm_worker_trees",
    }


def test_panels_can_be_told_apart_and_none_lies_on_another() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (column, row)
        for panel in panels
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for row in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(column for column, _ in cells) < 24


@pytest.mark.parametrize("tool", ["dashboard", "reference"])
def test_what_is_generated_is_up_to_date(tool: str) -> None:
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = process.run((sys.executable, "-m", f"tools.{tool}", "--check"), env=env, timeout_seconds=60)
    assert done.code == 0, done.output.decode()
