"""A farm at its port, for tests of the edge."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from coordinator.api import BuildView
from coordinator.fleet import WorkerInfo
from kernel.errors import Code, FarmError
from kernel.spec import RequestSpec
from kernel.steps import Artifact, SignedIndex


def view(build_id: str, state: str = "running") -> BuildView:
    return BuildView(
        build_id=build_id,
        state=state,
        source="file:x",
        arch="x86_64",
        flavour="plain",
        toolchain="gcc-12",
        release="",
        steps=(),
        problem=None,
        created_at=1.0,
        ended_at=0.0,
        artifacts=(),
        images=(),
        objects_done=0,
        objects_planned=0,
    )


class FakeFarm:
    """coordinator.api.FarmApi over plain lists."""

    def __init__(self) -> None:
        self.known = [view(f"build-{number}") for number in range(250)]
        self.blobs: dict[str, bytes] = {}
        self.made: set[str] = set()
        self.submitted: list[str] = []
        self.fail: Exception | None = None
        self.patience = 0.0
        self.states: asyncio.Queue[str] = asyncio.Queue()
        self.tokens: list[str] = []

    async def submit(self, spec: RequestSpec, *, tenant: str, request_id: str, clean: bool) -> tuple[BuildView, ...]:
        await asyncio.sleep(self.patience)
        if self.fail is not None:
            raise self.fail
        self.submitted.append(request_id)
        return (view("new"),)

    async def build(self, tenant: str, build_id: str) -> BuildView:
        found = [each for each in self.known if each.build_id == build_id]
        if not found:
            raise FarmError(Code.NOT_FOUND, f"no build {build_id!r}", where=build_id, hint="kernfarm list")
        return found[0]

    async def builds(self, tenant: str, *, before: str, limit: int) -> tuple[BuildView, ...]:
        ids = [each.build_id for each in self.known]
        start = ids.index(before) + 1 if before else 0
        return tuple(self.known[start : start + limit])

    async def cancel(self, tenant: str, build_id: str) -> BuildView:
        return await self.build(tenant, build_id)

    async def retry(self, tenant: str, build_id: str) -> BuildView:
        return await self.build(tenant, build_id)

    async def result(self, tenant: str, build_id: str) -> dict[str, Any]:
        return {"id": build_id, "n": 1}

    async def sign_index(self, tenant: str, build_ids: Sequence[str]) -> SignedIndex:
        for build_id in build_ids:
            await self.build(tenant, build_id)
        return SignedIndex(index=Artifact(name="index", digest=f"sha256:{'1' * 64}", size=1), attachments=())

    async def workers(self) -> tuple[tuple[WorkerInfo, int], ...]:
        return ()

    async def watch(self, tenant: str, build_id: str, token: str) -> AsyncIterator[tuple[str, BuildView]]:
        self.tokens.append(token)
        number = int(token or 0)
        while True:
            state = await self.states.get()
            number += 1
            yield str(number), view(build_id, state)
            if state == "succeeded":
                return

    async def logs(self, tenant: str, build_id: str, step: str, *, offset: int, follow: bool) -> AsyncIterator[bytes]:
        yield b"0123456789"[offset:]

    async def has_blob(self, digest: str) -> bool:
        return digest in self.blobs

    async def put_blob(self, digest: str, chunks: Iterable[bytes]) -> None:
        data = b"".join(chunks)
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise FarmError(Code.BAD_DIGEST, "not what was announced", where=digest)
        self.blobs[digest] = data

    async def made_blob(self, tenant: str, digest: str) -> bool:
        return digest in self.made

    async def get_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        yield self.blobs[digest][offset:]
