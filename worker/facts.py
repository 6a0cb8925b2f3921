"""What this node offers, found by trying rather than by believing settings."""

from __future__ import annotations

import os
from dataclasses import dataclass

from kernel import tables
from kernfarm import compilers, guest, process
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
    able = compilers.buildable()
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


def _ccache() -> str:
    done = process.run((str(find_binary()), "--version"), env=_ENV, timeout_seconds=20)
    return done.output.decode(errors="replace").partition("\n")[0].removeprefix("ccache version ")
