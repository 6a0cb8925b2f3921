"""Booting an image on this machine: to its end, or to a shell."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

from kernel.errors import Code, FarmError
from kernfarm import guest, process
from kernfarm.guest import PATH, Booted


def boot(files: Path, *, arch: str, modules: tuple[str, ...] = (), extra: tuple[Path, ...] = (), timeout_seconds: float = 120.0) -> Booted:
    """Boot the `kernel` and `kernel.tar` in a folder, load modules of the image by name and further .ko files, power off.

    Raises FarmError: MISSING_FILE (QEMU, a compiler), KERNEL_DOES_NOT_BOOT with the end of the console.
    """
    with tempfile.TemporaryDirectory() as scratch:
        initramfs = Path(scratch) / "initramfs.gz"
        initramfs.write_bytes(gzip.compress(guest.make_initramfs(files / "kernel.tar", arch=arch, load=modules, extra=extra)))
        console: list[bytes] = []
        try:
            done = process.run(
                guest.qemu(arch, str(files / "kernel"), str(initramfs)),
                env={"PATH": PATH},
                timeout_seconds=timeout_seconds,
                on_line=console.append,
            )
            seconds = done.seconds
        except FarmError as error:
            if error.problem.code is not Code.TIMEOUT:
                raise
            seconds = timeout_seconds
    return guest.read_console(b"".join(console).decode(errors="replace"), seconds)


def interactive(files: Path, *, arch: str) -> int:
    """Boot to a shell on this terminal; `exit` powers off. Returns QEMU's exit code. Raises FarmError(MISSING_FILE)."""
    with tempfile.TemporaryDirectory() as scratch:
        initramfs = Path(scratch) / "initramfs.gz"
        initramfs.write_bytes(gzip.compress(guest.make_initramfs(files / "kernel.tar", arch=arch, load=(), shell=True)))
        return process.interactive(guest.qemu(arch, str(files / "kernel"), str(initramfs)), env={"PATH": PATH, "TERM": "linux"})
