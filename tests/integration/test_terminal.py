"""The command line on a real terminal: a display that redraws itself, NO_COLOR, Ctrl-C; and `kernfarm up` from start to Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from kernfarm import process
from kernfarm.cli.embedded import EmbeddedFarm
from kernfarm.client import FarmClient
from tests.integration.conftest import make_home

pytestmark = pytest.mark.ray

PROGRAM = str(Path(sys.executable).with_name("kernfarm"))
COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-7](;[0-9]+)*m")
CURSOR_UP = re.compile(rb"\x1b\[[0-9]*A")


class Terminal:
    """A program on a terminal of its own, of which it is the foreground job."""

    def __init__(self, *argv: str, env: dict[str, str]) -> None:
        self._master, slave = os.openpty()
        self.seen = b""
        # A shell that starts a test run in the background lets it ignore Ctrl-C; the foreground job of a terminal never does.
        foreground = ["env", "--default-signal=INT", "setsid", "--ctty", "--wait", *argv]
        self._child = subprocess.Popen(foreground, stdin=slave, stdout=slave, stderr=slave, env=env)
        os.close(slave)

    def read_until(self, text: bytes, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen.decode(errors="replace")
            self._read()

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def end(self, seconds: float) -> int:
        """What it still has to say, and its exit code."""
        deadline = time.monotonic() + seconds
        while self._child.poll() is None or self._read():
            assert time.monotonic() < deadline, self.seen.decode(errors="replace")
            self._read()
        return self._child.returncode

    def close(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        os.close(self._master)

    def _read(self) -> bool:
        if not select.select([self._master], [], [], 0.1)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False  # EIO: the other end is closed
        self.seen += data
        return bool(data)


@contextmanager
def terminal(*argv: str, env: dict[str, str]) -> Iterator[Terminal]:
    screen = Terminal(*argv, env={"PATH": os.environ["PATH"], "HOME": "/tmp", "TERM": "xterm-256color", **env})
    try:
        yield screen
    finally:
        screen.close()


@pytest.mark.parametrize("no_color", [False, True])
def test_ctrl_c_leaves_the_build_running_and_says_so(farm: EmbeddedFarm, tarball: Path, tmp_path: Path, no_color: bool) -> None:
    config = tmp_path / "slow.config"
    config.write_text('CONFIG_FAKE_SLOW=y\nCONFIG_FAKE_SLOW_SECONDS="0.4"\n')
    words = ("build", "--no-boot", "--source", f"file:{tarball}", "--config", str(config), "--local-version", f"-tty{no_color}")
    with terminal(PROGRAM, *words, env={**farm.environment, **({"NO_COLOR": "1"} if no_color else {})}) as screen:
        screen.read_until(b"compile-000", 60)
        time.sleep(1)
        screen.press(b"\x03")
        assert screen.end(20) == 130
    assert b"goes on" in screen.seen
    assert CURSOR_UP.search(screen.seen), "the display was not redrawn"
    assert bool(COLOUR.search(screen.seen)) is not no_color
    assert b"Traceback" not in screen.seen

    async def finished() -> str:
        async with FarmClient(farm.address, farm.credentials) as client:
            newest = (await client.builds(limit=1))[0]
            return [str(info["state"]) async for info in client.watch(newest["id"])][-1]

    assert asyncio.run(finished()) == "succeeded"


def test_a_finished_build_shows_its_digests_on_a_terminal(farm: EmbeddedFarm, tarball: Path) -> None:
    with terminal(PROGRAM, "build", "--no-boot", "--source", f"file:{tarball}", env=farm.environment) as screen:
        assert screen.end(120) == 0
    assert b"sha256:" in screen.seen
    assert b"kernel-dev.tar" in screen.seen


def test_up_serves_and_ctrl_c_leaves_nothing() -> None:
    home = make_home()
    try:
        up = process.start(
            (PROGRAM, "up", "--workers", "1", "--state", str(home)), env={"PATH": os.environ["PATH"]}, output=home / "up.log"
        )
        deadline = time.monotonic() + 90
        while "serves on" not in (home / "up.log").read_text():
            assert up.poll() is None and time.monotonic() < deadline, (home / "up.log").read_text()
            time.sleep(0.1)
        listed = process.run((PROGRAM, "workers", "--state", str(home)), env={"PATH": os.environ["PATH"]}, timeout_seconds=30)
        assert listed.output.startswith(b"worker-1\tarm64,x86_64\tclang-14,gcc-12\t0/1")
        below = psutil.Process(up.pid).children(recursive=True)
        assert len(below) > 4
        up.interrupt()
        assert up.wait(60) == 0, (home / "up.log").read_text()
        _, left = psutil.wait_procs(below, timeout=10)
        assert left == []
        assert not (home / "address").exists()
        gone = process.run((PROGRAM, "list", "--state", str(home)), env={"PATH": os.environ["PATH"]}, timeout_seconds=30)
        assert gone.code == 4
        assert b"kernfarm up" in gone.output
    finally:
        shutil.rmtree(home)
