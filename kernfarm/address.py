"""The addresses of farms."""

from __future__ import annotations

import ipaddress
import re

from kernel.errors import Code, FarmError

_UNIX = "unix:"
_FORMS = "HOST:PORT, [V6]:PORT or unix:///PATH"
_HOST_PORT = re.compile(r"(?:(?P<name>[^\s/:@\[\]]+)|\[(?P<v6>[^\s/\[\]]+)\]):(?P<port>[0-9]{1,5})")
_HIGHEST_PORT = 65535
# What gRPC's core takes for a scheme before the first colon (its naming document), so that `dns:443` is the host 443.
_SCHEMES = frozenset({"dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds", "google-c2p", "google-c2p-experimental"})


def check(address: str) -> str:
    """The address itself: HOST:PORT, [V6]:PORT or unix:PATH. Raises FarmError(INVALID_ARGUMENT) for another form, which gRPC would take
    for a name and look up, with words that lead nowhere. Passwords in it are not repeated."""
    shown = _without_userinfo(address)
    if any(not letter.isprintable() for letter in address):
        raise _refused(repr(shown), "has control characters", _FORMS)
    if address.startswith(_UNIX):
        return _socket(address)
    scheme, separator, rest = shown.partition("://")
    if separator:
        host = rest.strip("/").split("/")[0]
        raise _refused(shown, f"begins with {scheme}://, but a farm speaks gRPC", f"without it: {host}" if host else _FORMS)
    found = _HOST_PORT.fullmatch(address)
    if found is None or (found["v6"] is not None and not _is_v6(found["v6"])):
        raise _refused(shown, "is none", _FORMS)
    if (found["name"] or "").lower() in _SCHEMES:
        raise _refused(shown, f"has the host {found['name']}, which gRPC takes for a scheme", "the host's whole name, or its IP address")
    if not 0 < int(found["port"]) <= _HIGHEST_PORT:
        raise _refused(shown, "has a port that is none", f"1 to {_HIGHEST_PORT}")
    return address


def _socket(address: str) -> str:
    """`unix:PATH`, or `unix://` and a path from the root: what would be a host there, gRPC refuses."""
    path = address.removeprefix(_UNIX)
    if not path.strip("/"):
        raise _refused(address, "names no socket", "unix:///PATH")
    if path.startswith("//") and not path.startswith("///"):
        raise _refused(address, "names a host before the socket's path", f"unix:///{path[2:]}")
    return address


def _is_v6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _without_userinfo(address: str) -> str:
    """What may be shown: of `SCHEME://USER:PASSWORD@HOST`, no user and no password. A path may have an @."""
    if address.startswith(_UNIX):
        return address
    before, separator, rest = address.partition("://") if "://" in address else ("", "", address)
    return before + separator + rest.rpartition("@")[2]


def _refused(address: str, why: str, hint: str) -> FarmError:
    return FarmError(Code.INVALID_ARGUMENT, f"the farm's address {why}", where=address or "''", hint=hint)
