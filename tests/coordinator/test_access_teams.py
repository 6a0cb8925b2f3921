"""Teams on the real farm, over the API: builds, results and uploads of another team are like none, and the record of who did what."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from kernel.errors import Code, FarmError
from kernel.plan import Inventory, Unit
from kernel.spec import ArchConfig, ConfigSpec, NamedBlob, OwnFlavour, RequestSpec, SourceKind, SourceSpec
from kernel.steps import StepKind
from kernfarm import rpc
from kernfarm.client import FarmClient
from kernfarm.v1 import build_service_pb2 as pb
from tests.fakes.fleet import Bench
from tests.served import Served, serving

METHODS = pb.DESCRIPTOR.services_by_name["BuildService"].methods_by_name
UNKNOWN = "20200101-000000-abcdef"


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
    path, streaming = f"/{rpc.SERVICE}/{method}", METHODS[method].server_streaming
    call = (channel.unary_stream if streaming else channel.unary_unary)(path)(request.SerializeToString(), timeout=10)
    try:
        if streaming:
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
