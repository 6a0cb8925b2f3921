"""The executor with steps of our own: what it tells, and that nothing goes on after it was told to end."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kernel.errors import Code, FarmError
from kernel.spec import SourceKind, SourceSpec
from kernel.steps import Attempt, CompileResult, Progress, SourceTask, StepKind
from kernfarm.settings import WorkerSettings
from worker import executor
from worker.context import Context
from worker.executor import Failed, Finished, Heard, Logged
from worker.node import Node

RESULT = CompileResult(layer="sha256:0", compiled=1)
TASK = SourceTask(source=SourceSpec(kind=SourceKind.FILE, ref="x"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    home = tmp_path_factory.mktemp("node")
    yield Node(WorkerSettings(state_dir=home, blobs_url=f"file://{home}/blobs", compile_cache=False))


def execute(node: Node, step: Callable[[Context], CompileResult], heartbeat: float = 0.1) -> Generator[executor.Event]:
    attempt = Attempt(attempt_id="b/s/1", build_id="b", kind=StepKind.SOURCE, task=TASK, domain="d", jobs=1, timeout_seconds=60)
    attempt = replace(attempt, heartbeat_seconds=heartbeat)
    return executor.execute(node, {StepKind.SOURCE: lambda context, task: step(context)}, attempt)


def test_a_step_ends_in_its_result_after_its_output_and_its_scratch_folder_is_gone(node: Node) -> None:
    seen: list[Path] = []

    def step(context: Context) -> CompileResult:
        seen.append(context.scratch)
        (context.scratch / "file").write_text("x")
        context.log(b"one\n")
        context.log(b"two\n")
        return RESULT

    events = list(execute(node, step))
    assert isinstance(events[-1], Finished)
    assert events[-1].result == RESULT
    assert b"".join(event.data for event in events if isinstance(event, Logged)) == b"one\ntwo\n"
    assert not seen[0].exists()


@pytest.mark.parametrize(("coordinators", "workers", "holds"), [(5, 7, 5), (7, 5, 5), (0, 5, 5), (5, 0, 5), (0, 0, 0)])
def test_the_lower_memory_limit_holds(coordinators: int, workers: int, holds: int, tmp_path: Path) -> None:
    seen: list[int] = []

    def step(context: Context) -> CompileResult:
        seen.append(context.attempt.memory_bytes)
        return RESULT

    node = Node(WorkerSettings(state_dir=tmp_path, blobs_url=f"file://{tmp_path}/blobs", compile_cache=False, memory_bytes=workers))
    attempt = Attempt(attempt_id="b/s/1", build_id="b", kind=StepKind.SOURCE, task=TASK, domain="d", jobs=1, timeout_seconds=60)
    list(executor.execute(node, {StepKind.SOURCE: lambda context, task: step(context)}, replace(attempt, memory_bytes=coordinators)))
    assert seen == [holds]


def test_a_silent_step_is_heard_of_at_least_each_heartbeat(node: Node) -> None:
    def step(context: Context) -> CompileResult:
        context.report(Progress(objects=7, doing="CC x.o"))
        time.sleep(2.0)
        return RESULT

    started = time.monotonic()
    times = []
    last = Progress()
    for event in execute(node, step, heartbeat=0.2):
        times.append(time.monotonic())
        if isinstance(event, Heard):
            last = event.progress
    assert last == Progress(objects=7, doing="CC x.o")
    assert max(later - earlier for earlier, later in zip([started, *times], times, strict=False)) < 1.0  # a busy machine may be late


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FarmError(Code.BAD_PATCH, "m"), Code.BAD_PATCH),
        (OSError(errno.ENOSPC, "full"), Code.DISK_FULL),
        (OSError(errno.EIO, "bad disk"), Code.SANDBOX_FAILED),
        (KeyError("a bug"), Code.INTERNAL),
    ],
)
def test_failures_become_problems(node: Node, error: Exception, code: Code) -> None:
    def step(context: Context) -> CompileResult:
        raise error

    last = list(execute(node, step))[-1]
    assert isinstance(last, Failed)
    assert last.problem.code is code


def _patient(cancelled: threading.Event) -> Callable[[Context], CompileResult]:
    def step(context: Context) -> CompileResult:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if context.cancel.is_set():
                cancelled.set()
                raise FarmError(Code.CANCELLED, "was told")
            time.sleep(0.01)
        return RESULT

    return step


def test_closing_ends_the_step_before_it_returns(node: Node) -> None:
    cancelled = threading.Event()
    events = execute(node, _patient(cancelled))
    next(events)
    events.close()
    assert cancelled.is_set()


def test_an_interrupt_while_the_step_starts_ends_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray's cancel may: in the main thread, between the start of the step's thread and the first event."""
    cancelled = threading.Event()
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if threading.current_thread() is threading.main_thread():  # the step's own thread starts others, to read what programs say
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threading.Thread, "start", interrupted)
        next(execute(node, _patient(cancelled)))
    assert cancelled.is_set()


def test_a_step_whose_events_nobody_takes_any_more_gives_up(node: Node) -> None:
    cancelled = threading.Event()
    events = execute(node, _patient(cancelled), heartbeat=0.05)
    next(events)
    assert cancelled.wait(5), "the lease did not end it"
    events.close()


def test_a_coordinator_that_is_slow_costs_no_memory(node: Node) -> None:
    done = threading.Event()

    def step(context: Context) -> CompileResult:
        for _ in range(200):
            context.log(b"x" * 65536)
        done.set()
        return RESULT

    events = execute(node, step, heartbeat=2.0)
    first = next(events)
    assert done.wait(10)
    size = sum(len(event.data) for event in [first, *events] if isinstance(event, Logged))
    assert size < 10_000_000


def test_what_a_dead_process_left_behind_is_swept(node: Node) -> None:
    left = node.settings.state_dir / "scratch" / "dead-one"
    left.mkdir()
    (left / "file").touch()
    left.with_suffix(".lock").touch()
    list(execute(node, lambda context: RESULT))
    assert not left.exists()
