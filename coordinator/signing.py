"""The coordinator's side of signing: one question to the signer, which believes nothing but builds' ids."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from coordinator import frames
from kernel.codec import CodecError, from_plain
from kernel.errors import Code, FarmError, Problem
from kernel.steps import SignedIndex, SignResult

T = TypeVar("T")

# The answer lists a few dozen attachments.
_ANSWER_BYTES = 4 << 20
# The signer reads every byte of the images: a gigabyte from a slow store in ten minutes.
_ANSWER_SECONDS = 600.0


async def sign(socket: Path, build_id: str) -> SignResult:
    """Have the signer sign what a build made. Raises FarmError: UNAVAILABLE when the signer does not answer, SIGNING_REFUSED with its
    reason, BLOB_LOST naming a blob that has to be made again, TIMEOUT."""
    return await _ask(socket, (build_id,), SignResult)


async def sign_index(socket: Path, build_ids: Sequence[str]) -> SignedIndex:
    """Have it sign the index over the images of two or more builds. Raises as `sign`."""
    return await _ask(socket, build_ids, SignedIndex)


async def _ask(socket: Path, build_ids: Sequence[str], kind: type[T]) -> T:
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError as error:
        hint = "is the signer running? its log says why not"
        raise FarmError(Code.UNAVAILABLE, f"the signer does not answer: {error.strerror or error}", where=str(socket), hint=hint) from error
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await frames.write(writer, {"builds": list(build_ids)})
            answer = await frames.read(reader, _ANSWER_BYTES)
    except TimeoutError as error:
        raise FarmError(Code.TIMEOUT, "the signer did not answer in time", where=str(socket)) from error
    finally:
        writer.close()
    try:
        if "problem" in answer:
            raise FarmError.of(from_plain(Problem, answer["problem"]))
        return from_plain(kind, answer)
    except CodecError as error:
        raise FarmError(Code.INTERNAL, f"the signer's answer can't be read: {error}", where=str(socket)) from error
