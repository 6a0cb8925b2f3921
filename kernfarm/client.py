"""The client library: what the command line uses, and what a team's own tools can use. Plain values out, no protobuf."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc

from kernel.errors import Code, FarmError
from kernel.spec import RequestSpec
from kernfarm import rpc
from kernfarm.address import check
from kernfarm.credentials import Credentials
from kernfarm.v1 import build_service_pb2 as pb
from kernfarm.v1 import build_service_pb2_grpc as pb_grpc
from kernfarm.wire import from_struct, state_from, to_message

T = TypeVar("T")

# A unary call answers at once or something is wrong; a submit reads a few megabytes of patches at most.
_UNARY_SECONDS = 30.0
# The coordinator's own limit is shorter, see rpc.LIMITS.
_SIGN_SECONDS = 1260.0
_RESUME_SECONDS = 60.0

BuildInfo = dict[str, Any]
"""A build as JSON values: id, state, source, arch, flavour, toolchain, release, steps, problem, times, artifacts, images, objects_*."""


class FarmClient:
    """An open connection to a coordinator. All methods raise FarmError."""

    def __init__(self, address: str, credentials: Credentials | None = None) -> None:
        """`address`: as kernfarm.address.check has it. `credentials`: see kernfarm.credentials.find; without any the system's authorities
        are trusted, and nothing is shown. Raises FarmError(INVALID_ARGUMENT) for an address that is none."""
        check(address)
        channel = (credentials or Credentials()).channel(address)
        self._channel = grpc.aio.secure_channel(address, channel, options=list(rpc.CHANNEL_OPTIONS))
        self._stub = pb_grpc.BuildServiceStub(self._channel)

    async def __aenter__(self) -> FarmClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._channel.close()

    async def submit(self, spec: RequestSpec, uploads: dict[str, Path], *, request_id: str, clean: bool = False) -> list[BuildInfo]:
        """Upload what the farm lacks and submit. Safe to repeat with the same request id."""
        for digest, path in uploads.items():
            await self.upload(digest, path)
        request = pb.SubmitBuildsRequest(spec=to_message(spec, pb.RequestSpec), request_id=request_id, clean=clean)
        answer = await _call(lambda: self._stub.SubmitBuilds(request, timeout=_UNARY_SECONDS))
        return [_build(build) for build in answer.builds]

    async def upload(self, digest: str, path: Path) -> None:
        """Store a local file under its digest; one that is there is not sent."""

        async def parts() -> AsyncIterator[pb.UploadBlobRequest]:
            yield pb.UploadBlobRequest(head=pb.BlobHead(digest=digest, size=path.stat().st_size))
            with path.open("rb") as file:
                while chunk := await asyncio.to_thread(file.read, rpc.CHUNK):
                    yield pb.UploadBlobRequest(data=chunk)

        await _call(lambda: self._stub.UploadBlob(parts(), timeout=3600))

    async def get(self, build_id: str) -> BuildInfo:
        answer = await _call(lambda: self._stub.GetBuild(pb.GetBuildRequest(name=_name(build_id)), timeout=_UNARY_SECONDS))
        return _build(answer.build)

    async def builds(self, *, limit: int) -> list[BuildInfo]:
        """Newest first."""
        found: list[BuildInfo] = []
        token = ""
        while len(found) < limit:
            request = pb.ListBuildsRequest(page_size=min(100, limit - len(found)), page_token=token)
            answer = await _call(lambda request=request: self._stub.ListBuilds(request, timeout=_UNARY_SECONDS))  # type: ignore[misc]
            found += [_build(build) for build in answer.builds]
            token = answer.next_page_token
            if not token:
                break
        return found

    async def watch(self, build_id: str) -> AsyncIterator[BuildInfo]:
        """Every change until the build ends. A coordinator that goes away may come back within a minute."""
        token = ""
        away_since: float | None = None
        clock = asyncio.get_running_loop().time
        while True:
            try:
                request = pb.WatchBuildRequest(name=_name(build_id), resume_token=token)
                async for answer in self._stub.WatchBuild(request):
                    token, away_since = answer.resume_token, None
                    yield _build(answer.build)
                return
            except grpc.aio.AioRpcError as error:
                away_since = away_since or clock()
                if not rpc.is_away(error) or clock() - away_since > _RESUME_SECONDS:
                    raise rpc.to_error(error) from error
            await asyncio.sleep(0.5)

    async def logs(self, build_id: str, step: str, *, offset: int = 0, follow: bool = False) -> AsyncIterator[bytes]:
        """Output of a step; with `follow` until the step ends, across a restart of the coordinator."""
        tries = 0
        while True:
            try:
                request = pb.ReadLogsRequest(name=_name(build_id), step=step, offset=offset, follow=follow)
                async for answer in self._stub.ReadLogs(request):
                    offset += len(answer.data)
                    tries = 0
                    yield answer.data
                return
            except grpc.aio.AioRpcError as error:
                tries += 1
                if not rpc.is_away(error) or not follow or tries > _RESUME_SECONDS:
                    raise rpc.to_error(error) from error
            await asyncio.sleep(1)

    async def cancel(self, build_id: str) -> BuildInfo:
        answer = await _call(lambda: self._stub.CancelBuild(pb.CancelBuildRequest(name=_name(build_id)), timeout=_UNARY_SECONDS))
        return _build(answer.build)

    async def retry(self, build_id: str) -> BuildInfo:
        answer = await _call(lambda: self._stub.RetryBuild(pb.RetryBuildRequest(name=_name(build_id)), timeout=_UNARY_SECONDS))
        return _build(answer.build)

    async def result(self, build_id: str) -> dict[str, Any]:
        """The result record."""
        answer = await _call(lambda: self._stub.GetResult(pb.GetResultRequest(name=_name(build_id)), timeout=_UNARY_SECONDS))
        return from_struct(answer.result)

    async def sign_index(self, build_ids: Sequence[str]) -> tuple[str, list[dict[str, Any]]]:
        """Digest of the signed index over the images of finished builds, and its attachments as a build has them."""
        request = pb.SignIndexRequest(names=[_name(build_id) for build_id in build_ids])
        answer = await _call(lambda: self._stub.SignIndex(request, timeout=_SIGN_SECONDS))
        return answer.index.digest, [_attachment(each) for each in answer.attachments]

    async def workers(self) -> list[dict[str, Any]]:
        answer = await _call(lambda: self._stub.ListWorkers(pb.ListWorkersRequest(), timeout=_UNARY_SECONDS))
        names = ("name", "worker_id", "slots", "busy", "jobs", "memory_bytes", "sandbox", "cgroup", "ccache")
        return [
            {
                "arches": list(worker.arches),
                "toolchains": list(worker.toolchains),
                "boots": list(worker.boots),
                "builds": list(worker.builds),
                **{name: getattr(worker, name) for name in names},
            }
            for worker in answer.workers
        ]

    async def download(self, digest: str, to: Path) -> None:
        """Fetch a blob into a file, all or nothing, digest checked; goes on where it was broken off."""
        part = to.with_name(f".{to.name}.part")
        part.unlink(missing_ok=True)
        for attempt in range(5):
            try:
                with part.open("ab") as file:
                    request = pb.DownloadBlobRequest(digest=digest, offset=file.tell())
                    async for answer in self._stub.DownloadBlob(request):
                        file.write(answer.data)
                break
            except grpc.aio.AioRpcError as error:
                if not rpc.is_away(error) or attempt == 4:
                    part.unlink(missing_ok=True)
                    raise rpc.to_error(error) from error
                await asyncio.sleep(1)
        with part.open("rb") as file:
            found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if found != digest:
            part.unlink()
            raise FarmError(Code.BAD_DIGEST, f"asked for {digest}, got {found}", where=str(to))
        part.replace(to)


async def _call(start: Callable[[], Awaitable[T]]) -> T:
    """A call that may be repeated: three times when the farm does not answer."""
    for attempt in range(3):
        try:
            return await start()
        except grpc.aio.AioRpcError as error:
            if not rpc.is_away(error) or attempt == 2 or _has_details(error):
                raise rpc.to_error(error) from error
        await asyncio.sleep(0.3 * 2**attempt)
    raise AssertionError("unreachable")


def _has_details(error: Any) -> bool:
    """Whether the coordinator itself said it: then the farm is there, and repeating at once is no help."""
    return bool(error.trailing_metadata()) and any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata())


def _name(build_id: str) -> str:
    return f"builds/{build_id.removeprefix('builds/')}"


def _build(message: pb.Build) -> BuildInfo:
    return {
        "id": message.name.removeprefix("builds/"),
        "state": state_from(message.state),
        "source": message.source,
        "arch": message.arch,
        "flavour": message.flavour,
        "toolchain": message.toolchain,
        "release": message.release,
        "steps": [_step(step) for step in message.steps],
        "problem": _problem(message),
        "created_at": _seconds(message, "create_time"),
        "ended_at": _seconds(message, "end_time"),
        "artifacts": [_artifact(each) for each in message.artifacts],
        "images": [
            {"name": image.name, "index": image.index, "platform": image.platform, "blobs": [_artifact(blob) for blob in image.blobs]}
            for image in message.images
        ],
        "objects_done": message.objects_done,
        "objects_planned": message.objects_planned,
        "warnings": list(message.warnings),
        "attachments": [_attachment(each) for each in message.attachments],
    }


def _step(message: pb.Step) -> dict[str, Any]:
    names = ("key", "kind", "worker", "attempts", "objects_done", "objects_planned", "doing", "reused", "why_waiting")
    return {
        "state": state_from(message.state),
        "problem": _problem(message),
        "started_at": _seconds(message, "start_time"),
        "ended_at": _seconds(message, "end_time"),
        **{name: getattr(message, name) for name in names},
    }


def _artifact(message: pb.Artifact) -> dict[str, Any]:
    return {"name": message.name, "digest": message.digest, "size": message.size}


def _attachment(message: pb.Attachment) -> dict[str, Any]:
    return {
        **{name: getattr(message, name) for name in ("tag", "subject", "media_type", "artifact_type")},
        "manifest": _artifact(message.manifest),
        "blobs": [_artifact(blob) for blob in message.blobs],
    }


def _problem(message: Any) -> dict[str, str] | None:
    if not message.HasField("problem"):
        return None
    problem = message.problem
    return {"code": problem.code, "message": problem.message, "where": problem.where, "hint": problem.hint}


def _seconds(message: Any, name: str) -> float | None:
    return getattr(message, name).ToMicroseconds() / 1e6 if message.HasField(name) else None
