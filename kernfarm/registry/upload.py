"""Uploading one blob: mounted from a neighbour, or sent in chunks; gone on with after a break, begun anew when the session is gone."""

from __future__ import annotations

import logging
import re
import urllib.parse
from collections.abc import Callable, Sequence
from typing import IO

import requests

from kernel.errors import Code, FarmError
from kernfarm.registry.content import Blob
from kernfarm.registry.repository import Repository
from kernfarm.regular import open_blob

log = logging.getLogger(__name__)

# Held in memory, sent again after a break. A registry may ask for larger ones.
CHUNK = 8 << 20
_LARGEST_CHUNK = 256 << 20
# Sessions for one blob, breaks in one session without a single byte of progress.
_SESSIONS = 3
_BREAKS = 3
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")


class _Lost(Exception):
    """The upload session is gone, or no longer agrees with us about where it is."""


def upload(
    repository: Repository,
    blob: Blob,
    *,
    mount_from: Sequence[str] = (),
    chunk_bytes: int = CHUNK,
    sent: Callable[[int], None],
) -> bool:
    """Put a blob where the registry has none. `sent` hears of bytes that were accepted. True when it was mounted instead of sent. Raises
    FarmError: MISSING_FILE, BAD_DIGEST for a file that is not that blob (any more), and as Repository's methods do."""
    for other in mount_from:
        if _mount(repository, blob.digest, other):
            return True
    for _ in range(_SESSIONS):
        try:
            _session(repository, blob, chunk_bytes, sent)
            return False
        except _Lost as lost:
            log.info("%s: upload of %s begins anew: %s", repository.name, blob.digest, lost)
    message = f"the registry lost the upload of {blob.digest} {_SESSIONS} times"
    raise FarmError(Code.UNAVAILABLE, message, where=repository.name, hint="push again; what it has already is not sent twice")


def _mount(repository: Repository, digest: str, other: str) -> bool:
    """201 when the blob is there now; 202 begins an ordinary upload, which is dropped: the next request begins its own."""
    transport = repository.transport
    url = transport.url("blobs/uploads/", mount=digest, **{"from": other})
    try:
        response = transport.request("POST", url, good=(201, 202), push=True)
    except FarmError as error:
        if error.problem.code is Code.UNAVAILABLE:
            raise
        log.info("%s: no mount from %s: %s", repository.name, other, error.problem.message)
        return False  # may be refused for the neighbour's sake; if it is for ours, the upload itself will say so
    if response.status_code == 201:
        return True
    transport.request("DELETE", transport.location(response), good=(200, 202, 204, 404, 405), push=True)
    return False


def _session(repository: Repository, blob: Blob, chunk_bytes: int, sent: Callable[[int], None]) -> None:
    with open_blob(blob.path, blob.digest, blob.size) as file:
        transport = repository.transport
        response = transport.request("POST", transport.url("blobs/uploads/"), good=(202,), push=True)
        least = response.headers.get("OCI-Chunk-Min-Length", "0")
        size = min(_LARGEST_CHUNK, max(chunk_bytes, int(least) if least.isdigit() else 0))
        location = _send(repository, transport.location(response), file, blob.size, size, sent)
    _commit(repository, location, blob.digest)


def _send(repository: Repository, location: str, file: IO[bytes], total: int, size: int, sent: Callable[[int], None]) -> str:
    """All chunks; the session's location then."""
    offset = breaks = 0
    while offset < total:
        before = offset
        try:
            location, offset = _chunk(repository, location, file, offset, size)
            if not before < offset <= total:
                raise _Lost(f"after a chunk from {before} on it says that it has {offset} bytes")
            sent(offset)
        except FarmError as error:
            breaks += 1
            if error.problem.code is not Code.UNAVAILABLE or breaks > _BREAKS:
                raise
            location, offset = _status(repository, location)
            if offset > total:
                raise _Lost(f"it says that it has {offset} bytes of {total}") from error
        if offset > before:
            breaks = 0
    return location


def _chunk(repository: Repository, location: str, file: IO[bytes], offset: int, size: int) -> tuple[str, int]:
    """Send one chunk; returns the next location and offset. Not repeated blindly: nobody knows how much of it arrived."""
    file.seek(offset)
    data = file.read(size)
    headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{offset}-{offset + len(data) - 1}"}
    transport = repository.transport
    good = (201, 202, 204, 404, 416)
    response = transport.request("PATCH", location, good=good, headers=headers, body=data, push=True, repeat=False)
    if response.status_code in (404, 416):
        raise _Lost(f"the registry answers {response.status_code}")
    return transport.location(response), _end(response, offset + len(data))


def _status(repository: Repository, location: str) -> tuple[str, int]:
    """Where a session that broke is: its next location, and how many bytes it has."""
    transport = repository.transport
    response = transport.request("GET", location, good=(200, 202, 204, 404, 405), push=True)
    if response.status_code in (404, 405):
        raise _Lost("it does not know the session any more")
    here = transport.location(response) if "Location" in response.headers else location
    return here, _end(response, 0)


def _end(response: requests.Response, otherwise: int) -> int:
    """How many bytes the registry says that it has. `0-0` stands for none as well as for one, so it says nothing."""
    match = _RANGE.fullmatch(response.headers.get("Range", ""))
    return int(match[1]) + 1 if match is not None and int(match[1]) else otherwise


def _commit(repository: Repository, location: str, digest: str) -> None:
    """The last request, which makes a blob of what was sent. When its answer is lost, the blob itself tells whether it came through."""
    transport = repository.transport
    url = f"{location}{'&' if urllib.parse.urlsplit(location).query else '?'}{urllib.parse.urlencode({'digest': digest})}"
    headers = {"Content-Type": "application/octet-stream"}
    try:
        response = transport.request("PUT", url, good=(200, 201, 204, 404, 416), headers=headers, push=True, repeat=False)
        if response.status_code in (404, 416):
            raise _Lost(f"the registry answers {response.status_code}")
    except FarmError as error:
        if error.problem.code is not Code.UNAVAILABLE:
            raise
        if repository.blob_size(digest, push=True) is None:
            raise _Lost(error.problem.message) from error
        return
    found = response.headers.get("Docker-Content-Digest", digest)
    if found != digest:
        raise FarmError(Code.BAD_DIGEST, f"the registry stored {found} where {digest} was sent", where=repository.name)
