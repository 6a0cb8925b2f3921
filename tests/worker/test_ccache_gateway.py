"""The gateway against clients that speak the protocol, well or not."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.errors import Code, FarmError
from worker import ccache_gateway
from worker.ccache_gateway import Gateway

KEY = bytes(range(20))
RESULT = b"\xcc\xac\x01\x00 a result"
MANIFEST = b"\xcc\xac\x01\x01 a manifest"
OPENINGS = [b"\x00\x14" + KEY, b"\x01\x14" + KEY + b"\x00", b"\x02\x14", b"\x03"]


class Memory:
    """Entries in a dict that can be told to fail."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self.calls = 0
        self.failure: Exception | None = None

    def _call(self) -> None:
        self.calls += 1
        if self.failure is not None:
            raise self.failure

    def get(self, key: bytes) -> bytes | None:
        self._call()
        return self.data.get(key)

    def put(self, key: bytes, data: bytes) -> None:
        self._call()
        self.data[key] = data

    def remove(self, key: bytes) -> None:
        self._call()
        self.data.pop(key, None)


class Client:
    """A client as ccache is one."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        try:
            self._socket.connect(str(folder / "s"))
            assert self.exactly(3) == b"\x01\x01\x00"
        except (OSError, EOFError):
            self._socket.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self._socket.recv(count - len(data))
            if not chunk:
                raise EOFError(data)
            data += chunk
        return data

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def end(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def get(self, key: bytes = KEY) -> bytes | str | None:
        self.send(b"\x00" + bytes([len(key)]) + key)
        match self.exactly(1):
            case b"\x00":
                return self.exactly(struct.unpack("=Q", self.exactly(8))[0])
            case b"\x01":
                return None
        return self.message()

    def put(self, value: bytes, key: bytes = KEY) -> bytes:
        self.send(b"\x01" + bytes([len(key)]) + key + b"\x01" + struct.pack("=Q", len(value)) + value)
        return self.exactly(1)

    def message(self) -> str:
        return self.exactly(self.exactly(1)[0]).decode()


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def gateway(memory: Memory, folder: Path) -> Iterator[Gateway]:
    gate = Gateway(memory, folder, "s")
    yield gate
    gate.close()
    for thread in threading.enumerate():
        if thread.name.startswith("ccache-"):
            thread.join(2)
            assert not thread.is_alive()


def test_get_put_remove(gateway: Gateway, folder: Path) -> None:
    with Client(folder) as client:
        assert client.get() is None
        assert client.put(RESULT) == b"\x00"
        assert client.put(MANIFEST, KEY[::-1]) == b"\x00"
        assert client.get() == RESULT
        assert client.get(KEY[::-1]) == MANIFEST
        client.send(b"\x02\x14" + KEY)
        assert client.exactly(1) == b"\x00"
        assert client.get() is None
    stats = gateway.stats()
    assert (stats.hits, stats.misses, stats.errors) == (1, 1, 0)
    assert stats.bytes_stored == stats.bytes_fetched == len(RESULT) + len(MANIFEST)


def test_a_hit_saves_what_the_compile_took(gateway: Gateway, folder: Path) -> None:
    with Client(folder) as client:
        client.get()
        time.sleep(0.2)
        client.put(RESULT)
    with Client(folder) as client:
        client.get()
        client.get()
    assert 0.4 <= gateway.stats().saved_seconds < 2


def test_an_entry_without_a_question_saves_nothing(gateway: Gateway, folder: Path) -> None:
    with Client(folder) as client:
        client.put(RESULT)
        client.get()
    assert gateway.stats().saved_seconds == 0


@pytest.mark.parametrize("request_byte", [b"\x03", b"\x04"])
def test_stop_and_info_are_declined_and_nothing_stops(gateway: Gateway, folder: Path, request_byte: bytes) -> None:
    with Client(folder) as client:
        client.send(request_byte)
        assert client.exactly(1) == b"\x02"
        assert "not" in client.message()
        assert client.put(RESULT) == b"\x00"
    with Client(folder) as other:
        assert other.get() == RESULT


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x13" + bytes(19),
        b"\x00\x00",
        b"\x01\xff" + bytes(255),
        b"\x01\x14" + KEY + b"\x01" + struct.pack("=Q", (64 << 20) + 1),
        b"\x01\x14" + KEY + b"\x01" + struct.pack("=Q", 2**64 - 1),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_request_ends_the_connection(gateway: Gateway, folder: Path, memory: Memory, data: bytes) -> None:
    with Client(folder) as client:
        client.send(data)
        with pytest.raises((EOFError, ConnectionResetError)):
            client.exactly(1)
    assert memory.data == {}
    with Client(folder) as other:
        assert other.get() is None


def test_half_a_value_is_not_stored(gateway: Gateway, folder: Path, memory: Memory) -> None:
    with Client(folder) as client:
        client.send(b"\x01\x14" + KEY + b"\x01" + struct.pack("=Q", 100) + b"half")
        client.end()
        with pytest.raises((EOFError, ConnectionResetError)):
            client.exactly(1)
    assert memory.data == {}
    assert gateway.stats().errors == 1


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(OPENINGS))))
def test_garbage_hurts_only_its_connection(gateway: Gateway, folder: Path, parts: list[bytes]) -> None:
    with Client(folder) as hostile, contextlib.suppress(EOFError, ConnectionError):
        for part in parts:
            hostile.send(part)
        hostile.end()
        while True:
            hostile.exactly(1)
    with Client(folder) as other:
        assert other.put(RESULT, KEY[::-1]) == b"\x00"
        assert other.get(KEY[::-1]) == RESULT


def test_no_more_than_so_many_bytes_in_flight(memory: Memory, folder: Path, gateway: Gateway) -> None:
    clients = []
    refused = 0
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            client = stack.enter_context(Client(folder))
            clients.append(client)
            try:
                client.send(b"\x01\x14" + KEY + b"\x01" + struct.pack("=Q", 64 << 20) + bytes((64 << 20) - 1))
            except ConnectionError:
                refused += 1
        assert refused >= 1
        assert clients
    with Client(folder) as other:
        assert other.get() is None


def test_connections_are_bounded(gateway: Gateway, folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(ccache_gateway.MAX_CONNECTIONS):
            stack.enter_context(Client(folder))
        with pytest.raises((EOFError, ConnectionResetError)):
            stack.enter_context(Client(folder))
    for _ in range(100):
        with contextlib.suppress(EOFError, ConnectionResetError), Client(folder) as client:
            assert client.get() is None
            return
        time.sleep(0.05)
    pytest.fail("no connection became free")


@pytest.mark.parametrize("failure", [FarmError(Code.UNAVAILABLE, "secret address"), OSError("disk")])
def test_a_broken_store_is_an_error_answer_and_left_alone_after_a_while(
    gateway: Gateway, folder: Path, memory: Memory, failure: Exception
) -> None:
    memory.failure = failure
    with Client(folder) as client:
        for _ in range(20):
            answer = client.get()
            assert isinstance(answer, str)
            assert "secret" not in answer
    assert memory.calls == 3
    assert gateway.stats().errors == 20


def test_closing_ends_clients_in_the_middle(memory: Memory, folder: Path) -> None:
    gateway = Gateway(memory, folder, "s")
    with Client(folder) as client:
        client.send(b"\x01\x14" + KEY)
        started = time.monotonic()
        gateway.close()
        assert time.monotonic() - started < 2
        with pytest.raises((EOFError, ConnectionResetError)):
            client.exactly(1)
    with pytest.raises(OSError, match="refused"):
        Client(folder)


def test_the_folder_may_be_deeper_than_an_address_is_long(memory: Memory, folder: Path) -> None:
    deep = folder / ("d" * 120)
    deep.mkdir()
    gateway = Gateway(memory, deep, "s")
    (folder / "short").symlink_to(deep)
    with Client(folder / "short") as client:
        assert client.get() is None
    gateway.close()
