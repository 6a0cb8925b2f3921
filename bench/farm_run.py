"""One build on an embedded farm, measured: wall time, CPU of the build steps, CPU of everything else the farm runs."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernfarm import request
from kernfarm.cli import commands
from kernfarm.cli.embedded import EmbeddedFarm, Plan
from kernfarm.client import BuildInfo, FarmClient
from kernfarm.request import Draft
from worker import cgroup
from worker.cgroup import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class FarmRun:
    """A cold build and its identical resubmission. Seconds; `overhead_cpu`: coordinator, Ray, workers and client outside the sandbox."""

    workers: int
    info: BuildInfo
    record: dict[str, Any]
    wall: float
    overhead_cpu: float
    resubmit_wall: float
    home: Path
    image: Path

    @property
    def step_cpu(self) -> dict[str, float]:
        """CPU seconds inside sandboxes, by kind of step."""
        spent: dict[str, float] = {}
        for step in self.record["steps"]:
            usage = step["usage"]
            spent[kind_of(step)] = spent.get(kind_of(step), 0.0) + usage["cpu_user_seconds"] + usage["cpu_system_seconds"]
        return spent

    @property
    def step_wall(self) -> dict[str, float]:
        """Wall seconds from the first start to the last end, by kind of step."""
        spans: dict[str, tuple[float, float]] = {}
        for step in self.record["steps"]:
            first, last = spans.get(kind_of(step), (step["started_at"], step["ended_at"]))
            spans[kind_of(step)] = (min(first, step["started_at"]), max(last, step["ended_at"]))
        return {kind: last - first for kind, (first, last) in spans.items()}

    @property
    def compiled(self) -> int:
        return int(self.record["objects_compiled"])


def kind_of(step: dict[str, Any]) -> str:
    """`compile` of `compile-007`."""
    return str(step["key"]).partition("-")[0]


@contextmanager
def cold_build(home: Path, draft: Draft, *, workers: int) -> Iterator[FarmRun]:
    """Start a farm of single-core workers with empty caches, build, submit the same again, stop it. RuntimeError: it failed."""
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    farm = EmbeddedFarm(Plan(state=home, workers=workers, jobs=1, listen="127.0.0.1:0", pin=True))
    with _accounted() as spent:
        try:
            farm.start()
            yield asyncio.run(_measure(farm, draft, home, workers, spent))
        finally:
            farm.stop()


async def _measure(farm: EmbeddedFarm, draft: Draft, home: Path, workers: int, spent: Any) -> FarmRun:
    prepared = request.prepare(draft)
    async with FarmClient(farm.address, farm.credentials) as client:
        before, started = spent(), time.monotonic()
        builds = await client.submit(prepared.spec, prepared.uploads, request_id=str(uuid.uuid4()))
        info = [each async for each in client.watch(builds[0]["id"])][-1]
        wall, overhead = time.monotonic() - started, spent() - before
        if info["state"] != "succeeded":
            raise RuntimeError(f"the farm's build failed: {info['problem']}")
        record = await client.result(info["id"])
        await commands.fetch_to(client, info, home / "image")
        started = time.monotonic()
        again = await client.submit(request.prepare(draft).spec, prepared.uploads, request_id=str(uuid.uuid4()))
        finished = [each async for each in client.watch(again[0]["id"])][-1]
        resubmit = time.monotonic() - started
        if finished["id"] != info["id"]:
            raise RuntimeError("the identical resubmission was built again")
    return FarmRun(
        workers=workers, info=info, record=record, wall=wall, overhead_cpu=overhead, resubmit_wall=resubmit, home=home, image=home / "image"
    )


@contextmanager
def _accounted() -> Iterator[Any]:
    """Put this process, and so all it starts from now on, into a control group; sandboxes leave it for groups of their own."""
    with cgroup.detect().group(f"bench-{uuid.uuid4().hex[:8]}", Limits(pids=0)) as group:
        entries = group.entries
        homes = [entry.parent.parent / entry.name for entry in entries]
        _enter(entries)
        try:

            def spent() -> float:
                now = group.spent()
                return now.cpu_user_seconds + now.cpu_system_seconds

            yield spent
        finally:
            # The group ends whatever is still in it.
            _enter(homes)


def _enter(entries: Any) -> None:
    for entry in entries:
        entry.write_text(str(os.getpid()))
