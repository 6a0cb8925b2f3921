"""What a user asks for: the request, and the builds it expands into."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    """`base` is a make goal (`defconfig`, `tinyconfig`, `allnoconfig`) or `file`, with `file` set. `base_fragments` (a series' own) are
    part of the base: anything may override them. `fragments` go on top, in order; each of their options has to stick."""

    base: str = "defconfig"
    file: NamedBlob | None = None
    fragments: tuple[NamedBlob, ...] = ()
    base_fragments: tuple[NamedBlob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchConfig:
    """What one architecture has beyond the common configuration; each list goes behind the common one."""

    arch: str
    fragments: tuple[NamedBlob, ...] = ()
    base_fragments: tuple[NamedBlob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFlavour:
    """A user's flavour: one of the farm's (`extends`), with fragments and patches more, and `suffix` behind the kernel's name and tag."""

    name: str
    suffix: str
    extends: str = "plain"
    fragments: tuple[NamedBlob, ...] = ()
    patches: tuple[NamedBlob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSpec:
    """A whole request: expands into one build for each arch and flavour. `skip_boot`: no boot test, for configurations that can't boot
    in QEMU. `flavours` are names of the farm's, or of `own_flavours`."""

    source: SourceSpec
    arches: tuple[str, ...]
    flavours: tuple[str, ...] = ("plain",)
    config: ConfigSpec = ConfigSpec()
    patches: tuple[NamedBlob, ...] = ()
    toolchain: str = "gcc-12"
    outputs: tuple[str, ...] = ("kernel",)
    local_version: str = "-linuxkit"
    skip_boot: bool = False
    arch_configs: tuple[ArchConfig, ...] = ()
    own_flavours: tuple[OwnFlavour, ...] = ()


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
    extends: str = ""

    @property
    def base_flavour(self) -> str:
        """The farm's flavour that this build is, or that the user's own one extends."""
        return self.extends or self.flavour


def expand(request: RequestSpec, domain: str) -> tuple[BuildSpec, ...]:
    """The builds of a request, arch-major, in the order the user named them."""
    return tuple(_build(request, arch, flavour, domain) for arch in request.arches for flavour in request.flavours)


def _build(request: RequestSpec, arch: str, flavour: str, domain: str) -> BuildSpec:
    own = next((each for each in request.own_flavours if each.name == flavour), None)
    here = [each for each in request.arch_configs if each.arch == arch]
    config = replace(
        request.config,
        base_fragments=(*request.config.base_fragments, *(blob for each in here for blob in each.base_fragments)),
        fragments=(
            *(own.fragments if own else ()),
            *request.config.fragments,
            *(blob for each in here for blob in each.fragments),
        ),
    )
    return BuildSpec(
        source=request.source,
        arch=arch,
        flavour=flavour,
        extends=own.extends if own else "",
        config=config,
        patches=(*request.patches, *(own.patches if own else ())),
        toolchain=request.toolchain,
        outputs=request.outputs,
        local_version=request.local_version + (own.suffix if own else ""),
        domain=domain,
    )
