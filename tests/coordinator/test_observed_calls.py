"""Each call is told once to whoever counts, with the status that its caller sees."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordinator import service
from kernel.errors import FarmError
from kernfarm.client import FarmClient
from tests.coordinator.test_service import SPEC, FakeFarm


async def test_every_call_is_told_with_the_status_that_its_caller_sees() -> None:
    farm = FakeFarm()
    seen: list[tuple[str, str]] = []
    server, address = await service.serve(
        farm,
        listen="127.0.0.1:0",
        tenant="t",
        max_upload_bytes=1,
        observe=lambda method, status, seconds: seen.append((method, status)) if seconds >= 0 else None,
    )
    try:
        async with FarmClient(address) as client:
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
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="no such"))
        for _ in range(100):
            if len(seen) == 5:
                break
            await asyncio.sleep(0.02)
    finally:
        await server.stop(None)
    assert sorted(seen) == sorted(
        [
            ("GetBuild", "OK"),
            ("GetBuild", "NOT_FOUND"),
            ("SubmitBuilds", "INTERNAL"),
            ("WatchBuild", "CANCELLED"),
            ("Check", caught.value.code().name),
        ]
    )
