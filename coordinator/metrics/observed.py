"""The observer that counts. After a restart everything starts at 0 again, as Prometheus expects of a new process."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from coordinator.events import (
    BlobsLost,
    Event,
    Failed,
    Launched,
    NotPlanned,
    Retried,
    Reused,
    Started,
    Submitted,
    Succeeded,
)
from coordinator.fleet import FleetEvent, WorkerJoined, WorkerLost
from coordinator.machine import Machine
from coordinator.metrics.families import Families
from coordinator.state import Build, Try
from kernel.errors import Code, Problem
from kernel.steps import CompileResult, LinkResult, PrepareResult, StepKind, Usage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Running:
    """An attempt in flight. The machine keeps its record of the attempt (`attempt`) also when the step has moved on."""

    kind: StepKind
    attempt: Try


class Metrics:
    """Implements coordinator.observer.Observer, on families of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.families = Families(registry)
        self._live: dict[str, float] = {}  # when each build that is not finished was submitted, or retried
        self._running: dict[str, _Running] = {}
        self._committing: float | None = None

    # Observer

    @contextlib.contextmanager
    def commit(self) -> Iterator[None]:
        """Times a commit; one that fails ends the coordinator and is not counted."""
        self._committing = started = time.monotonic()
        try:
            yield
            self.families.commit_seconds.at().observe(time.monotonic() - started)
        finally:
            self._committing = None

    def committed(self, events: Sequence[Event], machine: Machine) -> None:
        """Count. A mistake here must not cost anybody's build: it is logged, and counted itself."""
        try:
            for event in events:
                self.families.events.at(type(event).__name__).inc()
                self._count(event, machine)
            self._settle(machine)
        except Exception:
            log.exception("these events can't be counted: %s", [type(event).__name__ for event in events])
            self.families.errors.at().inc()

    def heard(self, event: FleetEvent) -> None:
        if isinstance(event, WorkerJoined):
            self.families.joined.at().inc()
        elif isinstance(event, WorkerLost):
            self.families.lost.at().inc()

    # elsewhere

    def called(self, method: str, status: str, seconds: float) -> None:
        """A call ended with a gRPC status."""
        self.families.calls.at(method, status).inc()
        self.families.call_seconds.at(method).observe(seconds)

    def committing_seconds(self) -> float:
        """How long the commit has taken that is under way; 0 when there is none. From any thread."""
        started = self._committing
        return time.monotonic() - started if started is not None else 0.0

    # events

    def _count(self, event: Event, machine: Machine) -> None:
        match event:
            case Started():
                self._live = {build.build_id: build.submitted_at for build in machine.live()}
            case Submitted(builds=builds):
                for new in builds:
                    self._live[new.build_id] = event.at
                    self.families.submitted.at(new.spec.arch, new.spec.flavour).inc()
            case Retried(build_id=build_id):
                self._live[build_id] = event.at
                self.families.retried.at().inc()
            case Launched():
                step = machine.builds[event.build_id].steps[event.step]
                attempt = next(each for each in step.tries if each.attempt_id == event.attempt_id)
                self._running[event.attempt_id] = _Running(step.kind, attempt)
            case Succeeded(attempt_id=attempt_id):
                self._succeeded(self._running.pop(attempt_id), event)
            case Failed(attempt_id=attempt_id):
                self._failed(self._running.pop(attempt_id))
            case Reused():
                self.families.reused.at(machine.builds[event.build_id].steps[event.step].kind).inc()
            case NotPlanned(problem=problem):
                self._problem(problem)
            case BlobsLost():
                self.families.damaged.at().inc()

    def _succeeded(self, running: _Running, event: Succeeded) -> None:
        families, kind, attempt = self.families, running.kind, running.attempt
        families.attempts.at(kind, "succeeded").inc()
        families.step_seconds.at(kind).observe(max(0.0, attempt.ended_at - attempt.started_at))
        self._cost(kind, attempt.usage)
        if isinstance(event.result, (PrepareResult, CompileResult, LinkResult)):
            families.objects.at(kind).inc(event.result.compiled)
        if isinstance(event.result, LinkResult):
            families.unplanned.at().inc(len(event.result.unplanned))

    def _failed(self, running: _Running) -> None:
        problem = running.attempt.problem  # as the machine sees it, which is not always what the worker said
        assert problem is not None
        self.families.attempts.at(running.kind, "lost" if problem.code is Code.WORKER_LOST else "failed").inc()
        self._problem(problem)
        self._cost(running.kind, running.attempt.usage)

    def _problem(self, problem: Problem) -> None:
        self.families.failures.at(problem.handling.fault, problem.code).inc()

    def _cost(self, kind: StepKind, usage: Usage) -> None:
        families = self.families
        families.cpu.at(kind, "user").inc(usage.cpu_user_seconds)
        families.cpu.at(kind, "system").inc(usage.cpu_system_seconds)
        families.hits.at().inc(usage.cache_hits)
        families.misses.at().inc(usage.cache_misses)
        families.cache_errors.at().inc(usage.cache_errors)
        families.saved.at().inc(usage.cache_saved_seconds)
        families.fetched.at(kind).inc(usage.bytes_fetched)
        families.stored.at(kind).inc(usage.bytes_stored)

    def _settle(self, machine: Machine) -> None:
        """What has ended without an event of its own: builds with their last step, attempts with their build."""
        for build_id in [each for each in self._live if not machine.builds[each].live]:
            self._ended(machine.builds[build_id], self._live.pop(build_id))
        current = machine.running()
        for attempt_id in [each for each in self._running if each not in current]:
            self.families.attempts.at(self._running.pop(attempt_id).kind, "aborted").inc()

    def _ended(self, build: Build, since: float) -> None:
        self.families.finished.at(build.state, build.spec.arch, build.spec.flavour).inc()
        self.families.build_seconds.at(build.state, build.spec.arch).observe(max(0.0, build.ended_at - since))
        if build.problem is not None:
            self.families.build_failures.at(build.problem.handling.fault, build.problem.code).inc()
