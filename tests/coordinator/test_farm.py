"""The farm around the machine, on a fake fleet: cancelled calls, slow commits, inventories that are none, watchers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from coordinator import farm as farms
from coordinator.fleet import WorkerInfo
from kernel.errors import Code, FarmError, Problem
from kernel.plan import Inventory, Plan, Unit
from kernel.spec import BuildSpec
from kernel.steps import CompileTask, StepKind
from kernfarm.blobs import BlobStore
from tests.fakes.fleet import Bench

GOOD = Inventory(units=(Unit(path="kernel/a.o", size=9), Unit(path="init/main.o")), folders=("kernel",))
FIRST = (StepKind.SOURCE, StepKind.CONFIGURE, StepKind.PREPARE)
LAST = (StepKind.LINK, StepKind.PACKAGE)


@asynccontextmanager
async def started(home: Path, *, fails: bool = False) -> AsyncIterator[Bench]:
    bench = Bench(home)
    await bench.farm.start()
    try:
        yield bench
        assert bench.farm.failed.is_set() is fails, "the coordinator gave up, or should have"
    finally:
        await bench.farm.stop()


async def prepared(bench: Bench, inventory: str) -> str:
    build_id = await bench.submit()
    for kind in FIRST:
        await bench.play(kind, inventory=inventory)
    return build_id


async def test_a_build_from_submit_to_image(tmp_path: Path) -> None:
    async with started(tmp_path) as bench:
        build_id = await prepared(bench, bench.stored(GOOD))
        for kind in (StepKind.COMPILE, *LAST):
            await bench.play(kind)
        await bench.state(build_id, "succeeded")


async def test_a_submit_whose_caller_has_gone_is_whole_or_not_there(tmp_path: Path) -> None:
    """A deadline or Ctrl-C cancels the call in the middle of the commit."""
    async with started(tmp_path) as bench:
        bench.journal.gate = gate = threading.Event()
        call = asyncio.create_task(bench.submit(request_id="key"))
        await asyncio.sleep(0.2)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        other = asyncio.create_task(bench.submit("other"))
        await asyncio.sleep(0.2)
        gate.set()
        await other
        build_id = await bench.submit(request_id="key")
        await bench.attempt(StepKind.SOURCE)
        assert (await bench.farm.cancel("t", build_id)).state == "cancelled"
    # What was written can be read in the order in which it happened.
    async with started(tmp_path) as again:
        await again.state(build_id, "cancelled")


async def test_a_repeated_submit_is_not_answered_before_the_first_is_committed(tmp_path: Path) -> None:
    async with started(tmp_path) as bench:
        bench.journal.gate = gate = threading.Event()
        first = asyncio.create_task(bench.submit(request_id="key"))
        await asyncio.sleep(0.2)
        second = asyncio.create_task(bench.submit(request_id="key"))
        await asyncio.sleep(0.3)
        assert not second.done()
        gate.set()
        assert await first == await second


async def test_nobody_is_told_of_a_state_before_it_is_committed(tmp_path: Path) -> None:
    async with started(tmp_path) as bench:
        build_id = await bench.submit()
        await bench.attempt(StepKind.SOURCE)
        watch = bench.farm.watch("t", build_id, "")
        token, _ = await anext(watch)
        bench.journal.gate = gate = threading.Event()
        cancel = asyncio.create_task(bench.farm.cancel("t", build_id))
        await asyncio.sleep(0.2)
        readers = (
            asyncio.ensure_future(bench.farm.build("t", build_id)),
            asyncio.ensure_future(bench.farm.builds("t", before="", limit=1)),
            asyncio.ensure_future(bench.farm.result("t", build_id)),
            asyncio.ensure_future(anext(bench.farm.watch("t", build_id, ""))),
            asyncio.ensure_future(anext(bench.farm.watch("t", build_id, token))),
        )
        await asyncio.sleep(0.2)
        assert not any(reader.done() for reader in readers)
        gate.set()
        build, (listed,), *_, (_, watched), (_, resumed) = await asyncio.gather(*readers)
        assert {each.state for each in (build, listed, watched, resumed, await cancel)} == {"cancelled"}


async def test_the_end_of_a_log_waits_for_the_commit_too(tmp_path: Path) -> None:
    async with started(tmp_path, fails=True) as bench:
        build_id = await bench.submit()
        bench.journal.gate, bench.journal.fails = (gate := threading.Event()), True
        cancel = asyncio.create_task(bench.farm.cancel("t", build_id))
        await asyncio.sleep(0.2)
        reader = asyncio.ensure_future(anext(bench.farm.logs("t", build_id, "source", offset=0, follow=True)))
        await asyncio.sleep(0.2)
        gate.set()
        for call in (cancel, reader):
            with pytest.raises(FarmError, match=r"the disk is full|the coordinator has failed"):
                await call


async def test_a_refusal_waits_for_the_commit_too(tmp_path: Path) -> None:
    async with started(tmp_path, fails=True) as bench:
        build_id, other = await bench.submit("one"), await bench.submit("two")
        await bench.farm.cancel("t", build_id)
        bench.journal.gate, bench.journal.fails = (gate := threading.Event()), True
        calls = [asyncio.create_task(bench.farm.retry("t", build_id))]
        await asyncio.sleep(0.2)
        calls.append(asyncio.create_task(bench.farm.retry("t", build_id)))  # of a build that runs already
        calls.append(asyncio.create_task(bench.farm.sign_index("t", [build_id, other])))
        await asyncio.sleep(0.2)
        gate.set()
        for call in calls:
            with pytest.raises(FarmError, match=r"the disk is full|the coordinator has failed"):
                await call


async def test_a_reader_waits_for_the_commit_of_what_it_tells_and_for_no_later_one(tmp_path: Path) -> None:
    async with started(tmp_path) as bench:
        build_id = await bench.submit()
        bench.journal.gate = first = threading.Event()
        cancel = asyncio.create_task(bench.farm.cancel("t", build_id))
        await asyncio.sleep(0.2)
        reader = asyncio.ensure_future(bench.farm.build("t", build_id))
        other = asyncio.create_task(bench.submit("other"))
        await asyncio.sleep(0.2)
        bench.journal.gate = second = threading.Event()
        first.set()
        assert (await asyncio.wait_for(reader, 5)).state == "cancelled"
        assert not other.done()
        second.set()
        await asyncio.gather(cancel, other)


async def test_a_journal_that_fails_leaves_nobody_with_what_would_be_forgotten(tmp_path: Path) -> None:
    async with started(tmp_path, fails=True) as bench:
        build_id = await bench.submit()
        bench.journal.fails = True
        with pytest.raises(FarmError, match="the disk is full"):
            await bench.farm.cancel("t", build_id)
        bench.journal.fails = False
        # Nor is anything committed that would follow from it.
        for call in (bench.farm.build("t", build_id), bench.farm.retry("t", build_id)):
            with pytest.raises(FarmError, match="the coordinator has failed"):
                await call
    async with started(tmp_path) as again:
        await again.state(build_id, "running")


async def test_a_watcher_that_holds_a_state_still_hears_of_the_end(tmp_path: Path) -> None:
    async with started(tmp_path) as bench:
        build_id = await bench.submit()
        watch = bench.farm.watch("t", build_id, "")
        _, view = await anext(watch)
        assert view.state == "running"
        await bench.farm.cancel("t", build_id)
        states = [view.state async for _, view in watch]
        assert states[-1] == "cancelled"


async def test_a_build_of_which_no_shard_covers_anything_goes_on_to_its_link_step(tmp_path: Path) -> None:
    async with started(tmp_path) as bench:
        build_id = await prepared(bench, bench.stored(Inventory(units=(Unit(path="init/main.o"),), folders=())))
        for kind in LAST:
            await bench.play(kind)
        await bench.state(build_id, "succeeded")


async def test_an_inventory_that_is_lost_is_made_again(tmp_path: Path) -> None:
    async with started(tmp_path) as bench:
        good = bench.stored(GOOD)
        bench.blobs.delete(good)
        build_id = await prepared(bench, good)
        await bench.attempt(StepKind.PREPARE, 2)
        bench.stored(GOOD)
        await bench.play(StepKind.PREPARE, 2, inventory=good)
        for kind in (StepKind.COMPILE, *LAST):
            await bench.play(kind)
        await bench.state(build_id, "succeeded")


async def test_an_inventory_that_is_lost_again_and_again_fails_the_build_alone(tmp_path: Path) -> None:
    async with started(tmp_path) as bench:
        build_id = await bench.submit()
        for kind in FIRST[:2]:
            await bench.play(kind)
        for number in range(1, 5):
            await bench.play(StepKind.PREPARE, number, inventory="sha256:" + "1" * 64)
        await bench.state(build_id, "failed")
        await bench.submit("other")


@pytest.mark.parametrize(
    "data",
    [b"no json", b'{"units": 7}', b'{"units": [], "folders": [], "more": 1}', b"[" * 100_000],
    ids=["no json", "another shape", "unknown field", "deep"],
)
async def test_what_is_no_inventory_fails_the_build_and_the_farm_serves_on(tmp_path: Path, data: bytes) -> None:
    async with started(tmp_path) as bench:
        build_id = await prepared(bench, bench.blobs.put_bytes(data))
        await bench.state(build_id, "failed")
        problem = (await bench.farm.build("t", build_id)).problem
        assert problem is not None
        assert problem.code is Code.BAD_SOURCE
    async with started(tmp_path) as again:
        await again.state(build_id, "failed")


async def test_paths_without_end_and_sources_of_any_size_are_split_or_refused(tmp_path: Path) -> None:
    async with started(tmp_path) as bench:
        deep = Unit(path="/".join(["a"] * 1500) + "/x.o")
        build_id = await prepared(bench, bench.stored(Inventory(units=(deep, Unit(path="mm/huge.o", size=1 << 44)), folders=("mm",))))
        view = await bench.farm.build("t", build_id)
        while view.state == "running" and not any(step.kind == "compile" for step in view.steps):
            await asyncio.sleep(0.01)
            view = await bench.farm.build("t", build_id)
        assert len(view.steps) <= 7


async def test_a_store_that_is_away_for_a_moment_delays_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Iterator[Problem] = iter([Problem(code=Code.UNAVAILABLE, message="away")] * 2)
    real = farms.planning.split

    def split(blobs: BlobStore, inventory: str, spec: BuildSpec, workers: list[WorkerInfo], longest: float) -> Plan | Problem:
        return next(answers, None) or real(blobs, inventory, spec, workers, longest)

    monkeypatch.setattr(farms, "_PLAN_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(farms.planning, "split", split)
    async with started(tmp_path) as bench:
        await prepared(bench, bench.stored(GOOD))
        await bench.attempt(StepKind.COMPILE)


async def test_a_source_that_has_moved_on_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    """Its tarball is lost in the middle of the build; what is fetched again is another version."""
    two = Inventory(units=tuple(Unit(path=f"{top}/a.o", size=4_000_000) for top in ("kernel", "mm")), folders=("kernel", "mm"))
    async with started(tmp_path) as bench:
        build_id = await prepared(bench, bench.stored(two))
        await bench.play(StepKind.COMPILE)
        compiling = await bench.attempt(StepKind.COMPILE, 2)
        assert isinstance(compiling.task, CompileTask)
        lost = compiling.task.tree.tarball
        bench.blobs.delete(lost)
        await bench.fleet.fail(compiling, Problem(code=Code.BLOB_LOST, message="gone", where=lost))
        await bench.play(StepKind.SOURCE, 2, tree="another tree")
        for kind in (StepKind.CONFIGURE, StepKind.PREPARE):
            await bench.play(kind, 2, inventory=bench.stored(two))
        for number in (3, 4):
            again = await bench.attempt(StepKind.COMPILE, number)
            assert isinstance(again.task, CompileTask)
            assert again.task.tree.tarball != lost
            await bench.play(StepKind.COMPILE, number)
        for kind in LAST:
            await bench.play(kind)
        await bench.state(build_id, "succeeded")


async def test_an_attempt_that_the_worker_gave_up_is_tried_again(tmp_path: Path) -> None:
    async with started(tmp_path) as bench:
        await bench.submit()
        await bench.fleet.fail(await bench.attempt(StepKind.SOURCE), Problem(code=Code.CANCELLED, message="was cancelled"))
        await bench.attempt(StepKind.SOURCE, 2)
