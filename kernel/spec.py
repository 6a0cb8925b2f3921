"""What a user asks for: the request, and the builds it expands into."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SourceKind(StrEnum):
    """Where a kernel tree comes from: `kernel.org:VERSION`, `debian:SERIES[=VERSION]`, `git:URL@REF`, `file:TARBALL`."""

    KERNEL_ORG = "kernel.org"
    DEBIAN = "debian"
    GIT = "git"
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedBlob:
    """A file of the user's, uploaded to the blob store: its base name (for messages) and content digest."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """`ref` is what stands behind the colon; `digest` is the tarball's, for FILE (uploaded by the client)."""

    kind: SourceKind
    ref: str
    digest: str = ""

    @property
    def mutable(self) -> bool:
        """Whether the same words may mean another tree tomorrow (Debian's current package, a git branch)."""
        match self.kind:
            case SourceKind.DEBIAN:
                return "=" not in self.ref
            case SourceKind.GIT:
                ref = self.ref.rpartition("@")[2]
                return not (len(ref) in (40, 64) and all(c in "0123456789abcdef" for c in ref))
            case SourceKind.KERNEL_ORG | SourceKind.FILE:
                return False

    def __str__(self) -> str:
        return f"{self.kind}:{self.ref}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSpec:
    """`base` is a make goal (`defconfig`, `tinyconfig`, `allnoconfig`) or `file`, with `file` set; fragments go on top, in order."""

    base: str = "defconfig"
    file: NamedBlob | None = None
    fragments: tuple[NamedBlob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSpec:
    """A whole request: expands into one build for each arch and flavour. `skip_boot`: no boot test, for configurations that can't boot
    in QEMU."""

    source: SourceSpec
    arches: tuple[str, ...]
    flavours: tuple[str, ...] = ("plain",)
    config: ConfigSpec = ConfigSpec()
    patches: tuple[NamedBlob, ...] = ()
    toolchain: str = "gcc-12"
    outputs: tuple[str, ...] = ("kernel",)
    local_version: str = "-linuxkit"
    skip_boot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSpec:
    """One kernel: everything that can change its bytes, and nothing else. Its digest is the request digest of design level 1."""

    source: SourceSpec
    arch: str
    flavour: str
    config: ConfigSpec
    patches: tuple[NamedBlob, ...]
    toolchain: str
    outputs: tuple[str, ...]
    local_version: str
    domain: str


def expand(request: RequestSpec, domain: str) -> tuple[BuildSpec, ...]:
    """The builds of a request, arch-major, in the order the user named them."""
    return tuple(
        BuildSpec(
            source=request.source,
            arch=arch,
            flavour=flavour,
            config=request.config,
            patches=request.patches,
            toolchain=request.toolchain,
            outputs=request.outputs,
            local_version=request.local_version,
            domain=domain,
        )
        for arch in request.arches
        for flavour in request.flavours
    )
