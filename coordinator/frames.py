"""Messages on a local socket: four bytes of length (big-endian), then a JSON object."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from kernel.errors import Code, FarmError

_LENGTH_BYTES = 4


async def read(reader: asyncio.StreamReader, limit: int) -> dict[str, Any]:
    """The next message. Raises FarmError: UNAVAILABLE when the other side has gone, INVALID_ARGUMENT for what is no message of at most
    `limit` bytes."""
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
        if length > limit:
            raise FarmError(Code.INVALID_ARGUMENT, f"a message of {length} bytes; at most {limit} are read")
        data = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise FarmError(Code.UNAVAILABLE, "the connection ended in the middle of a message") from error
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FarmError(Code.INVALID_ARGUMENT, "the message is no JSON") from error
    if not isinstance(value, dict):
        raise FarmError(Code.INVALID_ARGUMENT, "the message is no JSON object")
    return value


async def write(writer: asyncio.StreamWriter, value: dict[str, Any]) -> None:
    """Send a message. Raises FarmError(UNAVAILABLE) when the other side has gone."""
    data = json.dumps(value).encode()
    try:
        writer.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
        await writer.drain()
    except ConnectionError as error:
        raise FarmError(Code.UNAVAILABLE, "the connection ended before the message was sent") from error
