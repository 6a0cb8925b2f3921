"""The interceptor around every call, with a gate that the test holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from kernel.errors import Code, FarmError
from kernfarm import rpc
from kernfarm.rpc import Interceptor, Policy, Visit


class SlowVisit:
    """Of a caller whose identity provider takes `seconds` to answer, and then `refuses` or not."""

    def __init__(self, seconds: float, refuses: bool) -> None:
        self._seconds = seconds
        self._refuses = refuses

    async def check(self) -> None:
        await asyncio.sleep(self._seconds)
        if self._refuses:
            raise FarmError(Code.UNAUTHENTICATED, "the token was revoked")


class OpenGate:
    """Lets everybody in, and asks again each 10 ms."""

    recheck_seconds = 0.01

    def __init__(self, visit: Visit | None = None) -> None:
        self._guest = visit or SlowVisit(0.0, refuses=False)

    @asynccontextmanager
    async def visit(self, method: str, policy: Policy, context: Any, about: str) -> AsyncIterator[Visit]:
        yield self._guest


async def call(gate: OpenGate, method: str, seconds: float = 0.0) -> bytes:
    """Call a method that answers after so many seconds. Raises FarmError as the client's side sees it."""

    async def echo(request: bytes, context: Any) -> bytes:
        await asyncio.sleep(seconds)
        return request

    async with served(gate, method, grpc.unary_unary_rpc_method_handler(echo)) as channel:
        return bytes(await channel.unary_unary(method)(b"answer", timeout=10))


async def watch(gate: OpenGate, *, answers: int, seconds: float, check_limit: float = rpc.CHECK_SECONDS) -> AsyncIterator[bytes]:
    """The answers of a stream, so many seconds after each other, as they come. Raises FarmError as the client's side sees it."""

    async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(answers):
            await asyncio.sleep(seconds)
            yield str(number).encode()

    async with served(gate, WATCH_BUILD, grpc.unary_stream_rpc_method_handler(count), check_limit=check_limit) as channel:
        async for answer in channel.unary_stream(WATCH_BUILD)(b"", timeout=10):
            yield answer


@asynccontextmanager
async def served(gate: OpenGate, method: str, handler: Any, **limits: float) -> AsyncIterator[Any]:
    """A channel to a server with one method. What a call fails with comes out as FarmError."""
    service, _, name = method[1:].partition("/")
    server = grpc.aio.server(interceptors=[Interceptor(gate, **limits)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    except grpc.aio.AioRpcError as error:
        raise rpc.to_error(error) from error
    finally:
        await server.stop(None)


GET_BUILD = f"/{rpc.SERVICE}/GetBuild"
WATCH_BUILD = f"/{rpc.SERVICE}/WatchBuild"


async def test_a_method_without_a_policy_is_refused() -> None:
    with pytest.raises(FarmError, match="nobody has decided who may call this") as caught:
        await call(OpenGate(), "/extra.Extra/Do")
    assert caught.value.problem.code is Code.PERMISSION_DENIED
    assert caught.value.problem.where == "/extra.Extra/Do"


async def test_an_answer_does_not_wait_for_an_identity_provider_that_hangs() -> None:
    started = time.monotonic()
    assert await call(OpenGate(SlowVisit(5.0, refuses=False)), GET_BUILD, seconds=0.1) == b"answer"
    assert time.monotonic() - started < 3.0


async def test_a_caller_who_may_not_stay_gets_no_answer() -> None:
    with pytest.raises(FarmError, match="the token was revoked"):
        await call(OpenGate(SlowVisit(0.05, refuses=True)), GET_BUILD, seconds=5.0)


async def test_a_caller_who_may_stay_is_asked_about_again_and_again() -> None:
    assert await call(OpenGate(SlowVisit(0.0, refuses=False)), GET_BUILD, seconds=0.1) == b"answer"


async def test_a_stream_goes_on_while_an_identity_provider_hangs_and_ends_at_the_limit() -> None:
    """The first check begins after 10 ms, and never ends; two seconds later nobody may go on without one."""
    seen: list[bytes] = []
    started = time.monotonic()
    with pytest.raises(FarmError, match="can't tell whether the caller may still have this") as caught:
        async for answer in watch(OpenGate(SlowVisit(3600.0, refuses=False)), answers=1000, seconds=0.02, check_limit=2.0):
            seen.append(answer)
    assert caught.value.problem.code is Code.UNAVAILABLE
    assert len(seen) >= 3
    assert time.monotonic() - started < 8.0


async def test_a_silent_stream_ends_at_the_limit_too() -> None:
    with pytest.raises(FarmError, match="can't tell whether the caller may still have this"):
        async for _ in watch(OpenGate(SlowVisit(3600.0, refuses=False)), answers=1, seconds=60.0, check_limit=0.1):
            pass


async def test_a_stream_does_not_wait_for_an_identity_provider_that_is_slow() -> None:
    """Three answers of 50 ms each, while each check takes three seconds of the thirty that it may."""
    started = time.monotonic()
    seen = [answer async for answer in watch(OpenGate(SlowVisit(3.0, refuses=False)), answers=3, seconds=0.05)]
    assert seen == [b"0", b"1", b"2"]
    assert time.monotonic() - started < 2.5


async def test_a_reader_who_may_not_stay_gets_what_came_before_and_no_more() -> None:
    seen: list[bytes] = []
    with pytest.raises(FarmError, match="the token was revoked") as caught:
        async for answer in watch(OpenGate(SlowVisit(2.0, refuses=True)), answers=1000, seconds=0.02):
            seen.append(answer)
    assert caught.value.problem.code is Code.UNAUTHENTICATED
    assert 3 <= len(seen) < 1000
