"""How make is called for a kernel: the command line of a plain build, at fixed paths, with everything fixed that a kernel says
about when, where and by whom it was made (Documentation/kbuild/reproducible-builds.rst)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from kernel import randstruct, tables

SOURCE = "/build/src"
OUT = "/build/out"
# VERSION too: without it a second link says `#2`.
ENVIRONMENT = {
    "LC_ALL": "C",
    "TZ": "UTC",
    "KBUILD_BUILD_TIMESTAMP": "Sun Sep  9 01:46:40 UTC 2001",
    "KBUILD_BUILD_USER": "kernfarm",
    "KBUILD_BUILD_HOST": "kernfarm",
    "KBUILD_BUILD_VERSION": "1",
}


def command(
    goals: Sequence[str], *, arch: str, toolchain: str, jobs: int = 0, variables: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """The make command. `jobs`: make's -j, 0 for none."""
    machine, tools = tables.arch(arch), tables.toolchain(toolchain)
    prefix = tools.targets[arch].prefix
    words = [f"ARCH={machine.kbuild}", f"CC={prefix}{tools.cc}", f"HOSTCC={tools.hostcc}"]
    if prefix:
        words.append(f"CROSS_COMPILE={prefix}")
    words += [f"{key}={value}" for key, value in {**tools.variables, **(variables or {})}.items()]
    parallel = (f"-j{jobs}",) if jobs else ()
    return ("make", "-C", SOURCE, f"O={OUT}", *parallel, *words, *goals)


def reproduce(*, arch: str, toolchain: str, config: str, seed: str = "") -> str:
    """One command line that makes the same bytes, with the tree (patches applied) at SOURCE and the config of that digest at
    OUT/.config. `seed`: of CONFIG_RANDSTRUCT, "" for none."""
    words = " ".join(f"{key}={shlex.quote(value)}" for key, value in ENVIRONMENT.items())
    begin = f"env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin {words}"
    steps = ["umask 022"]
    if seed:
        steps.append(f"{begin} {shlex.join(command(('scripts_basic',), arch=arch, toolchain=toolchain))}")
        steps += [f"printf %s {shlex.quote(text)} > {OUT}/{path}" for path, text in randstruct.files(seed).items()]
    steps.append(f"{begin} {shlex.join(command(tables.arch(arch).goals, arch=arch, toolchain=toolchain))}")
    return " && ".join(steps) + f"  # {config} is {OUT}/.config"
