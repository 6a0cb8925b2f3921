"""What is registered on a server, in which order ever: nothing is served that nobody has decided about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from coordinator.access.server import PolicedServer
from kernel.errors import Code, FarmError
from kernfarm.rpc import Policy


def handlers(*methods: str) -> dict[str, Any]:
    async def echo(request: bytes, context: Any) -> bytes:
        return request

    return {method: grpc.unary_unary_rpc_method_handler(echo) for method in methods}


def generic(server: Any, *methods: str) -> None:
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("S", handlers(*methods)),))


def registered(server: Any, *methods: str) -> None:
    server.add_registered_method_handlers("S", handlers(*methods))


async def policed() -> PolicedServer:
    return PolicedServer(grpc.aio.server(), {"/S/A": Policy.PUBLIC})


@pytest.mark.parametrize("register", [generic, registered])
async def test_a_service_named_twice_is_refused(register: Callable[..., None]) -> None:
    server = await policed()
    generic(server, "A")
    registered(server, "A")
    with pytest.raises(FarmError, match="S is registered twice") as caught:
        register(server, "B")
    assert caught.value.problem.code is Code.INTERNAL
    await server.stop(None)


@pytest.mark.parametrize("register", [generic, registered])
async def test_nothing_is_registered_after_the_start(register: Callable[..., None]) -> None:
    server = await policed()
    registered(server, "A")
    await server.start()
    with pytest.raises(FarmError, match="after the start") as caught:
        register(server, "B")
    assert caught.value.problem.code is Code.INTERNAL
    await server.stop(None)


async def test_a_method_that_only_the_generic_handler_knows_is_not_served() -> None:
    server = await policed()
    generic(server, "A", "B")
    registered(server, "A")
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await channel.unary_unary("/S/A")(b"a") == b"a"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/S/B")(b"b")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(None)
