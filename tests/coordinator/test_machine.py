"""The machine, one story each: what follows from an event, and what is refused."""

from __future__ import annotations

import pytest

from coordinator.events import BlobsLost, Failed, NewBuild, Retried, Started, Submitted, Succeeded
from coordinator.machine import MAX_FAILURES, Stale
from coordinator.state import BuildState, StepState
from kernel.errors import Code, FarmError, Problem
from kernel.steps import PackageResult, PrepareResult, SignTask, StepKind, Usage
from tests.coordinator.driver import TTL, Driver, result_of, spec, state_of


def test_a_build_goes_through_its_steps() -> None:
    driver = Driver()
    build_id = driver.submit(spec())
    assert driver.finish() == 7
    build = driver.machine.build(build_id)
    assert build.state is BuildState.SUCCEEDED
    assert list(build.steps) == ["source", "configure", "prepare", "compile-000", "compile-001", "link", "package"]


def test_an_image_is_booted_and_then_signed() -> None:
    driver = Driver()
    build_id = driver.submit(spec(), boot=True, sign=True)
    assert driver.finish() == 9
    build = driver.machine.build(build_id)
    assert list(build.steps)[-3:] == ["package", "boot", "sign"]
    package, task = build.steps["package"].result, build.steps["sign"].task
    assert isinstance(package, PackageResult) and isinstance(task, SignTask)
    assert task.images == package.images


def test_an_image_that_does_not_boot_is_not_signed() -> None:
    driver = Driver()
    build_id = driver.submit(spec(), boot=True, sign=True)
    while next(step.key for _, step in driver.machine.ready()) != "package":
        for attempt in driver.launch():
            driver.succeed(attempt)
    (package,) = driver.launch()
    driver.succeed(package)
    (boot,) = driver.launch()
    assert driver.machine.running()[boot][1].kind is StepKind.BOOT
    driver.fail(boot, Code.KERNEL_DOES_NOT_BOOT)
    build = driver.machine.build(build_id)
    assert build.state is BuildState.FAILED
    assert build.steps["sign"].state is StepState.CANCELLED
    assert driver.launch() == []


def test_a_signature_is_of_one_build_and_never_reused() -> None:
    driver = Driver()
    driver.submit(spec(), sign=True)
    driver.finish()
    again = driver.submit(spec(), sign=True)
    assert driver.finish() == 1, "all but the signature is known"
    assert not driver.machine.build(again).steps["sign"].reused


def test_a_build_that_was_not_signed_answers_no_request_that_wants_it() -> None:
    driver = Driver()
    plain = driver.submit(spec())
    driver.finish()
    assert driver.machine.match("t", spec(), driver.now) == plain
    assert driver.machine.match("t", spec(), driver.now, sign=True) is None
    assert driver.machine.match("t", spec(), driver.now, boot=True) is None
    whole = driver.submit(spec(), boot=True, sign=True)
    driver.finish()
    assert driver.machine.match("t", spec(), driver.now, boot=True, sign=True) == whole
    assert driver.machine.match("t", spec(), driver.now) == whole


def test_the_same_work_is_done_once_for_two_builds() -> None:
    driver = Driver()
    one, two = driver.submit(spec()), driver.submit(spec(patch="defconfig"))
    (attempt,) = driver.launch()
    driver.succeed(attempt)
    driver.reuse()
    assert driver.machine.build(one).steps["source"].state is StepState.SUCCEEDED
    assert driver.machine.build(two).steps["source"].reused
    assert driver.finish() == 12


def test_builds_with_other_patches_share_the_fetch() -> None:
    driver = Driver()
    builds = [driver.submit(spec(patches=patches)) for patches in (("a.patch",), ("a.patch", "b.patch"), ())]
    (fetch,) = driver.launch()
    driver.succeed(fetch)
    driver.finish()
    one, two, plain = (driver.machine.build(build_id) for build_id in builds)
    assert (one.steps["source"].reused, two.steps["source"].reused, plain.steps["source"].reused) == (False, True, True)
    assert list(one.steps)[:3] == ["source", "patch", "configure"]
    assert "patch" not in plain.steps
    upper = {str(build.steps["configure"].task) for build in (one, two, plain)}
    assert len(upper) == 3, "each is configured on its own tree"


def test_an_unchanged_build_needs_no_attempt_and_a_clean_one_all() -> None:
    driver = Driver()
    driver.submit(spec())
    driver.finish()
    again = driver.submit(spec())
    assert driver.finish() == 0
    assert driver.machine.build(again).state is BuildState.SUCCEEDED
    driver.submit(spec(), clean=True)
    assert driver.finish() == 7


def test_a_mutable_source_is_fetched_again_after_a_while_but_nothing_is_compiled() -> None:
    driver = Driver()
    first = driver.submit(spec())
    driver.finish()
    assert driver.machine.match("t", spec(), driver.now) == first
    driver.now += TTL
    assert driver.machine.match("t", spec(), driver.now) is None
    driver.submit(spec())
    assert driver.finish() == 1


def test_late_double_and_unknown_results_are_refused() -> None:
    driver = Driver()
    build_id = driver.submit(spec())
    (old,) = driver.launch()
    driver.fail(old, Code.WORKER_LOST)
    (new,) = driver.launch()
    before = state_of(driver.machine)
    with pytest.raises(Stale):
        driver.machine.apply(Succeeded(at=1, attempt_id=old, result=result_of(StepKind.SOURCE, ""), usage=Usage()))
    assert state_of(driver.machine) == before
    driver.succeed(new)
    with pytest.raises(Stale):
        driver.machine.apply(Succeeded(at=1, attempt_id=new, result=result_of(StepKind.SOURCE, ""), usage=Usage()))
    with pytest.raises(Stale):
        driver.machine.apply(Failed(at=1, attempt_id="never", problem=Problem(code=Code.TIMEOUT, message=""), usage=Usage()))
    assert len(driver.machine.build(build_id).steps["source"].tries) == 2


def test_the_kernels_fault_ends_the_build_and_aborts_the_rest() -> None:
    driver = Driver()
    build_id = driver.submit(spec())
    for _ in range(3):
        for attempt in driver.launch():
            driver.succeed(attempt)
    one, two = driver.launch()
    driver.fail(one, Code.KERNEL_DOES_NOT_BUILD, "mm/a.c:1")
    build = driver.machine.build(build_id)
    assert build.state is BuildState.FAILED
    assert build.problem is not None
    assert build.problem.where == "mm/a.c:1"
    assert driver.aborted == [two]
    driver.apply(Retried(at=driver.now, build_id=build_id))
    assert driver.finish() == 4
    assert build.state is BuildState.SUCCEEDED


def test_the_farms_fault_is_tried_again_a_bounded_number_of_times() -> None:
    driver = Driver()
    build_id = driver.submit(spec())
    for _ in range(MAX_FAILURES):
        (attempt,) = driver.launch()
        driver.fail(attempt, Code.DISK_FULL)
    assert driver.machine.build(build_id).state is BuildState.FAILED
    assert driver.launch() == []


def test_a_lost_blob_is_made_again_by_the_step_that_made_it() -> None:
    driver = Driver()
    build_id = driver.submit(spec())
    for _ in range(3):
        for attempt in driver.launch():
            driver.succeed(attempt)
    prepared = driver.machine.build(build_id).steps["prepare"].result
    assert isinstance(prepared, PrepareResult)
    one, two = driver.launch()
    driver.succeed(two)
    driver.fail(one, Code.BLOB_LOST, prepared.layer)
    assert driver.machine.build(build_id).steps["prepare"].state is StepState.READY
    assert driver.machine.build(build_id).steps["source"].state is StepState.SUCCEEDED
    assert driver.finish() >= 4
    assert driver.machine.build(build_id).state is BuildState.SUCCEEDED


def test_a_lost_blob_ends_what_runs_on_it() -> None:
    driver = Driver()
    build_id = driver.submit(spec())
    for _ in range(3):
        for attempt in driver.launch():
            driver.succeed(attempt)
    prepared = driver.machine.build(build_id).steps["prepare"].result
    assert isinstance(prepared, PrepareResult)
    one, two = driver.launch()
    driver.fail(one, Code.BLOB_LOST, prepared.layer)
    assert driver.aborted == [two], "its slot would be taken for free while it still runs"
    driver.finish()
    assert driver.machine.build(build_id).state is BuildState.SUCCEEDED


def test_a_finished_build_whose_blobs_are_gone_answers_nothing_any_more() -> None:
    driver = Driver()
    first = driver.submit(spec())
    driver.finish()
    package = driver.machine.build(first).steps["package"].result
    assert isinstance(package, PackageResult)
    lost = package.artifacts[0].digest
    driver.apply(BlobsLost(at=driver.now, build_id=first, digests=(lost,)))
    assert driver.machine.match("t", spec(), driver.now) is None
    driver.submit(spec())
    assert driver.finish() == 1, "only the step that made it is done again"
    with pytest.raises(Stale):
        driver.machine.apply(BlobsLost(at=1, build_id=first, digests=(lost,)))


def test_a_restart_redoes_only_what_was_in_flight() -> None:
    driver = Driver()
    build_id = driver.submit(spec())
    for _ in range(3):
        for attempt in driver.launch():
            driver.succeed(attempt)
    one, two = driver.launch()
    driver.succeed(one)
    driver.machine = driver.replayed()
    driver.apply(Started(at=driver.now))
    with pytest.raises(Stale):
        driver.machine.apply(Succeeded(at=1, attempt_id=two, result=result_of(StepKind.COMPILE, ""), usage=Usage()))
    assert driver.finish() == 3
    assert driver.machine.build(build_id).state is BuildState.SUCCEEDED


def test_an_idempotency_key_answers_once_and_not_for_something_else() -> None:
    driver = Driver()
    new = NewBuild(build_id="b", spec=spec())
    driver.apply(Submitted(at=1, tenant="t", request_id="key", fingerprint="f", answered=("b",), builds=(new,)))
    assert driver.machine.answered("t", "key", "f") == ("b",)
    assert driver.machine.answered("u", "key", "f") is None
    with pytest.raises(FarmError) as caught:
        driver.machine.answered("t", "key", "other")
    assert caught.value.problem.code is Code.CONFLICT
