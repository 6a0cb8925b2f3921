"""HTTP answers that end at a deadline. The time limit of a socket begins anew with each byte, and http.client reads status, headers, sizes
of chunks and trailers line by line: a server that drips would be listened to for days before the first byte of a body."""

from __future__ import annotations

import functools
import http.client
import io
import socket
import time
import urllib.request
from typing import Any


def opener(deadline: float, *handlers: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
    """As urllib.request.build_opener. `deadline`: time.monotonic; to read on after it raises TimeoutError."""
    return urllib.request.build_opener(_Http(deadline), _Https(deadline), *handlers)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_connect(http.client.HTTPConnection, self._deadline), request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_connect(http.client.HTTPSConnection, self._deadline), request)


def _connect(kind: type[http.client.HTTPConnection], deadline: float) -> Any:
    def connection(*where: Any, **more: Any) -> http.client.HTTPConnection:
        made = kind(*where, **more)
        made.response_class = functools.partial(_Answer, deadline)  # type: ignore[assignment]  # made like a class; also for a proxy
        return made

    return connection


class _Answer(http.client.HTTPResponse):
    def __init__(self, deadline: float, sock: socket.socket, *more: Any, **named: Any) -> None:
        super().__init__(sock, *more, **named)
        self.fp = io.BufferedReader(_Clocked(self.fp.detach(), sock, deadline))


class _Clocked(io.RawIOBase):
    """What a socket receives, until the deadline; its own time limit holds as well."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._raw = raw
        self._socket = sock
        self._silence = sock.gettimeout()
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        self._socket.settimeout(left if self._silence is None else min(left, self._silence))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
