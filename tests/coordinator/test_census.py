"""Counting a moment: what is in the queue, what runs, and who could."""

from __future__ import annotations

from dataclasses import replace

from coordinator import census
from coordinator.state import BuildState
from kernel.steps import StepKind
from tests.coordinator.driver import Driver, spec
from tests.fakes.fleet import WORKER


def test_an_empty_farm_has_nothing() -> None:
    assert census.take(Driver().machine, [], 0.0) == census.Census()


def test_queue_and_slots_are_counted_by_what_workers_do() -> None:
    driver = Driver()
    driver.submit(spec())
    driver.submit(replace(spec(ref="6.12"), arch="arm64"))
    driver.now += 40
    driver.submit(spec(ref="6.1=2"))
    driver.now += 5
    found = census.take(driver.machine, [], driver.now)
    assert found.queued == {"x86_64": 2, "arm64": 1}
    assert found.oldest == {"x86_64": 45.0, "arm64": 45.0}
    assert found.builds == {(BuildState.QUEUED, "x86_64"): 2, (BuildState.QUEUED, "arm64"): 1}
    assert (found.busy, found.running) == (0, {})
    driver.launch()
    found = census.take(driver.machine, [], driver.now)
    assert (found.queued, found.oldest, found.busy) == ({}, {}, 3)
    assert found.running == {StepKind.SOURCE: 3}
    assert found.builds == {(BuildState.RUNNING, "x86_64"): 2, (BuildState.RUNNING, "arm64"): 1}


def test_a_signature_needs_no_worker() -> None:
    driver = Driver()
    build = driver.machine.builds[driver.submit(spec(), sign=True)]
    while build.steps["sign"].state.value == "waiting":
        for attempt in driver.launch():
            driver.succeed(attempt)
    found = census.take(driver.machine, [], driver.now)
    assert build.steps["sign"].state.value == "ready"
    assert found.queued == {}
    driver.launch()
    found = census.take(driver.machine, [], driver.now)
    assert found.running == {StepKind.SIGN: 1}
    assert found.busy == 0


def test_workers_are_counted_by_what_they_can() -> None:
    other = replace(WORKER, worker_id="v", arches=("x86_64", "arm64"), boots=(), slots=3)
    found = census.take(Driver().machine, [WORKER, other], 0.0)
    assert (found.workers, found.slots) == (2, 4)
    assert found.build == {"x86_64": 2, "arm64": 1}
    assert found.boot == {"x86_64": 1}
