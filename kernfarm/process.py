"""The one door to other programs: minimal environment, own process group, time limit, one log line, a command that can be pasted."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from kernel.errors import Code, FarmError

log = logging.getLogger(__name__)

OnLine = Callable[[bytes], None]


class Cancel(Protocol):
    """Asked often whether to end; a threading.Event is one."""

    def is_set(self) -> bool: ...


TAIL_BYTES = 1 << 20
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 3.0
_LONGEST_LINE = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A command that ended by itself. `output`: the last TAIL_BYTES of stdout and stderr together; `code` negative for a signal."""

    code: int
    output: bytes
    seconds: float


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout_seconds: float,
    cwd: Path | None = None,
    on_line: OnLine | None = None,
    input: bytes | None = None,
    cancel: Cancel | None = None,
    stdout: IO[bytes] | None = None,
) -> Completed:
    """Run a command to its end. `env` is its whole environment. With `stdout` set its standard output goes to that file unseen.

    Raises FarmError: MISSING_FILE when there is no such program, TIMEOUT, CANCELLED. In all cases nothing of its process group is left.
    """
    log.debug("run: %s", shlex.join(argv))
    started = time.monotonic()
    try:
        child = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
            stdout=stdout if stdout is not None else subprocess.PIPE,
            stderr=subprocess.PIPE if stdout is not None else subprocess.STDOUT,
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError) as error:
        raise FarmError(Code.MISSING_FILE, f"cannot start {argv[0]}: {error.strerror}", where=argv[0]) from error
    with child:
        reader = _Reader(child.stderr if stdout is not None else child.stdout, on_line)
        feeder = _feed(child, input)
        try:
            _wait(child, started + timeout_seconds, cancel, argv)
        finally:
            end_group(child)
            reader.join()
            if feeder is not None:
                feeder.join()
    if reader.failure is not None:
        raise reader.failure
    return Completed(code=child.returncode, output=reader.tail(), seconds=time.monotonic() - started)


def _wait(child: subprocess.Popen[bytes], deadline: float, cancel: Cancel | None, argv: Sequence[str]) -> None:
    delay = 0.002
    while True:
        if cancel is not None and cancel.is_set():
            raise FarmError(Code.CANCELLED, f"{Path(argv[0]).name} was cancelled")
        left = deadline - time.monotonic()
        if left <= 0:
            raise FarmError(Code.TIMEOUT, f"{shlex.join(argv)[:200]} did not end in time")
        try:
            child.wait(min(delay, left))
            return
        except subprocess.TimeoutExpired:
            delay = min(delay * 2, _POLL_SECONDS)


def end_group(child: subprocess.Popen[bytes], grace_seconds: float = _GRACE_SECONDS) -> None:
    """End a whole process group: politely while its leader lives, then for certain."""
    if child.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_seconds)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return  # the group has ended; its number may even belong to somebody else by now


def _feed(child: subprocess.Popen[bytes], data: bytes | None) -> threading.Thread | None:
    if data is None or child.stdin is None:
        return None
    pipe = child.stdin

    def write() -> None:
        try:
            pipe.write(data)
            pipe.close()
        except BrokenPipeError:
            return  # the command did not want all of it; its exit code tells whether that matters

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


class _Reader:
    """Drains a pipe in a thread of its own, line by line; keeps a bounded tail; over-long lines are handed on in pieces."""

    def __init__(self, pipe: IO[bytes] | None, on_line: OnLine | None) -> None:
        assert pipe is not None
        self._pipe = pipe
        self._on_line = on_line
        self._kept: deque[bytes] = deque()
        self._size = 0
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while line := self._pipe.readline(_LONGEST_LINE):
            self._kept.append(line)
            self._size += len(line)
            while self._size > TAIL_BYTES and len(self._kept) > 1:
                self._size -= len(self._kept.popleft())
            if self._on_line is not None and self.failure is None:
                try:
                    self._on_line(line)
                except (FarmError, OSError, ValueError) as error:
                    self.failure = error  # raised in the caller's thread; the pipe is drained on so that the command can end

    def join(self) -> None:
        """Wait for the end of the output. Bounded: a process that left the group may hold the pipe open."""
        self._thread.join(_GRACE_SECONDS)

    def tail(self) -> bytes:
        return b"".join(self._kept)


class Service:
    """A program that runs beside us until it is told to end."""

    def __init__(self, child: subprocess.Popen[bytes], name: str) -> None:
        self._child = child
        self.name = name

    @property
    def pid(self) -> int:
        return self._child.pid

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._child.poll()

    def wait(self, timeout_seconds: float) -> int | None:
        """Its exit code, or None when it still runs after that time."""
        try:
            return self._child.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def interrupt(self) -> None:
        """Ask it to end, as Ctrl-C would."""
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it and its process group at once."""
        end_group(self._child, grace_seconds=0)

    def terminate(self, grace_seconds: float = 10.0) -> int:
        """End it and its process group; politely first. Returns the exit code."""
        end_group(self._child, grace_seconds)
        return self._child.returncode


def start(
    argv: Sequence[str], *, env: Mapping[str, str], output: Path, cwd: Path | None = None, name: str = "", umask: int = -1
) -> Service:
    """Start a program that runs beside us, its output appended to a file. The kernel ends it when the thread that started it dies.
    `umask`: of its files; -1: ours."""
    log.debug("start: %s", shlex.join(argv))
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("ab") as sink:
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "SIGTERM", *argv],
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=umask,
        )
    return Service(child, name or Path(argv[0]).name)


def interactive(argv: Sequence[str], *, env: Mapping[str, str]) -> int:
    """Run a command on our own terminal (a console, an editor) and return its exit code."""
    log.debug("interactive: %s", shlex.join(argv))
    return subprocess.call(list(argv), env=dict(env))
