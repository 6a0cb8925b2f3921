"""Every RPC through the gate: a matrix of all policies and roles, headers, refusals, tokens that end while something runs."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from coordinator import service
from kernel.errors import Code, FarmError
from kernfarm import rpc
from kernfarm.client import FarmClient
from kernfarm.rpc import Policy
from kernfarm.v1 import build_service_pb2 as pb
from kernfarm.v1 import build_service_pb2_grpc as pb_grpc
from tests.fakes.api import FakeFarm
from tests.served import Served, serving

SERVICES = (
    pb.DESCRIPTOR.services_by_name["BuildService"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
)
METHODS = {f"/{each.full_name}/{method.name}": method for each in SERVICES for method in each.methods}
RANKS = ("nobody", "stranger", "reader", "submitter", "admin")
NEEDED = {Policy.PUBLIC: 0, Policy.READER: 2, Policy.SUBMITTER: 3, Policy.ADMIN: 4}
REFUSALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


async def status(channel: Any, path: str, *requests: bytes, metadata: Any = None) -> tuple[grpc.StatusCode, str]:
    """Call a method with raw messages; (code, details) of the end, or OK with the first answer."""
    method = METHODS[path]
    sent = iter(requests) if method.client_streaming else requests[0]
    kind = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    call = kind(path)(sent, timeout=10, metadata=metadata)
    try:
        if method.server_streaming:
            await call.read()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code(), str(error.details())
    finally:
        call.cancel()
    return grpc.StatusCode.OK, ""


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, FakeFarm()) as served:
        yield served


async def test_every_method_lets_in_the_roles_of_its_policy_and_no_others(plain: Served) -> None:
    tokens = {"nobody": "", "stranger": "kft_stranger", **{role: plain.tokens.add("t", role) for role in RANKS[2:]}}
    assert set(METHODS) == set(rpc.all_policies()), "nothing is left out"
    for role, token in tokens.items():
        async with plain.channel(token) as channel:
            for path, policy in rpc.all_policies().items():
                code, _ = await status(channel, path, b"")
                allowed = RANKS.index(role) >= NEEDED[policy]
                assert (code not in REFUSALS) is allowed, (role, path, code)
                if not allowed:
                    known = role in RANKS[2:]
                    assert code is (grpc.StatusCode.PERMISSION_DENIED if known else grpc.StatusCode.UNAUTHENTICATED), (role, path)


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", "Basic am86c2VjcmV0"),),
        (("authorization", "Bearer "),),
        (("authorization", "TOKEN"),),
        (("authorization", "Bearer TOKEN"), ("authorization", "Bearer TOKEN")),
        (("authorization-bin", b"Bearer TOKEN"),),
        (("x-authorization", "Bearer TOKEN"),),
    ],
)
async def test_headers_that_are_not_one_bearer_token_let_nobody_in(plain: Served, metadata: Any) -> None:
    filled = tuple((key, value.replace("TOKEN", plain.token) if isinstance(value, str) else value) for key, value in metadata)
    path = f"/{rpc.SERVICE}/ListWorkers"
    async with plain.channel("") as channel:
        assert (await status(channel, path, b"", metadata=filled))[0] is grpc.StatusCode.UNAUTHENTICATED
        assert (await status(channel, path, b"", metadata=(("authorization", f"bearer {plain.token}"),)))[0] is grpc.StatusCode.OK


async def test_refusals_arrive_as_problems(plain: Served) -> None:
    async with plain.client("kft_unknown") as client:
        with pytest.raises(FarmError, match="not known") as caught:
            await client.workers()
    assert caught.value.problem.code is Code.UNAUTHENTICATED
    assert caught.value.problem.handling.exit_code == 2
    async with plain.client(plain.tokens.add("t", "reader")) as client:
        with pytest.raises(FarmError, match="t-reader of team t is reader; this needs submitter") as caught:
            await client.cancel("build-1")
    assert caught.value.problem.code is Code.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("POLICIES", {name: policy for name, policy in rpc.POLICIES.items() if name != "CancelBuild"}),
        ("POLICIES", {**rpc.POLICIES, "Extra": Policy.ADMIN}),
        ("OTHER_POLICIES", {}),
    ],
)
async def test_a_method_without_a_policy_keeps_the_server_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, change: dict[str, Policy]
) -> None:
    monkeypatch.setattr(rpc, table, change)
    with pytest.raises(FarmError, match="methods and policies differ") as caught:
        async with serving(tmp_path, FakeFarm()):
            pass
    assert caught.value.problem.code is Code.INTERNAL


class Extra(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers to whatever is called."""

    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)


def generated(server: Any, name: str = "extra.Extra") -> None:
    """What generated code does."""
    handlers = {"Do": grpc.unary_unary_rpc_method_handler(lambda request, context: request)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    server.add_registered_method_handlers(name, handlers)


def by_older_code(server: Any) -> None:
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("extra.Extra", {}),))


def of_any_service(server: Any) -> None:
    server.add_generic_rpc_handlers((Extra(),))


@pytest.mark.parametrize(
    ("register", "said"),
    [(generated, "/extra.Extra/Do"), (by_older_code, "methods of extra.Extra"), (of_any_service, "Extra does not say which service")],
)
async def test_another_service_on_the_server_keeps_it_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, register: Callable[[Any], None], said: str
) -> None:
    add_health = health_pb2_grpc.add_HealthServicer_to_server

    def add(servicer: Any, server: Any) -> None:
        add_health(servicer, server)
        register(server)

    monkeypatch.setattr(service.health_pb2_grpc, "add_HealthServicer_to_server", add)
    with pytest.raises(FarmError, match=re.escape(said)) as caught:
        async with serving(tmp_path, FakeFarm()):
            pass
    assert caught.value.problem.code is Code.INTERNAL
    monkeypatch.undo()
    async with serving(tmp_path, FakeFarm()) as served, served.client() as client:
        assert await client.workers() == [], "its socket was given back"


async def end_of_watch(client: FarmClient) -> FarmError:
    async def watch() -> None:
        async for _ in client.watch("build-1"):
            pass

    with pytest.raises(FarmError) as caught:
        await asyncio.wait_for(watch(), 10)
    return caught.value


@pytest.mark.parametrize("busy", [False, True])
async def test_a_watch_ends_soon_after_its_token_was_revoked(plain: Served, busy: bool) -> None:
    assert isinstance(plain.farm, FakeFarm)
    states = plain.farm.states
    token = plain.tokens.add("t", "reader")

    async def revoke() -> float:
        states.put_nowait("queued")
        await asyncio.sleep(0.5)
        plain.tokens.revoke(token)
        moment = time.monotonic()
        for _ in range(300 if busy else 0):
            states.put_nowait("running")
            await asyncio.sleep(0.01)
        return moment

    revoking = asyncio.create_task(revoke())
    async with plain.client(token) as client:
        caught = await end_of_watch(client)
    ended = time.monotonic()
    assert caught.problem.code is Code.UNAUTHENTICATED
    assert ended - await revoking < 2.0


async def test_an_upload_whose_token_was_revoked_stores_nothing(plain: Served) -> None:
    token = plain.tokens.add("t", "submitter")
    data = b"half before, half after"
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"

    async def parts() -> AsyncIterator[pb.UploadBlobRequest]:
        yield pb.UploadBlobRequest(head=pb.BlobHead(digest=digest, size=len(data)))
        yield pb.UploadBlobRequest(data=data[:10])
        await asyncio.sleep(0.3)
        plain.tokens.revoke(token)
        yield pb.UploadBlobRequest(data=data[10:])

    async with plain.channel(token) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.BuildServiceStub(channel).UploadBlob(parts())
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not plain.ownership.owns("t", digest)


@pytest.mark.parametrize("busy", [False, True])
async def test_an_upload_ends_soon_after_its_token_was_revoked(plain: Served, busy: bool) -> None:
    """It may last an hour, and fill a disk."""
    token = plain.tokens.add("t", "submitter")
    revoked: list[float] = []

    async def parts() -> AsyncIterator[pb.UploadBlobRequest]:
        yield pb.UploadBlobRequest(head=pb.BlobHead(digest=f"sha256:{'0' * 64}", size=1 << 20))
        await asyncio.sleep(0.5)
        plain.tokens.revoke(token)
        revoked.append(time.monotonic())
        for _ in range(1000):
            if busy:
                yield pb.UploadBlobRequest(data=b"x")
            await asyncio.sleep(0.01)

    async with plain.channel(token) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.BuildServiceStub(channel).UploadBlob(parts())
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert time.monotonic() - revoked[0] < 2.0


async def test_a_watch_ends_when_its_token_expires_or_becomes_another_teams(plain: Served) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    async with plain.client(plain.tokens.add("t", "reader", expires=soon)) as client:
        assert (await end_of_watch(client)).problem.code is Code.UNAUTHENTICATED
    token = plain.tokens.add("t", "reader")
    async with plain.client(token) as client:
        ending = asyncio.create_task(end_of_watch(client))
        await asyncio.sleep(0.5)
        plain.tokens.change(token, team="u")
        assert (await ending).problem.code is Code.PERMISSION_DENIED


async def test_a_watch_of_another_team_ends_with_the_admins_role(plain: Served) -> None:
    token = plain.tokens.add("ops", "admin")
    async with plain.client(token) as client:
        ending = asyncio.create_task(end_of_watch(client))
        await asyncio.sleep(0.5)
        plain.tokens.change(token, role="reader")
        assert (await ending).problem.code is Code.PERMISSION_DENIED


async def test_a_reader_who_may_stay_gets_every_answer(plain: Served) -> None:
    assert isinstance(plain.farm, FakeFarm)
    for number in range(50):
        plain.farm.states.put_nowait(f"{'running' if number < 49 else 'succeeded'}")
    async with plain.client() as client:
        assert len([each async for each in client.watch("build-1")]) == 50
