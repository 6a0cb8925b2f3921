"""What is read out of a dry run, on lines as Linux 6.1 prints them."""

from __future__ import annotations

from pathlib import Path

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
