"""docs/reference/metrics.md, from what the programs serve."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from coordinator.census import Census
from coordinator.metrics.gauges import Gauges
from coordinator.metrics.labels import Label
from coordinator.metrics.observed import Metrics
from kernfarm import exposition
from kernfarm.settings import WorkerSettings
from tools.reference import markdown
from worker.exporter import MODES, Machine

_INTRO = """How to scrape them, the dashboard and the alerts: [monitoring](../howto/monitor.md).

All series of a program are there from its start, at 0, but for calls that gRPC itself refuses. Labels have no other values than those
listed below; what fits none of them counts as `other` (flavours of a user's own as `custom`), so no request can make series without end.
Counters start at 0 again when a program does; gauges tell what is.
"""


def page() -> str:
    """The page, the same each time."""
    coordinator = exposition.registry_of("coordinator")
    metrics = Metrics(coordinator)
    coordinator.register(Gauges(Census, lambda: 0.0))
    worker = exposition.registry_of("worker")
    worker.register(Machine(WorkerSettings()))
    known = {**metrics.families.labels, **Gauges.labels}
    modes: dict[str, tuple[Label, ...]] = {"kernfarm_worker_cpu_seconds": (Label("mode", MODES),)}
    parts = [_INTRO, "## Coordinator\n", _table(coordinator, known), "## Worker (`python -m worker.exporter`)\n", _table(worker, modes)]
    parts += ["## Labels\n", _values({**known, **modes})]
    return markdown.page("Metrics", "tools/reference/metrics.py", *parts)


def _table(registry: CollectorRegistry, labels: Mapping[str, tuple[Label, ...]]) -> str:
    """One row for each metric. `labels`: those whose values are known, by metric."""
    rows = []
    for metric in sorted(registry.collect(), key=lambda each: each.name):
        suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
        kind = "gauge" if metric.type == "info" else metric.type
        rows.append((f"`{metric.name}{suffix}`", kind, _labels(metric, labels.get(metric.name)), metric.documentation))
    return markdown.table(("metric", "type", "labels", "help"), rows)


def _labels(metric: Metric, known: tuple[Label, ...] | None) -> str:
    names = [label.name for label in known] if known is not None else sorted({name for sample in metric.samples for name in sample.labels})
    return ", ".join(f"`{name}`" for name in names)


def _values(labels: Mapping[str, tuple[Label, ...]]) -> str:
    """One row for each label and set of values, with the metrics that have it where a name means several."""
    users: dict[Label, list[str]] = {}
    for metric, its in sorted(labels.items()):
        for label in its:
            users.setdefault(label, []).append(metric)
    names = [label.name for label in users]
    rows = []
    for label, metrics in sorted(users.items(), key=lambda item: (item[0].name, item[1])):
        of = f" of {', '.join(f'`{metric}`' for metric in metrics)}" if names.count(label.name) > 1 else ""
        rows.append((f"`{label.name}`{of}", ", ".join(label.values)))
    return markdown.table(("label", "values"), rows)
