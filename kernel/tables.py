"""Architectures, toolchains, flavours and outputs: data files below kernel/data, read into values. Adding one is adding a file."""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

from kernel.codec import from_plain
from kernel.errors import Code, FarmError

OUTPUTS = ("kernel",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulator:
    """How QEMU is called for an architecture: the program, the Debian package it is in, options of machine and processor, and the
    kernel's name for the serial console that QEMU puts on its standard output."""

    program: str
    package: str
    options: tuple[str, ...]
    console: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arch:
    """`kbuild` is make's ARCH, `source` the folder below arch/, `machine` what uname -m says, `elf_machine` e_machine in its ELF files
    (elf.h), `platform` OCI's word, `goals` what an ordinary build makes, `image_path` where it leaves the kernel image in the output
    tree; `link_only`: folders below arch/SOURCE whose objects are the link step's; `device_trees`: the image has them, in kernel.tar."""

    name: str
    kbuild: str
    source: str
    machine: str
    elf_machine: int
    platform: str
    image_path: str
    goals: tuple[str, ...]
    link_only: tuple[str, ...]
    qemu: Emulator
    device_trees: bool = False

    @property
    def link_only_folders(self) -> tuple[str, ...]:
        """From the top of the tree."""
        return tuple(f"arch/{self.source}/{folder}" for folder in self.link_only)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A toolchain's way to an architecture: `prefix` (CROSS_COMPILE) before the names of its programs, `flags` that the compiler needs
    outside kbuild, `packages` of Debian's that bring it."""

    prefix: str
    packages: tuple[str, ...]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """`cc` and `hostcc` as make's CC and HOSTCC without prefix; `programs` it needs besides, `{prefix}` standing for the target's;
    `variables` more words for make; `targets` by architecture."""

    name: str
    cc: str
    hostcc: str
    targets: dict[str, Target]
    programs: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavour:
    """`suffix` goes into the kernel's release, `fragment` on top of the base config; `vmlinux`: the image has it, unstripped."""

    name: str
    suffix: str
    fragment: str
    vmlinux: bool = False


def names(table: str) -> tuple[str, ...]:
    """All names in a table: `arch`, `toolchain` or `flavour`."""
    folder = resources.files("kernel") / "data" / table
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


@functools.cache
def arch(name: str) -> Arch:
    """Raises FarmError(UNKNOWN_VALUE) with the nearest known name."""
    return from_plain(Arch, {"name": name, **_row("arch", "architecture", name)})


@functools.cache
def toolchain(name: str) -> Toolchain:
    """Raises FarmError(UNKNOWN_VALUE) with the nearest known name."""
    return from_plain(Toolchain, {"name": name, **_row("toolchain", "toolchain", name)})


@functools.cache
def flavour(name: str) -> Flavour:
    """Raises FarmError(UNKNOWN_VALUE) with the nearest known name."""
    return from_plain(Flavour, {"name": name, **_row("flavour", "flavour", name)})


def compiler(arch_name: str, toolchain_name: str) -> str:
    """The C compiler's name for an architecture, with its prefix."""
    tools = toolchain(toolchain_name)
    return tools.targets[arch_name].prefix + tools.cc


def cross_command(arch_name: str, toolchain_name: str) -> tuple[str, ...]:
    """The C compiler for user space of an architecture: its name and the flags it needs outside kbuild."""
    return (compiler(arch_name, toolchain_name), *toolchain(toolchain_name).targets[arch_name].flags)


def build_name(arch_name: str, toolchain_name: str) -> str:
    """How workers say that they can build an architecture with a toolchain."""
    return f"{arch_name}/{toolchain_name}"


def programs(arch_name: str, toolchain_name: str) -> tuple[str, ...]:
    """All programs that building an architecture with a toolchain takes of it, the compiler first."""
    tools = toolchain(toolchain_name)
    prefix = tools.targets[arch_name].prefix
    return (prefix + tools.cc, tools.hostcc, *(name.replace("{prefix}", prefix) for name in tools.programs))


def output(name: str) -> str:
    """The name itself, when there is such an output. Raises FarmError(UNKNOWN_VALUE)."""
    if name not in OUTPUTS:
        raise unknown("output", name, OUTPUTS)
    return name


def unknown(what: str, name: str, known: Sequence[str]) -> FarmError:
    """The refusal of a word that is in no table, with the mend."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return FarmError(Code.UNKNOWN_VALUE, f"unknown {what} {name!r}", where=what, hint=hint)


def _row(table: str, what: str, name: str) -> dict[str, object]:
    known = names(table)
    if name not in known:
        raise unknown(what, name, known)
    return tomllib.loads((resources.files("kernel") / "data" / table / f"{name}.toml").read_text("utf-8"))
