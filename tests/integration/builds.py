"""Builds on a farm of the tests: asked for by a client or by the command line, and followed."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kernfarm import process, request
from kernfarm.cli.embedded import EmbeddedFarm
from kernfarm.client import BuildInfo, FarmClient
from kernfarm.request import Draft
from tests import faults

SLOW = 'CONFIG_FAKE_SLOW=y\nCONFIG_FAKE_SLOW_SECONDS="1"\n'
# Long enough to be killed in.
SLOWISH = SLOW.replace("1", "0.4")


def kernfarm(farm: EmbeddedFarm, *words: str, timeout: float = 240) -> process.Completed:
    """The command line as a user calls it, without a terminal."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": path, **farm.environment, "HOME": "/tmp", "NO_COLOR": "1"}
    program = str(Path(sys.executable).with_name("kernfarm"))
    return process.run((program, *words), env=env, timeout_seconds=timeout)


async def submit(client: FarmClient, draft: Draft, *, clean: bool = False) -> str:
    prepared = request.prepare(draft)
    builds = await client.submit(prepared.spec, prepared.uploads, request_id=str(uuid.uuid4()), clean=clean)
    return str(builds[0]["id"])


async def end(client: FarmClient, build_id: str) -> BuildInfo:
    return [info async for info in client.watch(build_id)][-1]


async def until(client: FarmClient, build_id: str, check: Callable[[BuildInfo], bool]) -> BuildInfo:
    async for info in client.watch(build_id):
        if check(info):
            return info
    raise AssertionError("the build ended before")


def compiling(info: BuildInfo) -> bool:
    return any(step["kind"] == "compile" and step["state"] == "running" for step in info["steps"])


def with_config(draft: Draft, folder: Path, text: str) -> Draft:
    path = folder / "my.config"
    path.write_text(text)
    return replace(draft, fragments=(path,))


async def idle(farm: EmbeddedFarm) -> None:
    """Wait until no sandbox has been seen for a second: a step that is told to end may have been between two of its commands."""
    deadline, quiet = time.monotonic() + 60, 0
    while quiet < 10:
        running = faults.in_sandbox(farm)
        assert time.monotonic() < deadline, f"something goes on in a sandbox: {running}"
        quiet = 0 if running else quiet + 1
        await asyncio.sleep(0.1)
