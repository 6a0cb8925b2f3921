"""A real Prometheus that scrapes a real farm while it builds: every query of the dashboard has an answer, and the numbers are right."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kernel.errors import Code, FarmError
from kernfarm.cli.embedded import EmbeddedFarm
from kernfarm.client import FarmClient
from kernfarm.request import Draft
from tests import faults
from tests.homes import make_home
from tests.integration.builds import SLOW, compiling, end, submit, until, with_config
from tests.prometheus import DASHBOARD, Prometheus

pytestmark = pytest.mark.ray

FAILING = "CONFIG_FAKE_FAIL_COMPILE=y\n"
# What Grafana would put in the place of its variables.
VARIABLES = {"$__rate_interval": "1m", "$__range": "10m", "$arch": ".*", "$worker": ".*"}


@pytest.fixture(scope="module")
def prometheus(farm: EmbeddedFarm) -> Iterator[Prometheus]:
    home = make_home("kf-prometheus-")
    started = Prometheus(home, farm._plan.state / "metrics")
    try:
        started.until(lambda: started.value("sum(up)") == 3, "coordinator and two exporters are scraped")
        yield started
    finally:
        started.stop()
        shutil.rmtree(home)


async def eventually(prometheus: Prometheus, expression: str, expected: float) -> None:
    await asyncio.to_thread(prometheus.until, lambda: prometheus.value(expression) == expected, f"{expression} is not {expected}")


async def test_what_a_farm_does_is_what_prometheus_knows(prometheus: Prometheus, farm: EmbeddedFarm, draft: Draft, tmp_path: Path) -> None:
    """Builds that succeed, fail and are cancelled, a worker process that dies, a call that is refused: all are counted, once."""
    async with FarmClient(farm.address, farm.credentials) as client:
        first = await end(client, await submit(client, draft))
        again = await end(client, await submit(client, draft, clean=True))
        relinked = await end(client, await submit(client, replace(draft, local_version="-other")))
        failed = await end(client, await submit(client, with_config(draft, tmp_path, FAILING)))
        assert [info["state"] for info in (first, again, relinked, failed)] == ["succeeded"] * 3 + ["failed"]
        slow = await submit(client, replace(with_config(draft, tmp_path, SLOW), local_version="-slow"))
        await until(client, slow, compiling)
        await eventually(prometheus, 'sum(kernfarm_builds{state="running"})', 1)
        faults.kill(farm, "worker process", slow)
        await eventually(prometheus, 'sum(kernfarm_failures_total{fault="infrastructure", code="worker-lost"})', 1)
        await until(client, slow, compiling)
        await client.cancel(slow)
        with pytest.raises(FarmError) as caught:
            await client.get("nothing")
        assert caught.value.problem.code is Code.NOT_FOUND
        await eventually(prometheus, 'sum(kernfarm_builds_finished_total{outcome="cancelled"})', 1)
        done = [await client.get(info["id"]) for info in (first, again, relinked)]
    value = prometheus.value
    assert value('sum(kernfarm_builds_finished_total{outcome="succeeded", arch="x86_64", flavour="plain"})') == 3
    assert value('sum(kernfarm_build_failures_total{fault="kernel", code="kernel-does-not-build"})') == 1
    assert value("sum(kernfarm_build_failures_total)") == 1
    assert value("sum(kernfarm_builds_submitted_total)") == 5
    assert value("sum(kernfarm_builds)") == 0
    assert value('sum(kernfarm_step_attempts_total{outcome="lost"})') == 1
    assert value('sum(kernfarm_step_attempts_total{outcome="aborted"})') >= 1
    assert value("kernfarm_workers") == 2
    assert value("kernfarm_slots") == 2
    packaged = [step for info in done for step in info["steps"] if step["kind"] == "package" and not step["reused"]]
    assert value('sum(kernfarm_step_duration_seconds_count{kind="package"})') == len(packaged)
    assert value("sum(kernfarm_steps_reused_total)") >= 1
    assert value("kernfarm_cache_hits_total") > 0, "the clean build was compiled from the cache"
    assert value("kernfarm_cache_errors_total") == 0
    assert value("sum(kernfarm_step_cpu_seconds_total)") > 0
    assert value('sum(kernfarm_grpc_requests_total{method="GetBuild", code="NOT_FOUND"})') == 1
    assert value("kernfarm_metrics_errors_total") == 0
    assert value("kernfarm_objects_unplanned_total") == 0
    names = {labels["worker"] for labels, _ in prometheus.query("kernfarm_worker_info")}
    assert names == {"worker-1", "worker-2"}


def test_every_query_of_the_dashboard_returns_data(prometheus: Prometheus) -> None:
    board = json.loads(DASHBOARD.read_text())
    queries = [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 40
    empty = []
    for title, expression in queries:
        for variable, text in VARIABLES.items():
            expression = expression.replace(variable, text)
        assert "$" not in expression
        if not any(math.isfinite(value) for _, value in prometheus.query(expression)):
            empty.append((title, expression))
    assert empty == []
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = variable["query"].removeprefix("label_values(").removesuffix(")").split(", ")
            assert prometheus.query(f"count by ({label}) ({metric})"), variable["name"]


def test_every_alert_is_evaluated_and_a_healthy_farm_raises_none_it_should_not(prometheus: Prometheus) -> None:
    groups = prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == 14
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    for rule in rules:
        prometheus.query(rule["query"])
    active = {rule["name"] for rule in rules if rule["state"] != "inactive"}
    # The machine that runs the tests may be short of disk or memory; the rest is about the farm.
    assert active <= {"KernfarmWorkerDiskNearlyFull", "KernfarmWorkerMemoryLow"}


def test_an_exporter_that_dies_is_missed_and_found_again_where_it_listens_then(prometheus: Prometheus, farm: EmbeddedFarm) -> None:
    os.kill(farm.services["exporter-2"].pid, signal.SIGKILL)
    farm.services["exporter-2"].wait(10)
    prometheus.until(lambda: prometheus.value("sum(up)") == 2, "the dead exporter is missed")
    farm.restart("exporter-2")
    prometheus.until(lambda: prometheus.value("sum(up)") == 3 and len(prometheus.query("up")) == 3, "it is found again")


async def test_a_coordinator_that_starts_again_counts_anew(prometheus: Prometheus, farm: EmbeddedFarm) -> None:
    farm.services["coordinator"].terminate()
    faults.restart_coordinator(farm)
    await eventually(prometheus, "kernfarm_workers", 2)
    assert prometheus.value("sum(kernfarm_builds_finished_total)") == 0
