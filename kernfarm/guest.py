"""A guest for QEMU: an initramfs of one program and the image's modules, QEMU's command line, and what its console says."""

from __future__ import annotations

import platform
import shutil
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from kernel import elf, tables
from kernel.errors import Code, FarmError
from kernfarm import modules, process
from kernfarm.cpio import Cpio

# What data/init.c says.
BOOTED = "kernfarm: user space is up"
LOADED = "kernfarm: loaded"
DONE = "kernfarm: done"
# Need no hardware, and are modules in most configurations.
_HARMLESS = ("loop", "isofs", "vfat", "squashfs", "overlay", "fuse", "dummy", "nls_iso8859_1", "crc7", "crc_itu_t", "md5", "btrfs", "xfs")
_MOST = 4
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_MEMORY_MIB = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Booted:
    """What a boot showed: the console, the release, the modules that loaded, seconds until it ended."""

    console: str
    release: str
    loaded: tuple[str, ...]
    seconds: float


def qemu(arch: str, kernel: str, initramfs: str) -> tuple[str, ...]:
    """The command that boots a kernel, console on stdout. Raises FarmError(MISSING_FILE) without QEMU."""
    emulator = tables.arch(arch).qemu
    program = shutil.which(emulator.program, path=PATH)
    if program is None:
        raise FarmError(Code.MISSING_FILE, f"no {emulator.program}", where="boot", hint=f"apt-get install {emulator.package}")
    # TCG: works everywhere, and a boot takes seconds.
    machine = ("-accel", "tcg", *emulator.options, "-m", str(_MEMORY_MIB), "-no-reboot", "-nographic", "-nodefaults")
    ports = ("-serial", "stdio", "-net", "none")
    words = f"console={emulator.console} panic=-1 quiet"
    return (program, *machine, *ports, "-kernel", kernel, "-initrd", initramfs, "-append", words)


def able(arch: str) -> bool:
    """Whether this machine has what booting that architecture takes."""
    try:
        qemu(arch, "", "")
        make_init(arch)
    except FarmError:
        return False
    return True


def make_init(arch: str) -> bytes:
    """The guest's program, compiled by the first compiler for that architecture that is here. Raises FarmError(MISSING_FILE)."""
    said = ""
    for name in tables.names("toolchain"):
        if arch not in tables.toolchain(name).targets or shutil.which(tables.compiler(arch, name), path=PATH) is None:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            source, program = Path(scratch) / "init.c", Path(scratch) / "init"
            source.write_bytes((resources.files("kernfarm") / "data/init.c").read_bytes())
            words = (*tables.cross_command(arch, name), "-static", "-Os", "-s", "-o", str(program), str(source))
            done = process.run(words, env={"PATH": PATH, "LC_ALL": "C", "TMPDIR": scratch}, timeout_seconds=60)
            if done.code == 0 and elf.machine(made := program.read_bytes()) == tables.arch(arch).elf_machine:
                return made
            said = done.output.decode(errors="replace").strip().rpartition("\n")[2]
    packages = sorted({" ".join(target.packages) for target in _targets(arch)})
    message = f"no compiler here makes a static program for {arch}" + (f": {said}" if said else "")
    raise FarmError(Code.MISSING_FILE, message, where="boot", hint=f"apt-get install {'; or '.join(packages)}")


def _targets(arch: str) -> list[tables.Target]:
    toolchains = [tables.toolchain(name) for name in tables.names("toolchain")]
    return [each.targets[arch] for each in toolchains if arch in each.targets]


def make_initramfs(kernel_tar: Path, *, arch: str, load: tuple[str, ...], extra: tuple[Path, ...] = (), shell: bool = False) -> bytes:
    """A newc cpio archive: /init, what it loads (modules of kernel.tar with all they need, then extra .ko files), and for a shell busybox
    and all modules. Raises FarmError: MISSING_FILE without compiler or busybox, BAD_ARCHIVE."""
    archive = Cpio()
    archive.add("init", make_init(arch), mode=0o755)
    there = modules.read(kernel_tar)
    asked = {name.replace("-", "_"): name for name in load}
    lines = [f"{word} {'-' if name in there.built_in else '/no-such-module'}" for name, word in asked.items() if name not in there.files]
    order = {there.files[name]: asked.get(name, "-") for name in there.order(asked)}
    data = modules.contents(kernel_tar, order)
    for path, word in order.items():
        if path in data:
            archive.add(f"kernfarm/{path}", data[path])
        lines.append(f"{word} /kernfarm/{path}")
    for file in extra:
        archive.add(f"kernfarm/extra/{file.name}", file.read_bytes())
        lines.append(f"{file.name.removesuffix('.ko')} /kernfarm/extra/{file.name}")
    archive.add("kernfarm/modules", "".join(f"{line}\n" for line in lines).encode())
    if shell:
        archive.add("bin/busybox", _busybox(arch), mode=0o755)
        for name, content in modules.everything(kernel_tar):
            archive.add(name, content)
    return archive.finish()


def _busybox(arch: str) -> bytes:
    """This machine's own, so only for guests of its own architecture."""
    if tables.arch(arch).machine != platform.machine():
        raise FarmError(
            Code.MISSING_FILE,
            f"no shell for {arch} on {platform.machine()}",
            where="boot",
            hint="kernfarm boot BUILD --check boots it without one",
        )
    path = shutil.which("busybox", path=PATH)
    if path is None:
        raise FarmError(Code.MISSING_FILE, "no busybox", where="boot", hint="apt-get install busybox-static")
    return Path(path).read_bytes()


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
    there = modules.read(kernel_tar).files
    return tuple(name for name in _HARMLESS if name in there)[:_MOST]
