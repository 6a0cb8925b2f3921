"""One farm for all tests with real kernels: what one of them has built, the others find."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kernel import tables
from kernfarm import layout, request
from kernfarm.cli import commands
from kernfarm.cli.embedded import EmbeddedFarm, Plan
from kernfarm.client import BuildInfo, FarmClient
from kernfarm.request import Draft
from tests.homes import make_home


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A finished build, its result record, and its image's files."""

    info: BuildInfo
    record: dict[str, Any]
    files: Path


@dataclass(slots=True)
class RealFarm:
    """An embedded farm with two workers, and its folder."""

    embedded: EmbeddedFarm
    home: Path

    @property
    def state(self) -> Path:
        return self.home / "farm"

    def client(self) -> FarmClient:
        return FarmClient(self.embedded.address, self.embedded.credentials)

    def build(self, draft: Draft) -> Built:
        """Build it for one architecture, or find it built; fetch it."""
        return asyncio.run(self._build(draft))

    async def submit(self, draft: Draft, *, clean: bool = False) -> list[BuildInfo]:
        """The request's builds as they are at their end."""
        prepared = request.prepare(draft)
        async with self.client() as client:
            builds = await client.submit(prepared.spec, prepared.uploads, request_id=str(uuid.uuid4()), clean=clean)
            return [[each async for each in client.watch(build["id"])][-1] for build in builds]

    async def _build(self, draft: Draft) -> Built:
        (info,) = await self.submit(draft)
        assert info["state"] == "succeeded", info["problem"]
        folder = self.home / info["id"]
        async with self.client() as client:
            await commands.fetch_to(client, info, folder / "image")
        (folder / "files").mkdir()
        layout.extract(folder / "image", tables.arch(info["arch"]).platform, folder / "files")
        return Built(info=info, record=json.loads((folder / "image/result.json").read_text()), files=folder / "files")


@pytest.fixture(scope="session")
def real_farm() -> Iterator[RealFarm]:
    home = make_home("kf-e2e-")
    (home / "farm").mkdir()
    (home / "farm").chmod(0o755)
    # Short shards, so that there are enough of them for three victims.
    overrides = {"longest_shard_seconds": 20.0}
    farm = EmbeddedFarm(Plan(state=home / "farm", workers=2, jobs=1, listen="127.0.0.1:0", coordinator_overrides=overrides))
    try:
        farm.start()
        yield RealFarm(farm, home)
    finally:
        farm.stop()
        if "KEEP" not in os.environ:
            shutil.rmtree(home)


@pytest.fixture
def plain_state() -> Iterator[Path]:
    """The state folder of a plain make."""
    home = make_home("kf-plain-")
    yield home
    if "KEEP" not in os.environ:
        shutil.rmtree(home)
