"""Names of images as Docker's tools write them: `[HOST/]REPOSITORY[:TAG][@DIGEST]`. Pure.

Source: the grammar of github.com/distribution/reference; repository names of the OCI distribution specification 1.1.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from kernel import digest as digests
from kernel.errors import Code, FarmError
from kernfarm import tags

DOCKER_HUB = "docker.io"
_HUB_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io"})
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LONGEST = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """`host` with its port, Docker Hub as `docker.io`; `tag` and `digest` are "" where none was given."""

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Raises FarmError(INVALID_ARGUMENT) saying which part is wrong."""
        rest, at, digest = text.partition("@")
        if at and not digests.is_digest(digest):
            raise _bad(text, f"{digest!r} is no digest: sha256: and 64 hex digits")
        first, slash, path = rest.partition("/")
        if slash and ("." in first or ":" in first or first == "localhost"):
            host = first
        else:
            host, path = DOCKER_HUB, rest
        path, colon, tag = path.partition(":")
        if not _HOST.fullmatch(host):
            raise _bad(text, f"{host!r} is no host")
        if colon and not tags.is_tag(tag):
            raise _bad(text, f"{tag!r} is no tag")
        host = DOCKER_HUB if host in _HUB_ALIASES else host
        if host == DOCKER_HUB and "/" not in path:
            path = f"library/{path}"
        if not _REPOSITORY.fullmatch(path) or len(host) + 1 + len(path) > _LONGEST:
            raise _bad(text, f"{path!r} is no repository: lower-case letters and digits, separated by '/', '.', '_' or '-'")
        return cls(host=host, repository=path, tag=tag, digest=digest)

    @property
    def address(self) -> str:
        """Host and port that are connected to."""
        return "registry-1.docker.io" if self.host == DOCKER_HUB else self.host

    @property
    def loopback(self) -> bool:
        """Whether the registry is on this machine, where plain HTTP gives nothing away."""
        # Of an address in brackets without a port, the last colon is its own.
        return is_loopback(self.host) or is_loopback(self.host.rpartition(":")[0])

    @property
    def name(self) -> str:
        """Host and repository."""
        return f"{self.host}/{self.repository}"

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def is_loopback(name: str) -> bool:
    """Whether a host (an IPv6 address in brackets) is this machine itself."""
    if name == "localhost":
        return True
    try:
        if name.startswith("[") and name.endswith("]"):
            return ipaddress.IPv6Address(name[1:-1]).is_loopback
        return ipaddress.IPv4Address(name).is_loopback
    except ValueError:
        return False


def _bad(text: str, why: str) -> FarmError:
    return FarmError(Code.INVALID_ARGUMENT, f"no image reference: {why}", where=text, hint="[HOST[:PORT]/]REPOSITORY[:TAG]")
