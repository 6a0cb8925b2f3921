"""The coordinator's heart: a pure state machine. Events in, instructions out; no clock, no chance, no I/O.

Learned from dask's worker state machine: an event that does not fit the state is refused and changes nothing, and the
invariants can be checked after every event.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never, cast

from coordinator.events import (
    BlobsLost,
    Cancelled,
    Event,
    Failed,
    Launched,
    NotPlanned,
    Planned,
    Retried,
    Reused,
    Started,
    Submitted,
    Succeeded,
)
from coordinator.instructions import Abort, Announce, Instruction, MakePlan
from coordinator.memory import Memory, strings
from coordinator.state import Build, BuildState, Step, StepState, Try, add_shards, new_build, task_of
from kernel import digest as digests
from kernel.codec import tagged
from kernel.errors import Code, FarmError, Problem
from kernel.spec import BuildSpec
from kernel.steps import ORDER, PrepareResult, Result, StepKind, Task

# A flaky node may lose an attempt; the same step failing on three workers is no flake.
MAX_FAILURES = 3
MAX_LOSSES = 5


class Stale(Exception):
    """An event of an attempt that is not current (late, twice, unknown), or that does not fit the state. Nothing was changed."""


class Machine:
    """All builds, and what is known about finished work."""

    def __init__(self, *, source_ttl_seconds: float) -> None:
        self.builds: dict[str, Build] = {}
        # Those of them that are not finished: what is looked at for each event must not grow with history.
        self._live: dict[str, Build] = {}
        self._ttl = source_ttl_seconds
        self._requests: dict[tuple[str, str], Submitted] = {}
        self._known = Memory()
        self._attempts: dict[str, tuple[str, str]] = {}
        self._by_spec: dict[tuple[str, str], list[str]] = {}

    def apply(self, event: Event) -> tuple[Instruction, ...]:
        """Change the state; returns what has to be done now. Raises Stale, leaving the state as it was."""
        match event:
            case Submitted():
                return self._submitted(event)
            case Planned():
                return self._planned(event)
            case NotPlanned():
                return self._not_planned(event)
            case Launched():
                return self._launched(event)
            case Succeeded():
                return self._succeeded(event)
            case Failed():
                return self._failed(event)
            case Reused():
                return self._reused(event)
            case Cancelled():
                return self._cancelled(event)
            case Retried():
                return self._retried(event)
            case BlobsLost():
                return self._blobs_lost(event)
            case Started():
                return self._started(event)
            case _:
                assert_never(event)

    # questions

    def build(self, build_id: str) -> Build:
        """Raises FarmError(NOT_FOUND)."""
        found = self.builds.get(build_id)
        if found is None:
            raise FarmError(Code.NOT_FOUND, f"no build {build_id!r}", where=build_id, hint="kernfarm list")
        return found

    def answered(self, tenant: str, request_id: str, fingerprint: str) -> tuple[str, ...] | None:
        """The answer that an idempotency key was given before. Raises FarmError(CONFLICT) for a key that was used for something else."""
        earlier = self._requests.get((tenant, request_id))
        if earlier is None:
            return None
        if earlier.fingerprint != fingerprint:
            raise FarmError(Code.CONFLICT, "this request id was used for another request", where=request_id, hint="use a new one")
        return earlier.answered

    def match(self, tenant: str, spec: BuildSpec, now: float, *, boot: bool = False, sign: bool = False) -> str | None:
        """A build that answers this specification: finished (and fresh, if the source may have moved on), or on its way; with `boot` or
        `sign` only one that has such a step."""
        for build_id in reversed(self._by_spec.get((tenant, digests.of_value(spec)), [])):
            build = self.builds[build_id]
            if (boot and StepKind.BOOT not in build.steps) or (sign and StepKind.SIGN not in build.steps):
                continue
            if build.live:
                return build_id
            if build.state is BuildState.SUCCEEDED and not build.damaged:
                fetched = build.steps["source"].ended_at
                if not spec.source.mutable or now - fetched < self._ttl:
                    return build_id
        return None

    def live(self) -> list[Build]:
        """Builds that are not finished."""
        return list(self._live.values())

    def ready(self) -> list[tuple[Build, Step]]:
        """Steps that could be launched now: ready, and their work is not being done for another build. One for each work."""
        running = {step.work for _, step in self.running().values()}
        found: dict[str, tuple[Build, Step]] = {}
        for build in self._live.values():
            for step in build.steps.values():
                if step.state is StepState.READY and step.work not in running:
                    found.setdefault(step.work, (build, step))
        return list(found.values())

    def reusable(self, now: float) -> list[tuple[str, str]]:
        """Ready steps (build, step) whose work is done already."""
        return [
            (build.build_id, step.key)
            for build in self._live.values()
            for step in build.steps.values()
            if step.state is StepState.READY and self._fresh(build, step, now)
        ]

    def running(self) -> dict[str, tuple[Build, Step]]:
        """Attempts in flight by id."""
        return {
            attempt_id: (self.builds[build_id], self.builds[build_id].steps[key]) for attempt_id, (build_id, key) in self._attempts.items()
        }

    # events

    def _submitted(self, event: Submitted) -> tuple[Instruction, ...]:
        if event.request_id:
            self._requests[event.tenant, event.request_id] = event
        for new in event.builds:
            build = new_build(new.build_id, new.spec, new.salt, event.tenant, event.at, boot=new.boot, sign=new.sign)
            self.builds[new.build_id] = self._live[new.build_id] = build
            self._by_spec.setdefault((event.tenant, digests.of_value(new.spec)), []).append(new.build_id)
            self._advance(build, event.at)
        return tuple(Announce(build_id=new.build_id) for new in event.builds)

    def _unplanned(self, build_id: str) -> Build:
        build = self.builds.get(build_id)
        if build is None or not build.live or build.planned or build.steps["prepare"].state is not StepState.SUCCEEDED:
            raise Stale(f"{build_id} is not waiting for a plan")
        return build

    def _planned(self, event: Planned) -> tuple[Instruction, ...]:
        build = self._unplanned(event.build_id)
        build.planned, build.shards, build.covered, build.link_only = True, event.shards, event.covered, event.link_only
        add_shards(build)
        self._advance(build, event.at)
        return (Announce(build_id=build.build_id),)

    def _not_planned(self, event: NotPlanned) -> tuple[Instruction, ...]:
        build = self._unplanned(event.build_id)
        problem = event.problem
        if problem.code is Code.BLOB_LOST and problem.where and (again := self._forget(build, problem.where, event.at)) is not None:
            return again
        build.problem = problem
        return self._end(build, BuildState.FAILED, event.at)

    def _launched(self, event: Launched) -> tuple[Instruction, ...]:
        build = self.builds.get(event.build_id)
        step = build.steps.get(event.step) if build else None
        if build is None or step is None or step.state is not StepState.READY or event.attempt_id in self._attempts:
            raise Stale(f"{event.build_id}/{event.step} is not ready")
        step.state = StepState.RUNNING
        step.tries.append(Try(attempt_id=event.attempt_id, worker_id=event.worker_id, worker_name=event.worker_name, started_at=event.at))
        build.state = BuildState.RUNNING
        self._attempts[event.attempt_id] = (event.build_id, event.step)
        return (Announce(build_id=build.build_id),)

    def _current(self, attempt_id: str) -> tuple[Build, Step, Try]:
        place = self._attempts.get(attempt_id)
        if place is None:
            raise Stale(f"attempt {attempt_id} is not current")
        build = self.builds[place[0]]
        step = build.steps[place[1]]
        return build, step, step.tries[-1]

    def _succeeded(self, event: Succeeded) -> tuple[Instruction, ...]:
        build, step, attempt = self._current(event.attempt_id)
        del self._attempts[event.attempt_id]
        attempt.ended_at, attempt.usage = event.at, event.usage
        self._known.learn(step.work, event.result, event.at)
        return self._finish_step(build, step, event.result, event.at, reused=False)

    def _reused(self, event: Reused) -> tuple[Instruction, ...]:
        build = self.builds.get(event.build_id)
        step = build.steps.get(event.step) if build else None
        if build is None or step is None or step.state is not StepState.READY or (known := self._known.get(step.work)) is None:
            raise Stale(f"{event.build_id}/{event.step} can't be answered from what is known")
        build.state = BuildState.RUNNING
        return self._finish_step(build, step, known.result, known.at if step.kind is StepKind.SOURCE else event.at, reused=True)

    def _finish_step(self, build: Build, step: Step, result: Result, at: float, *, reused: bool) -> tuple[Instruction, ...]:
        done: list[Instruction] = []
        if step.previous is not None and step.previous != result:
            done += self._redo_after(build, step, at)
        step.state, step.result, step.reused, step.ended_at, step.previous = StepState.SUCCEEDED, result, reused, at, None
        done.append(Announce(build_id=build.build_id))
        if step.kind is StepKind.PREPARE and not build.planned:
            done.append(_make_plan(build))
        if step is next(reversed(build.steps.values())):
            build.state, build.ended_at = BuildState.SUCCEEDED, at
            del self._live[build.build_id]
        self._advance(build, at)
        return tuple(done)

    def _redo_after(self, build: Build, step: Step, at: float) -> list[Instruction]:
        """A step that was done again made something else (a mutable source has moved on): nothing made from the old may stay."""
        aborts: list[Instruction] = []
        for other in build.steps.values():
            if ORDER[other.kind] > ORDER[step.kind]:
                aborts += self._withdraw(other, at)
                other.result = other.previous = None
        if ORDER[step.kind] < ORDER[StepKind.COMPILE]:
            build.planned, build.shards, build.covered, build.link_only = False, (), 0, 0
            add_shards(build)
        return aborts

    def _withdraw(self, step: Step, at: float) -> list[Instruction]:
        """Back to waiting; what runs for it is ended."""
        aborts: list[Instruction] = []
        if step.state is StepState.RUNNING and not step.tries[-1].ended_at:
            step.tries[-1].ended_at = at
            del self._attempts[step.tries[-1].attempt_id]
            aborts.append(Abort(attempt_id=step.tries[-1].attempt_id))
        step.state, step.work, step.task = StepState.WAITING, "", None
        return aborts

    def _failed(self, event: Failed) -> tuple[Instruction, ...]:
        build, step, attempt = self._current(event.attempt_id)
        del self._attempts[event.attempt_id]
        attempt.ended_at, attempt.usage, attempt.problem = event.at, event.usage, event.problem
        problem = event.problem
        if problem.code is Code.CANCELLED:
            # Of an attempt that nobody here has cancelled: the worker thought that we had gone.
            problem = replace(problem, code=Code.WORKER_LOST, message="the worker gave the attempt up: it did not hear from us")
            attempt.problem = problem
        if problem.code is Code.BLOB_LOST and problem.where and (again := self._forget(build, problem.where, event.at)) is not None:
            return again
        losses = sum(1 for each in step.tries if each.problem and each.problem.code is Code.WORKER_LOST)
        failures = len([each for each in step.tries if each.problem]) - losses
        if problem.handling.retry and losses < MAX_LOSSES and failures < MAX_FAILURES:
            step.state, step.ready_at = StepState.READY, event.at
            return (Announce(build_id=build.build_id),)
        step.state, step.ended_at = StepState.FAILED, event.at
        build.problem = problem
        return self._end(build, BuildState.FAILED, event.at)

    def _forget(self, build: Build, lost: str, at: float) -> tuple[Instruction, ...] | None:
        """A blob is gone: do the steps of this build again that made it. Bounded; None when that is no help."""
        self._known.unlearn({lost})
        again = [step for step in build.steps.values() if step.result is not None and lost in strings(step.result)]
        build.blobs_lost += 1
        if not again or build.blobs_lost > MAX_FAILURES:
            return None
        aborts: list[Instruction] = []
        for step in again:
            step.previous, step.result = step.result, None
            aborts += self._withdraw(step, at)
        for step in build.steps.values():
            missed_it = step.state is StepState.RUNNING and step.tries[-1].ended_at > 0
            if missed_it or (step.state in (StepState.READY, StepState.RUNNING) and task_of(build, step) is None):
                aborts += self._withdraw(step, at)
        self._advance(build, at)
        return (*aborts, Announce(build_id=build.build_id))

    def _blobs_lost(self, event: BlobsLost) -> tuple[Instruction, ...]:
        build = self.builds.get(event.build_id)
        if build is None or build.state is not BuildState.SUCCEEDED or build.damaged:
            raise Stale(f"{event.build_id} is not whole")
        build.damaged = True
        self._known.unlearn(set(event.digests))
        return ()

    def _cancelled(self, event: Cancelled) -> tuple[Instruction, ...]:
        build = self.builds.get(event.build_id)
        if build is None or not build.live:
            raise Stale(f"{event.build_id} is not running")
        return self._end(build, BuildState.CANCELLED, event.at)

    def _retried(self, event: Retried) -> tuple[Instruction, ...]:
        build = self.builds.get(event.build_id)
        if build is None or build.state not in (BuildState.FAILED, BuildState.CANCELLED):
            raise Stale(f"{event.build_id} has not failed")
        build.state, build.problem, build.ended_at, build.blobs_lost = BuildState.QUEUED, None, 0.0, 0
        self._live[build.build_id] = build
        for step in build.steps.values():
            if step.state in (StepState.FAILED, StepState.CANCELLED):
                step.state, step.tries, step.ended_at = StepState.WAITING, [], 0.0
        self._advance(build, event.at)
        return (Announce(build_id=build.build_id), *self._plans_to_make([build]))

    def _started(self, event: Started) -> tuple[Instruction, ...]:
        done: list[Instruction] = []
        for attempt_id in list(self._attempts):
            problem = Problem(code=Code.WORKER_LOST, message="the coordinator was started again")
            done += self._lost(attempt_id, problem, event.at)
        return (*done, *self._plans_to_make(self._live.values()))

    def _plans_to_make(self, builds: Iterable[Build]) -> list[Instruction]:
        return [_make_plan(build) for build in builds if build.steps["prepare"].result is not None and not build.planned]

    def _lost(self, attempt_id: str, problem: Problem, at: float) -> tuple[Instruction, ...]:
        """Our own restart is nobody's failure: it doesn't count against the step."""
        build, step, attempt = self._current(attempt_id)
        del self._attempts[attempt_id]
        attempt.ended_at = at
        step.state, step.ready_at = StepState.READY, at
        return (Announce(build_id=build.build_id),)

    # what follows

    def _advance(self, build: Build, at: float) -> None:
        """Make steps ready whose task is known now."""
        if not build.live:
            return
        for step in build.steps.values():
            if step.state is StepState.WAITING:
                task = task_of(build, step)
                if task is not None:
                    step.task = task
                    step.work = _work_of(task, build.salt)
                    step.state, step.ready_at = StepState.READY, at

    def _end(self, build: Build, state: BuildState, at: float) -> tuple[Instruction, ...]:
        aborts: list[Instruction] = []
        for step in build.steps.values():
            if step.state is StepState.RUNNING:
                attempt_id = step.tries[-1].attempt_id
                del self._attempts[attempt_id]
                step.tries[-1].ended_at = at
                aborts.append(Abort(attempt_id=attempt_id))
            if step.state in (StepState.RUNNING, StepState.READY, StepState.WAITING):
                step.state, step.ended_at = StepState.CANCELLED, at
        build.state, build.ended_at = state, at
        del self._live[build.build_id]
        return (*aborts, Announce(build_id=build.build_id))

    def _fresh(self, build: Build, step: Step, now: float) -> bool:
        known = self._known.get(step.work)
        if known is None:
            return False
        return step.kind is not StepKind.SOURCE or not build.spec.source.mutable or now - known.at < self._ttl

    def validate(self) -> None:
        """Check all invariants. Raises AssertionError with the build's story."""
        for build in self.builds.values():
            story = f"{build.build_id} {build.state} " + " ".join(f"{key}:{step.state}" for key, step in build.steps.items())
            running = [step for step in build.steps.values() if step.state is StepState.RUNNING]
            assert build.live or not running, story
            assert all((step.result is not None) == (step.state is StepState.SUCCEEDED) for step in build.steps.values()), story
            assert all(self._attempts.get(step.tries[-1].attempt_id) == (build.build_id, step.key) for step in running), story
            assert all(step.work for step in build.steps.values() if step.state in (StepState.READY, StepState.RUNNING)), story
            succeeded = all(step.state is StepState.SUCCEEDED for step in build.steps.values())
            assert (build.state is BuildState.SUCCEEDED) <= succeeded, story
            assert (build.state is BuildState.FAILED) == (build.problem is not None), story
            assert build.live == (build.build_id in self._live), story
        works = [step.work for build in self.builds.values() for step in build.steps.values() if step.state is StepState.RUNNING]
        assert len(works) == len(set(works)), "the same work is done twice"
        assert all(self.builds[build_id].steps[key].state is StepState.RUNNING for build_id, key in self._attempts.values())


def _make_plan(build: Build) -> MakePlan:
    return MakePlan(build_id=build.build_id, inventory=cast(PrepareResult, build.steps["prepare"].result).inventory)


def _work_of(task: Task, salt: str) -> str:
    """What names work: the task, and the salt of a clean build."""
    return digests.of_value({"task": tagged(task), "salt": salt})
