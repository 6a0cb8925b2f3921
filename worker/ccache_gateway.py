"""Answers the ccache processes of one sandbox from one cache domain. It runs outside the sandbox, as threads of the worker.

A cache may never fail a build: whatever goes wrong here is an error answer, a miss or a closed connection, and a count.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar, assert_never

from kernel.errors import Code, FarmError
from worker.ccache_protocol import Budget, Get, ProtocolError, Put, Remove, Request, Unsupported, Wire

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_CONNECTIONS = 256
MAX_BYTES_IN_FLIGHT = 256 << 20
# A connection is idle while its compiler runs; an hour is longer than any translation unit takes.
_IDLE_SECONDS = 3600.0
_SEND_TIMEOUT_SECONDS = 30.0
_JOIN_SECONDS = 5.0
# An entry starts with 0xCCAC, the format's version and its type (ccache: src/ccache/core/cacheentry.hpp).
_MAGIC = b"\xcc\xac"
_RESULT = 0
_LONGEST_COMPILE_MS = 3_600_000
_FAILURES_TO_PAUSE = 3
_PAUSE_SECONDS = 30.0


class Entries(Protocol):
    """Where one domain's entries are: kernfarm.blobs.KeyedStore. Raises FarmError."""

    def get(self, key: bytes) -> bytes | None: ...
    def put(self, key: bytes, data: bytes) -> None: ...
    def remove(self, key: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """`hits` and `misses` count results given and stored, `errors` failed store calls and broken connections;
    `saved_seconds` is what the compiles behind the hits once took (wall time), bytes are of entries given and stored."""

    hits: int = 0
    misses: int = 0
    errors: int = 0
    saved_seconds: float = 0.0
    bytes_fetched: int = 0
    bytes_stored: int = 0


class Gateway:
    """Listens on `folder`/`name` until closed."""

    def __init__(self, entries: Entries, folder: Path, name: str) -> None:
        self._backend = _Backend(entries)
        self._budget = Budget(MAX_BYTES_IN_FLIGHT)
        self._lock = threading.Lock()
        self._stats = CacheStats()
        self._closing = False
        self._peers: dict[socket.socket, threading.Thread] = {}
        self._listener = _listen(folder, name)
        self._acceptor = threading.Thread(target=self._accept, name="ccache-gateway", daemon=True)
        self._acceptor.start()

    def stats(self) -> CacheStats:
        """The counts so far."""
        with self._lock:
            return self._stats

    def close(self) -> None:
        """Stop listening and end all connections. A store call under way may outlive this by its own time limit."""
        with self._lock:
            self._closing = True
            peers = dict(self._peers)
        for end in (self._listener, *peers):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(_JOIN_SECONDS)
        self._listener.close()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in peers.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError as error:
                if not self._closing:
                    log.warning("the ccache gateway stops: %s", error)
                return
            thread = threading.Thread(target=self._serve, args=(peer,), name="ccache-connection", daemon=True)
            with self._lock:
                admitted = not self._closing and len(self._peers) < MAX_CONNECTIONS
                if admitted:
                    self._peers[peer] = thread
            if admitted:
                thread.start()
            else:
                peer.close()

    def _serve(self, peer: socket.socket) -> None:
        try:
            self._talk(peer)
        except (ProtocolError, OSError) as error:
            if not self._closing:
                self._count(errors=1)
                log.info("a ccache connection was given up: %s", error)
        finally:
            with self._lock:
                self._peers.pop(peer, None)
            peer.close()

    def _talk(self, peer: socket.socket) -> None:
        wire = Wire(peer, self._budget)
        conversation = _Conversation()
        peer.settimeout(_SEND_TIMEOUT_SECONDS)
        wire.greet()
        while not self._closing:
            peer.settimeout(_IDLE_SECONDS)
            request = wire.read()
            if request is None:
                return
            peer.settimeout(_SEND_TIMEOUT_SECONDS)
            self._answer(wire, request, conversation)

    def _answer(self, wire: Wire, request: Request, conversation: _Conversation) -> None:
        try:
            match request:
                case Get():
                    self._get(wire, request.key, conversation)
                case Put():
                    wire.answer(done=self._put(request, conversation))
                case Remove():
                    self._backend.remove(request.key)
                    wire.answer(done=True)
                case Unsupported():
                    wire.answer_error(request.what)
                case _:
                    assert_never(request)
        except FarmError as error:
            self._count(errors=1)
            wire.answer_error(error.problem.message)

    def _get(self, wire: Wire, key: bytes, conversation: _Conversation) -> None:
        conversation.asked_at = time.monotonic()
        data = self._backend.get(key)
        if data is None:
            wire.answer(done=False)
            return
        milliseconds, value = int.from_bytes(data[:4], "big"), data[4:]
        if _is_result(value):
            self._count(hits=1, saved_seconds=milliseconds / 1000, bytes_fetched=len(value))
        else:
            self._count(bytes_fetched=len(value))
        wire.answer_value(value)

    def _put(self, request: Put, conversation: _Conversation) -> bool:
        milliseconds = 0
        if _is_result(request.value):
            milliseconds = conversation.compile_milliseconds()
            self._count(misses=1)
        self._backend.put(request.key, milliseconds.to_bytes(4, "big") + request.value)
        self._count(bytes_stored=len(request.value))
        return True

    def _count(
        self, *, hits: int = 0, misses: int = 0, errors: int = 0, saved_seconds: float = 0.0, bytes_fetched: int = 0, bytes_stored: int = 0
    ) -> None:
        with self._lock:
            s = self._stats
            self._stats = replace(
                s,
                hits=s.hits + hits,
                misses=s.misses + misses,
                errors=s.errors + errors,
                saved_seconds=s.saved_seconds + saved_seconds,
                bytes_fetched=s.bytes_fetched + bytes_fetched,
                bytes_stored=s.bytes_stored + bytes_stored,
            )


class _Conversation:
    """One ccache process asks, compiles when the answer was no, and stores: the time in between is the compile's."""

    def __init__(self) -> None:
        self.asked_at = 0.0

    def compile_milliseconds(self) -> int:
        if not self.asked_at:
            return 0
        return min(int((time.monotonic() - self.asked_at) * 1000), _LONGEST_COMPILE_MS)


class _Backend:
    """The store behind a fuse: after some failures in a row it is left alone for a while, so that a store that is away costs
    the build a few time-outs and not one per file."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._lock = threading.Lock()
        self._failures = 0
        self._rests_until = 0.0

    def get(self, key: bytes) -> bytes | None:
        return self._call(lambda: self._entries.get(key))

    def put(self, key: bytes, data: bytes) -> None:
        self._call(lambda: self._entries.put(key, data))

    def remove(self, key: bytes) -> None:
        self._call(lambda: self._entries.remove(key))

    def _call(self, action: Callable[[], T]) -> T:
        with self._lock:
            if time.monotonic() < self._rests_until:
                raise FarmError(Code.UNAVAILABLE, "the cache's store is left alone after failures")
        try:
            answer = action()
        except (FarmError, OSError) as error:
            self._failed(error)
            raise FarmError(Code.UNAVAILABLE, "the cache's store failed") from error
        with self._lock:
            self._failures = 0
        return answer

    def _failed(self, error: Exception) -> None:
        log.warning("the store of the compile cache failed: %s", error)
        with self._lock:
            self._failures += 1
            if self._failures >= _FAILURES_TO_PAUSE:
                self._failures = 0
                self._rests_until = time.monotonic() + _PAUSE_SECONDS


def _is_result(value: bytes) -> bool:
    return value[:2] == _MAGIC and len(value) > 3 and value[3] == _RESULT


def _listen(folder: Path, name: str) -> socket.socket:
    """A listening socket that any user may connect to who can reach the folder. The address goes through a descriptor because
    an address has room for 107 bytes only, and scratch folders are deeper than that."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{descriptor}/{name}")
        (folder / name).chmod(0o666)
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    finally:
        os.close(descriptor)
    return listener
