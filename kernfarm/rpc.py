"""gRPC on both sides: one table of policies, one place where failures become statuses and statuses failures, limits with reasons."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from enum import StrEnum
from typing import Any, NoReturn, Protocol, TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from kernel.errors import Code, FarmError, Problem
from kernfarm.v1 import build_service_pb2 as pb

log = logging.getLogger(__name__)
T = TypeVar("T")

DOMAIN = "kernfarm"
SERVICE = pb.DESCRIPTOR.services_by_name["BuildService"].full_name
CHUNK = 1 << 20
Observe = Callable[[str, str, float], None]

# Answers come from memory or a small file; a submit waits up to ten seconds for the first worker of a farm that has just started.
UNARY_SECONDS = 60.0
# An upload is 4 GiB over a line of 10 Mbit/s; the signer reads every byte of all images, each in at most ten minutes.
LIMITS: Mapping[str, float] = {"UploadBlob": 3600.0, "SignIndex": 1200.0}
# Whether a caller of a call that lasts may still go on: keys of an identity provider are two fetches of ten seconds each.
CHECK_SECONDS = 30.0
# Details travel in HTTP/2 trailers, encoded to up to three times their size; above 8 KiB in all peers begin to refuse them.
_LONGEST = 1500
_SUMMARY = 200


class Policy(StrEnum):
    """Who may call: anybody, or the role that is needed at least. What needs submitter or admin changes something, and is recorded."""

    PUBLIC = "public"
    READER = "reader"
    SUBMITTER = "submitter"
    ADMIN = "admin"


POLICIES: Mapping[str, Policy] = {
    "SubmitBuilds": Policy.SUBMITTER,
    "GetBuild": Policy.READER,
    "ListBuilds": Policy.READER,
    "WatchBuild": Policy.READER,
    "ReadLogs": Policy.READER,
    "CancelBuild": Policy.SUBMITTER,
    "RetryBuild": Policy.SUBMITTER,
    "GetResult": Policy.READER,
    # It costs the signer minutes, and what the farm's key signs is recorded.
    "SignIndex": Policy.SUBMITTER,
    "ListWorkers": Policy.READER,
    "UploadBlob": Policy.SUBMITTER,
    "DownloadBlob": Policy.READER,
}
# Of the services beside ours. Health tells a probe, which has no token, no more than that there is a farm.
OTHER_POLICIES: Mapping[str, Policy] = {
    "/grpc.health.v1.Health/Check": Policy.PUBLIC,
    "/grpc.health.v1.Health/List": Policy.PUBLIC,
    "/grpc.health.v1.Health/Watch": Policy.PUBLIC,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Policy.READER,
}

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    # Two processes must not listen on one port by accident and share the calls between them.
    ("grpc.so_reuseport", 0),
    # Chunks are 1 MiB and requests small; anything larger is a mistake or an attack.
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.max_send_message_length", 8 << 20),
    # Watching clients are silent for minutes: notice dead ones, allow their pings.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", 8 << 20),
    # Twice the server's shortest allowed interval, so that a slow clock does not get us disconnected.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_retries", 0),  # retries are the client library's, which knows what is idempotent
)


def all_policies() -> dict[str, Policy]:
    """The policy of each method, by the method's whole path."""
    return {**{f"/{SERVICE}/{name}": policy for name, policy in POLICIES.items()}, **OTHER_POLICIES}


class Visit(Protocol):
    """A call that was let in."""

    async def check(self) -> None:
        """Raises FarmError when the caller may not go on."""


class Gate(Protocol):
    """Tells callers apart and lets in who may; coordinator.access.gate has the real one."""

    recheck_seconds: float

    def visit(self, method: str, policy: Policy, context: Any, about: str) -> AbstractAsyncContextManager[Visit]:
        """The stay of one call. Raises FarmError: UNAUTHENTICATED, PERMISSION_DENIED."""


class Interceptor(grpc.aio.ServerInterceptor):
    """Around every call: the gate first, then failures become statuses with details, unexpected ones get an incident number.

    `observe` is told method, status and seconds of each call that ended.
    `limit`: seconds for a call with a single answer, unless `limits` has it by name. Streams end when their build or their reader does.
    Either ends when the caller is no longer let in, or when that could not be told for `check_limit` seconds.
    """

    def __init__(
        self,
        gate: Gate,
        *,
        limit: float = UNARY_SECONDS,
        limits: Mapping[str, float] = LIMITS,
        check_limit: float = CHECK_SECONDS,
        observe: Observe | None = None,
    ) -> None:
        self._gate = gate
        self._policies = all_policies()
        self._observe = observe
        self._limit = limit
        self._limits = limits
        self._check_limit = check_limit

    async def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        name = details.method.rpartition("/")[2]
        if handler.response_streaming:
            inner = handler.unary_stream or handler.stream_stream
            make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler

            async def stream(request: Any, context: Any) -> Any:
                async with (
                    _Guard(name, context, self._observe),
                    self._visit(details.method, request, context) as visit,
                    aclosing(_while_let_in(inner(request, context), self._checks(visit))) as answers,
                ):
                    async for answer in answers:
                        yield answer

            return make(stream, handler.request_deserializer, handler.response_serializer)
        inner = handler.unary_unary or handler.stream_unary
        make = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler

        async def unary(request: Any, context: Any) -> Any:
            async with _Guard(name, context, self._observe), self._visit(details.method, request, context) as visit:
                try:
                    # A deadline of our own for callers that set none: nothing may hold resources for ever.
                    async with asyncio.timeout(self._limits.get(name, self._limit)):
                        return await _answer_while_let_in(inner(request, context), self._checks(visit))
                except TimeoutError as error:
                    raise FarmError(Code.TIMEOUT, "the farm did not answer in time", where=name) from error

        return make(unary, handler.request_deserializer, handler.response_serializer)

    def _visit(self, method: str, request: Any, context: Any) -> AbstractAsyncContextManager[Visit]:
        policy = self._policies.get(method)
        if policy is None:
            message, hint = "nobody has decided who may call this", "each method needs a policy in kernfarm/rpc.py"
            raise FarmError(Code.PERMISSION_DENIED, message, where=method, hint=hint)
        return self._gate.visit(method.rpartition("/")[2], policy, context, _about(request))

    async def _checks(self, visit: Visit) -> NoReturn:
        """Ends, with FarmError, when the caller is no longer let in, or when that can't be told in time."""
        while True:
            await asyncio.sleep(self._gate.recheck_seconds)
            try:
                async with asyncio.timeout(self._check_limit):
                    await visit.check()
            except TimeoutError as error:
                raise FarmError(
                    Code.UNAVAILABLE, "the farm can't tell whether the caller may still have this", hint="call again"
                ) from error


def _about(request: Any) -> str:
    """The build that a request names, as it stands there."""
    name = getattr(request, "name", "")
    return name if isinstance(name, str) else ""


async def _answer_while_let_in(answer: Coroutine[Any, Any, Any], checks: Coroutine[Any, Any, NoReturn]) -> Any:
    """A single answer, unless `checks` fails before it is there: an upload can take an hour.

    An answer that comes while an identity provider is still asked is given: it is no later than one that came before."""
    async with _meanwhile(checks) as check, _meanwhile(answer) as waiting:
        return await _unless(check, waiting)


async def _while_let_in(answers: Any, checks: Coroutine[Any, Any, NoReturn]) -> AsyncGenerator[Any, None]:
    """Answers of a stream, also while an identity provider is asked; `checks` that fails ends it, also while it is silent.

    A service may also be a coroutine that writes its answers itself (gRPC's own health service is); then there is none to pass on."""
    async with _meanwhile(checks) as check:
        if not hasattr(answers, "__aiter__"):
            async with _meanwhile(answers) as waiting:
                await _unless(check, waiting)
            return
        async with aclosing(aiter(answers)) as iterator:
            while True:
                async with _meanwhile(anext(iterator)) as waiting:
                    try:
                        answer = await _unless(check, waiting)
                    except StopAsyncIteration:
                        return
                yield answer


@asynccontextmanager
async def _meanwhile(work: Awaitable[T]) -> AsyncIterator[asyncio.Future[T]]:
    """Work that goes on beside the body, and not after it."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _unless(check: asyncio.Future[NoReturn], waiting: asyncio.Future[T]) -> T:
    """What is waited for, unless the check has failed by then: what a caller who may not stay would get is not given."""
    both: set[asyncio.Future[Any]] = {check, waiting}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if check.done():
        check.result()
    return waiting.result()


class _Guard:
    def __init__(self, name: str, context: Any, observe: Observe | None) -> None:
        self._name = name
        self._context = context
        self._observe = observe
        self._started = time.monotonic()

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        seconds = time.monotonic() - self._started
        if self._observe is not None:
            self._observe(self._name, _status_of(error, self._context), seconds)
        if isinstance(error, FarmError):
            log.info("%s %s in %.3f s", self._name, error.problem.code, seconds)
            await self._context.abort_with_status(to_status(error.problem))
        elif isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            incident = uuid.uuid4().hex[:12]
            log.error("%s failed, incident %s", self._name, incident, exc_info=error)
            problem = Problem(code=Code.INTERNAL, message=f"unexpected failure, incident {incident}", hint="see the coordinator's log")
            await self._context.abort_with_status(to_status(problem))
        elif error is None:
            log.debug("%s ok in %.3f s", self._name, seconds)


def _status_of(error: BaseException | None, context: Any) -> str:
    """Name of the grpc.StatusCode that a call ends with."""
    if isinstance(error, FarmError):
        return error.problem.handling.status
    if isinstance(error, grpc.aio.AbortError):  # our own code never aborts; gRPC's health service does
        return str(grpc.StatusCode(context.code()).name)
    if isinstance(error, Exception):
        return "INTERNAL"
    return "OK" if error is None else "CANCELLED"


def to_status(problem: Problem) -> Any:
    """google.rpc.Status of a problem: ErrorInfo always, BadRequest, ResourceInfo and RetryInfo where they fit."""
    metadata = {"message": _cut(problem.message, _LONGEST), "where": _cut(problem.where, _SUMMARY), "hint": _cut(problem.hint, _SUMMARY)}
    where, summary = metadata["where"], _cut(problem.message, _SUMMARY)
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=problem.code.value, domain=DOMAIN, metadata=metadata)]
    if problem.handling.status == "INVALID_ARGUMENT":
        violation = error_details_pb2.BadRequest.FieldViolation(field=where, description=summary)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if problem.code is Code.NOT_FOUND:
        kind = "Blob" if where.startswith("sha256:") else "Build"
        details.append(error_details_pb2.ResourceInfo(resource_type=kind, resource_name=where, description=summary))
    if problem.handling.retry:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2)))
    packed = []
    for detail in details:
        box = any_pb2.Any()
        box.Pack(detail)
        packed.append(box)
    return rpc_status.to_status(status_pb2.Status(code=code_pb2.Code.Value(problem.handling.status), message=summary, details=packed))


def _cut(text: str, length: int) -> str:
    data = text.encode()
    return text if len(data) <= length else data[:length].decode(errors="ignore") + " ..."


def to_error(error: Any) -> FarmError:
    """A failed call on the client's side as the problem that the server had, or what the transport says."""
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
            known = {str(code) for code in Code}
            code = Code(info.reason) if info.reason in known else Code.INTERNAL
            return FarmError(code, info.metadata["message"], where=info.metadata["where"], hint=info.metadata["hint"])
    if _no_handshake(error):
        return _untrusted(str(error.details()))
    code = {
        grpc.StatusCode.UNAVAILABLE: Code.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED: Code.TIMEOUT,
        grpc.StatusCode.CANCELLED: Code.CANCELLED,
        grpc.StatusCode.INVALID_ARGUMENT: Code.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED: Code.INVALID_ARGUMENT,
    }.get(error.code(), Code.INTERNAL)
    hint = "is it running? `kernfarm up` starts one" if code is Code.UNAVAILABLE else ""
    if code is Code.UNAVAILABLE and ("Socket closed" in str(error.details()) or "reset by peer" in str(error.details())):
        # So it looks from here when the farm refuses the handshake: with TLS 1.3 our side of it is over by then.
        hint = "does the farm ask for a client's certificate (--cert, --key), and is yours valid?"
    return FarmError(code, f"the farm does not answer: {error.details()}" if code is Code.UNAVAILABLE else str(error.details()), hint=hint)


def is_away(error: Any) -> bool:
    """Whether a call failed because nobody answered; trying again may help then. A handshake that fails will fail again."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and not _no_handshake(error)


def _no_handshake(error: Any) -> bool:
    """gRPC says so in words only; that the certificate is for another host, in other words."""
    words = str(error.details()).lower()
    return error.code() is grpc.StatusCode.UNAVAILABLE and ("handshake failed" in words or "hostname verification" in words)


def _untrusted(details: str) -> FarmError:
    """TLS did not come about. BoringSSL's reasons, as the mend that belongs to them."""
    reason = details.rpartition("OPENSSL_internal:")[2].removesuffix(": OK") or details
    if "Hostname Verification" in details:
        reason, hint = "it is for another host", "call the farm by a name or address that its certificate names"
    elif "expired" in reason:
        hint = "the farm's admin has to renew it; or is this machine's clock wrong?"
    elif "CERTIFICATE_VERIFY_FAILED" in reason:
        hint = "--ca or KERNFARM_CA names the authority that has signed the farm's certificate"
    else:
        hint = "does the farm speak TLS on this address, and for this name?"
    return FarmError(Code.UNAUTHENTICATED, f"the farm's certificate is not accepted: {reason}", hint=hint)
