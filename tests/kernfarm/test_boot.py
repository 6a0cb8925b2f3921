from __future__ import annotations

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
    monkeypatch.setattr(boot, "_PATH", f"{tmp_path}:{boot._PATH}")
    with tarfile.open(tmp_path / "kernel.tar", "w"):
        pass
    with pytest.raises(FarmError) as caught:
        boot.boot(tmp_path, timeout_seconds=1.0)
    assert caught.value.problem.code is Code.KERNEL_DOES_NOT_BOOT
