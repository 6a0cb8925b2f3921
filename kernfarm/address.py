"""The addresses of farms."""

from __future__ import annotations

import re

from kernel.errors import Code, FarmError

_UNIX = "unix:"
_HOST_PORT = re.compile(r"(?:[^\s/:@\[\]]+|\[[0-9A-Fa-f:.]+(?:%[^\s/\[\]]+)?\]):(?P<port>[0-9]{1,5})")
_HIGHEST_PORT = 65535


def check(address: str) -> str:
    """The address itself: HOST:PORT, [V6]:PORT or unix:PATH. Raises FarmError(INVALID_ARGUMENT) for another form, which gRPC would take
    for a name and look up, with words that lead nowhere."""
    if address.startswith(_UNIX):
        if address.removeprefix(_UNIX).strip("/"):
            return address
        raise _refused(address, "names no socket", "unix:///PATH")
    scheme, separator, rest = address.rpartition("://")
    if separator:
        raise _refused(address, f"begins with {scheme}://, but a farm speaks gRPC", f"without it: {rest.split('/')[0]}")
    found = _HOST_PORT.fullmatch(address)
    if found is None:
        raise _refused(address, "is none", "HOST:PORT, [V6]:PORT or unix:///PATH")
    if not 0 < int(found["port"]) <= _HIGHEST_PORT:
        raise _refused(address, "has a port that is none", f"1 to {_HIGHEST_PORT}")
    return address


def _refused(address: str, why: str, hint: str) -> FarmError:
    return FarmError(Code.INVALID_ARGUMENT, f"the farm's address {why}", where=address or "''", hint=hint)
