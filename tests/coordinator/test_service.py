"""The gRPC edge, with a real server and client around a farm that is a fake at its port."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from kernel.errors import Code, FarmError
from kernel.spec import ConfigSpec, RequestSpec, SourceKind, SourceSpec
from kernfarm import rpc
from kernfarm.client import FarmClient
from kernfarm.credentials import Credentials
from kernfarm.v1 import build_service_pb2 as pb
from kernfarm.v1 import build_service_pb2_grpc as pb_grpc
from tests.fakes.api import FakeFarm
from tests.served import Served, serving

SPEC = RequestSpec(source=SourceSpec(kind=SourceKind.FILE, ref="x"), arches=("x86_64",), config=ConfigSpec())


@pytest.fixture
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with serving(tmp_path_factory.mktemp("s"), FakeFarm()) as running:
        yield running


def farm_of(served: Served) -> FakeFarm:
    return cast(FakeFarm, served.farm)


async def problem_of(served: Served, call: Any) -> FarmError:
    async with served.client() as client:
        with pytest.raises(FarmError) as caught:
            await call(client)
    return caught.value


async def test_a_problem_arrives_as_it_was_raised(served: Served) -> None:
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
async def test_statuses_carry_googles_details(served: Served, error: FarmError, status: grpc.StatusCode, kinds: set[str]) -> None:
    farm_of(served).fail = error
    async with served.channel() as channel:
        from kernfarm.wire import to_message

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.BuildServiceStub(channel).SubmitBuilds(pb.SubmitBuildsRequest(spec=to_message(SPEC, pb.RequestSpec)))
    assert caught.value.code() is status
    found = rpc_status.from_call(caught.value)
    assert {detail.type_url.rpartition(".")[2] for detail in found.details} == kinds
    info = error_details_pb2.ErrorInfo()
    assert found.details[0].Unpack(info)
    assert (info.reason, info.domain) == (error.problem.code.value, "kernfarm")


async def test_an_unexpected_failure_tells_a_number_and_nothing_else(served: Served) -> None:
    farm_of(served).fail = KeyError("secret inside")
    caught = await problem_of(served, lambda client: client.submit(SPEC, {}, request_id="1"))
    assert caught.problem.code is Code.INTERNAL
    assert "incident" in caught.problem.message
    assert "secret" not in str(caught)


async def test_an_endless_message_still_arrives_as_a_problem(served: Served) -> None:
    farm_of(served).fail = FarmError(Code.BAD_CONFIG, "ü" * 100_000, where="w" * 5000, hint="h" * 5000)
    caught = await problem_of(served, lambda client: client.submit(SPEC, {}, request_id="1"))
    assert caught.problem.code is Code.BAD_CONFIG


async def test_a_call_without_a_deadline_of_its_own_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    farm = FakeFarm()
    farm.patience = 30
    real = rpc.Interceptor
    monkeypatch.setattr(rpc, "Interceptor", lambda gate, **more: real(gate, limit=0.2, **more))
    async with serving(tmp_path, farm) as served:
        caught = await problem_of(served, lambda client: client.submit(SPEC, {}, request_id="1"))
    assert caught.problem.code is Code.TIMEOUT


async def test_names_and_digests_are_checked(served: Served, tmp_path: Path) -> None:
    async with served.channel() as channel:
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


async def test_pages_follow_each_other_without_gap(served: Served) -> None:
    async with served.client() as client:
        assert [each["id"] for each in await client.builds(limit=1000)] == [each.build_id for each in farm_of(served).known]
        assert len(await client.builds(limit=7)) == 7


def blob(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def test_uploads_are_checked_and_not_repeated(served: Served, tmp_path: Path) -> None:
    data = bytes(range(256)) * 8192
    path = tmp_path / "file"
    path.write_bytes(data)
    async with served.client() as client:
        await client.upload(blob(data), path)
        assert farm_of(served).blobs == {blob(data): data}
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


async def test_an_upload_has_to_say_first_what_it_is(served: Served) -> None:
    async with served.channel() as channel:
        stub = pb_grpc.BuildServiceStub(channel)
        for parts in ([], [pb.UploadBlobRequest(data=b"x")], [pb.UploadBlobRequest(head=pb.BlobHead(digest="md5:1", size=1))]):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.UploadBlob(iter(parts))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_damaged_download_leaves_no_file(served: Served, tmp_path: Path) -> None:
    farm_of(served).blobs[blob(b"good")] = b"evil"
    farm_of(served).made.add(blob(b"good"))
    caught = await problem_of(served, lambda client: client.download(blob(b"good"), tmp_path / "x"))
    assert caught.problem.code is Code.BAD_DIGEST
    assert list(tmp_path.iterdir()) == []


async def test_a_watch_goes_on_after_the_coordinator_came_back(served: Served) -> None:
    seen: list[str] = []
    farm = farm_of(served)
    async with served.client() as client:
        farm.states.put_nowait("queued")
        async for info in client.watch("build-1"):
            seen.append(info["state"])
            if info["state"] == "queued":
                await served.server.stop(None)
                await served.start(served.address)
                farm.states.put_nowait("running")
                farm.states.put_nowait("succeeded")
    assert seen == ["queued", "running", "succeeded"]
    assert farm.tokens == ["", "1"], "the resume token says what is known"


async def test_nobody_there_is_said_with_the_mend() -> None:
    async with FarmClient("127.0.0.1:1", Credentials()) as client:
        with pytest.raises(FarmError) as caught:
            await client.workers()
    assert caught.value.problem.code is Code.UNAVAILABLE
    assert "kernfarm up" in caught.value.problem.hint


async def test_a_taken_address_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, FakeFarm(), listen="127.0.0.1:0") as served:
        first = served.server
        with pytest.raises(FarmError) as caught:
            await served.start(served.address)
        served.server = first
    assert caught.value.problem.code is Code.UNAVAILABLE
    assert caught.value.problem.where == served.address


async def test_health_and_reflection_answer(served: Served) -> None:
    async with served.channel() as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=rpc.SERVICE))
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]))
        answer = await stream.read()
        assert rpc.SERVICE in {each.name for each in answer.list_services_response.service}
        stream.cancel()


async def test_a_message_over_the_limit_is_refused(served: Served) -> None:
    async with served.channel() as channel:
        big = pb.SubmitBuildsRequest(request_id="x" * (5 << 20))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.BuildServiceStub(channel).SubmitBuilds(big)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
