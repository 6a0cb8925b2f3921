"""The coordinator's counters and histograms: names, units and help as Prometheus' conventions want them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from coordinator.metrics.labels import (
    ARCH,
    CODE,
    ENDING,
    EVENT,
    FAULT,
    FLAVOUR,
    KIND,
    METHOD,
    MODE,
    OUTCOME,
    STATUS,
    Bounded,
    Label,
    Pairs,
)
from kernel.errors import HANDLING

# A reused build ends in a second, one with LTO on one worker takes hours.
_BUILD_SECONDS = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 2400.0, 4800.0, 9600.0)
_STEP_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0)
_COMMIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_CALL_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)
_FAULTS = tuple((handling.fault.value, code.value) for code, handling in HANDLING.items())
# The statuses that our own code ends calls with; others are gRPC's own.
_STATUSES = sorted({"OK", "CANCELLED", *(handling.status for handling in HANDLING.values())})
_CALLS = tuple((method, status) for method in METHOD.values for status in _STATUSES)


class Families:
    """All of them, in one registry. `labels` has the labels of each by name, for the documentation."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.labels: dict[str, tuple[Label, ...]] = {}
        self._builds()
        self._steps()
        self._costs()
        self._coordinator()

    def _builds(self) -> None:
        self.submitted = self._counter(
            "kernfarm_builds_submitted", "Builds that were accepted and not answered by an earlier one.", ARCH, FLAVOUR
        )
        self.finished = self._counter(
            "kernfarm_builds_finished", "Builds that ended; one that is retried may end again.", OUTCOME, ARCH, FLAVOUR
        )
        self.retried = self._counter("kernfarm_builds_retried", "Failed or cancelled builds that went on.")
        self.damaged = self._counter("kernfarm_builds_damaged", "Finished builds found to have lost blobs of their images.")
        self.build_seconds = self._histogram(
            "kernfarm_build_duration_seconds", "From submit (or retry) to the end of a build.", _BUILD_SECONDS, OUTCOME, ARCH
        )
        self.build_failures = self._counter(
            "kernfarm_build_failures", "Builds that failed, by whose fault it was.", FAULT, CODE, pairs=_FAULTS
        )

    def _steps(self) -> None:
        self.attempts = self._counter("kernfarm_step_attempts", "Attempts of steps that ended.", KIND, ENDING)
        self.reused = self._counter("kernfarm_steps_reused", "Steps that were answered with what another one had made.", KIND)
        self.step_seconds = self._histogram(
            "kernfarm_step_duration_seconds", "From launch to result of attempts that succeeded.", _STEP_SECONDS, KIND
        )
        self.failures = self._counter(
            "kernfarm_failures",
            "Attempts that failed or were lost, and builds that could not be planned, by whose fault it was; each may have been retried.",
            FAULT,
            CODE,
            pairs=_FAULTS,
        )
        self.objects = self._counter("kernfarm_objects_compiled", "Compiler and assembler runs, those that ccache answered included.", KIND)
        self.unplanned = self._counter("kernfarm_objects_unplanned", "Objects that the link step compiled and a shard should have: a bug.")

    def _costs(self) -> None:
        self.cpu = self._counter(
            "kernfarm_step_cpu_seconds", "CPU time of the sandboxes of attempts that ended with an outcome.", KIND, MODE
        )
        self.hits = self._counter("kernfarm_cache_hits", "Compiler results that came out of the shared cache.")
        self.misses = self._counter("kernfarm_cache_misses", "Compiler results that the shared cache did not have.")
        self.cache_errors = self._counter("kernfarm_cache_errors", "Requests to the shared cache that failed; the compiler ran instead.")
        self.saved = self._counter("kernfarm_cache_saved_seconds", "Time that the compiles behind the cache hits took when they were done.")
        self.fetched = self._counter("kernfarm_fetched_bytes", "Bytes that attempts read of layers and compiler results.", KIND)
        self.stored = self._counter("kernfarm_stored_bytes", "Bytes of layers and compiler results that attempts stored.", KIND)

    def _coordinator(self) -> None:
        self.joined = self._counter("kernfarm_workers_joined", "Workers that came, or came back.")
        self.lost = self._counter("kernfarm_workers_lost", "Workers that went: dead, silent or scaled down.")
        self.events = self._counter("kernfarm_journal_events", "Events that the journal has taken.", EVENT)
        self.commit_seconds = self._histogram("kernfarm_journal_commit_duration_seconds", "Commits of the journal.", _COMMIT_SECONDS)
        self.calls = self._counter("kernfarm_grpc_requests", "Calls that ended, by gRPC status.", METHOD, STATUS, pairs=_CALLS)
        self.call_seconds = self._histogram(
            "kernfarm_grpc_request_duration_seconds",
            "Calls from first to last byte; WatchBuild and ReadLogs follow builds.",
            _CALL_SECONDS,
            METHOD,
        )
        self.errors = self._counter("kernfarm_metrics_errors", "Events that could not be counted: a bug of these metrics.")

    def _counter(self, name: str, text: str, *labels: Label, pairs: Pairs | None = None) -> Bounded[Counter]:
        self.labels[name] = labels
        return Bounded(Counter(name, text, [label.name for label in labels], registry=self._registry), labels, pairs)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: Label) -> Bounded[Histogram]:
        self.labels[name] = labels
        names = [label.name for label in labels]
        return Bounded(Histogram(name, text, names, registry=self._registry, buckets=buckets), labels)
