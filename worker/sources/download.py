"""Files from HTTP servers, which may be broken, slow or hostile: bounded in size and time, and whole or not at all."""

from __future__ import annotations

import http.client
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path

from kernel.errors import Code, FarmError
from kernfarm import timely
from worker.context import Context

_CHUNK = 1 << 20
# Nothing at all for so long: the server or the line is dead.
_SILENCE_SECONDS = 60.0


def download(context: Context, url: str, to: Path, *, limit: int, deadline: float) -> None:
    """Fetch a file of at most `limit` bytes before `deadline` (time.monotonic).

    Raises FarmError: BAD_SOURCE (no such file), FETCH_FAILED (no answer, cut off, too slow), BAD_ARCHIVE (too large), CANCELLED.
    """
    context.log(f"fetching {url}\n".encode())
    limited = max(0.1, min(_SILENCE_SECONDS, deadline - time.monotonic()))
    try:
        answer = timely.opener(deadline).open(url, timeout=limited)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (403, 404, 410):
            raise FarmError(
                Code.BAD_SOURCE, f"there is no such file ({error.code})", where=url, hint="see kernel.org for versions"
            ) from error
        raise FarmError(Code.FETCH_FAILED, f"the server answered {error.code}", where=url) from error
    except (OSError, http.client.HTTPException) as error:
        hint = "can the worker reach it? its settings under `sources` name mirrors"
        failed = FarmError(Code.FETCH_FAILED, f"cannot fetch: {error}", where=url, hint=hint)
        raise (_too_slow(url) if time.monotonic() >= deadline else failed) from error
    with answer:
        copy(context, _reader(answer, url, deadline), to, limit=limit, url=url)


def copy(context: Context, read: Callable[[int], bytes], to: Path, *, limit: int, url: str) -> None:
    """Write what `read` gives, until it gives nothing. Raises FarmError: BAD_ARCHIVE past `limit` bytes, CANCELLED; what `read` raises."""
    size = 0
    with to.open("wb") as file:
        while chunk := read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise FarmError(Code.BAD_ARCHIVE, f"larger than {limit} bytes", where=url)
            file.write(chunk)
            if context.cancel.is_set():
                raise FarmError(Code.CANCELLED, "the fetch was cancelled", where=url)


def _reader(answer: http.client.HTTPResponse, url: str, deadline: float) -> Callable[[int], bytes]:
    """Reads what there is, never waiting for a full buffer: a server that drips would fill one in days. http.client itself takes
    a connection that ends before Content-Length for the end of the file."""
    left = answer.length

    def read(size: int) -> bytes:
        nonlocal left
        if left == 0:
            return b""
        if time.monotonic() >= deadline:
            raise _too_slow(url)
        try:
            data = answer.read1(size if left is None else min(size, left))
        except (OSError, http.client.HTTPException) as error:
            broken = FarmError(Code.FETCH_FAILED, f"the connection broke: {error}", where=url)
            raise (_too_slow(url) if time.monotonic() >= deadline else broken) from error
        if left is not None:
            if not data:
                raise FarmError(Code.FETCH_FAILED, f"the connection ended {left} bytes too early", where=url)
            left -= len(data)
        return data

    return read


def _too_slow(url: str) -> FarmError:
    return FarmError(Code.FETCH_FAILED, "the server is too slow", where=url, hint="sources.fetch_timeout_seconds, or another mirror")
