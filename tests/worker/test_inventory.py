"""What is read out of a dry run, on lines as Linux 6.1 prints them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel.errors import Code, FarmError
from worker.inventory import DryRun, inventory

COMPILE = (
    b"set -e;  echo '  CC [M]  fs/isofs/dir.o';  gcc -DKBUILD_MODFILE='\"fs/isofs/isofs\"' -c -o fs/isofs/dir.o /build/src/fs/isofs/dir.c"
    b";  echo '  CHECK   x.o'; printf '%s\\n' 'cmd_fs/isofs/dir.o := gcc-12 -DKBUILD_MODFILE='\\''\"other/x\"'\\'' x'\n"
)
BELOW = b"""set -e;  echo '  AR      fs/built-in.a';  printf "fs/%s " open.o isofs/built-in.a | xargs ar cDPrST fs/built-in.a; x\n"""
TOP = (
    b"set -e;  echo '  AR      built-in.a';  trap 'rm -f built-in.a; kill -s HUP $$' HUP; rm -f built-in.a;  "
    b'printf "./%s " init/built-in.a arch/x86/built-in.a fs/built-in.a lib/built-in.a lib/lib.a arch/x86/lib/built-in.a virt/built-in.a '
    b"| xargs ar cDPrST built-in.a; printf '%s\\n' 'cmd_built-in.a := rm -f built-in.a'\n"
)
ORDER = (
    b"set -e;     trap 'rm -f drivers/modules.order; trap - HUP; kill -s HUP $$' HUP; {   cat drivers/char/ipmi/modules.order;   "
    b"cat drivers/char/modules.order;   echo drivers/d.ko; :; } > drivers/modules.order; printf '%s\\n' 'cmd_drivers/modules.order := "
    b"{   cat drivers/char/ipmi/modules.order; :; } > drivers/modules.order' > drivers/.modules.order.cmd\n"
)
ORDER_OF_TOP = b"{   cat drivers/modules.order;   cat init/modules.order; :; } > modules.order; printf x\n"


def heard(*lines: bytes) -> DryRun:
    listener = DryRun()
    for line in lines:
        listener(line)
    return listener


def test_objects_and_the_folders_that_kbuild_enters(tmp_path: Path) -> None:
    listener = heard(COMPILE, BELOW, TOP, ORDER, ORDER_OF_TOP, COMPILE)
    assert listener.objects == {"fs/isofs/dir.o": "fs/isofs"}
    top = dict.fromkeys(("init", "arch/x86", "fs", "lib", "arch/x86/lib", "virt", "drivers"), "")
    assert listener.entered == {**top, "fs/isofs": "fs", "drivers/char": "drivers", "drivers/char/ipmi": "drivers"}
    (tmp_path / "fs/isofs").mkdir(parents=True)
    (tmp_path / "fs/isofs/Makefile").write_text("obj-m := isofs.o\n")
    (tmp_path / "fs/isofs/dir.c").write_text("int x;\n")
    found = inventory(listener, tmp_path)
    assert [(each.folder, each.entered_from) for each in found.detached] == [("arch/x86/lib", ""), ("drivers/char/ipmi", "drivers")]
    assert found.folders == ("fs/isofs",)
    assert [(unit.path, unit.size, unit.made_in) for unit in found.units] == [("fs/isofs/dir.o", 7, "")]


def test_an_object_is_borrowed_where_kbuild_enters_its_own_folder_too(tmp_path: Path) -> None:
    """drm makes bridge/panel.o of a folder that has a makefile of its own; xfs parts of itself in one that has none."""

    def compiled(path: str, module: str) -> bytes:
        return f"echo '  CC      {path}'; gcc -DKBUILD_MODFILE='\"{module}\"' -c -o {path}\n".encode()

    listener = heard(
        b'printf "drivers/gpu/drm/%s " drm_drv.o bridge/panel.o bridge/built-in.a | xargs ar cDPrST drivers/gpu/drm/built-in.a\n',
        compiled("drivers/gpu/drm/bridge/panel.o", "drivers/gpu/drm/drm_kms_helper"),
        compiled("drivers/gpu/drm/bridge/tc358767.o", "drivers/gpu/drm/bridge/tc358767"),
        compiled("fs/xfs/libxfs/xfs_ag.o", "fs/xfs/xfs"),
        compiled("kernel/bounds.o", "./bounds"),
        b"echo '  AS      drivers/gpu/drm/bridge/start.o'; gcc -c\n",
    )
    made_in = {unit.path: unit.made_in for unit in inventory(listener, tmp_path).units}
    assert {path: folder for path, folder in made_in.items() if folder} == {"drivers/gpu/drm/bridge/panel.o": "drivers/gpu/drm"}
    assert len(made_in) == 5


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
    listener(b'printf "../%s " b/built-in.a | xargs ar cDPrST ../built-in.a;\n')
    listener(b"{ cat elsewhere/modules.order; cat a/b/modules.order; :; } > a/modules.order; x\n")
    assert listener.entered == {"a": "", "a/b": "a"}


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
    assert inventory(heard(announced("x.o")), tmp_path).units[0].size == 64 << 20


def test_folders_are_goals_only_where_the_tree_has_them(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/Kbuild").write_text("obj-y += b/\n")
    (tmp_path / "a/b/Makefile").write_text("obj-y += x.o\n")
    listener = heard(*(announced(path) for path in ("a/b/x.o", "a/b/none/none/y.o", "none/a/b/z.o", "top.o")))
    found = inventory(listener, tmp_path)
    assert found.folders == ("a", "a/b")
