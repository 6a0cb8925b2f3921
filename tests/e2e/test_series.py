"""The configurations that come with kernfarm, on the kernels that they are for: every option of them sticks, in every flavour."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from kernfarm import request
from kernfarm.client import BuildInfo
from kernfarm.request import Draft
from tests.e2e.conftest import RealFarm

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

ARCHES, FLAVOURS = ("x86_64", "arm64"), ("plain", "dbg")


@pytest.mark.parametrize("series", ["6.1", "6.12"])
async def test_a_series_configuration_holds_on_its_kernel(series: str, real_farm: RealFarm) -> None:
    """A configuration with an option that does not stick fails the configure step. What comes behind is not waited for."""
    prepared = request.prepare(Draft(source=f"debian:{series}", arch=ARCHES, flavours=FLAVOURS, base="series"))
    async with real_farm.client() as client:
        builds = await client.submit(prepared.spec, prepared.uploads, request_id=str(uuid.uuid4()))
        assert len(builds) == len(ARCHES) * len(FLAVOURS)

        async def configured(build_id: str) -> BuildInfo:
            async for info in client.watch(build_id):
                if next(step["state"] for step in info["steps"] if step["key"] == "configure") == "succeeded":
                    await client.cancel(build_id)
                    return info
            return info

        for info in await asyncio.gather(*(configured(build["id"]) for build in builds)):
            assert info["problem"] is None, (info["arch"], info["flavour"], info["problem"])
            assert info["warnings"] == []
