"""The gRPC edge, with a real server and client around a farm that is a fake at its port."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from coordinator import service
from coordinator.api import BuildView
from coordinator.fleet import WorkerInfo
from kernel.errors import Code, FarmError
from kernel.spec import ConfigSpec, RequestSpec, SourceKind, SourceSpec
from kernfarm import rpc
from kernfarm.client import FarmClient
from kernfarm.v1 import build_service_pb2 as pb
from kernfarm.v1 import build_service_pb2_grpc as pb_grpc

SPEC = RequestSpec(source=SourceSpec(kind=SourceKind.FILE, ref="x"), arches=("x86_64",), config=ConfigSpec())


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

    async def get_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        yield self.blobs[digest][offset:]


class Running:
    """A served fake farm."""

    def __init__(self, farm: FakeFarm, server: grpc.aio.Server, address: str) -> None:
        self.farm = farm
        self.server = server
        self.address = address


@pytest.fixture
async def served() -> AsyncIterator[Running]:
    farm = FakeFarm()
    server, address = await service.serve(farm, listen="127.0.0.1:0", tenant="t", max_upload_bytes=3 << 20)
    running = Running(farm, server, address)
    yield running
    await running.server.stop(None)


async def problem_of(served: Running, call: Any) -> FarmError:
    async with FarmClient(served.address) as client:
        with pytest.raises(FarmError) as caught:
            await call(client)
    return caught.value


async def test_a_problem_arrives_as_it_was_raised(served: Running) -> None:
    caught = await problem_of(served, lambda client: client.get("nothing"))
    assert caught.problem.code is Code.NOT_FOUND
    assert caught.problem.where == "nothing"
    assert caught.problem.hint == "kernfarm list"


@pytest.mark.parametrize(
    ("error", "status", "kinds"),
    [
        (FarmError(Code.NOT_FOUND, "m", where="w"), grpc.StatusCode.NOT_FOUND, {"ErrorInfo", "ResourceInfo"}),
        (FarmError(Code.BAD_PATCH, "m", where="w"), grpc.StatusCode.INVALID_ARGUMENT, {"ErrorInfo", "BadRequest"}),
        (FarmError(Code.DISK_FULL, "m"), grpc.StatusCode.UNAVAILABLE, {"ErrorInfo", "RetryInfo"}),
        (FarmError(Code.NO_WORKER, "m"), grpc.StatusCode.FAILED_PRECONDITION, {"ErrorInfo"}),
    ],
)
async def test_statuses_carry_googles_details(served: Running, error: FarmError, status: grpc.StatusCode, kinds: set[str]) -> None:
    served.farm.fail = error
    async with grpc.aio.insecure_channel(served.address) as channel:
        from kernfarm.wire import to_message

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.BuildServiceStub(channel).SubmitBuilds(pb.SubmitBuildsRequest(spec=to_message(SPEC, pb.RequestSpec)))
    assert caught.value.code() is status
    found = rpc_status.from_call(caught.value)
    assert {detail.type_url.rpartition(".")[2] for detail in found.details} == kinds
    info = error_details_pb2.ErrorInfo()
    assert found.details[0].Unpack(info)
    assert (info.reason, info.domain) == (error.problem.code.value, "kernfarm")


async def test_an_unexpected_failure_tells_a_number_and_nothing_else(served: Running) -> None:
    served.farm.fail = KeyError("secret inside")
    caught = await problem_of(served, lambda client: client.submit(SPEC, {}, request_id="1"))
    assert caught.problem.code is Code.INTERNAL
    assert "incident" in caught.problem.message
    assert "secret" not in str(caught)


async def test_an_endless_message_still_arrives_as_a_problem(served: Running) -> None:
    served.farm.fail = FarmError(Code.BAD_CONFIG, "ü" * 100_000, where="w" * 5000, hint="h" * 5000)
    caught = await problem_of(served, lambda client: client.submit(SPEC, {}, request_id="1"))
    assert caught.problem.code is Code.BAD_CONFIG


async def test_a_call_without_a_deadline_of_its_own_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    farm = FakeFarm()
    farm.patience = 30
    monkeypatch.setattr(rpc, "Interceptor", lambda **more: Interceptor(limit=0.2, **more))
    server, address = await service.serve(farm, listen="127.0.0.1:0", tenant="t", max_upload_bytes=1)
    caught = await problem_of(Running(farm, server, address), lambda client: client.submit(SPEC, {}, request_id="1"))
    assert caught.problem.code is Code.TIMEOUT
    await server.stop(None)


Interceptor = rpc.Interceptor


async def test_names_and_digests_are_checked(served: Running, tmp_path: Path) -> None:
    async with grpc.aio.insecure_channel(served.address) as channel:
        stub = pb_grpc.BuildServiceStub(channel)
        for name in ("", "build-1", "builds/", "jobs/build-1"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetBuild(pb.GetBuildRequest(name=name))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListBuilds(pb.ListBuildsRequest(page_size=-1))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    caught_error = await problem_of(served, lambda client: client.download("../../etc/passwd", tmp_path / "x"))
    assert caught_error.problem.code is Code.INVALID_ARGUMENT


async def test_pages_follow_each_other_without_gap(served: Running) -> None:
    async with FarmClient(served.address) as client:
        assert [each["id"] for each in await client.builds(limit=1000)] == [each.build_id for each in served.farm.known]
        assert len(await client.builds(limit=7)) == 7


def blob(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def test_uploads_are_checked_and_not_repeated(served: Running, tmp_path: Path) -> None:
    data = bytes(range(256)) * 8192
    path = tmp_path / "file"
    path.write_bytes(data)
    async with FarmClient(served.address) as client:
        await client.upload(blob(data), path)
        assert served.farm.blobs == {blob(data): data}
        path.write_bytes(b"other content now, and not sent because the farm has it")
        await client.upload(blob(data), path)
        with pytest.raises(FarmError) as caught:
            await client.upload(blob(b"something else"), path)
        assert caught.value.problem.code is Code.BAD_DIGEST
        path.write_bytes(b"x" * (4 << 20))
        with pytest.raises(FarmError) as caught:
            await client.upload(blob(path.read_bytes()), path)
        assert "larger than" in caught.value.problem.message
        await client.download(blob(data), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


async def test_an_upload_has_to_say_first_what_it_is(served: Running) -> None:
    async with grpc.aio.insecure_channel(served.address) as channel:
        stub = pb_grpc.BuildServiceStub(channel)
        for parts in ([], [pb.UploadBlobRequest(data=b"x")], [pb.UploadBlobRequest(head=pb.BlobHead(digest="md5:1", size=1))]):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.UploadBlob(iter(parts))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_damaged_download_leaves_no_file(served: Running, tmp_path: Path) -> None:
    served.farm.blobs[blob(b"good")] = b"evil"
    caught = await problem_of(served, lambda client: client.download(blob(b"good"), tmp_path / "x"))
    assert caught.problem.code is Code.BAD_DIGEST
    assert list(tmp_path.iterdir()) == []


async def test_a_watch_goes_on_after_the_coordinator_came_back(served: Running) -> None:
    seen: list[str] = []
    farm = served.farm
    async with FarmClient(served.address) as client:
        farm.states.put_nowait("queued")
        async for info in client.watch("build-1"):
            seen.append(info["state"])
            if info["state"] == "queued":
                await served.server.stop(None)
                served.server, _ = await service.serve(farm, listen=served.address, tenant="t", max_upload_bytes=1)
                farm.states.put_nowait("running")
                farm.states.put_nowait("succeeded")
    assert seen == ["queued", "running", "succeeded"]
    assert farm.tokens == ["", "1"], "the resume token says what is known"


async def test_nobody_there_is_said_with_the_mend() -> None:
    async with FarmClient("127.0.0.1:1") as client:
        with pytest.raises(FarmError) as caught:
            await client.workers()
    assert caught.value.problem.code is Code.UNAVAILABLE
    assert "kernfarm up" in caught.value.problem.hint


async def test_a_taken_address_is_refused(served: Running) -> None:
    with pytest.raises(FarmError) as caught:
        await service.serve(served.farm, listen=served.address, tenant="t", max_upload_bytes=1)
    assert caught.value.problem.code is Code.UNAVAILABLE
    assert caught.value.problem.where == served.address


async def test_health_and_reflection_answer(served: Running) -> None:
    async with grpc.aio.insecure_channel(served.address) as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=rpc.SERVICE))
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]))
        answer = await stream.read()
        assert rpc.SERVICE in {each.name for each in answer.list_services_response.service}
        stream.cancel()


def test_a_method_without_a_policy_keeps_the_server_from_starting() -> None:
    rpc.check_policies()
    lacking = {name: policy for name, policy in rpc.POLICIES.items() if name != "CancelBuild"}
    with pytest.raises(FarmError, match="CancelBuild"):
        rpc.check_policies(lacking)
    with pytest.raises(FarmError, match="Extra"):
        rpc.check_policies({**rpc.POLICIES, "Extra": rpc.Policy.ADMIN})


async def test_a_message_over_the_limit_is_refused(served: Running) -> None:
    async with grpc.aio.insecure_channel(served.address) as channel:
        big = pb.SubmitBuildsRequest(request_id="x" * (5 << 20))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.BuildServiceStub(channel).SubmitBuilds(big)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
