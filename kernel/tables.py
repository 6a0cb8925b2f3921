"""Architectures, toolchains, flavours and outputs: data files below kernel/data, read into values. Adding one is adding a file."""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from kernel.codec import from_plain
from kernel.errors import Code, FarmError

OUTPUTS = ("kernel",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arch:
    """`kbuild` is make's ARCH, `source` the folder below arch/, `machine` what uname -m says, `platform` OCI's word, `goals` what
    an ordinary build makes, `image_path` where it leaves the kernel image in the output tree."""

    name: str
    kbuild: str
    source: str
    machine: str
    platform: str
    image_goal: str
    image_path: str
    goals: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """`cc` and `hostcc` as make's CC and HOSTCC without prefix; `prefix` maps architectures to CROSS_COMPILE."""

    name: str
    cc: str
    hostcc: str
    prefix: dict[str, str]


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
    return tools.prefix[arch_name] + tools.cc


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
