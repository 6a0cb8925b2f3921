"""The coordinator's metrics: what is counted of a farm's life, and that nothing hostile makes them grow."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant
from prometheus_client import CollectorRegistry

from coordinator.census import Census
from coordinator.events import Failed, Launched, NewBuild, Started, Submitted
from coordinator.machine import Machine
from coordinator.metrics.gauges import Gauges, on_loop
from coordinator.metrics.observed import Metrics
from kernel.errors import Code, FarmError, Problem
from kernel.plan import Inventory, Unit
from kernel.steps import StepKind, Usage
from kernfarm import exposition
from tests.coordinator.driver import spec as spec_of
from tests.coordinator.test_machine_chaos import Chaos
from tests.fakes.fleet import Bench

GOOD = Inventory(units=(Unit(path="kernel/a.o", size=9), Unit(path="init/main.o")), folders=("kernel",))
USAGE = Usage(
    wall_seconds=2.0,
    cpu_user_seconds=3.0,
    cpu_system_seconds=0.5,
    cache_hits=7,
    cache_misses=2,
    cache_errors=1,
    cache_saved_seconds=1.25,
    bytes_fetched=1000,
    bytes_stored=300,
)


class Counted:
    """A farm on a fake fleet with metrics, and a look at their values."""

    def __init__(self, home: Path) -> None:
        self.registry = exposition.registry_of("coordinator")
        self.metrics = Metrics(self.registry)
        self.bench = Bench(home, observer=self.metrics)
        self.registry.register(Gauges(self.bench.farm.census, self.metrics.committing_seconds))

    def value(self, name: str, **labels: str) -> float:
        found = self.registry.get_sample_value(name, labels)
        assert found is not None, f"there is no {name} {labels}"
        return found

    async def until(self, expected: float, name: str, **labels: str) -> None:
        for _ in range(500):
            if self.value(name, **labels) == expected:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{name} {labels} is {self.value(name, **labels)}, not {expected}")


@asynccontextmanager
async def started(home: Path) -> AsyncIterator[Counted]:
    counted = Counted(home)
    await counted.bench.farm.start()
    try:
        yield counted
        assert not counted.bench.farm.failed.is_set()
        assert counted.value("kernfarm_metrics_errors_total") == 0
    finally:
        await counted.bench.farm.stop()


def series(registry: CollectorRegistry) -> int:
    return sum(len(family.samples) for family in registry.collect())


async def test_a_build_is_counted_from_submit_to_image(tmp_path: Path) -> None:
    async with started(tmp_path) as counted:
        bench, value = counted.bench, counted.value
        build_id = await bench.submit()
        await bench.attempt(StepKind.SOURCE)
        assert value("kernfarm_builds", state="running", arch="x86_64") == 1
        assert value("kernfarm_attempts_running", kind="source") == 1
        assert (value("kernfarm_workers"), value("kernfarm_slots"), value("kernfarm_slots_busy")) == (1, 1, 1)
        assert value("kernfarm_workers_able", ability="build", arch="x86_64") == 1
        assert value("kernfarm_workers_able", ability="boot", arch="x86_64") == 1
        for kind in (StepKind.SOURCE, StepKind.CONFIGURE, StepKind.PREPARE):
            await bench.play(kind, inventory=bench.stored(GOOD))
        compiling = await bench.attempt(StepKind.COMPILE)
        await bench.fleet.finish(compiling, bench.result(StepKind.COMPILE, "", ""), USAGE)
        for kind in (StepKind.LINK, StepKind.PACKAGE):
            await bench.play(kind)
        await bench.state(build_id, "succeeded")
        assert value("kernfarm_builds_submitted_total", arch="x86_64", flavour="plain") == 1
        assert value("kernfarm_builds_finished_total", outcome="succeeded", arch="x86_64", flavour="plain") == 1
        assert value("kernfarm_build_duration_seconds_count", outcome="succeeded", arch="x86_64") == 1
        assert value("kernfarm_builds", state="running", arch="x86_64") == 0
        for kind in ("source", "configure", "prepare", "compile", "link", "package"):
            assert value("kernfarm_step_attempts_total", kind=kind, outcome="succeeded") == 1
            assert value("kernfarm_step_duration_seconds_count", kind=kind) == 1
        assert value("kernfarm_step_cpu_seconds_total", kind="compile", mode="user") == 3.0
        assert value("kernfarm_step_cpu_seconds_total", kind="compile", mode="system") == 0.5
        cache = [value(f"kernfarm_cache_{what}_total") for what in ("hits", "misses", "errors", "saved_seconds")]
        assert cache == [7, 2, 1, 1.25]
        assert value("kernfarm_fetched_bytes_total", kind="compile") == 1000
        assert value("kernfarm_stored_bytes_total", kind="compile") == 300
        assert value("kernfarm_objects_compiled_total", kind="compile") == 1
        assert value("kernfarm_journal_events_total", event="Succeeded") == 6
        assert value("kernfarm_journal_commit_duration_seconds_count") >= 7
        assert value("kernfarm_workers_joined_total") == 1


async def test_failures_are_counted_by_whose_fault_they_are(tmp_path: Path) -> None:
    async with started(tmp_path) as counted:
        bench, value = counted.bench, counted.value
        build_id = await bench.submit()
        # Of an attempt that nobody here has cancelled: the worker gave it up, and that is a lost worker.
        await bench.fleet.fail(await bench.attempt(StepKind.SOURCE), Problem(code=Code.CANCELLED, message="m"))
        await bench.fleet.fail(await bench.attempt(StepKind.SOURCE, 2), Problem(code=Code.FETCH_FAILED, message="m"))
        await bench.fleet.fail(await bench.attempt(StepKind.SOURCE, 3), Problem(code=Code.BAD_SOURCE, message="m"))
        await bench.state(build_id, "failed")
        await counted.until(1, "kernfarm_failures_total", fault="user", code="bad-source")
        assert value("kernfarm_failures_total", fault="infrastructure", code="worker-lost") == 1
        assert value("kernfarm_failures_total", fault="infrastructure", code="fetch-failed") == 1
        assert value("kernfarm_failures_total", fault="user", code="cancelled") == 0
        assert value("kernfarm_build_failures_total", fault="user", code="bad-source") == 1
        assert value("kernfarm_build_failures_total", fault="infrastructure", code="fetch-failed") == 0
        assert value("kernfarm_step_attempts_total", kind="source", outcome="lost") == 1
        assert value("kernfarm_step_attempts_total", kind="source", outcome="failed") == 2
        await bench.farm.retry("t", build_id)
        await bench.attempt(StepKind.SOURCE, 4)
        await bench.farm.cancel("t", build_id)
        assert value("kernfarm_builds_retried_total") == 1
        assert value("kernfarm_builds_finished_total", outcome="failed", arch="x86_64", flavour="plain") == 1
        assert value("kernfarm_builds_finished_total", outcome="cancelled", arch="x86_64", flavour="plain") == 1
        assert value("kernfarm_step_attempts_total", kind="source", outcome="aborted") == 1


async def test_gauges_come_back_after_a_restart_and_counters_start_anew(tmp_path: Path) -> None:
    async with started(tmp_path) as counted:
        await counted.bench.submit("one")
        await counted.bench.submit("two")
        await counted.bench.attempt(StepKind.SOURCE)
        await counted.bench.fleet.lose_worker()
        await counted.until(1, "kernfarm_workers_lost_total")
        await counted.until(0, "kernfarm_workers")
        await counted.until(1, "kernfarm_queue_steps", arch="x86_64")  # both builds want the same source
        assert counted.value("kernfarm_queue_oldest_seconds", arch="x86_64") > 0
        assert counted.value("kernfarm_workers_able", ability="build", arch="x86_64") == 0
    async with started(tmp_path) as again:
        builds = [again.value("kernfarm_builds", state=state, arch="x86_64") for state in ("queued", "running")]
        assert sum(builds) == 2
        assert again.value("kernfarm_builds_submitted_total", arch="x86_64", flavour="plain") == 0
        assert again.value("kernfarm_journal_events_total", event="Started") == 1
        await again.bench.attempt(StepKind.SOURCE)
        for build in await again.bench.farm.builds("t", before="", limit=5):
            await again.bench.farm.cancel("t", build.build_id)
        assert again.value("kernfarm_builds_finished_total", outcome="cancelled", arch="x86_64", flavour="plain") == 2


async def test_a_commit_that_hangs_can_be_seen(tmp_path: Path) -> None:
    async with started(tmp_path) as counted:
        counted.bench.journal.gate = gate = threading.Event()
        call = asyncio.create_task(counted.bench.submit())
        while counted.value("kernfarm_journal_commit_pending_seconds") < 0.2:
            await asyncio.sleep(0.02)
        gate.set()
        await call
        await counted.until(0, "kernfarm_journal_commit_pending_seconds")


def test_a_thousand_hostile_requests_make_no_more_series_than_one() -> None:
    registry = exposition.registry_of("coordinator")
    metrics = Metrics(registry)
    registry.register(Gauges(Census, lambda: 0.0))
    before, first = series(registry), 0
    machine = Machine(source_ttl_seconds=1.0)
    metrics.committed([Started(at=0.0)], machine)
    for number in range(1000):
        spec = replace(spec_of(), flavour=f"evil-{number}", arch=f"vax{number}")
        new = NewBuild(build_id=f"b{number}", spec=spec, salt=f"{number}")
        submitted = Submitted(at=0.0, tenant=f"t{number}", request_id="", fingerprint="", answered=(new.build_id,), builds=(new,))
        launched = Launched(at=0.0, build_id=new.build_id, step="source", attempt_id=f"a{number}", worker_id=f"w{number}", worker_name="w")
        code = list(Code)[number % len(Code)]
        failed = Failed(
            at=1.0, attempt_id=f"a{number}", problem=Problem(code=code, message=f"m{number}", where=f"x{number}"), usage=Usage()
        )
        for event in (submitted, launched, failed):
            machine.apply(event)
            metrics.committed([event], machine)
        metrics.called(f"Method{number}", f"STATUS_{number}", 0.1)
        first = first or series(registry)
    assert registry.get_sample_value("kernfarm_builds_submitted_total", {"arch": "other", "flavour": "custom"}) == 1000
    assert registry.get_sample_value("kernfarm_grpc_requests_total", {"method": "other", "code": "other"}) == 1000
    assert registry.get_sample_value("kernfarm_metrics_errors_total") == 0
    # `other` of arch, flavour, method and status, once; later ones of other codes and outcomes at most.
    assert series(registry) <= first + 2 * 15
    assert first <= before + 60
    assert before < 1000


def test_a_mistake_in_counting_is_counted_and_costs_nobody_a_build(caplog: pytest.LogCaptureFixture) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    unknown = Failed(at=0.0, attempt_id="unheard of", problem=Problem(code=Code.TIMEOUT, message="m"), usage=Usage())
    metrics.committed([unknown], Machine(source_ttl_seconds=1.0))
    assert registry.get_sample_value("kernfarm_metrics_errors_total") == 1
    assert "Failed" in caplog.text


async def test_a_busy_event_loop_fails_the_scrape_and_not_the_next_one() -> None:
    registry = exposition.registry_of("coordinator")
    registry.register(Gauges(on_loop(asyncio.get_running_loop(), Census, 0.2), lambda: 0.0))
    served = exposition.serve(registry, "127.0.0.1:0", job="j")

    def scrape() -> str:
        with urllib.request.urlopen(f"http://{served.address}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    try:
        assert "kernfarm_workers 0.0" in await asyncio.to_thread(scrape)
        outcome: list[int] = []

        def failing() -> None:
            with pytest.raises(urllib.error.HTTPError) as caught:
                scrape()
            outcome.append(caught.value.code)
            caught.value.close()

        thread = threading.Thread(target=failing)
        thread.start()
        thread.join(5)  # the loop is blocked here, as by a mistake of ours
        assert outcome == [500]
        assert "kernfarm_workers 0.0" in await asyncio.to_thread(scrape)
    finally:
        await asyncio.to_thread(served.close)


def test_a_loop_that_does_not_answer_is_named() -> None:
    loop = asyncio.new_event_loop()  # never runs
    try:
        with pytest.raises(FarmError, match="did not answer") as caught:
            on_loop(loop, Census, 0.05)()
        assert caught.value.problem.code is Code.TIMEOUT
    finally:
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


class Counting(Chaos):
    """Whatever happens in whatever order: everything that began has ended once, or is still there."""

    def _count(self) -> None:
        if not hasattr(self, "registry"):
            self.registry, self.seen, self.at_start = CollectorRegistry(), 0, 0
            self.metrics = Metrics(self.registry)
        fresh = self.driver.journal[self.seen :]
        self.seen = len(self.driver.journal)
        if fresh and isinstance(fresh[0], Started):
            self.registry = CollectorRegistry()
            self.metrics = Metrics(self.registry)
            self.at_start = len(self.driver.machine.live())
        self.metrics.committed(fresh, self.driver.machine)

    def sound(self) -> None:
        """Not again: test_machine has seen to it."""

    @invariant()
    def adds_up(self) -> None:
        if not hasattr(self, "driver"):
            return
        self._count()
        machine = self.driver.machine
        total: dict[str, float] = {}
        events: dict[str, float] = {}
        failed = 0.0
        for sample in (sample for family in self.registry.collect() for sample in family.samples):
            total[sample.name] = total.get(sample.name, 0.0) + sample.value
            if sample.name == "kernfarm_journal_events_total":
                events[sample.labels["event"]] = sample.value
            failed += sample.value if sample.name == "kernfarm_builds_finished_total" and sample.labels["outcome"] == "failed" else 0.0
        assert total["kernfarm_metrics_errors_total"] == 0
        assert events["Launched"] == total["kernfarm_step_attempts_total"] + len(machine.running())
        began = self.at_start + total["kernfarm_builds_submitted_total"] + total["kernfarm_builds_retried_total"]
        assert began == total["kernfarm_builds_finished_total"] + len(machine.live())
        assert events["Succeeded"] == total["kernfarm_step_duration_seconds_count"]
        assert failed == total["kernfarm_build_failures_total"]


Counting.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestCounting = Counting.TestCase
