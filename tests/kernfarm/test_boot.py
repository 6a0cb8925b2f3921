from __future__ import annotations

import io
import platform
import tarfile
from pathlib import Path

import pytest

from kernel import tables
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
        boot.boot(tmp_path, arch="x86_64", timeout_seconds=1.0)
    assert caught.value.problem.code is Code.KERNEL_DOES_NOT_BOOT


def kernel_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./lib/modules/6.1/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


DEPENDENCIES = b"kernel/fs/fat/vfat.ko: kernel/fs/fat/fat.ko\nkernel/fs/fat/fat.ko:\nkernel/drivers/gpu/big.ko:\nkernel/lib/crc-itu-t.ko:\n"
NAMES = ("fs/fat/vfat.ko", "fs/fat/fat.ko", "drivers/gpu/big.ko", "lib/crc-itu-t.ko")


def listed(data: bytes) -> list[str]:
    """What the initramfs tells init to load."""
    rest = data.rpartition(b"kernfarm/modules\0")[2]
    return rest.lstrip(b"\0").partition(b"\0")[0].partition(b"070701")[0].decode().splitlines()


def test_only_modules_that_need_no_hardware_are_chosen_and_what_they_need_is_loaded_before(tmp_path: Path) -> None:
    tar = kernel_tar(tmp_path / "k.tar", {"modules.dep": DEPENDENCIES, **{f"kernel/{name}": name.encode() for name in NAMES}})
    chosen = guest.choose(tar)
    assert chosen == ("vfat", "crc_itu_t")
    data = guest.make_initramfs(tar, arch="x86_64", load=chosen)
    for name, inside in zip(NAMES, (True, True, False, True), strict=True):
        assert (f"lib/modules/6.1/kernel/{name}\0".encode() in data) is inside
    folder = "/kernfarm/lib/modules/6.1/kernel"
    assert listed(data) == [f"- {folder}/fs/fat/fat.ko", f"vfat {folder}/fs/fat/vfat.ko", f"crc_itu_t {folder}/lib/crc-itu-t.ko"]
    everything = guest.make_initramfs(tar, arch="x86_64", load=(), shell=True)
    assert b"big.ko" in everything
    assert b"modules.dep" in everything


def test_names_are_told_as_they_were_asked_also_those_that_are_built_in_or_nowhere(tmp_path: Path) -> None:
    files = {"modules.dep": DEPENDENCIES, "modules.builtin": b"kernel/fs/ext4/ext4.ko\n", "kernel/lib/crc-itu-t.ko": b"elf"}
    data = guest.make_initramfs(kernel_tar(tmp_path / "k.tar", files), arch="x86_64", load=("crc-itu-t", "ext4", "nowhere"))
    assert listed(data) == ["ext4 -", "nowhere /no-such-module", "crc-itu-t /kernfarm/lib/modules/6.1/kernel/lib/crc-itu-t.ko"]


def test_a_shell_is_for_guests_of_this_machines_own_architecture(tmp_path: Path) -> None:
    foreign = next(name for name in tables.names("arch") if tables.arch(name).machine != platform.machine())
    with pytest.raises(FarmError, match="no shell for") as caught:
        guest.make_initramfs(kernel_tar(tmp_path / "k.tar", {}), arch=foreign, load=(), shell=True)
    assert "--check" in caught.value.problem.hint


@pytest.mark.parametrize("arch", tables.names("arch"))
def test_the_guests_program_is_static_and_of_the_guests_architecture(arch: str) -> None:
    made = guest.make_init(arch)
    assert int.from_bytes(made[18:20], "little") == tables.arch(arch).elf_machine
    # No PT_INTERP (3) among the program headers: nothing else has to be in the guest.
    start, size, count = (int.from_bytes(made[at : at + width], "little") for at, width in ((32, 8), (54, 2), (56, 2)))
    assert 3 not in {int.from_bytes(made[start + index * size :][:4], "little") for index in range(count)}


@pytest.mark.parametrize("arch", tables.names("arch"))
def test_a_machine_without_compiler_or_qemu_cannot_boot_and_says_what_it_takes(monkeypatch: pytest.MonkeyPatch, arch: str) -> None:
    assert guest.able(arch)
    monkeypatch.setattr(guest, "PATH", "/nowhere")
    assert not guest.able(arch)
    with pytest.raises(FarmError) as caught:
        guest.make_init(arch)
    assert "gcc-12" in caught.value.problem.hint
    with pytest.raises(FarmError) as caught:
        guest.qemu(arch, "k", "i")
    assert caught.value.problem.hint == f"apt-get install {tables.arch(arch).qemu.package}"


def test_the_console_is_the_architectures() -> None:
    assert "console=ttyAMA0" in guest.qemu("arm64", "k", "i")[-1]
    assert "console=ttyS0" in guest.qemu("x86_64", "k", "i")[-1]


def test_a_kernel_without_modules_boots_without_any(tmp_path: Path) -> None:
    assert guest.choose(kernel_tar(tmp_path / "k.tar", {})) == ()
