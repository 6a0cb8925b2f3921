"""What is read out of a dry run, on lines as Linux 6.1 prints them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel.errors import Code, FarmError
from worker.inventory import DryRun, inventory

COMPILE = b"set -e;  echo '  CC [M]  fs/isofs/dir.o';  gcc-12 -c -o fs/isofs/dir.o /build/src/fs/isofs/dir.c;  echo '  CHECK   x.o'\n"
BELOW = b"""set -e;  echo '  AR      fs/built-in.a';  printf "fs/%s " isofs/built-in.a | xargs ar cDPrST fs/built-in.a; x\n"""
TOP = (
    b"set -e;  echo '  AR      built-in.a';  trap 'rm -f built-in.a; kill -s HUP $$' HUP; rm -f built-in.a;  "
    b'printf "./%s " init/built-in.a arch/x86/built-in.a fs/built-in.a lib/built-in.a lib/lib.a arch/x86/lib/built-in.a virt/built-in.a '
    b"| xargs ar cDPrST built-in.a; printf '%s\\n' 'cmd_built-in.a := rm -f built-in.a'\n"
)


def test_objects_and_the_folders_that_are_entered_from_the_top(tmp_path: Path) -> None:
    listener = DryRun()
    for line in (COMPILE, BELOW, TOP, COMPILE):
        listener(line)
    assert list(listener.objects) == ["fs/isofs/dir.o"]
    assert listener.tops == ("init", "arch/x86", "fs", "lib", "arch/x86/lib", "virt")
    (tmp_path / "fs/isofs").mkdir(parents=True)
    (tmp_path / "fs/isofs/Makefile").write_text("obj-m := isofs.o\n")
    (tmp_path / "fs/isofs/dir.c").write_text("int x;\n")
    found = inventory(list(listener.objects), tmp_path, listener.tops)
    assert found.detached == ("arch/x86/lib",)
    assert found.folders == ("fs/isofs",)
    assert [(unit.path, unit.size) for unit in found.units] == [("fs/isofs/dir.o", 7)]


def announced(path: str) -> bytes:
    return f"echo '  CC      {path}'\n".encode()


def test_paths_that_no_kernel_has_are_left_out() -> None:
    listener = DryRun()
    longest = "d/" * 50 + "x" * (1024 - 102) + ".o"
    for path in ("d/" * 51 + "x.o", longest.replace("xx", "xxx", 1), "/etc/x.o", "../x.o", "a/../../x.o", "./../x.o", "a\0b.o"):
        listener(announced(path))
    assert list(listener.objects) == []
    for path in (longest, "./a/x..y.o", "top.o"):
        listener(announced(path))
    assert list(listener.objects) == [longest, "a/x..y.o", "top.o"]
    listener(b'printf "./%s " ../built-in.a /x/built-in.a a/built-in.a | xargs ar cDPrST built-in.a;\n')
    assert listener.tops == ("a",)


def test_more_objects_than_any_kernel_has_are_the_sources_fault() -> None:
    listener = DryRun()
    line = b"".join(announced(f"a/{number}.o").strip() + b"; " for number in range(200_000))
    listener(line + announced("a/0.o"))
    assert len(listener.objects) == 200_000
    with pytest.raises(FarmError) as caught:
        listener(announced("a/one-more.o"))
    assert caught.value.problem.code is Code.BAD_SOURCE


def test_a_source_with_holes_does_not_outweigh_the_kernel(tmp_path: Path) -> None:
    with (tmp_path / "x.c").open("wb") as file:
        file.truncate(1 << 40)
    assert inventory(["x.o"], tmp_path).units[0].size == 64 << 20


def test_folders_are_goals_only_where_the_tree_has_them(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/Kbuild").write_text("obj-y += b/\n")
    (tmp_path / "a/b/Makefile").write_text("obj-y += x.o\n")
    found = inventory(["a/b/x.o", "a/b/none/none/y.o", "none/a/b/z.o", "top.o"], tmp_path)
    assert found.folders == ("a", "a/b")
