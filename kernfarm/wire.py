"""Between domain values and protobuf messages. Field names are the same on both sides, so the JSON forms of both meet in the middle."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from kernel.codec import CodecError, from_plain, to_plain
from kernel.errors import Code, FarmError, Problem
from kernel.spec import RequestSpec
from kernfarm.v1 import build_service_pb2 as pb

T = TypeVar("T")
M = TypeVar("M", bound=Message)


def to_message(value: Any, kind: type[M]) -> M:
    """A dataclass as the message with the same fields; fields that are None are left unset."""
    return json_format.ParseDict(_without_none(to_plain(value)), kind())


def from_message(kind: type[T], message: Message) -> T:
    """A message as the dataclass with the same fields. Raises FarmError(INVALID_ARGUMENT) naming the field that does not fit."""
    plain = json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    try:
        return from_plain(kind, plain)
    except CodecError as error:
        raise FarmError(Code.INVALID_ARGUMENT, str(error)) from error


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


def _without_none(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {key: _without_none(value) for key, value in plain.items() if value is not None}
    if isinstance(plain, list):
        return [_without_none(value) for value in plain]
    return plain
