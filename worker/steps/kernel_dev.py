"""kernel-dev.tar: what compiling a module against this kernel needs, and nothing of the kernel's own code.

The list is that of the kernel's own packaging (scripts/package/builddeb, install_linux_headers).
"""

from __future__ import annotations

from pathlib import Path

from kernel import tables
from kernel.errors import Code, FarmError
from kernel.steps import PackageTask
from worker import archive, tarball
from worker.kbuild import Place
from worker.sandbox import Bind

# Runs inside, where paths can't lead anywhere else. $1: the arch's folder, $2: destination.
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
{
    find arch/"$1"/include include scripts -type f -o -type l
    for file in .config Module.symvers System.map arch/"$1"/module.lds tools/objtool/objtool tools/bpf/resolve_btfids/resolve_btfids; do
        if [ -e "$file" ]; then echo "$file"; fi
    done
} | grep -vE '\.(o|a)$|/\.[^/]*\.cmd$|\.d$' | sort -u | tar -c -T - | tar -x -C "$2"
"""


def pack(place: Place, task: PackageTask, to: Path) -> None:
    """Write the archive. The tree inside stands for source and output tree at once, so it has no Makefile that leads elsewhere."""
    stage = archive.make_folder(place.context.scratch / "dev", place.context.sandbox)
    inside = f"/build/dev/usr/src/linux-headers-{task.release}"
    script = f'mkdir -p "$2"\n{_COLLECT}'
    outcome = place.run(
        ("/bin/sh", "-c", script, "sh", tables.arch(task.arch).source, inside),
        binds=(Bind(host=stage, inside="/build/dev", writable=True),),
    )
    if outcome.code != 0:
        raise FarmError(
            Code.INTERNAL, "collecting kernel-dev failed: " + outcome.output.decode(errors="replace")[-300:], where="kernel-dev.tar"
        )
    with to.open("wb") as sink:
        tarball.write(stage, sink)
