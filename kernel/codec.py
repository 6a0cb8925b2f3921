"""Frozen dataclasses to plain JSON values and back: the one form in which domain values are stored and sent.

Handles dataclasses, StrEnum, str, int, float, bool, `tuple[X, ...]`, `dict[str, X]`, `X | None` and unions of
dataclasses (tagged by class name under "kind_of"). Unknown keys are refused on reading: a newer writer's field must not be lost silently.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Hashable
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")
TAG = "kind_of"


class CodecError(ValueError):
    """A value does not have the shape of the type it should become."""


def to_plain(value: Any) -> Any:
    """JSON-compatible form of a domain value; defaults are written too, so that digests don't depend on them being implicit."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = _hints(type(value))
        return {f.name: _field(hints[f.name], getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise CodecError(f"cannot write a {type(value).__name__}")


def tagged(value: Any) -> dict[str, Any]:
    """Like to_plain for a dataclass, with its class name under TAG, for values read back through a union."""
    plain = to_plain(value)
    return {TAG: type(value).__name__, **plain}


def from_plain(kind: type[T], plain: Any) -> T:
    """Read a value of `kind` back. Raises CodecError with the path of the first thing that does not fit."""
    return typing.cast(T, _read(kind, plain, kind.__name__))


def from_tagged(kinds: typing.Iterable[type[Any]], plain: dict[str, Any]) -> Any:
    """Read a dataclass written by `tagged`; `kinds` are the classes it may be."""
    by_name = {kind.__name__: kind for kind in kinds}
    name = plain.get(TAG)
    if name not in by_name:
        raise CodecError(f"{name!r} is none of {sorted(by_name)}")
    return from_plain(by_name[name], {key: item for key, item in plain.items() if key != TAG})


def canonical(value: Any) -> bytes:
    """Sorted, compact JSON of a domain value: equal values give equal bytes, so it can be hashed."""
    return json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _field(hint: Any, value: Any) -> Any:
    if value is not None and len(_choices(hint)) > 1:
        return tagged(value)
    return to_plain(value)


def _choices(kind: Any) -> list[Any]:
    """The members of a union other than None; nothing for what is no union."""
    if typing.get_origin(kind) not in (types.UnionType, typing.Union):
        return []
    return [arg for arg in typing.get_args(kind) if arg is not type(None)]


@functools.cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read(kind: Any, plain: Any, path: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return _read_optional(kind, plain, path)
    if origin is tuple:
        item = typing.get_args(kind)[0]
        if not isinstance(plain, (list, tuple)):
            raise CodecError(f"{path}: expected a list, got {type(plain).__name__}")
        return tuple(_read(item, entry, f"{path}[{index}]") for index, entry in enumerate(plain))
    if origin is dict:
        item = typing.get_args(kind)[1]
        if not isinstance(plain, dict):
            raise CodecError(f"{path}: expected an object, got {type(plain).__name__}")
        return {key: _read(item, entry, f"{path}.{key}") for key, entry in plain.items()}
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(typing.cast(type[Any], kind), plain, path)
    return _read_scalar(kind, plain, path)


def _read_optional(kind: Any, plain: Any, path: str) -> Any:
    if plain is None:
        return None
    choices = _choices(kind)
    if len(choices) != 1:
        return from_tagged(choices, plain)
    return _read(choices[0], plain, path)


def _read_dataclass(kind: type[Any], plain: Any, path: str) -> Any:
    if not isinstance(plain, dict):
        raise CodecError(f"{path}: expected an object, got {type(plain).__name__}")
    hints = _hints(typing.cast(Hashable, kind))
    names = {f.name for f in dataclasses.fields(kind)}
    if unknown := sorted(set(plain) - names):
        raise CodecError(f"{path}: unknown field {unknown[0]!r}")
    values = {key: _read(hints[key], entry, f"{path}.{key}") for key, entry in plain.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise CodecError(f"{path}: {error}") from error


def _read_scalar(kind: Any, plain: Any, path: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(plain)
        except ValueError as error:
            raise CodecError(f"{path}: {error}") from error
    if kind is float and isinstance(plain, (int, float)) and not isinstance(plain, bool):
        return float(plain)
    if kind is int and isinstance(plain, str) and plain.lstrip("-").isdigit():
        return int(plain)  # protobuf's JSON form writes 64-bit integers as strings
    if kind is int and isinstance(plain, float) and plain.is_integer():
        return int(plain)
    if isinstance(kind, type) and isinstance(plain, kind) and not (kind is int and isinstance(plain, bool)):
        return plain
    raise CodecError(f"{path}: expected {getattr(kind, '__name__', kind)}, got {type(plain).__name__}")
