"""kernel-dev.tar: what compiling a module against this kernel needs, and nothing of the kernel's own code.

The list is that of the kernel's own packaging (scripts/package/builddeb, install_linux_headers). Host tools in it run on the image's
own architecture, as install-extmod-build has it since Linux 6.12: a cross build makes them again.
"""

from __future__ import annotations

import shlex
from importlib import resources
from pathlib import Path

from kernel import elf, tables
from kernel.errors import Code, FarmError
from kernel.steps import PackageTask
from worker import archive, layers, tarball
from worker.kbuild import Place
from worker.sandbox import Bind

_TOOLS = "/build/host-tools.mk"
# What making a module runs, where kbuild has made it for this kernel.
_NEEDED = (
    "scripts/basic/fixdep",
    "scripts/mod/modpost",
    "scripts/genksyms/genksyms",
    "scripts/gendwarfksyms/gendwarfksyms",
    "scripts/recordmcount",
)
# Runs inside, where paths can't lead anywhere else. $1: the arch's folder, $2: destination, $3: e_machine of the image's programs.
_COLLECT = r"""
set -e
cd /build/src
{
    find . arch/"$1" -maxdepth 1 -name 'Makefile*'
    find include scripts -type f -o -type l
    find arch/"$1" -name 'Kbuild.platforms' -o -name 'Platform'
    find . -path ./Documentation -prune -o \( -name Makefile -o -name Kbuild -o -name 'Kconfig*' \) -print
    find arch/*/include -type f -o -type l
    find arch/"$1" -name include -type d -exec find {} -type f \;
    find arch/"$1" -name module.lds -o -name 'asm-offsets.[sc]'
} | sort -u | tar -c -T - | tar -x -C "$2"
cd /build/out
# Plugins of the compiler that made the kernel, and tools that need a library of the other architecture, are the builder's own.
foreign() {
    machine=$3
    for file in $(find scripts tools/objtool tools/bpf/resolve_btfids -type f -perm /111 2>/dev/null); do
        set -- $(od -An -v -tu1 -N20 "$file")
        if [ "$1 $2 $3 $4" = "127 69 76 70" ] && [ $((${19} + 256 * ${20})) != "$machine" ]; then
            echo "$file"
        fi
    done
}
foreign "$@" > /tmp/foreign
sed 's/^/left out of kernel-dev, not a program of its architecture: /' /tmp/foreign
{
    find arch/"$1"/include include scripts -type f -o -type l
    for file in .config Module.symvers System.map arch/"$1"/module.lds tools/objtool/objtool tools/bpf/resolve_btfids/resolve_btfids; do
        if [ -e "$file" ]; then echo "$file"; fi
    done
} | grep -vE '\.(o|a)$|/\.[^/]*\.cmd$|\.d$' | grep -vxF -f /tmp/foreign | sort -u | tar -c -T - | tar -x -C "$2"
"""


def pack(place: Place, task: PackageTask, to: Path) -> None:
    """Write the archive. The tree inside stands for source and output tree at once, so it has no Makefile that leads elsewhere.

    In a cross build this replaces the host tools of the output tree: nothing can be made in it afterwards.
    Raises FarmError(INTERNAL) when something is missing in the end."""
    arch = tables.arch(task.arch)
    needed = [path for path in _NEEDED if _machine(place.out, path)]
    said = b""
    if any(_machine(place.out, path) != arch.elf_machine for path in needed):
        said = _make_tools(place)
    stage = archive.make_folder(place.context.scratch / "dev", place.context.sandbox)
    inside = f"/build/dev/usr/src/linux-headers-{task.release}"
    script = f'mkdir -p "$2"\n{_COLLECT}'
    outcome = place.run(
        ("/bin/sh", "-c", script, "sh", arch.source, inside, str(arch.elf_machine)),
        binds=(Bind(host=stage, inside="/build/dev", writable=True),),
    )
    if outcome.code != 0:
        raise FarmError(
            Code.INTERNAL, "collecting kernel-dev failed: " + outcome.output.decode(errors="replace")[-300:], where="kernel-dev.tar"
        )
    root = stage / f"usr/src/linux-headers-{task.release}"
    if missing := [path for path in needed if _machine(root, path) != arch.elf_machine]:
        last = said.decode(errors="replace").strip()[-2000:]
        message = f"kernel-dev would have no {', '.join(missing)} for {task.arch}; make ended with:\n{last}"
        raise FarmError(Code.INTERNAL, message, where="kernel-dev.tar")
    with to.open("wb") as sink:
        tarball.write(stage, sink)


def _make_tools(place: Place) -> bytes:
    """Make what can be made; returns what was said. Tools that need libraries beyond libc are left out where the worker has none."""
    makefile = place.context.scratch / "host-tools.mk"
    makefile.write_bytes((resources.files("worker") / "data/host-tools.mk").read_bytes())
    archive.give(makefile, place.context.sandbox)
    cross = shlex.join(tables.cross_command(place.arch, place.toolchain))
    hostcc = tables.toolchain(place.toolchain).hostcc
    jobs = max(1, place.context.attempt.jobs)
    words = ("make", "-k", f"-j{jobs}", "-f", _TOOLS, f"HOSTCC={hostcc}", f"CROSS={cross}", "tools")
    return place.run(words, binds=(Bind(host=makefile, inside=_TOOLS),)).output


def _machine(root: Path, path: str) -> int:
    """What a program below a folder that a sandbox wrote is for; 0 when there is none."""
    try:
        with layers.open_file(root, path) as file:
            return elf.machine(file.read(elf.HEAD_BYTES))
    except OSError:
        return 0
