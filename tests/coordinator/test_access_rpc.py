"""Every RPC through the gate: a matrix of all policies and roles, teams that don't see each other, tokens that end, the record of it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from kernel.errors import Code, FarmError
from kernel.plan import Inventory, Unit
from kernel.spec import ArchConfig, ConfigSpec, NamedBlob, OwnFlavour, RequestSpec, SourceKind, SourceSpec
from kernel.steps import StepKind
from kernfarm import rpc
from kernfarm.client import FarmClient
from kernfarm.rpc import Policy
from kernfarm.v1 import build_service_pb2 as pb
from kernfarm.v1 import build_service_pb2_grpc as pb_grpc
from tests.fakes.api import FakeFarm
from tests.fakes.fleet import Bench
from tests.served import Served, serving

SERVICES = (
    pb.DESCRIPTOR.services_by_name["BuildService"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
)
METHODS = {f"/{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods}
UNKNOWN = "20200101-000000-abcdef"
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


# Teams, on the real farm


@dataclass
class Teams:
    """A finished build and a live one of team `t`, and their names to somebody else."""

    bench: Bench
    served: Served
    finished: str
    live: str

    def token(self, team: str, role: str = "submitter") -> str:
        return self.served.tokens.add(team, role)

    def client(self, team: str, role: str = "submitter") -> FarmClient:
        return self.served.client(self.token(team, role))


@asynccontextmanager
async def two_teams(home: Path) -> AsyncIterator[Teams]:
    bench = Bench(home)
    await bench.farm.start()
    try:
        async with serving(home, bench.farm) as served:
            finished = await bench.submit()
            inventory = bench.stored(Inventory(units=(Unit(path="kernel/a.o"),), folders=("kernel",)))
            for kind in (StepKind.SOURCE, StepKind.CONFIGURE, StepKind.PREPARE, StepKind.COMPILE, StepKind.LINK, StepKind.PACKAGE):
                await bench.play(kind, inventory=inventory)
            await bench.state(finished, "succeeded")
            yield Teams(bench, served, finished, await bench.submit("live"))
    finally:
        await bench.farm.stop()


def requests(build_id: str) -> dict[str, Any]:
    name = f"builds/{build_id}"
    return {
        "GetBuild": pb.GetBuildRequest(name=name),
        "WatchBuild": pb.WatchBuildRequest(name=name),
        "ReadLogs": pb.ReadLogsRequest(name=name, step="source"),
        "CancelBuild": pb.CancelBuildRequest(name=name),
        "RetryBuild": pb.RetryBuildRequest(name=name),
        "GetResult": pb.GetResultRequest(name=name),
    }


async def raw(channel: Any, method: str, request: Any) -> tuple[grpc.StatusCode, bytes]:
    """Code and all details of a failure, byte for byte."""
    path = f"/{rpc.SERVICE}/{method}"
    call = (channel.unary_stream if METHODS[path].server_streaming else channel.unary_unary)(path)(request.SerializeToString(), timeout=10)
    try:
        if METHODS[path].server_streaming:
            await call.read()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        details = dict(tuple(each) for each in error.trailing_metadata())
        return error.code(), str(error.details()).encode() + bytes(details["grpc-status-details-bin"])
    return grpc.StatusCode.OK, b""


async def test_another_teams_build_is_exactly_like_none(tmp_path: Path) -> None:
    async with two_teams(tmp_path) as teams:
        assert len(UNKNOWN) == len(teams.finished)
        async with teams.served.channel(teams.token("u")) as other:
            for build_id, method in itertools.product((teams.finished, teams.live), requests("")):
                code, said = await raw(other, method, requests(build_id)[method])
                nothing, said_then = await raw(other, method, requests(UNKNOWN)[method])
                assert code is nothing is grpc.StatusCode.NOT_FOUND, method
                assert said.replace(build_id.encode(), UNKNOWN.encode()) == said_then, method
        async with teams.client("u") as client:
            assert await client.builds(limit=10) == []
        async with teams.client("t") as client:
            assert {each["id"] for each in await client.builds(limit=10)} == {teams.finished, teams.live}
            assert (await client.get(teams.live))["state"] != "cancelled", "another team's cancel did nothing"


async def test_an_admin_sees_and_stops_builds_of_all_teams(tmp_path: Path) -> None:
    async with two_teams(tmp_path) as teams, teams.client("ops", "admin") as admin:
        assert {each["id"] for each in await admin.builds(limit=10)} == {teams.finished, teams.live}
        assert (await admin.cancel(teams.live))["state"] == "cancelled"
        assert (await admin.result(teams.finished))["build"] == teams.finished
        await admin.download(teams.bench.blobs.put_bytes(b"index"), tmp_path / "index")


async def test_results_are_downloaded_by_their_team_only(tmp_path: Path) -> None:
    async with two_teams(tmp_path) as teams:
        index, unknown = teams.bench.blobs.put_bytes(b"index"), digest(b"never stored")
        async with teams.client("t") as mine:
            for text in (b"index", b"config", b"tree"):
                await mine.download(teams.bench.blobs.put_bytes(text), tmp_path / "mine")
                assert (tmp_path / "mine").read_bytes() == text
        async with teams.served.channel(teams.token("u")) as other:
            code, said = await raw(other, "DownloadBlob", pb.DownloadBlobRequest(digest=index))
            nothing, said_then = await raw(other, "DownloadBlob", pb.DownloadBlobRequest(digest=unknown))
        assert code is nothing is grpc.StatusCode.NOT_FOUND
        assert said.replace(index.encode(), unknown.encode()) == said_then


async def test_an_index_is_over_the_teams_own_builds_and_recorded(tmp_path: Path) -> None:
    async with two_teams(tmp_path) as teams:
        names = [f"builds/{teams.finished}", f"builds/{teams.live}"]
        own, theirs, none = teams.token("t"), teams.token("u"), f"builds/{UNKNOWN}"
        said = []
        for each in (names, [names[0], none], [none, f"builds/{UNKNOWN}2"]):
            async with teams.served.channel(theirs) as channel:
                code, details = await raw(channel, "SignIndex", pb.SignIndexRequest(names=each))
            assert code is grpc.StatusCode.NOT_FOUND
            said.append(details.replace(each[0].removeprefix("builds/").encode(), b"ID"))
        assert len(set(said)) == 1, "another team's build is like none"
        async with teams.client("t", "reader") as reader:
            with pytest.raises(FarmError) as caught:
                await reader.sign_index([teams.finished, teams.live])
            assert caught.value.problem.code is Code.PERMISSION_DENIED
        async with teams.served.client(own) as client:
            with pytest.raises(FarmError, match=r"running|queued"):
                await client.sign_index([teams.finished, teams.live])
        records = [each for each in teams.served.audit() if each["method"] == "SignIndex" and each["team"] == "t"]
    assert [(each["event"], each["about"]) for each in records] == [("refused", []), ("began", []), ("ended", names)]


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def test_an_upload_does_not_tell_what_other_teams_have(tmp_path: Path) -> None:
    secret = b"CONFIG_SECRET_PROJECT=y\n"
    (tmp_path / "mine").write_bytes(secret)
    (tmp_path / "guess").write_bytes(b"x" * len(secret))
    async with two_teams(tmp_path) as teams, teams.client("t") as mine, teams.client("u") as other:
        await mine.upload(digest(secret), tmp_path / "mine")
        await mine.upload(digest(secret), tmp_path / "guess")  # not read: the team has sent it before
        with pytest.raises(FarmError) as caught:
            await other.upload(digest(secret), tmp_path / "guess")
        assert caught.value.problem.code is Code.BAD_DIGEST, "the content is asked for, as if nobody had it"
        with pytest.raises(FarmError) as caught:
            await other.download(digest(secret), tmp_path / "got")
        assert caught.value.problem.code is Code.NOT_FOUND
        await other.upload(digest(secret), tmp_path / "mine")
        await other.download(digest(secret), tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == secret


def specs(blob: str) -> list[RequestSpec]:
    debian = SourceSpec(kind=SourceKind.DEBIAN, ref="6.1=1")
    named = NamedBlob(name="n", digest=blob)
    own = OwnFlavour(name="own", suffix="-own", extends="plain")
    return [
        RequestSpec(source=SourceSpec(kind=SourceKind.FILE, ref="n", digest=blob), arches=("x86_64",)),
        RequestSpec(source=debian, arches=("x86_64",), config=ConfigSpec(fragments=(named,))),
        RequestSpec(source=debian, arches=("x86_64",), config=ConfigSpec(base="file", file=named)),
        RequestSpec(source=debian, arches=("x86_64",), patches=(named,)),
        RequestSpec(source=debian, arches=("x86_64",), config=ConfigSpec(base_fragments=(named,))),
        RequestSpec(source=debian, arches=("x86_64",), arch_configs=(ArchConfig(arch="x86_64", fragments=(named,)),)),
        RequestSpec(source=debian, arches=("x86_64",), arch_configs=(ArchConfig(arch="x86_64", base_fragments=(named,)),)),
        RequestSpec(source=debian, arches=("x86_64",), own_flavours=(replace(own, fragments=(named,)),)),
        RequestSpec(source=debian, arches=("x86_64",), own_flavours=(replace(own, patches=(named,)),)),
    ]


async def test_a_request_is_made_from_the_teams_own_blobs(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"CONFIG_X=y\n")
    async with two_teams(tmp_path) as teams, teams.client("t") as mine, teams.client("u") as other:
        await mine.upload(digest(b"CONFIG_X=y\n"), tmp_path / "x")
        for spec, unknown in zip(specs(digest(b"CONFIG_X=y\n")), specs(digest(b"never stored")), strict=True):
            problems = []
            for each in (spec, unknown):
                with pytest.raises(FarmError) as caught:
                    await other.submit(each, {}, request_id="1")
                problems.append(caught.value.problem)
            assert problems[0] == problems[1]
            assert problems[0].code is Code.MISSING_FILE
        fragment = specs(digest(b"CONFIG_X=y\n"))[1]
        assert (await mine.submit(fragment, {}, request_id="1"))[0]["state"] in ("queued", "running")


async def test_a_name_that_looks_like_a_digest_opens_nothing(tmp_path: Path) -> None:
    async with two_teams(tmp_path) as teams, teams.client("u") as other:
        index = teams.bench.blobs.put_bytes(b"index")
        (tmp_path / "x").write_bytes(b"CONFIG_X=y\n")
        await other.upload(digest(b"CONFIG_X=y\n"), tmp_path / "x")
        named = NamedBlob(name=index, digest=digest(b"CONFIG_X=y\n"))
        source = SourceSpec(kind=SourceKind.DEBIAN, ref=index)
        spec = RequestSpec(source=source, arches=("x86_64",), config=ConfigSpec(fragments=(named,)))
        assert await other.submit(spec, {}, request_id="1")
        with pytest.raises(FarmError) as caught:
            await other.download(index, tmp_path / "got")
        assert caught.value.problem.code is Code.NOT_FOUND


async def test_the_record_says_who_did_what_and_no_token(tmp_path: Path) -> None:
    data = b"CONFIG_X=y\n"
    (tmp_path / "x").write_bytes(data)
    async with two_teams(tmp_path) as teams:
        token, reader = teams.token("u"), teams.token("u", "reader")
        async with teams.served.client(token) as client, teams.served.client(reader) as weak, teams.served.client("kft_no") as nobody:
            await client.upload(digest(data), tmp_path / "x")
            build = (await client.submit(specs(digest(data))[1], {}, request_id="1"))[0]["id"]
            await client.cancel(build)
            for refused in (weak.cancel(build), nobody.cancel(build), client.retry(UNKNOWN)):
                with pytest.raises(FarmError):
                    await refused
            await client.builds(limit=1)
        records = teams.served.audit()
    assert [(each["event"], each["method"], each["about"], each.get("outcome")) for each in records] == [
        ("began", "UploadBlob", [], None),
        ("ended", "UploadBlob", [digest(data)], "ok"),
        ("began", "SubmitBuilds", [], None),
        ("ended", "SubmitBuilds", [f"builds/{build}"], "ok"),
        ("began", "CancelBuild", [f"builds/{build}"], None),
        ("ended", "CancelBuild", [f"builds/{build}"], "ok"),
        ("refused", "CancelBuild", [f"builds/{build}"], None),
        ("began", "RetryBuild", [f"builds/{UNKNOWN}"], None),
        ("ended", "RetryBuild", [f"builds/{UNKNOWN}"], "not-found"),
    ]
    assert {(each["team"], each["name"]) for each in records} == {("u", "u-submitter"), ("u", "u-reader")}
    written = (tmp_path / "audit.jsonl").read_text()
    assert token not in written and reader not in written and "kft_" not in written


async def test_nothing_is_done_that_cannot_be_recorded(tmp_path: Path) -> None:
    async with two_teams(tmp_path) as teams, teams.client("t") as client:
        (tmp_path / "audit.jsonl").unlink()
        (tmp_path / "audit.jsonl").mkdir()
        with pytest.raises(FarmError, match="audit record"):
            await client.cancel(teams.live)
        assert (await client.get(teams.live))["state"] != "cancelled"
