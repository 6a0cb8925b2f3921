"""The gRPC services: they only translate between messages and the farm."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import IO, Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator.access import gate
from coordinator.access.blobs import TeamBlobs
from coordinator.access.callers import Role
from coordinator.access.gate import Gate
from coordinator.access.ownership import Ownership
from coordinator.access.server import PolicedServer
from coordinator.access.tls import server_credentials
from coordinator.api import ANY_TEAM, BuildView, FarmApi, StepView
from kernel import digest as digests
from kernel.errors import Code, FarmError, Problem
from kernfarm import rpc
from kernfarm.settings import AccessSettings
from kernfarm.v1 import build_service_pb2 as pb
from kernfarm.v1 import build_service_pb2_grpc as pb_grpc
from kernfarm.wire import request_from, state_to, to_message, to_struct

_MAX_PAGE = 200
# Of builds in the audit record: as many as an index may have, and some.
_MOST_NAMES, _LONGEST_NAME = 20, 200


class BuildService(pb_grpc.BuildServiceServicer):
    """For the caller whom the gate let in: readers and submitters get their team's builds, admins those of all teams."""

    def __init__(self, farm: FarmApi, *, blobs: TeamBlobs, max_upload_bytes: int) -> None:
        self._farm = farm
        self._blobs = blobs
        self._max_upload = max_upload_bytes

    async def SubmitBuilds(self, request: pb.SubmitBuildsRequest, context: Any) -> pb.SubmitBuildsResponse:
        spec, who = request_from(request.spec), gate.current()
        await self._blobs.check(who, spec)
        views = await self._farm.submit(spec, tenant=who.team, request_id=request.request_id, clean=request.clean)
        gate.note(*(f"builds/{view.build_id}" for view in views))
        return pb.SubmitBuildsResponse(builds=[_build(view) for view in views])

    async def GetBuild(self, request: pb.GetBuildRequest, context: Any) -> pb.GetBuildResponse:
        return pb.GetBuildResponse(build=_build(await self._farm.build(_team(), _id(request.name))))

    async def ListBuilds(self, request: pb.ListBuildsRequest, context: Any) -> pb.ListBuildsResponse:
        size = min(request.page_size or 50, _MAX_PAGE)
        if size < 0:
            raise FarmError(Code.INVALID_ARGUMENT, "a page can't be smaller than nothing", where="page_size")
        views = await self._farm.builds(_team(), before=request.page_token, limit=size + 1)
        token = views[size - 1].build_id if len(views) > size else ""
        return pb.ListBuildsResponse(builds=[_build(view) for view in views[:size]], next_page_token=token)

    async def WatchBuild(self, request: pb.WatchBuildRequest, context: Any) -> AsyncIterator[pb.WatchBuildResponse]:
        async for token, view in self._farm.watch(_team(), _id(request.name), request.resume_token):
            yield pb.WatchBuildResponse(build=_build(view), resume_token=token)

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Any) -> AsyncIterator[pb.ReadLogsResponse]:
        if request.offset < 0:
            raise FarmError(Code.INVALID_ARGUMENT, "an offset can't be negative", where="offset")
        chunks = self._farm.logs(_team(), _id(request.name), request.step, offset=request.offset, follow=request.follow)
        async for data in chunks:
            yield pb.ReadLogsResponse(data=data)

    async def CancelBuild(self, request: pb.CancelBuildRequest, context: Any) -> pb.CancelBuildResponse:
        return pb.CancelBuildResponse(build=_build(await self._farm.cancel(_team(), _id(request.name))))

    async def RetryBuild(self, request: pb.RetryBuildRequest, context: Any) -> pb.RetryBuildResponse:
        return pb.RetryBuildResponse(build=_build(await self._farm.retry(_team(), _id(request.name))))

    async def GetResult(self, request: pb.GetResultRequest, context: Any) -> pb.GetResultResponse:
        return pb.GetResultResponse(result=to_struct(await self._farm.result(_team(), _id(request.name))))

    async def SignIndex(self, request: pb.SignIndexRequest, context: Any) -> pb.SignIndexResponse:
        gate.note(*(name[:_LONGEST_NAME] for name in request.names[:_MOST_NAMES]))
        made = await self._farm.sign_index(_team(), [_id(name) for name in request.names])
        attachments = [to_message(attachment, pb.Attachment) for attachment in made.attachments]
        return pb.SignIndexResponse(index=to_message(made.index, pb.Artifact), attachments=attachments)

    async def ListWorkers(self, request: pb.ListWorkersRequest, context: Any) -> pb.ListWorkersResponse:
        workers = []
        for info, busy in await self._farm.workers():
            worker = to_message(info, pb.Worker)
            worker.busy = busy
            workers.append(worker)
        return pb.ListWorkersResponse(workers=workers)

    async def UploadBlob(self, requests: AsyncIterator[pb.UploadBlobRequest], context: Any) -> pb.UploadBlobResponse:
        head: pb.BlobHead | None = None
        with tempfile.TemporaryFile() as spool:
            async for request in requests:
                if head is None:
                    if request.WhichOneof("part") != "head":
                        raise FarmError(Code.INVALID_ARGUMENT, "the first message has to name digest and size", where="head")
                    head = request.head
                    gate.note(_digest(head.digest))
                    if await self._blobs.uploaded(gate.current(), head.digest):
                        return pb.UploadBlobResponse(digest=head.digest)
                    continue
                if spool.tell() + len(request.data) > min(head.size, self._max_upload):
                    raise FarmError(Code.INVALID_ARGUMENT, "larger than announced or allowed", where=head.digest)
                await asyncio.to_thread(spool.write, request.data)
            if head is None:
                raise FarmError(Code.INVALID_ARGUMENT, "an empty upload", where="head")
            spool.seek(0)
            await gate.recheck()  # what a revoked token sent last is not stored
            await self._blobs.put(gate.current(), head.digest, _chunks(spool))
        return pb.UploadBlobResponse(digest=head.digest)

    async def DownloadBlob(self, request: pb.DownloadBlobRequest, context: Any) -> AsyncIterator[pb.DownloadBlobResponse]:
        async for data in self._blobs.get(gate.current(), _digest(request.digest), max(0, request.offset)):
            for start in range(0, len(data), rpc.CHUNK):
                yield pb.DownloadBlobResponse(data=data[start : start + rpc.CHUNK])


async def serve(
    farm: FarmApi,
    *,
    listen: str,
    access: AccessSettings,
    guard: Gate,
    ownership: Ownership,
    max_upload_bytes: int,
    observe: rpc.Observe | None = None,
) -> tuple[grpc.aio.Server, str]:
    """Start serving; returns the server and the address it listens on. `observe`: as rpc.Interceptor has it.

    Raises FarmError: INTERNAL (policies), INVALID_ARGUMENT (TLS is needed, or its files don't fit), UNAVAILABLE (address)."""
    credentials = server_credentials(listen, access.tls)
    inner = grpc.aio.server(interceptors=[rpc.Interceptor(guard, observe=observe)], options=list(rpc.SERVER_OPTIONS))
    server = PolicedServer(inner, rpc.all_policies())
    service = BuildService(farm, blobs=TeamBlobs(farm, ownership), max_upload_bytes=max_upload_bytes)
    pb_grpc.add_BuildServiceServicer_to_server(service, server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((rpc.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(listen) if credentials is None else server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        await server.stop(None)
        raise FarmError(Code.UNAVAILABLE, f"cannot listen: {error}", where=listen, hint="is another coordinator running?") from error
    await server.start()
    for name in ("", rpc.SERVICE):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    return server, listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"


def _team() -> str:
    """Whose builds the caller sees."""
    who = gate.current()
    return ANY_TEAM if who.role is Role.ADMIN else who.team


def _chunks(spool: IO[bytes]) -> Iterator[bytes]:
    while chunk := spool.read(rpc.CHUNK):
        yield chunk


def _id(name: str) -> str:
    prefix, slash, build_id = name.partition("/")
    if prefix != "builds" or not slash or not build_id:
        raise FarmError(Code.INVALID_ARGUMENT, f"no name of a build: {name!r}", where="name", hint="builds/ID")
    return build_id


def _digest(text: str) -> str:
    if not digests.is_digest(text):
        raise FarmError(Code.INVALID_ARGUMENT, f"no digest: {text[:80]!r}", where="digest", hint="sha256: and 64 hex digits")
    return text


def _build(view: BuildView) -> pb.Build:
    return pb.Build(
        name=f"builds/{view.build_id}",
        state=state_to(view.state),
        source=view.source,
        arch=view.arch,
        flavour=view.flavour,
        toolchain=view.toolchain,
        release=view.release,
        steps=[_step(step) for step in view.steps],
        problem=_problem(view.problem),
        create_time=_time(view.created_at),
        end_time=_time(view.ended_at),
        artifacts=[to_message(artifact, pb.Artifact) for artifact in view.artifacts],
        images=[to_message(image, pb.Image) for image in view.images],
        objects_done=view.objects_done,
        objects_planned=view.objects_planned,
        warnings=view.warnings,
        attachments=[to_message(attachment, pb.Attachment) for attachment in view.attachments],
    )


def _step(view: StepView) -> pb.Step:
    return pb.Step(
        key=view.key,
        kind=view.kind,
        state=state_to(view.state),
        worker=view.worker,
        attempts=view.attempts,
        objects_done=view.objects_done,
        objects_planned=view.objects_planned,
        doing=view.doing,
        reused=view.reused,
        start_time=_time(view.started_at),
        end_time=_time(view.ended_at),
        why_waiting=view.why_waiting,
        problem=_problem(view.problem),
    )


def _problem(problem: Problem | None) -> pb.Problem | None:
    return to_message(problem, pb.Problem) if problem is not None else None


def _time(seconds: float) -> Timestamp | None:
    if not seconds:
        return None
    stamp = Timestamp()
    stamp.FromMicroseconds(int(seconds * 1e6))
    return stamp
