"""ccache's remote storage helper protocol, version 1, as a server speaks it (ccache: doc/remote_storage_helper_spec.md).

The peer is a sandbox and may send anything: lengths are checked before memory is taken, and memory is taken as bytes arrive.
"""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import dataclass
from enum import IntEnum
from typing import assert_never

# Version 1; one capability: 0x00, get/put/remove.
GREETING = b"\x01\x01\x00"
OK = b"\x00"
NOOP = b"\x01"

KEY_BYTES = 20
MAX_VALUE_BYTES = 64 << 20
_CHUNK = 1 << 18


class Op(IntEnum):
    """First byte of a request."""

    GET = 0
    PUT = 1
    REMOVE = 2
    STOP = 3
    INFO = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Get:
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    key: bytes
    overwrite: bool
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """A request that we understand and decline; the connection stays usable."""

    what: str


Request = Get | Put | Remove | Unsupported


class ProtocolError(Exception):
    """The peer broke the protocol or a bound: after this the stream has no known position."""


class Budget:
    """How many bytes of unfinished values all connections of one gateway may hold together; thread-safe."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True

    def give(self, count: int) -> None:
        with self._lock:
            self._left += count


class Wire:
    """Requests from and answers to one connection. The socket's own timeout bounds each receive and send."""

    def __init__(self, peer: socket.socket, budget: Budget) -> None:
        self._peer = peer
        self._budget = budget

    def read(self) -> Request | None:
        """The next request; None when the peer has closed. Raises ProtocolError, OSError (timeouts included)."""
        first = self._peer.recv(1)
        if not first:
            return None
        try:
            op = Op(first[0])
        except ValueError:
            raise ProtocolError(f"unknown request {first[0]:#04x}") from None
        match op:
            case Op.GET:
                return Get(key=self._key())
            case Op.PUT:
                key = self._key()
                flags = self._exactly(1)[0]
                return Put(key=key, overwrite=bool(flags & 1), value=self._value())
            case Op.REMOVE:
                return Remove(key=self._key())
            case Op.STOP:
                return Unsupported(what="stop is not for clients")
            case Op.INFO:
                return Unsupported(what="info is not a capability")
            case _:
                assert_never(op)

    def greet(self) -> None:
        self._peer.sendall(GREETING)

    def answer_value(self, value: bytes) -> None:
        self._peer.sendall(OK + struct.pack("=Q", len(value)))
        self._peer.sendall(value)

    def answer(self, *, done: bool) -> None:
        self._peer.sendall(OK if done else NOOP)

    def answer_error(self, message: str) -> None:
        text = message.encode()[:255].decode(errors="ignore").encode()
        self._peer.sendall(b"\x02" + bytes([len(text)]) + text)

    def _key(self) -> bytes:
        length = self._exactly(1)[0]
        if length != KEY_BYTES:
            raise ProtocolError(f"a key of {length} bytes; ccache's have {KEY_BYTES}")
        return self._exactly(length)

    def _value(self) -> bytes:
        (length,) = struct.unpack("=Q", self._exactly(8))
        if length > MAX_VALUE_BYTES:
            raise ProtocolError(f"a value of {length} bytes; the limit is {MAX_VALUE_BYTES}")
        return self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        """Memory grows with what really arrives, so that announcing much costs the peer as much as us."""
        data = bytearray()
        try:
            while len(data) < length:
                chunk = self._peer.recv(min(length - len(data), _CHUNK))
                if not chunk:
                    raise ProtocolError("closed in the middle of a request")
                if not self._budget.take(len(chunk)):
                    raise ProtocolError("too much in flight")
                data += chunk
        finally:
            self._budget.give(len(data))
        return bytes(data)
