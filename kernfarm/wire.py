"""Between domain values and protobuf messages. Field names are the same on both sides, so the JSON forms of both meet in the middle."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from kernel.codec import TAG, CodecError, from_plain, to_plain
from kernel.errors import Code, FarmError, Problem
from kernel.spec import RequestSpec
from kernel.steps import RESULTS, TASKS, Attempt, Result, StepKind, Usage
from kernfarm.v1 import build_service_pb2 as pb
from kernfarm.v1 import worker_pb2

T = TypeVar("T")
M = TypeVar("M", bound=Message)


def to_message(value: Any, kind: type[M]) -> M:
    """A dataclass as the message with the same fields; fields that are None are left unset."""
    return json_format.ParseDict(_without_none(to_plain(value)), kind())


def from_message(kind: type[T], message: Message, **more: Any) -> T:
    """A message as the dataclass with the same fields, plus `more`. Raises FarmError(INVALID_ARGUMENT) naming what does not fit."""
    try:
        return from_plain(kind, {**_plain(message), **more})
    except CodecError as error:
        raise FarmError(Code.INVALID_ARGUMENT, str(error)) from error


def attempt_to(attempt: Attempt) -> bytes:
    """An attempt as kernfarm.v1.Attempt: the kind of step is the name of the field its task is in."""
    plain = to_plain(attempt)
    task = plain.pop("task")
    del task[TAG]
    plain[plain.pop("kind")] = task
    return json_format.ParseDict(_without_none(plain), worker_pb2.Attempt()).SerializeToString()


def attempt_from(data: bytes) -> Attempt:
    """Raises FarmError(INVALID_ARGUMENT) for bytes of another version of kernfarm."""
    message = worker_pb2.Attempt.FromString(data)
    plain = _plain(message)
    kind = _kind(message.WhichOneof("task"))
    task = plain.pop(kind)
    try:
        return from_plain(Attempt, {**plain, "kind": str(kind), "task": {TAG: TASKS[kind].__name__, **task}})
    except CodecError as error:
        raise FarmError(Code.INVALID_ARGUMENT, str(error)) from error


def finished_to(result: Result, usage: Usage) -> worker_pb2.Finished:
    """A step's result: the kind of step is the name of the field it is in."""
    kind = next(kind for kind, each in RESULTS.items() if isinstance(result, each))
    plain = {"usage": to_plain(usage), str(kind): to_plain(result)}
    return json_format.ParseDict(_without_none(plain), worker_pb2.Finished())


def finished_from(message: worker_pb2.Finished) -> tuple[Result, Usage]:
    """Raises FarmError(INVALID_ARGUMENT) for a message of another version of kernfarm."""
    kind = _kind(message.WhichOneof("result"))
    return from_message(RESULTS[kind], getattr(message, kind)), from_message(Usage, message.usage)


def request_from(message: pb.RequestSpec) -> RequestSpec:
    """A submitted specification. Raises FarmError(INVALID_ARGUMENT) when source or config is missing."""
    for name in ("source", "config"):
        if not message.HasField(name):
            raise FarmError(Code.INVALID_ARGUMENT, f"the request names no {name}", where=name)
    return from_message(RequestSpec, message)


def problem_from(message: pb.Problem) -> Problem:
    """A problem as it was sent; a code that this version does not know counts as INTERNAL."""
    known = {str(code) for code in Code}
    code = Code(message.code) if message.code in known else Code.INTERNAL
    return Problem(code=code, message=message.message, where=message.where, hint=message.hint)


def to_struct(plain: dict[str, Any]) -> Struct:
    """A JSON object as google.protobuf.Struct."""
    struct = Struct()
    struct.update(plain)
    return struct


def from_struct(struct: Struct) -> dict[str, Any]:
    """The JSON object again; whole numbers come back as floats, which kernel.codec reads as integers where those are wanted."""
    return dict(json_format.MessageToDict(struct))


def state_to(state: str) -> Any:
    """`running` -> STATE_RUNNING."""
    return getattr(pb, f"STATE_{state.upper()}")


def state_from(state: pb.State) -> str:
    """STATE_RUNNING -> `running`."""
    return pb.State.Name(state).removeprefix("STATE_").lower()


def _kind(field: str | None) -> StepKind:
    if field is None:
        raise FarmError(Code.INVALID_ARGUMENT, "a message of another version: it holds no kind of step known here")
    return StepKind(field)


def _plain(message: Message) -> dict[str, Any]:
    return dict(json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))


def _without_none(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {key: _without_none(value) for key, value in plain.items() if value is not None}
    if isinstance(plain, list):
        return [_without_none(value) for value in plain]
    return plain
