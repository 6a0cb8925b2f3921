"""HTTP answers that end at a deadline, with TLS as without; jwks and sources have the kinds of dripping."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernfarm import timely
from kernfarm.cli import authority


@contextmanager
def server(files: authority.Files) -> Iterator[str]:
    """Answers over TLS; to /drip with a header that does not end for 20 seconds."""
    left = threading.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as connection:
                asked = connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Header: ")
                while b"/drip" in asked and not left.wait(0.05):
                    connection.sendall(b"x")
                connection.sendall(b"y\r\nContent-Length: 5\r\n\r\nhello")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=serve)
        serving.start()
        ending = threading.Timer(20.0, left.set)
        ending.start()
        try:
            yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ending.cancel()
            left.set()
            listening.shutdown(socket.SHUT_RDWR)
            serving.join(10)


def test_an_answer_over_tls_ends_at_the_deadline_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = authority.Files(tmp_path)
    files.ensure("127.0.0.1:0")
    with server(files) as address:
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            timely.opener(time.monotonic() + 10).open(address, timeout=10)
        monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
        with timely.opener(time.monotonic() + 10).open(address, timeout=10) as answer:
            assert answer.read() == b"hello"
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            timely.opener(time.monotonic() + 0.5).open(f"{address}/drip", timeout=10)
        assert time.monotonic() - started < 10
