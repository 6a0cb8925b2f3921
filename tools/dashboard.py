"""Generate the Grafana dashboard "farm overview" into the chart. `--check` compares with what is there and fails when it differs."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import GraphDrawStyle, LegendDisplayMode, LegendPlacement, StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableOption, VariableRefresh, VariableSort

HOME = Path(__file__).resolve().parent.parent / "helm/kernfarm/dashboards/farm-overview.json"
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
# Builds are rare compared to scrapes: quantiles over the usual few minutes would have gaps.
_RARE = "1h"
_NAME = 'on (instance) group_left (worker) kernfarm_worker_info{worker=~"$worker"}'
_CACHE = ("kernfarm_cache_hits_total", "kernfarm_cache_misses_total")


@dataclass(frozen=True, slots=True)
class Graph:
    """One panel. `queries` are (expression, legend); `unit` is one of Grafana's; `bars` for what happens now and then, stacked."""

    title: str
    text: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    bars: bool = False


def _ended(metric: str, by: str, where: str = "") -> str:
    return f"sum by ({by}) (increase({metric}{where}[$__rate_interval]))"


def _rate(metric: str, by: str = "") -> str:
    return f"sum by ({by}) (rate({metric}[$__rate_interval]))"


def _quantile(share: float, metric: str, by: str = "", where: str = "") -> str:
    labels = ", ".join(each for each in ("le", by) if each)
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{where}[{_RARE}])))"


def _share_of_hits() -> str:
    hits, misses = (f"sum(increase({metric}[$__range]))" for metric in _CACHE)
    return f"{hits} / ({hits} + {misses})"


NOW: tuple[tuple[str, str, str], ...] = (
    ("Builds running", "none", 'sum(kernfarm_builds{state="running", arch=~"$arch"})'),
    ("Builds queued", "none", 'sum(kernfarm_builds{state="queued", arch=~"$arch"})'),
    ("Steps waiting", "none", 'sum(kernfarm_queue_steps{arch=~"$arch"})'),
    ("Longest wait", "s", 'max(kernfarm_queue_oldest_seconds{arch=~"$arch"})'),
    ("Workers", "none", "sum(kernfarm_workers)"),
    ("Slots busy", "percentunit", "sum(kernfarm_slots_busy) / sum(kernfarm_slots)"),
    ("Cache hits", "percentunit", _share_of_hits()),
    ("Time saved by the cache", "s", "sum(increase(kernfarm_cache_saved_seconds_total[$__range]))"),
)
ARCH = '{arch=~"$arch"}'
GOOD = '{outcome="succeeded", arch=~"$arch"}'
ROWS: tuple[tuple[str, tuple[Graph, ...]], ...] = (
    (
        "Builds",
        (
            Graph(
                "Builds that ended",
                "By outcome.",
                "none",
                ((_ended("kernfarm_builds_finished_total", "outcome", ARCH), "{{outcome}}"),),
                True,
            ),
            Graph(
                "Duration of builds",
                "From submit to image, of those that succeeded, over the last hour.",
                "s",
                (
                    (_quantile(0.5, "kernfarm_build_duration_seconds", where=GOOD), "median"),
                    (_quantile(0.9, "kernfarm_build_duration_seconds", where=GOOD), "90 %"),
                ),
            ),
            Graph(
                "Builds that failed",
                "By whose fault it was: the user's, the kernel's, the farm's, or a bug.",
                "none",
                ((_ended("kernfarm_build_failures_total", "fault"), "{{fault}}"),),
                True,
            ),
            Graph(
                "Why attempts failed",
                "Also those that were tried again with success.",
                "none",
                (("sum by (fault, code) (increase(kernfarm_failures_total[$__rate_interval])) > 0", "{{fault}}: {{code}}"),),
                True,
            ),
        ),
    ),
    (
        "Queue and slots",
        (
            Graph(
                "Steps waiting",
                "Ready, and no worker has taken them.",
                "none",
                ((f"sum by (arch) (kernfarm_queue_steps{ARCH})", "{{arch}}"),),
            ),
            Graph("Longest wait", "Of a step that is ready.", "s", ((f"max by (arch) (kernfarm_queue_oldest_seconds{ARCH})", "{{arch}}"),)),
            Graph(
                "Slots",
                "Attempts that can run, and that do.",
                "none",
                (("sum(kernfarm_slots)", "slots"), ("sum(kernfarm_slots_busy)", "busy")),
            ),
            Graph(
                "Workers",
                "Able to build, and to boot, an architecture.",
                "none",
                ((f"sum by (ability, arch) (kernfarm_workers_able{ARCH})", "{{ability}} {{arch}}"),),
            ),
            Graph(
                "Workers that came and went",
                "A worker that is silent goes, and comes back when it answers.",
                "none",
                (
                    ("sum(increase(kernfarm_workers_joined_total[$__rate_interval]))", "came"),
                    ("sum(increase(kernfarm_workers_lost_total[$__rate_interval]))", "went"),
                ),
                True,
            ),
        ),
    ),
    (
        "Steps",
        (
            Graph("Attempts running", "", "none", (("sum by (kind) (kernfarm_attempts_running)", "{{kind}}"),)),
            Graph(
                "Attempts that ended",
                "Lost: with its worker. Aborted: nobody wanted it any more.",
                "none",
                ((_ended("kernfarm_step_attempts_total", "outcome"), "{{outcome}}"),),
                True,
            ),
            Graph(
                "Duration of steps",
                "90 % of those that succeeded were faster, over the last hour.",
                "s",
                ((_quantile(0.9, "kernfarm_step_duration_seconds", "kind"), "{{kind}}"),),
            ),
            Graph(
                "Processors used",
                "CPU time of attempts, counted when they end.",
                "none",
                ((_rate("kernfarm_step_cpu_seconds_total", "kind"), "{{kind}}"),),
            ),
            Graph("Objects compiled", "", "cps", ((_rate("kernfarm_objects_compiled_total", "kind"), "{{kind}}"),)),
            Graph(
                "Steps reused",
                "Answered with what another build had made.",
                "none",
                ((_ended("kernfarm_steps_reused_total", "kind"), "{{kind}}"),),
                True,
            ),
        ),
    ),
    (
        "Cache and bytes",
        (
            Graph(
                "Compiler cache",
                "",
                "cps",
                (
                    (_rate("kernfarm_cache_hits_total"), "hits"),
                    (_rate("kernfarm_cache_misses_total"), "misses"),
                    (_rate("kernfarm_cache_errors_total"), "errors"),
                ),
            ),
            Graph(
                "Time saved",
                "Seconds of compiling a second that the cache saved.",
                "none",
                ((_rate("kernfarm_cache_saved_seconds_total"), "saved"),),
            ),
            Graph("Bytes fetched", "", "Bps", ((_rate("kernfarm_fetched_bytes_total", "kind"), "{{kind}}"),)),
            Graph("Bytes stored", "", "Bps", ((_rate("kernfarm_stored_bytes_total", "kind"), "{{kind}}"),)),
        ),
    ),
    (
        "Workers",
        (
            Graph(
                "CPU",
                "Of the machine, whoever uses it.",
                "percentunit",
                (
                    (
                        '(1 - sum by (instance) (rate(kernfarm_worker_cpu_seconds_total{mode=~"idle|iowait"}[$__rate_interval]))'
                        f" / sum by (instance) (rate(kernfarm_worker_cpu_seconds_total[$__rate_interval]))) * {_NAME}",
                        "{{worker}}",
                    ),
                ),
            ),
            Graph(
                "Load",
                "Load average of a minute for each processor.",
                "none",
                ((f"kernfarm_worker_load1 / kernfarm_worker_cpus * {_NAME}", "{{worker}}"),),
            ),
            Graph(
                "Memory used",
                "Of the machine.",
                "percentunit",
                (
                    (
                        f"(1 - kernfarm_worker_memory_available_bytes / kernfarm_worker_memory_size_bytes) * {_NAME}",
                        "{{worker}}",
                    ),
                ),
            ),
            Graph(
                "Disk free",
                "Of the file system with trees and scratch folders.",
                "bytes",
                ((f"kernfarm_worker_disk_free_bytes * {_NAME}", "{{worker}}"),),
            ),
            Graph(
                "Unpacked trees",
                "And the size above which unused ones are removed.",
                "bytes",
                (
                    (f"kernfarm_worker_trees_bytes * {_NAME}", "{{worker}}"),
                    (f"kernfarm_worker_trees_limit_bytes * {_NAME}", "{{worker}} limit"),
                ),
            ),
            Graph("Attempts", "In the worker's folder.", "none", ((f"kernfarm_worker_attempts * {_NAME}", "{{worker}}"),)),
        ),
    ),
    (
        "Coordinator",
        (
            Graph("Calls", "", "reqps", ((_rate("kernfarm_grpc_requests_total", "method"), "{{method}}"),)),
            Graph(
                "Calls that failed",
                "",
                "reqps",
                (('sum by (method, code) (rate(kernfarm_grpc_requests_total{code!="OK"}[$__rate_interval])) > 0', "{{method}} {{code}}"),),
            ),
            Graph(
                "Duration of calls",
                "99 % were faster, over the last hour; without those that follow a build.",
                "s",
                (
                    (
                        _quantile(0.99, "kernfarm_grpc_request_duration_seconds", "method", '{method!~"WatchBuild|ReadLogs"}'),
                        "{{method}}",
                    ),
                ),
            ),
            Graph(
                "Journal",
                "Commits: 99 % were faster, over the last hour; and the one under way.",
                "s",
                (
                    (_quantile(0.99, "kernfarm_journal_commit_duration_seconds"), "99 %"),
                    ("max(kernfarm_journal_commit_pending_seconds)", "under way"),
                ),
            ),
            Graph("Events", "That the journal has taken.", "cps", ((_rate("kernfarm_journal_events_total", "event"), "{{event}}"),)),
            Graph(
                "Programs",
                "CPU time a second of coordinator and exporters.",
                "none",
                (
                    (
                        "sum by (component) (rate(process_cpu_seconds_total[$__rate_interval])"
                        " * on (instance) group_left (component) kernfarm_build_info)",
                        "{{component}}",
                    ),
                ),
            ),
        ),
    ),
)


def _query(expression: str, legend: str, number: int) -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(_SOURCE).expr(expression).legend_format(legend).range().ref_id(chr(ord("A") + number))


def _stat(title: str, unit: str, expression: str) -> stat.Panel:
    panel = stat.Panel().title(title).unit(unit).datasource(_SOURCE).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return panel.span(3).height(4).with_target(_query(expression, title, 0))


def _graph(graph: Graph) -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    panel = timeseries.Panel().title(graph.title).description(graph.text).unit(graph.unit).min(0).datasource(_SOURCE).legend(legend)
    panel = panel.span(8).height(8).line_width(1).fill_opacity(60 if graph.bars else 10)
    if graph.bars:
        panel = panel.draw_style(GraphDrawStyle.BARS).stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for number, (expression, legend_format) in enumerate(graph.queries):
        panel = panel.with_target(_query(expression, legend_format, number))
    return panel


def _variable(name: str, label: str, query: str) -> builders.QueryVariable:
    variable = builders.QueryVariable(name).label(label).datasource(_SOURCE).query(query).multi(True).include_all(True).all_value(".*")
    variable = variable.current(VariableOption(selected=True, text="All", value="$__all"))
    return variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)


def build() -> str:
    """The dashboard as JSON, the same each time."""
    board = builders.Dashboard("kernfarm: farm overview").uid("kernfarm-overview").tags(["kernfarm"]).readonly()
    board = board.description("Made by tools/dashboard.py.").time("now-6h", "now").refresh("30s").timezone("browser")
    board = board.with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    board = board.with_variable(_variable("arch", "Architecture", "label_values(kernfarm_workers_able, arch)"))
    board = board.with_variable(_variable("worker", "Worker", "label_values(kernfarm_worker_info, worker)"))
    numbers = itertools.count(1)  # Grafana tells panels apart by them
    board = board.with_row(builders.Row("Now").id(next(numbers)))
    for title, unit, expression in NOW:
        board = board.with_panel(_stat(title, unit, expression).id(next(numbers)))
    for title, graphs in ROWS:
        board = board.with_row(builders.Row(title).id(next(numbers)))
        for graph in graphs:
            board = board.with_panel(_graph(graph).id(next(numbers)))
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def main() -> None:
    made = build()
    if "--check" not in sys.argv[1:]:
        HOME.write_text(made)
    elif not HOME.exists() or HOME.read_text() != made:
        raise SystemExit(f"{HOME.name} is not up to date; run `make monitoring`")


if __name__ == "__main__":
    main()
