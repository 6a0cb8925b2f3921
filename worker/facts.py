"""What this node offers, found by trying rather than by believing settings."""

from __future__ import annotations

import os
from dataclasses import dataclass

from kernel import tables
from kernel.errors import FarmError
from kernfarm import guest, process
from worker import toolchain
from worker.ccache import find_binary
from worker.node import Node

_ENV = {"PATH": toolchain.SEARCH_PATH, "LC_ALL": "C"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The fields of coordinator.fleet.WorkerInfo but its id."""

    name: str
    arches: tuple[str, ...]
    toolchains: tuple[str, ...]
    slots: int
    jobs: int
    memory_bytes: int
    sandbox: str
    cgroup: str
    ccache: str
    boots: tuple[str, ...]
    builds: tuple[str, ...]


def facts(node: Node) -> Facts:
    """What can be built here, with which toolchains; architectures that can be booted."""
    able = buildable()
    return Facts(
        name=node.settings.name,
        arches=tuple(sorted({arch for arch, _ in able})),
        toolchains=tuple(sorted({name for _, name in able})),
        slots=node.settings.slots,
        jobs=node.settings.jobs,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        sandbox=node.sandbox.name,
        cgroup=node.cgroups.describe(),
        ccache=_ccache() if node.settings.compile_cache else "off",
        boots=tuple(arch for arch in tables.names("arch") if guest.able(arch)),
        builds=tuple(tables.build_name(arch, name) for arch, name in able),
    )


def buildable() -> list[tuple[str, str]]:
    """Architectures and toolchains whose compiler makes programs for the one, with all other programs of the other there."""
    pairs = ((arch, name) for name in tables.names("toolchain") for arch in tables.toolchain(name).targets)
    return sorted((arch, name) for arch, name in pairs if _runs(arch, name))


def _runs(arch: str, name: str) -> bool:
    """Also that the compiler is one for this architecture: the same name is another compiler on another machine. And that programs for
    user space can be linked, which the tools in kernel-dev take."""
    try:
        for program in tables.programs(arch, name):
            toolchain.locate(program)
        words = (*tables.cross_command(arch, name), "-x", "c", "-o", "/dev/null", "-")
        compiled = process.run(words, env=_ENV, timeout_seconds=20, input=b'#include <stdio.h>\nint main(void) { return puts(""); }\n')
        asked = process.run((*tables.cross_command(arch, name), "-dumpmachine"), env=_ENV, timeout_seconds=20)
    except FarmError:
        return False
    return compiled.code == 0 and asked.output.decode(errors="replace").startswith(f"{tables.arch(arch).machine}-")


def _ccache() -> str:
    done = process.run((str(find_binary()), "--version"), env=_ENV, timeout_seconds=20)
    return done.output.decode(errors="replace").partition("\n")[0].removeprefix("ccache version ")
