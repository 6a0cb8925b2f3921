"""The signer's socket: one question a connection, from the coordinator's user only, answered one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coordinator import frames
from kernel.codec import to_plain
from kernel.errors import Code, FarmError, Problem

log = logging.getLogger(__name__)

_REQUEST_BYTES = 4096
_REQUEST_SECONDS = 10.0
_LONGEST_ID = 200
# struct ucred: pid, uid, gid (unix(7), SO_PEERCRED).
_UCRED = struct.Struct("3i")

# An index has an image for each architecture.
_MOST_BUILDS = 16

# Asked for the index over several builds, or for all that one build made; and, by a question of its own, whether the caller has gone.
Answer = Callable[[tuple[str, ...], Callable[[], bool]], dict[str, Any]]


async def serve(path: Path, answer: Answer, *, allowed_uid: int, socket_gid: int = -1) -> asyncio.Server:
    """Listen. `answer` blocks and raises FarmError; it is called by one thread at a time. Raises FarmError: CONFLICT when another signer
    listens there, INVALID_ARGUMENT when there can be no socket."""
    turn = asyncio.Lock()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await frames.write(writer, await _question(reader, writer, answer, turn, allowed_uid))
        except FarmError as error:
            log.info("a caller has gone: %s", error)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    return await asyncio.start_unix_server(handle, sock=_bind(path, socket_gid), limit=_REQUEST_BYTES)


async def _question(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer, turn: asyncio.Lock, allowed_uid: int
) -> dict[str, Any]:
    try:
        uid = _peer(writer.get_extra_info("socket"))
        async with asyncio.timeout(_REQUEST_SECONDS):
            # Read also what will be refused: a connection closed with something unread in it loses the answer.
            request = await frames.read(reader, _REQUEST_BYTES)
        if uid != allowed_uid:
            raise FarmError(Code.SIGNING_REFUSED, f"not signed: user {uid} may not ask", hint="the coordinator's user is allowed_uid")
        build_ids = _build_ids(request)

        def gone() -> bool:
            """Nobody is left to hear it, and others wait."""
            return reader.at_eof() or writer.is_closing()

        async with turn:
            if gone():
                raise FarmError(Code.UNAVAILABLE, f"nothing signed of {', '.join(build_ids)}: the caller has gone")
            result = await asyncio.to_thread(answer, build_ids, gone)
        log.info("signed %s", ", ".join(build_ids))
        return result
    except TimeoutError:
        return _problem(Problem(code=Code.INVALID_ARGUMENT, message=f"no question within {_REQUEST_SECONDS:.0f} s"))
    except FarmError as error:
        log.warning("%s", error)
        return _problem(error.problem)
    except Exception as error:
        log.exception("a bug of the signer")
        return _problem(Problem(code=Code.INTERNAL, message=f"the signer failed: {type(error).__name__}: {error}"))


def _build_ids(request: dict[str, Any]) -> tuple[str, ...]:
    """Nothing but builds' ids is taken from a caller."""
    found = request.get("builds")
    if (
        set(request) != {"builds"}
        or not isinstance(found, list)
        or not all(isinstance(each, str) and 0 < len(each) <= _LONGEST_ID for each in found)
        or not 0 < len(set(found)) == len(found) <= _MOST_BUILDS
    ):
        raise FarmError(Code.INVALID_ARGUMENT, 'a question has the form {"builds": ["..."]}, and nothing more')
    return tuple(found)


def _problem(problem: Problem) -> dict[str, Any]:
    return {"problem": to_plain(problem)}


def _peer(connection: Any) -> int:
    """The user at the other end, by the kernel's word."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(data)[1])


def _bind(path: Path, gid: int) -> socket.socket:
    """A socket for its owner, and for a group when one is given."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_dead(path)
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        if gid >= 0:
            os.chown(path, -1, gid)
            path.chmod(0o660)
    except OSError as error:
        made.close()
        # "AF_UNIX path too long" has no number and no strerror.
        said = error.strerror or str(error)
        raise FarmError(Code.INVALID_ARGUMENT, f"cannot listen: {said}", where=str(path), hint="a path of at most 107 bytes") from error
    except FarmError:
        made.close()
        raise
    return made


def _remove_dead(path: Path) -> None:
    """A socket that nobody listens on any more; anything else is left alone."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        code = probe.connect_ex(str(path))
    if code == 0:
        raise FarmError(Code.CONFLICT, "another signer listens there", where=str(path), hint="stop it first")
    if code == errno.ECONNREFUSED:
        path.unlink()
