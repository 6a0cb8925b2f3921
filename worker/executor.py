"""Runs one attempt: sets the table, calls the step, tells what became of it. Knows nothing of Ray."""

from __future__ import annotations

import errno
import importlib
import logging
import queue
import threading
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from kernel.errors import Code, FarmError, Problem
from kernel.steps import Attempt, Progress, Result, StepKind, Usage
from kernfarm.process import Cancel
from worker.context import Context
from worker.meter import Meter, Metered
from worker.node import Node

log = logging.getLogger(__name__)

Step = Callable[[Context, Any], Result]
_LOG_CHUNK = 64 * 1024
_LOG_SECONDS = 0.5
# As long as the coordinator waits for a silent attempt by default.
LEASE_BEATS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A sign of life with progress."""

    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """Output of the step's commands."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    result: Result
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    problem: Problem
    usage: Usage


Event = Heard | Logged | Finished | Failed


def load_steps(name: str) -> Mapping[StepKind, Step]:
    """The table of steps named as MODULE:NAME."""
    module, _, attribute = name.partition(":")
    return cast(Mapping[StepKind, Step], getattr(importlib.import_module(module), attribute))


def execute(node: Node, steps: Mapping[StepKind, Step], attempt: Attempt) -> Generator[Event]:
    """Events of an attempt, at least one each `heartbeat_seconds`, the last a Finished or Failed.

    Closing the iterator ends the attempt; so does leaving it alone for LEASE_BEATS heartbeats, since whoever takes its events is gone.
    """
    lease = _Lease(attempt.heartbeat_seconds * LEASE_BEATS)
    inbox = _Inbox(attempt.heartbeat_seconds)
    runner = threading.Thread(target=_run, args=(node, steps, attempt, lease, inbox), name=attempt.attempt_id, daemon=True)
    try:
        # Inside the try: an interrupt can land while the thread starts.
        runner.start()
        while True:
            event = inbox.next()
            lease.lend()
            yield event
            lease.give_back()
            if isinstance(event, (Finished, Failed)):
                return
    finally:
        lease.end()
        if runner.is_alive():
            runner.join()


class _Lease:
    """Whether an attempt shall end: told so, or nobody came back for the next event in time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ended = False
        self._lent_at = 0.0

    def lend(self) -> None:
        self._lent_at = time.monotonic()

    def give_back(self) -> None:
        self._lent_at = 0.0

    def end(self) -> None:
        self._ended = True

    def is_set(self) -> bool:
        lent_at = self._lent_at
        return self._ended or (lent_at > 0 and time.monotonic() - lent_at > self._seconds)


def _run(node: Node, steps: Mapping[StepKind, Step], attempt: Attempt, cancel: Cancel, inbox: _Inbox) -> None:
    started = time.monotonic()
    meter = Meter()
    outcome: Event
    try:
        with node.scratch(attempt.attempt_id) as scratch:
            context = Context(
                attempt=_within(attempt, node.settings.memory_bytes),
                scratch=scratch,
                blobs=node.blobs,
                trees=node.trees,
                sandbox=Metered(node.sandbox, meter),
                cache=node.cache,
                meter=meter,
                log=inbox.log,
                report=inbox.report,
                cancel=cancel,
                sources=node.settings.sources,
                epoch=node.epoch,
            )
            result = steps[attempt.kind](context, attempt.task)
        outcome = Finished(result=result, usage=meter.total(time.monotonic() - started))
    except FarmError as error:
        outcome = Failed(problem=error.problem, usage=meter.total(time.monotonic() - started))
    except OSError as error:
        outcome = Failed(problem=_of_os_error(error), usage=meter.total(time.monotonic() - started))
        inbox.log(traceback.format_exc().encode())
    except Exception as error:  # the border of the step: whatever it is, the coordinator has to hear of it
        log.exception("attempt %s", attempt.attempt_id)
        inbox.log(traceback.format_exc().encode())
        problem = Problem(code=Code.INTERNAL, message=f"{type(error).__name__}: {error}", where=f"step {attempt.kind}")
        outcome = Failed(problem=problem, usage=meter.total(time.monotonic() - started))
    inbox.end(outcome)


def _within(attempt: Attempt, memory_bytes: int) -> Attempt:
    """The lower of the coordinator's and the worker's memory limit holds; 0 is none."""
    limits = [limit for limit in (attempt.memory_bytes, memory_bytes) if limit]
    return replace(attempt, memory_bytes=min(limits, default=0))


def _of_os_error(error: OSError) -> Problem:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Problem(code=Code.DISK_FULL, message="no space left on the worker's disk", where=str(error.filename or ""))
    return Problem(code=Code.SANDBOX_FAILED, message=f"the worker's system refused: {error}", where=str(error.filename or ""))


class _Inbox:
    """From the step's threads to the iterator: log lines are gathered, progress is only the latest, memory is bounded."""

    def __init__(self, heartbeat_seconds: float) -> None:
        self._heartbeat = heartbeat_seconds
        self._lock = threading.Lock()
        self._log = bytearray()
        self._dropped = 0
        self._progress = Progress()
        self._told = 0.0
        self._outcome: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._ended = False

    def log(self, data: bytes) -> None:
        with self._lock:
            if len(self._log) > 64 * _LOG_CHUNK:
                self._dropped += len(data)
            else:
                self._log += data
            if len(self._log) >= _LOG_CHUNK:
                self._wake.set()

    def report(self, progress: Progress) -> None:
        with self._lock:
            self._progress = progress

    def end(self, outcome: Event) -> None:
        self._outcome.put(outcome)
        self._ended = True
        self._wake.set()

    def next(self) -> Event:
        """The next event; waits at most about half a heartbeat."""
        while True:
            ended = self._ended
            with self._lock:
                data = bytes(self._log)
                self._log.clear()
                if self._dropped:
                    data += f"\n[{self._dropped} bytes of output dropped: the coordinator is slow]\n".encode()
                    self._dropped = 0
                progress = self._progress
            if data:
                return Logged(data=data)
            if ended:
                return self._outcome.get()
            now = time.monotonic()
            if now - self._told >= self._heartbeat / 2:
                self._told = now
                return Heard(progress=progress)
            self._wake.wait(min(_LOG_SECONDS, self._heartbeat / 2))
            self._wake.clear()
