"""Each call is told once to whoever counts, with the status that its caller sees."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kernel.errors import FarmError
from tests.coordinator.test_service import SPEC, FakeFarm
from tests.served import serving


async def test_every_call_is_told_with_the_status_that_its_caller_sees(tmp_path: Path) -> None:
    farm = FakeFarm()
    seen: list[tuple[str, str]] = []

    def observe(method: str, status: str, seconds: float) -> None:
        if seconds >= 0:
            seen.append((method, status))

    async with serving(tmp_path, farm, observe=observe) as served:
        async with served.client() as client:
            await client.get("build-1")
            with pytest.raises(FarmError):
                await client.get("nothing")
            farm.fail = RuntimeError("a bug")
            with pytest.raises(FarmError):
                await client.submit(SPEC, {}, request_id="1")
            watching = asyncio.ensure_future(anext(client.watch("build-2")))
            await asyncio.sleep(0.3)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        async with served.client(token="kf_wrong") as client:
            with pytest.raises(FarmError):
                await client.get("build-1")
        async with served.channel() as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="no such"))
        for _ in range(100):
            if len(seen) == 6:
                break
            await asyncio.sleep(0.02)
    assert sorted(seen) == sorted(
        [
            ("GetBuild", "OK"),
            ("GetBuild", "NOT_FOUND"),
            ("GetBuild", "UNAUTHENTICATED"),
            ("SubmitBuilds", "INTERNAL"),
            ("WatchBuild", "CANCELLED"),
            ("Check", caught.value.code().name),
        ]
    )
