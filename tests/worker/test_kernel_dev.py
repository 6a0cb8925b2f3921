"""Programs in kernel-dev are of the image's own architecture: made again in a cross build, and never another machine's."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench.plain import context_of
from kernel import elf, tables
from kernel.errors import Code, FarmError
from kernel.steps import PackageTask, SourceFacts, Tree
from kernfarm import process
from kernfarm.settings import WorkerSettings
from worker import archive
from worker.kbuild import Place
from worker.node import Node
from worker.steps import kernel_dev
from worker.trees import Checkout

ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
MAIN = "#include <stdio.h>\nint main(void) { return puts(WORD) < 0; }\n"
# As kbuild saves them: of one file, of several, before and since Linux 6.3; and of the kernel's own objects, with another compiler.
COMMANDS = {
    "scripts/basic/.fixdep.cmd": "cmd_scripts/basic/fixdep := CC -O2 -DWORD='\"a $$b  \\#c\"' -o scripts/basic/fixdep SRC/main.c",
    "scripts/mod/.modpost.o.cmd": "savedcmd_scripts/mod/modpost.o := CC -DWORD=__FILE__ -c -o scripts/mod/modpost.o SRC/main.c\n"
    "deps_scripts/mod/modpost.o := SRC/main.c\nscripts/mod/modpost.o: $(deps_scripts/mod/modpost.o)\n$(deps_scripts/mod/modpost.o):",
    "scripts/mod/.modpost.cmd": "savedcmd_scripts/mod/modpost := CC -o scripts/mod/modpost scripts/mod/modpost.o",
    "scripts/.sign-file.cmd": "cmd_scripts/sign-file := CC -DWORD='\"x\"' -o scripts/sign-file SRC/main.c -lnot-for-arm64",
    "scripts/dtc/.dtc.cmd": "cmd_scripts/dtc/dtc := CC -o scripts/dtc/dtc scripts/dtc/yamltree.o",
    "scripts/dtc/.yamltree.o.cmd": "cmd_scripts/dtc/yamltree.o := CC -c -o scripts/dtc/yamltree.o SRC/needs-libyaml.c",
    "scripts/mod/.devicetable-offsets.s.cmd": "cmd_scripts/mod/devicetable-offsets.s := CC -D__KERNEL__ -S SRC/none.c",
}


def task(arch: str, toolchain: str) -> PackageTask:
    return PackageTask(
        tree=Tree(tarball="", version="6.1.0"),
        arch=arch,
        flavour="plain",
        toolchain=toolchain,
        config="",
        prepared="",
        linked="",
        release="6.1.0-t",
        outputs=(),
        facts=SourceFacts(url="", resolved="", sha256=""),
        compiler="",
    )


@contextmanager
def prepared(home: Path, arch: str, toolchain: str = "gcc-12") -> Iterator[tuple[Place, PackageTask, list[bytes]]]:
    """A tree, and an output tree whose host tools were made on x86_64."""
    node = Node(WorkerSettings(state_dir=home / "worker", blobs_url=f"file://{home}/blobs", compile_cache=False))
    source = home / "src"
    for folder in ("include/linux", "scripts", *(f"arch/{tables.arch(arch).source}/{name}" for name in ("", "include"))):
        (source / folder).mkdir(parents=True, exist_ok=True)
    (source / "Makefile").touch()
    (source / "main.c").write_text(MAIN)
    (source / "include/linux/kernel.h").touch()
    lines: list[bytes] = []
    with node.scratch("dev") as scratch:
        context = replace(context_of(node, scratch, Tree(tarball="", version=""), arch=arch, toolchain=toolchain, jobs=2), log=lines.append)
        out = archive.make_folder(scratch / "out", context.sandbox)
        for name, text in COMMANDS.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("CC ", f"{tables.toolchain(toolchain).hostcc} ").replace("SRC", "/build/src") + "\n")
        for program in ("scripts/basic/fixdep", "scripts/mod/modpost", "scripts/sign-file", "scripts/dtc/dtc", "scripts/plugin.so"):
            words = ("gcc-12", "-DWORD=__FILE__", "-o", str(out / program), str(source / "main.c"))
            assert process.run(words, env=ENV, timeout_seconds=60).code == 0
        (out / "scripts/gen.sh").write_text("#!/bin/sh\n")
        (out / "scripts/gen.sh").chmod(0o755)
        (out / f"arch/{tables.arch(arch).source}/include").mkdir(parents=True)
        (out / "include").mkdir()
        (out / ".config").touch()
        assert process.run(("chown", "-R", str(context.sandbox.uid), str(out)), env=ENV, timeout_seconds=60).code == 0
        yield (
            Place(context=context, source=Checkout(path=source, salt=""), out=out, arch=arch, toolchain=toolchain),
            task(arch, toolchain),
            lines,
        )


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        members = [member for member in tar if member.isreg()]
        return {member.name.partition("linux-headers-6.1.0-t/")[2]: (tar.extractfile(member) or io.BytesIO()).read() for member in members}


@pytest.mark.parametrize("toolchain", ["gcc-12", "clang-14"])
def test_a_cross_build_makes_its_tools_again_and_leaves_out_what_it_can_not_make(open_folder: Path, toolchain: str) -> None:
    with prepared(open_folder, "arm64", toolchain) as (place, work, lines):
        kernel_dev.pack(place, work, open_folder / "kernel-dev.tar")
    found = contents(open_folder / "kernel-dev.tar")
    programs = {name: elf.machine(data) for name, data in found.items() if elf.machine(data)}
    assert programs == dict.fromkeys(("scripts/basic/fixdep", "scripts/mod/modpost"), tables.arch("arm64").elf_machine)
    assert b"a $b  #c" in found["scripts/basic/fixdep"]
    assert {"scripts/gen.sh", "include/linux/kernel.h", ".config"} <= set(found)
    for program in ("plugin.so", "dtc/dtc"):
        assert f"left out of kernel-dev, not a program of its architecture: scripts/{program}\n".encode() in lines
    assert any(b"scripts/sign-file] Error" in line for line in lines), "the linker has removed it"
    assert not any(b"none.c" in line for line in lines), "the kernel's own objects are no programs"


def test_a_native_build_keeps_all_its_tools_as_they_are(open_folder: Path) -> None:
    with prepared(open_folder, "x86_64") as (place, work, lines):
        before = {name: (place.out / name).read_bytes() for name in ("scripts/basic/fixdep", "scripts/sign-file", "scripts/plugin.so")}
        kernel_dev.pack(place, work, open_folder / "kernel-dev.tar")
    found = contents(open_folder / "kernel-dev.tar")
    assert {name: found[name] for name in before} == before
    assert not any(b"left out" in line for line in lines)


def test_a_tool_that_modules_need_and_that_can_not_be_made_fails_the_step(open_folder: Path) -> None:
    with prepared(open_folder, "arm64") as (place, work, _):
        (place.out / "scripts/mod/.modpost.cmd").write_text("cmd_scripts/mod/modpost := gcc-12 -o scripts/mod/modpost -lnot-for-arm64\n")
        with pytest.raises(FarmError, match=r"(?s)no scripts/mod/modpost for arm64; .*scripts/mod/modpost\] Error") as caught:
            kernel_dev.pack(place, work, open_folder / "kernel-dev.tar")
    assert caught.value.problem.code is Code.INTERNAL
