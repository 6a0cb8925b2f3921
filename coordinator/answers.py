"""What a farm says when it is asked: views of its builds, logs, workers, blobs. Nothing here changes a build.

What is said of a build was true when it was looked at, and is told once the journal has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from coordinator import census, views
from coordinator.api import ANY_TEAM, BuildView
from coordinator.census import Census
from coordinator.changes import Changes
from coordinator.commits import Commits
from coordinator.fleet import WorkerInfo
from coordinator.indexes import Indexes, SignIndex
from coordinator.logs import Logs
from coordinator.machine import Machine
from coordinator.state import Build
from kernel.errors import Code, FarmError
from kernel.steps import Progress, SignedIndex
from kernfarm.blobs import BlobStore
from kernfarm.settings import CoordinatorSettings


class Answers:
    """The reading half of coordinator.api.FarmApi, over the state that Farm changes."""

    def __init__(self, settings: CoordinatorSettings, blobs: BlobStore, clock: Callable[[], float], sign_index: SignIndex | None) -> None:
        self._blobs = blobs
        self._clock = clock
        self._indexes = Indexes(blobs, sign_index)
        self._logs = Logs(settings.state_dir / "logs")
        self._machine = Machine(source_ttl_seconds=settings.source_ttl_seconds)
        self._workers: dict[str, WorkerInfo] = {}
        self._progress: dict[str, Progress] = {}
        self._changes = Changes()
        self._commits = Commits()

    def _find(self, tenant: str, build_id: str) -> Build:
        build = self._machine.build(build_id)
        if tenant not in (build.tenant, ANY_TEAM):
            raise FarmError(Code.NOT_FOUND, f"no build {build_id!r}", where=build_id, hint="kernfarm list")
        return build

    async def build(self, tenant: str, build_id: str) -> BuildView:
        view = self._view(self._find(tenant, build_id))
        await self._commits.cover()
        return view

    async def builds(self, tenant: str, *, before: str, limit: int) -> tuple[BuildView, ...]:
        mine = [build for build in reversed(self._machine.builds.values()) if tenant in (build.tenant, ANY_TEAM)]
        if before:
            ids = [build.build_id for build in mine]
            if before not in ids:
                raise FarmError(Code.INVALID_ARGUMENT, "this page token is none of ours", where="page_token")
            mine = mine[ids.index(before) + 1 :]
        seen = tuple(self._view(build) for build in mine[:limit])
        await self._commits.cover()
        return seen

    def _view(self, build: Build) -> BuildView:
        return views.build_view(build, self._progress, list(self._workers.values()))

    async def result(self, tenant: str, build_id: str) -> dict[str, Any]:
        record = views.result_record(self._find(tenant, build_id))
        await self._commits.cover()
        return record

    async def sign_index(self, tenant: str, build_ids: Sequence[str]) -> SignedIndex:
        builds = [self._find(tenant, build_id) for build_id in build_ids]
        try:
            return await self._indexes.signed(builds)
        except FarmError:
            await self._commits.cover()  # a refusal tells what the builds are like
            raise

    def census(self) -> Census:
        """How many there are of everything. In the event loop only; what a commit under way will say counts already."""
        return census.take(self._machine, list(self._workers.values()), self._clock())

    async def workers(self) -> tuple[tuple[WorkerInfo, int], ...]:
        busy = self._busy()
        ordered = sorted(self._workers.values(), key=lambda info: (info.name, info.worker_id))
        return tuple((info, busy.get(info.worker_id, 0)) for info in ordered)

    async def watch(self, tenant: str, build_id: str, token: str) -> AsyncIterator[tuple[str, BuildView]]:
        """Slow readers get the newest state, not a backlog. A token of an earlier coordinator is too old: the state comes again."""
        seen = token
        while True:
            build = self._find(tenant, build_id)
            current = self._changes.token(build_id)
            over = not build.live  # of the state that is told: the build may end while the reader holds it
            if current != seen or over:  # the token stands for less while the end is being committed
                seen, view = current, self._view(build)
                await self._commits.cover()
                yield current, view
            if over:
                return
            await self._changes.after(build_id, seen)

    async def logs(self, tenant: str, build_id: str, step: str, *, offset: int, follow: bool) -> AsyncIterator[bytes]:
        build = self._find(tenant, build_id)
        if step not in build.steps:
            known = ", ".join(build.steps)
            raise FarmError(Code.NOT_FOUND, f"this build has no step {step!r}", where=build_id, hint=f"steps: {known}")
        while True:
            over = build.steps[step].ended_at > 0 or not build.live
            data = await asyncio.to_thread(self._logs.read, build_id, step, offset)
            if data:
                offset += len(data)
                yield data
            elif over:
                await self._commits.cover()  # that there is no more is told as well
                return
            elif not follow:
                return
            else:
                await asyncio.sleep(0.3)

    async def has_blob(self, digest: str) -> bool:
        return await asyncio.to_thread(self._blobs.has, digest)

    async def put_blob(self, digest: str, chunks: Iterable[bytes]) -> None:
        await asyncio.to_thread(lambda: self._blobs.put_stream(chunks, expect=digest))

    async def get_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        chunks = self._blobs.stream(digest, offset=offset)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk

    async def made_blob(self, tenant: str, digest: str) -> bool:
        builds = (build for build in self._machine.builds.values() if tenant in (build.tenant, ANY_TEAM))
        made = any(digest in views.results(build) for build in builds)
        await self._commits.cover()
        return made or self._indexes.made(tenant, digest)

    def _busy(self) -> dict[str, int]:
        busy: dict[str, int] = {}
        for _, step in self._machine.running().values():
            worker = step.tries[-1].worker_id
            busy[worker] = busy.get(worker, 0) + 1
        return busy
