"""The farm: the machine's hands. Journals each event before anyone hears of it, launches what the scheduler chose, watches heartbeats."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from coordinator import admission, planning, scheduler, views
from coordinator.answers import Answers
from coordinator.api import BuildView
from coordinator.events import (
    BlobsLost,
    Cancelled,
    Event,
    Failed,
    Launched,
    NewBuild,
    NotPlanned,
    Planned,
    Retried,
    Reused,
    Started,
    Submitted,
    Succeeded,
)
from coordinator.fleet import (
    AttemptFailed,
    AttemptFinished,
    AttemptHeard,
    AttemptLog,
    Fleet,
    FleetEvent,
    WorkerJoined,
    WorkerLost,
)
from coordinator.indexes import SignIndex
from coordinator.instructions import Abort, Announce, Instruction, MakePlan
from coordinator.journal import Journal
from coordinator.machine import Stale
from coordinator.observer import Observer, Unobserved
from coordinator.state import Build, BuildState, Step, blobs_of
from kernel import digest as digests
from kernel.errors import Code, FarmError, Problem
from kernel.plan import Plan
from kernel.spec import RequestSpec, expand
from kernel.steps import Attempt, Usage
from kernfarm.blobs import BlobStore
from kernfarm.settings import CoordinatorSettings

log = logging.getLogger(__name__)
T = TypeVar("T")

_TICK_SECONDS = 1.0
_PLAN_ATTEMPTS = 6
_PLAN_RETRY_SECONDS = 5.0
_JOIN_SECONDS = 10.0
# The worker keeps the step's own time limit; the coordinator's comes later, for workers that don't.
_DEADLINE_GRACE_SECONDS = 60.0


class Farm(Answers):
    """Implements coordinator.api.FarmApi. One event loop owns it; the journal's commits are the only waiting while state changes."""

    def __init__(
        self,
        settings: CoordinatorSettings,
        *,
        journal: Journal,
        fleet: Fleet,
        blobs: BlobStore,
        clock: Callable[[], float],
        observer: Observer | None = None,
        sign_index: SignIndex | None = None,
    ) -> None:
        super().__init__(settings, blobs, clock, sign_index)
        self._settings = settings
        self._journal = journal
        self._fleet = fleet
        self._observer = observer or Unobserved()
        self._heard: dict[str, float] = {}
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failed = self._commits.failed

    # life

    async def start(self) -> None:
        """Replay the journal, connect to the fleet, go on with what was running."""
        for event in await asyncio.to_thread(lambda: list(self._journal.read())):
            try:
                self._machine.apply(event)
            except Stale as error:
                raise FarmError(Code.INTERNAL, f"the journal does not fit this version: {error}", where=self._journal.name) from error
        await self._fleet.start()
        self._spawn(self._listen())
        self._spawn(self._tick())
        await self._apply(Started(at=self._clock()))

    async def stop(self) -> None:
        """Stop the fleet; builds go on at the next start."""
        async with self._turn:  # what is being committed is committed and carried out as a whole
            for task in list(self._tasks):
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._fleet.stop()
        await asyncio.to_thread(self._journal.close)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, FarmError):
            log.critical("the coordinator can't go on", exc_info=error)
            self.failed.set()

    # events

    async def _apply(self, *events: Event) -> None:
        """State first (it refuses what does not fit), journal second, the world third. A journal that fails ends the coordinator.

        In a task of its own: a caller may be cancelled at any moment (a deadline, Ctrl-C), and then state, journal and world must not part
        company half-way."""
        await asyncio.shield(self._spawn(self._apply_in_turn(events)))

    async def _apply_in_turn(self, events: Iterable[Event]) -> None:
        async with self._turn:
            await self._apply_locked(events)

    async def _apply_locked(self, events: Iterable[Event]) -> None:
        with self._commits.one():
            taken, instructions, launches = self._change(events)
            if taken:
                await self._write(taken)
        for instruction in instructions:
            await self._carry_out(instruction)
        for launch, attempt in launches:
            self._heard[launch.attempt_id] = time.monotonic()
            await self._fleet.launch(attempt, launch.worker_id)

    def _change(self, events: Iterable[Event]) -> tuple[list[Event], list[Instruction], list[tuple[Launched, Attempt]]]:
        """Change the state: what is to be committed (the events that fit, and those that follow from them), carried out, and launched."""
        taken: list[Event] = []
        instructions: list[Instruction] = []
        for event in events:
            try:
                instructions += self._machine.apply(event)
                taken.append(event)
            except Stale as error:
                log.info("refused %s: %s", type(event).__name__, error)
        now = self._clock()
        while reusable := self._machine.reusable(now):
            for build_id, step in reusable:
                reused = Reused(at=now, build_id=build_id, step=step)
                instructions += self._machine.apply(reused)
                taken.append(reused)
        launches = self._launches(now)
        for launch, _ in launches:
            instructions += self._machine.apply(launch)
            taken.append(launch)
        return taken, instructions, launches

    async def _write(self, events: list[Event]) -> None:
        try:
            with self._observer.commit():
                await asyncio.to_thread(self._journal.append, events)
        except FarmError:
            log.critical("the journal can't be written; stopping, so that nothing is promised that would be forgotten")
            raise
        self._observer.committed(events, self._machine)

    async def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case MakePlan(build_id=build_id, inventory=inventory):
                self._spawn(self._plan(build_id, inventory))
            case Abort(attempt_id=attempt_id):
                await self._fleet.abort(attempt_id)
                self._forget(attempt_id)
            case Announce(build_id=build_id):
                await self._changes.announce(build_id)

    async def _plan(self, build_id: str, inventory: str) -> None:
        """Split a prepared build. Whatever is wrong is that build's problem; a store that is away for a moment is asked again."""
        spec = self._machine.build(build_id).spec
        for attempt in range(_PLAN_ATTEMPTS):
            workers = list(self._workers.values())
            made = await asyncio.to_thread(planning.split, self._blobs, inventory, spec, workers, self._settings.longest_shard_seconds)
            if isinstance(made, Plan):
                planned = Planned(at=self._clock(), build_id=build_id, shards=made.shards, covered=made.covered, link_only=made.link_only)
                return await self._apply(planned)
            if made.code is Code.BLOB_LOST or not made.handling.retry or attempt == _PLAN_ATTEMPTS - 1:
                return await self._apply(NotPlanned(at=self._clock(), build_id=build_id, problem=made))
            log.warning("build %s can't be planned yet: %s", build_id, made)
            await asyncio.sleep(_PLAN_RETRY_SECONDS)
        return None

    def _launches(self, now: float) -> list[tuple[Launched, Attempt]]:
        ready = {(build.build_id, step.key): (build, step) for build, step in self._machine.ready()}
        queue = [views.ready_step(build, step) for build, step in ready.values()]
        busy = self._busy()
        chosen = scheduler.assign(queue, list(self._workers.values()), busy)
        launches = []
        for choice in chosen:
            build, step = ready[choice.build_id, choice.step]
            worker = self._workers.get(choice.worker_id)
            attempt = self._attempt(build, step, worker.jobs if worker else 1)
            launch = Launched(
                at=now,
                build_id=build.build_id,
                step=step.key,
                attempt_id=attempt.attempt_id,
                worker_id=choice.worker_id,
                worker_name=worker.name if worker else choice.worker_id,
            )
            launches.append((launch, attempt))
        return launches

    def _attempt(self, build: Build, step: Step, jobs: int) -> Attempt:
        assert step.task is not None
        settings = self._settings
        return Attempt(
            attempt_id=f"{build.build_id}/{step.key}/{uuid.uuid4().hex[:8]}",
            build_id=build.build_id,
            kind=step.kind,
            task=step.task,
            domain=build.spec.domain,
            jobs=jobs,
            timeout_seconds=settings.step_timeout_seconds,
            memory_bytes=settings.memory_bytes,
            cpus=float(jobs),
            heartbeat_seconds=settings.heartbeat_seconds,
        )

    # the fleet

    async def _listen(self) -> None:
        async for event in self._fleet.events():
            await self._hear(event)

    async def _hear(self, event: FleetEvent) -> None:
        now = self._clock()
        self._observer.heard(event)
        match event:
            case WorkerJoined(worker=worker):
                log.info("worker %s joined: %s", worker.name, worker)
                self._workers[worker.worker_id] = worker
                await self._apply()
            case WorkerLost(worker_id=worker_id, reason=reason):
                log.warning("worker lost: %s", reason)
                self._workers.pop(worker_id, None)
                lost = [key for key, (_, step) in self._machine.running().items() if step.tries[-1].worker_id == worker_id]
                await self._lose(lost, reason)
            case AttemptHeard(attempt_id=attempt_id, progress=progress):
                self._heard[attempt_id] = time.monotonic()
                place = self._machine.running().get(attempt_id)
                if place is not None and self._progress.get(attempt_id) != progress:
                    self._progress[attempt_id] = progress
                    await self._changes.announce(place[0].build_id)
            case AttemptLog(attempt_id=attempt_id, data=data):
                self._heard[attempt_id] = time.monotonic()
                place = self._machine.running().get(attempt_id)
                if place is not None:
                    await asyncio.to_thread(self._logs.append, place[0].build_id, place[1].key, data)
            case AttemptFinished(attempt_id=attempt_id, result=result, usage=usage):
                self._forget(attempt_id)
                await self._apply(Succeeded(at=now, attempt_id=attempt_id, result=result, usage=usage))
            case AttemptFailed(attempt_id=attempt_id, problem=problem, usage=usage):
                self._forget(attempt_id)
                await self._apply(Failed(at=now, attempt_id=attempt_id, problem=problem, usage=usage))

    async def _tick(self) -> None:
        """Heartbeats and deadlines: Ray does not fail a task across a partition."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now, moment = self._clock(), time.monotonic()
            running = self._machine.running()
            silent = [key for key in running if moment - self._heard.setdefault(key, moment) > self._settings.heartbeat_timeout_seconds]
            limit = self._settings.step_timeout_seconds + _DEADLINE_GRACE_SECONDS
            late = [key for key, (_, step) in running.items() if now - step.tries[-1].started_at > limit]
            reason = f"nothing heard for {self._settings.heartbeat_timeout_seconds:.0f} s"
            for worker_id in {running[key][1].tries[-1].worker_id for key in silent}:
                self._workers.pop(worker_id, None)  # at once: the lost attempts are launched anew in a moment, and not there
                await self._fleet.doubt(worker_id, reason)
            await self._lose(silent, reason)
            await self._lose([key for key in late if key not in silent], "the step's deadline has passed")

    async def _lose(self, attempts: list[str], reason: str) -> None:
        for attempt_id in attempts:
            await self._fleet.abort(attempt_id)
            self._forget(attempt_id)
            problem = Problem(code=Code.WORKER_LOST, message=f"the worker was lost: {reason}")
            await self._apply(Failed(at=self._clock(), attempt_id=attempt_id, problem=problem, usage=Usage()))

    def _forget(self, attempt_id: str) -> None:
        self._heard.pop(attempt_id, None)
        self._progress.pop(attempt_id, None)

    # FarmApi

    async def submit(self, spec: RequestSpec, *, tenant: str, request_id: str, clean: bool) -> tuple[BuildView, ...]:
        fingerprint = digests.of_bytes(f"{digests.of_value(spec)} {clean}".encode())
        async with self._turn:  # an answer that is being committed is none yet
            known = self._machine.answered(tenant, request_id, fingerprint) if request_id else None
        if known is not None:
            return tuple([await self.build(tenant, build_id) for build_id in known])
        await self._first_worker()
        await asyncio.to_thread(admission.check, spec, self._blobs, list(self._workers.values()))
        if not clean:
            await self._check_answers(tenant, spec)
        answer = await asyncio.shield(self._spawn(self._submit_in_turn(spec, tenant, request_id, fingerprint, clean)))
        return tuple([await self.build(tenant, build_id) for build_id in answer])

    async def _submit_in_turn(self, spec: RequestSpec, tenant: str, request_id: str, fingerprint: str, clean: bool) -> tuple[str, ...]:
        async with self._turn:
            if request_id and (known := self._machine.answered(tenant, request_id, fingerprint)) is not None:
                return known
            now = self._clock()
            extras = self._extras(spec)
            answer: list[str] = []
            new: list[NewBuild] = []
            for build_spec in expand(spec, domain=tenant):
                found = None if clean else self._machine.match(tenant, build_spec, now, **extras)
                build_id = found or f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{uuid.uuid4().hex[:6]}"
                answer.append(build_id)
                if found is None:
                    new.append(NewBuild(build_id=build_id, spec=build_spec, salt=build_id if clean else "", **extras))
            event = Submitted(
                at=now, tenant=tenant, request_id=request_id, fingerprint=fingerprint, answered=tuple(answer), builds=tuple(new)
            )
            await self._apply_locked([event])
        return tuple(answer)

    def _extras(self, spec: RequestSpec) -> dict[str, bool]:
        """Which steps beyond packaging the builds of a request have."""
        return {"boot": not spec.skip_boot, "sign": bool(self._settings.signer_socket)}

    async def _check_answers(self, tenant: str, spec: RequestSpec) -> None:
        """A finished build answers only while the store still has its images and what was signed of them."""
        for each in expand(spec, domain=tenant):
            while found := self._machine.match(tenant, each, self._clock(), **self._extras(spec)):
                build = self._machine.build(found)
                if build.state is not BuildState.SUCCEEDED:
                    break
                lost = await asyncio.to_thread(self._absent, blobs_of(build))
                if not lost:
                    break
                log.warning("build %s has lost %d blobs; it is made again", found, len(lost))
                await self._apply(BlobsLost(at=self._clock(), build_id=found, digests=tuple(lost)))

    def _absent(self, digests: Iterable[str]) -> list[str]:
        return sorted(digest for digest in digests if not self._blobs.has(digest))

    async def _first_worker(self) -> None:
        """A farm that has just started hears of its workers after a few seconds: don't refuse work for that."""
        deadline = time.monotonic() + _JOIN_SECONDS
        while not self._workers and time.monotonic() < deadline:
            await asyncio.sleep(0.1)

    async def cancel(self, tenant: str, build_id: str) -> BuildView:
        if self._find(tenant, build_id).live:
            await self._apply(Cancelled(at=self._clock(), build_id=build_id))
        return await self.build(tenant, build_id)

    async def retry(self, tenant: str, build_id: str) -> BuildView:
        build = self._find(tenant, build_id)
        if build.live or (build.problem is None and build.state.value == "succeeded"):
            no = FarmError(Code.CONFLICT, f"the build is {build.state}, there is nothing to retry", where=build_id)
            await self._commits.cover()
            raise no
        await self._apply(Retried(at=self._clock(), build_id=build_id))
        return await self.build(tenant, build_id)
