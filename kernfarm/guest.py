"""A guest for QEMU: an initramfs of busybox and the image's modules, QEMU's command line, and what its console says."""

from __future__ import annotations

import shutil
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path

from kernel.errors import Code, FarmError

BOOTED = "kernfarm: user space is up"
LOADED = "kernfarm: loaded"
DONE = "kernfarm: done"
# Need no hardware, and are modules in most configurations.
_HARMLESS = ("loop", "isofs", "vfat", "squashfs", "overlay", "fuse", "dummy", "nls_iso8859_1", "crc7", "crc_itu_t", "md5", "btrfs", "xfs")
_MOST = 4
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_INIT = """#!/bin/sh
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
echo "{booted}, Linux $(uname -r)"
for module in {modules}; do
    if modprobe "$module"; then echo "{loaded} $module"; else echo "kernfarm: failed $module"; fi
done
for file in /extra/*.ko; do
    if [ -e "$file" ]; then
        if insmod "$file"; then echo "{loaded} $(basename "$file" .ko)"; else echo "kernfarm: failed $(basename "$file" .ko)"; fi
    fi
done
{then}
echo "{done}"
# Waits until the serial port has sent everything: a reboot would cut the last line off.
stty sane 2>/dev/null
reboot -f
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Booted:
    """What a boot showed: the console, the release, the modules that loaded, seconds until it ended."""

    console: str
    release: str
    loaded: tuple[str, ...]
    seconds: float


def qemu(kernel: str, initramfs: str) -> tuple[str, ...]:
    """The command that boots a kernel, console on stdout. Raises FarmError(MISSING_FILE) without QEMU."""
    program = shutil.which("qemu-system-x86_64", path=PATH)
    if program is None:
        raise FarmError(Code.MISSING_FILE, "no qemu-system-x86_64", where="boot", hint="apt-get install qemu-system-x86")
    # TCG: works everywhere, and a boot takes seconds.
    machine = (
        "-accel",
        "tcg",
        "-cpu",
        "qemu64",
        "-m",
        "512",
        "-no-reboot",
        "-nographic",
        "-nodefaults",
        "-serial",
        "stdio",
        "-net",
        "none",
    )
    return (program, *machine, "-kernel", kernel, "-initrd", initramfs, "-append", "console=ttyS0 panic=-1 quiet")


def able(arch: str) -> bool:
    """Whether this machine has what booting that architecture takes."""
    return arch == "x86_64" and all(shutil.which(program, path=PATH) for program in ("qemu-system-x86_64", "busybox"))


def make_initramfs(kernel_tar: Path, *, modules: tuple[str, ...], extra: tuple[Path, ...], then: str, home: Path) -> bytes:
    """A newc cpio archive: busybox, /init, extra .ko files below /extra; and of the modules in kernel.tar those named with what they
    depend on, or all when `then` is a shell, where any may be wanted."""
    busybox = shutil.which("busybox", path=PATH)
    if busybox is None:
        raise FarmError(Code.MISSING_FILE, "no busybox", where="boot", hint="apt-get install busybox-static")
    archive = _Cpio()
    init = _INIT.format(booted=BOOTED, loaded=LOADED, done=DONE, modules=" ".join(modules), then=then)
    archive.add("init", stat.S_IFREG | 0o755, init.encode())
    archive.add("bin/busybox", stat.S_IFREG | 0o755, Path(busybox).read_bytes())
    archive.add("bin/sh", stat.S_IFLNK | 0o777, b"busybox")
    for path in extra:
        archive.add(f"extra/{path.name}", stat.S_IFREG | 0o644, path.read_bytes())
    wanted = None if then else _with_dependencies(kernel_tar, modules)
    with tarfile.open(kernel_tar) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if member.isreg() and name.startswith("lib/modules/") and (wanted is None or ".ko" not in name or _module(name) in wanted):
                source = tar.extractfile(member)
                assert source is not None
                archive.add(name, stat.S_IFREG | 0o644, source.read())
    return archive.finish()


def read_console(text: str, seconds: float) -> Booted:
    """What a console shows that was looked at for so long. User space that came up is not enough: loading a module can hang or panic.

    Raises FarmError(KERNEL_DOES_NOT_BOOT) with the console's end, unless init got to its own end.
    """
    text = text.replace("\r", "")
    lines = text.splitlines()
    mark = next((line for line in lines if BOOTED in line), None)
    if mark is None or not any(DONE in line for line in lines):
        what = "no user space" if mark is None else "user space came up, but did not get to its end"
        last = "\n".join(lines[-8:])
        raise FarmError(Code.KERNEL_DOES_NOT_BOOT, f"{what} after {seconds:.0f} s; the console ends with:\n{last}", where="boot")
    loaded = tuple(line.partition(LOADED)[2].strip() for line in lines if LOADED in line)
    return Booted(console=text, release=mark.rpartition("Linux ")[2].strip(), loaded=loaded, seconds=seconds)


def choose(kernel_tar: Path) -> tuple[str, ...]:
    """Modules of an image that load on any machine, the first few of those known to."""
    there = {_module(path) for path in _dependencies(kernel_tar)}
    return tuple(name for name in _HARMLESS if name in there)[:_MOST]


def _with_dependencies(kernel_tar: Path, modules: tuple[str, ...]) -> set[str]:
    dependencies = {_module(path): [_module(each) for each in needs] for path, needs in _dependencies(kernel_tar).items()}
    found: set[str] = set()
    queue = [name.replace("-", "_") for name in modules]
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue += dependencies.get(name, [])
    return found


def _dependencies(kernel_tar: Path) -> dict[str, list[str]]:
    """modules.dep: each module's path, and the paths of those it needs (depmod(8))."""
    with tarfile.open(kernel_tar) as tar:
        for member in tar:
            if member.isreg() and member.name.endswith("/modules.dep"):
                source = tar.extractfile(member)
                assert source is not None
                lines = source.read().decode(errors="replace").splitlines()
                return {path: needs.split() for path, _, needs in (line.partition(":") for line in lines)}
    return {}


def _module(path: str) -> str:
    """`vfat` of kernel/fs/fat/vfat.ko; names of modules have no dashes."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


class _Cpio:
    """The kernel's initramfs format (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._folders: set[str] = set()
        self._inode = 0

    def add(self, name: str, mode: int, content: bytes) -> None:
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder not in self._folders:
                self._folders.add(folder)
                self._entry(folder, stat.S_IFDIR | 0o755, b"")
        self._entry(name, mode, content)

    def finish(self) -> bytes:
        self._entry("TRAILER!!!", 0, b"")
        return bytes(self._data)

    def _entry(self, name: str, mode: int, content: bytes) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        self._data += b"070701" + b"".join(f"{value:08x}".encode() for value in fields) + encoded
        self._data += b"\0" * (-len(self._data) % 4) + content
        self._data += b"\0" * (-len(self._data) % 4)
