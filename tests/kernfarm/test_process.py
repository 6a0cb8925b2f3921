from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from kernel.errors import Code, FarmError
from kernfarm import process

ENV = {"PATH": "/usr/bin:/bin"}


def sh(script: str, **options: object) -> process.Completed:
    return process.run(("/bin/sh", "-c", script), env=ENV, **{"timeout_seconds": 20, **options})  # type: ignore[arg-type]


def test_output_of_both_streams_lines_and_exit_code() -> None:
    lines: list[bytes] = []
    done = sh("echo out; echo err >&2; printf 'no newline'; exit 3", on_line=lines.append)
    assert done.code == 3
    assert done.output == b"out\nerr\nno newline"
    assert lines == [b"out\n", b"err\n", b"no newline"]


def test_a_signal_is_a_negative_code() -> None:
    assert sh("kill -9 $$").code == -signal.SIGKILL


def test_the_environment_is_only_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert b"SECRET" not in sh("env").output


def test_a_missing_program_is_named() -> None:
    with pytest.raises(FarmError) as caught:
        process.run(("/no/such/program",), env=ENV, timeout_seconds=1)
    assert caught.value.problem.code is Code.MISSING_FILE
    assert caught.value.problem.where == "/no/such/program"


def test_timeout_and_cancel_leave_nothing_of_the_group(tmp_path: Path) -> None:
    """Not even what ignores the polite signal, or was started in the background."""
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $! >> {pids}; echo $$ >> {pids}; sleep 60"
    started = time.monotonic()
    with pytest.raises(FarmError) as caught:
        sh(script, timeout_seconds=0.5)
    assert caught.value.problem.code is Code.TIMEOUT
    assert time.monotonic() - started < 10
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    with pytest.raises(FarmError) as caught:
        sh(script, cancel=cancel)
    assert caught.value.problem.code is Code.CANCELLED
    for pid in (int(word) for word in pids.read_text().split()):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_only_the_tail_of_long_output_is_kept() -> None:
    done = sh("head -c 3000000 /dev/zero | tr '\\0' 'x' | fold -w 99; echo end")
    assert len(done.output) <= process.TAIL_BYTES
    assert done.output.endswith(b"end\n")


def test_input_is_fed_and_a_command_may_leave_it() -> None:
    assert sh("cat", input=b"hello").output == b"hello"
    assert sh("exit 0", input=b"x" * 1_000_000).code == 0


def test_a_listener_that_fails_is_heard_in_the_callers_thread() -> None:
    def listener(line: bytes) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        sh("echo a; echo b", on_line=listener)


def test_stdout_can_go_to_a_file_unseen(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as sink:
        done = sh("echo data; echo talk >&2", stdout=sink)
    assert (tmp_path / "out").read_bytes() == b"data\n"
    assert done.output == b"talk\n"


def test_a_service_runs_beside_us_and_ends_when_told(tmp_path: Path) -> None:
    service = process.start(("sleep", "60"), env=ENV, output=tmp_path / "logs/s.log", name="s")
    assert service.poll() is None
    assert service.wait(0.05) is None
    assert service.terminate(5) == -signal.SIGTERM
    assert service.poll() is not None


def test_a_service_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from kernfarm import process\n"
        f"s = process.start(('sleep', '60'), env={ENV!r}, output=Path({str(tmp_path / 'log')!r}))\n"
        "print(s.pid, flush=True); time.sleep(60)"
    )
    lines: list[bytes] = []
    cancel = threading.Event()
    parent: list[int] = []

    def heard(line: bytes) -> None:
        lines.append(line)
        parent.extend(child.pid for child in psutil.Process(os.getpid()).children() if "print(s.pid" in " ".join(child.cmdline()))
        os.kill(parent[0], signal.SIGKILL)

    import sys

    env = {**ENV, "PYTHONPATH": os.pathsep.join(sys.path)}
    process.run((sys.executable, "-c", code), env=env, timeout_seconds=30, on_line=heard, cancel=cancel)
    deadline = time.monotonic() + 5
    while psutil.pid_exists(int(lines[0])) and psutil.Process(int(lines[0])).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the service outlived its parent"
        time.sleep(0.05)
