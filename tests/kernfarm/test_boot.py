from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from kernel.errors import Code, FarmError
from kernfarm import boot, guest

UP = f"{guest.BOOTED}, Linux 6.1.192-linuxkit\r\n{guest.LOADED} dummy\r\n"


def refused(console: str, seconds: float) -> str:
    with pytest.raises(FarmError) as caught:
        guest.read_console(console, seconds)
    assert caught.value.problem.code is Code.KERNEL_DOES_NOT_BOOT
    return caught.value.problem.message


def test_a_boot_that_got_to_its_end_says_release_and_modules() -> None:
    seen = guest.read_console(f"[    0.0] noise\r\n{UP}{guest.DONE}\r\n", 3.0)
    assert (seen.release, seen.loaded, seen.seconds) == ("6.1.192-linuxkit", ("dummy",), 3.0)


def test_a_kernel_that_panics_after_user_space_came_up_does_not_boot() -> None:
    said = refused(f"{UP}Kernel panic - not syncing: Fatal exception\r\n", 4.0)
    assert "user space came up" in said
    assert said.endswith("Fatal exception")


def test_a_kernel_that_hangs_while_a_module_loads_does_not_boot() -> None:
    assert "after 120 s" in refused(UP, 120.0)


def test_a_console_without_user_space_says_so() -> None:
    assert "no user space" in refused("Kernel panic - not syncing: VFS\r\n", 2.0)


@pytest.mark.parametrize("then", ["exit 0", "exec sleep 60"])
def test_a_guest_that_ends_or_hangs_before_its_end_does_not_boot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, then: str) -> None:
    """With a program in QEMU's place that shows what such a guest shows."""
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.write_text(f"#!/bin/sh\necho '{guest.BOOTED}, Linux 6.1.1'\n{then}\n")
    qemu.chmod(0o755)
    monkeypatch.setattr(guest, "PATH", f"{tmp_path}:{guest.PATH}")
    with tarfile.open(tmp_path / "kernel.tar", "w"):
        pass
    with pytest.raises(FarmError) as caught:
        boot.boot(tmp_path, timeout_seconds=1.0)
    assert caught.value.problem.code is Code.KERNEL_DOES_NOT_BOOT


def kernel_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./lib/modules/6.1/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


DEPENDENCIES = b"kernel/fs/fat/vfat.ko: kernel/fs/fat/fat.ko\nkernel/fs/fat/fat.ko:\nkernel/drivers/gpu/big.ko:\nkernel/lib/crc-itu-t.ko:\n"


def test_only_modules_that_need_no_hardware_are_chosen_and_what_they_need_comes_along(tmp_path: Path) -> None:
    names = ("fs/fat/vfat.ko", "fs/fat/fat.ko", "drivers/gpu/big.ko", "lib/crc-itu-t.ko")
    tar = kernel_tar(tmp_path / "k.tar", {"modules.dep": DEPENDENCIES, **{f"kernel/{name}": name.encode() for name in names}})
    chosen = guest.choose(tar)
    assert chosen == ("vfat", "crc_itu_t")
    data = guest.make_initramfs(tar, modules=chosen, extra=(), then="", home=tmp_path)
    for name, inside in zip(names, (True, True, False, True), strict=True):
        assert (f"lib/modules/6.1/kernel/{name}\0".encode() in data) is inside
    assert b"modules.dep" in data
    everything = guest.make_initramfs(tar, modules=(), extra=(), then="sh", home=tmp_path)
    assert b"big.ko" in everything


def test_a_kernel_without_modules_boots_without_any(tmp_path: Path) -> None:
    assert guest.choose(kernel_tar(tmp_path / "k.tar", {})) == ()
