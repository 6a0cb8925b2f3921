"""Monitors, policies, rules and dashboard of the chart, and whether they belong together."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tests.deploy.rendering import CHART, ROOT, Document, containers, documents, named, of_kind, pod_templates

JOBS = {"coordinator": "kernfarm-coordinator", "worker": "kernfarm-worker"}
_MATCHER = re.compile(r'\bjob\s*(=~|!~|!=|=)\s*"([^"]*)"')


def _queries(value: Any) -> list[str]:
    """Each expression that Prometheus is asked, of rules or of a dashboard: panels, variables and annotations."""
    if isinstance(value, dict):
        own = [each for name, each in value.items() if name in ("expr", "query", "definition") and isinstance(each, str)]
        return own + [found for each in value.values() for found in _queries(each)]
    return [found for each in value for found in _queries(each)] if isinstance(value, list) else []


def _endpoints(found: list[Document]) -> dict[str, Document]:
    """The one endpoint that Prometheus scrapes of each program."""
    (coordinator,) = named(found, "ServiceMonitor", "-coordinator")["spec"]["endpoints"]
    (worker,) = named(found, "PodMonitor", "-workers")["spec"]["podMetricsEndpoints"]
    return {"coordinator": coordinator, "worker": worker}


def test_rules_and_dashboard_ask_for_the_jobs_that_the_monitors_name() -> None:
    """An alert on a job that nobody has never fires, and nobody sees that it does not."""
    found = documents("full")
    named_by_monitors = {
        program: [each["replacement"] for each in endpoint["relabelings"] if each["targetLabel"] == "job"]
        for program, endpoint in _endpoints(found).items()
    }
    assert named_by_monitors == {program: [job] for program, job in JOBS.items()}
    boards = [json.loads(text) for each in of_kind(found, "ConfigMap") for name, text in each["data"].items() if name.endswith(".json")]
    queries = {"rules": _queries(of_kind(found, "PrometheusRule")), "dashboard": _queries(boards)}
    assert all(len(each) > 10 for each in queries.values())
    matchers = {matcher for each in queries.values() for query in each for matcher in _MATCHER.findall(query)}
    assert {operator for operator, _ in matchers} <= {"="}
    assert {job for _, job in matchers} == set(JOBS.values())


def test_the_programs_call_themselves_the_same() -> None:
    """Target files for a Prometheus without the operator name the jobs too."""
    sources = [ROOT / "coordinator/__main__.py", ROOT / "worker/exporter.py"]
    assert {job for source in sources for job in re.findall(r'\bjob="([^"]+)"', source.read_text())} == set(JOBS.values())


def test_monitors_find_the_ports_and_prometheus_may_reach_them() -> None:
    found = documents("full")
    endpoints, pods = _endpoints(found), pod_templates(found)
    clients = yaml.safe_load((CHART / "values.yaml").read_text())["networkPolicy"]["monitoring"]

    service = named(found, "Service", "-coordinator")
    monitor = named(found, "ServiceMonitor", "-coordinator")["spec"]["selector"]["matchLabels"]
    assert monitor.items() <= service["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= pods["coordinator"]["metadata"]["labels"].items()
    (port,) = [each for each in service["spec"]["ports"] if each["name"] == endpoints["coordinator"]["port"]]
    number = _port(containers(pods["coordinator"])["coordinator"], port["targetPort"])
    settings = yaml.safe_load(named(found, "ConfigMap", "-coordinator")["data"]["coordinator.yaml"])
    assert settings["metrics_listen"] == f"0.0.0.0:{number}"
    assert _open_to(found, "-coordinator", pods["coordinator"], number) == clients

    monitor = named(found, "PodMonitor", "-workers")["spec"]["selector"]["matchLabels"]
    workers = {name: pod for name, pod in pods.items() if name.startswith("worker-")}
    assert {name for name, pod in pods.items() if monitor.items() <= pod["metadata"]["labels"].items()} == set(workers)
    for name, pod in workers.items():
        exporter = containers(pod)["exporter"]
        number = _port(exporter, endpoints["worker"]["port"])
        assert exporter["command"][1:3] == ["-m", "worker.exporter"] and f"0.0.0.0:{number}" in exporter["command"], name
        assert _open_to(found, "-worker", pod, number) == clients, name


def _port(container: Document, name: str) -> int:
    (port,) = [each["containerPort"] for each in container["ports"] if each["name"] == name]
    return int(port)


def _open_to(found: list[Document], ending: str, pod: Document, port: int) -> list[Document]:
    """The peers that a policy lets through to a port of a pod."""
    spec = named(found, "NetworkPolicy", ending)["spec"]
    assert spec["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (rule,) = [each for each in spec["ingress"] if port in [number["port"] for number in each["ports"]]]
    return list(rule["from"])


def test_without_metrics_nothing_is_open_for_them() -> None:
    found = documents("minimal")
    assert not {"ServiceMonitor", "PodMonitor", "PrometheusRule"} & {each["kind"] for each in found}
    assert "ingress" not in named(found, "NetworkPolicy", "-worker")["spec"]
    assert all("exporter" not in containers(pod) for pod in pod_templates(found).values())
    assert [each["name"] for each in named(found, "Service", "-coordinator")["spec"]["ports"]] == ["grpc"]


def test_dashboards_and_rules_of_the_chart_are_installed() -> None:
    found = documents("full")
    names = {path.stem for path in (CHART / "rules").glob("*.yaml")}
    assert {rule["metadata"]["name"] for rule in of_kind(found, "PrometheusRule")} == {f"kernels-{name}" for name in names}
    shipped = {path.name: path.read_text().rstrip("\n") for path in (CHART / "dashboards").glob("*.json")}
    maps = [each["data"] for each in of_kind(found, "ConfigMap") if each["metadata"]["name"].endswith("-dashboards")]
    assert {name: text.rstrip("\n") for data in maps for name, text in data.items()} == shipped
    assert {each["kind"] for each in found} >= {"ServiceMonitor", "PodMonitor"}
