"""Which architectures can be built here, and with which toolchains: found by compiling, not by believing names."""

from __future__ import annotations

import shutil

from kernel import tables
from kernel.errors import FarmError
from kernfarm import process

PATH = "/usr/local/bin:/usr/bin:/bin"
_PROGRAM = b'#include <stdio.h>\nint main(void) { return puts("") < 0; }\n'


def buildable() -> list[tuple[str, str]]:
    """Architectures and toolchains that work together on this machine, sorted. Takes about a second."""
    pairs = ((arch, name) for name in tables.names("toolchain") for arch in tables.toolchain(name).targets)
    return sorted((arch, name) for arch, name in pairs if works(arch, name))


def works(arch: str, toolchain: str) -> bool:
    """Whether all programs of a toolchain are here, and its compiler makes programs for user space of that architecture: the tools in
    kernel-dev are some. The same name is another compiler on another machine, so it is asked what it compiles for."""
    if not all(shutil.which(program, path=PATH) for program in tables.programs(arch, toolchain)):
        return False
    compiler, env = tables.cross_command(arch, toolchain), {"PATH": PATH, "LC_ALL": "C"}
    try:
        compiled = process.run((*compiler, "-x", "c", "-o", "/dev/null", "-"), env=env, timeout_seconds=60, input=_PROGRAM)
        asked = process.run((*compiler, "-dumpmachine"), env=env, timeout_seconds=20)
    except FarmError:
        return False
    return compiled.code == 0 and asked.output.decode(errors="replace").startswith(f"{tables.arch(arch).machine}-")
