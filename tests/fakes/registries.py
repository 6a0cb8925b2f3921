"""Debian's docker-registry on a free port, and a TCP proxy that breaks connections in front of it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kernfarm import process

USER, PASSWORD = "kernel", "p@ss:word"
# Of that user.
HTPASSWD = "kernel:$2b$04$J/kLOgGK9MBs1nD6SW1b9OiUS76CUPQbHV2wRORIyTepaTHX0qehO\n"


class RealRegistry:
    """A docker-registry; `address` is host:port. Its log has a line for each request."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address

    def writes(self) -> list[str]:
        """The requests so far that change something."""
        rows = [json.loads(line) for line in self._lines()]
        found = [(row.get("http.request.method", ""), row.get("http.request.uri", "")) for row in rows if "http.response.status" in row]
        return [f"{method} {uri}" for method, uri in found if method in ("POST", "PUT", "PATCH", "DELETE")]

    def blob_file(self, digest: str) -> Path:
        """Where it keeps a blob."""
        name = digest.removeprefix("sha256:")
        return self.folder / "store/docker/registry/v2/blobs/sha256" / name[:2] / name / "data"

    def repository(self, name: str) -> Path:
        """Where it keeps a repository's links to blobs, tags and, in `_uploads`, sessions."""
        return self.folder / "store/docker/registry/v2/repositories" / name

    def _lines(self) -> list[str]:
        return [line for line in (self.folder / "log").read_text().splitlines() if line.startswith("{")]


@contextlib.contextmanager
def real(folder: Path, **more: Any) -> Iterator[RealRegistry]:
    """A registry with its files in `folder`; `more` are sections of its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    http = {"addr": "127.0.0.1:0", "secret": "for one process only", **more.pop("http", {})}
    storage = {"filesystem": {"rootdirectory": str(folder / "store")}, **more.pop("storage", {})}
    config = {"version": 0.1, "log": {"level": "info", "formatter": "json"}, "storage": storage, "http": http, **more}
    (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    env = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
    service = process.start(["docker-registry", "serve", str(folder / "config.yml")], env=env, output=folder / "log")
    try:
        yield RealRegistry(folder, _address(folder / "log", service))
    finally:
        service.terminate()


def _address(log: Path, service: process.Service) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and service.poll() is None:
        for line in log.read_text().splitlines():
            message = json.loads(line).get("msg", "") if line.startswith("{") else ""
            if message.startswith("listening on "):
                return str(message.removeprefix("listening on ").partition(",")[0])
        time.sleep(0.02)
    raise AssertionError(f"docker-registry does not start: {log.read_text()[-500:]}")


class Proxy:
    """Passes TCP on. After `cut_after` bytes from clients it resets the connection, and then `times` - 1 further ones after as many
    bytes each; with `dead` it accepts nothing afterwards. `pause`: seconds after each
    64 kB, for a slow line. `passed` holds what clients sent and the server got."""

    def __init__(self, upstream: str, *, cut_after: int | None = None, times: int = 1, dead: bool = False, pause: float = 0.0) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._cut_after = cut_after
        self._left = cut_after
        self._times = times if cut_after is not None else 0
        self._dead = dead
        self._pause = pause
        self._lock = threading.Lock()
        self.passed = bytearray()
        self._listener = socket.create_server(("127.0.0.1", 0))
        if pause:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._begin(self._accept)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            _shut(connection)
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()
        for connection in self._connections:
            connection.close()

    def _begin(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._dead and self._times == 0 and self._cut_after is not None:
                _reset(client)
                continue
            server = socket.create_connection(self._upstream)
            self._connections += [client, server]
            cut, ended = threading.Event(), threading.Event()
            self._begin(self._to_server, client, server, cut, ended)
            self._begin(_to_client, server, client, cut, ended)

    def _to_server(self, client: socket.socket, server: socket.socket, cut_off: threading.Event, ended: threading.Event) -> None:
        """A cut reaches the client only after the server has done with what came through, so that what it then asks for is settled."""
        with contextlib.ExitStack() as ends, contextlib.suppress(OSError):
            ends.callback(_shut, server)
            ends.callback(_reset, client)
            while data := client.recv(65536):
                with self._lock:
                    cut = self._times > 0 and self._left is not None and len(data) >= self._left
                    if cut:
                        data = data[: self._left]
                        self._times -= 1
                        self._left = self._cut_after
                    elif self._left is not None:
                        self._left -= len(data)
                    self.passed += data
                if cut:
                    cut_off.set()
                server.sendall(data)
                time.sleep(self._pause)
                if cut:
                    server.shutdown(socket.SHUT_WR)
                    assert ended.wait(20), "the server does not end a connection that was cut"
                    break


def _to_client(server: socket.socket, client: socket.socket, cut_off: threading.Event, ended: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := server.recv(65536):
            if not cut_off.is_set():
                client.sendall(data)
    ended.set()
    if not cut_off.is_set():
        _shut(client)


def _shut(connection: socket.socket) -> None:
    """End it, and wake the thread that reads from it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _reset(connection: socket.socket) -> None:
    """End it as a crash would: with RST, what is on the way is lost."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
