"""`kernfarm doctor`: what this machine lacks for the roles it could play, and the command that mends it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from kernel import tables
from kernel.errors import FarmError
from kernfarm import compilers, guest, process
from kernfarm.request import Draft

MINIMAL_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_TREE_BYTES = 8 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at: `ok` (there, or not needed by all), what was found, what it is needed for, and the mend when it is missing."""

    name: str
    ok: bool
    found: str
    needed_for: str
    mend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that has to be on PATH, the Debian package it comes in, and who needs it."""

    name: str
    package: str
    needed_for: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A header file that host tools of kernel builds include, below /usr/include, and the Debian package it comes in."""

    name: str
    package: str


PROGRAMS = (
    Program(name="bwrap", package="bubblewrap", needed_for="worker: sandbox"),
    Program(name="setpriv", package="util-linux", needed_for="worker: sandbox"),
    Program(name="tar", package="tar", needed_for="worker: sources and layers"),
    Program(name="zstd", package="zstd", needed_for="worker: layers"),
    Program(name="xz", package="xz-utils", needed_for="worker: sources"),
    Program(name="git", package="git", needed_for="worker: patches, git sources"),
    Program(name="gpg", package="gpg", needed_for="worker: kernel.org sources"),
    Program(name="gpgv", package="gpgv", needed_for="worker: kernel.org sources"),
    Program(name="apt-get", package="apt", needed_for="worker: debian sources"),
    Program(name="dpkg-deb", package="dpkg", needed_for="worker: debian sources"),
    Program(name="make", package="make", needed_for="worker: kernel builds"),
    Program(name="flex", package="flex", needed_for="worker: kernel builds"),
    Program(name="bison", package="bison", needed_for="worker: kernel builds"),
    Program(name="bc", package="bc", needed_for="worker: kernel builds"),
    Program(name="cpio", package="cpio", needed_for="worker: kernel builds"),
    Program(name="rsync", package="rsync", needed_for="worker: kernel headers"),
    Program(name="depmod", package="kmod", needed_for="worker: modules"),
    Program(name="busybox", package="busybox-static", needed_for="kernfarm boot: a shell"),
)
HEADERS = (Header(name="openssl/opensslv.h", package="libssl-dev"), Header(name="gelf.h", package="libelf-dev"))
_INCLUDE = Path("/usr/include")


def examine(state_dir: Path) -> list[Finding]:
    """Look at everything; order is the order of the report."""
    checks: list[Callable[[], Finding]] = [_venv, _user_namespaces, _cgroups, lambda: _disk(state_dir)]
    things = [_program(program) for program in PROGRAMS] + [_header(header) for header in HEADERS]
    return things + _toolchains() + _guests() + [check() for check in checks]


def as_plain(findings: list[Finding]) -> list[dict[str, object]]:
    """For --json."""
    return [asdict(finding) for finding in findings]


def _program(program: Program) -> Finding:
    path = shutil.which(program.name, path=MINIMAL_ENV["PATH"])
    return Finding(
        name=program.name,
        ok=path is not None,
        found=path or "missing",
        needed_for=program.needed_for,
        mend="" if path else f"apt-get install {program.package}",
    )


def _header(header: Header) -> Finding:
    path = _INCLUDE / header.name
    there = path.is_file()
    return Finding(
        name=header.name,
        ok=there,
        found=str(path) if there else "missing",
        needed_for="worker: kernel builds",
        mend="" if there else f"apt-get install {header.package}",
    )


def _toolchains() -> list[Finding]:
    """Compiling for this machine's own architecture is needed; other architectures and toolchains are what a worker can have more."""
    found = []
    for name in tables.names("toolchain"):
        for arch, target in sorted(tables.toolchain(name).targets.items()):
            here = compilers.works(arch, name)
            found.append(
                Finding(
                    name=f"{arch} with {name}",
                    ok=here or not (_native(arch) and name == Draft().toolchain),
                    found="works" if here else "missing",
                    needed_for=f"worker: kernels for {arch}",
                    mend="" if here else f"apt-get install {' '.join(target.packages)}",
                )
            )
    return found


def _guests() -> list[Finding]:
    found = []
    for name in tables.names("arch"):
        here = guest.able(name)
        packages = (tables.arch(name).qemu.package, *tables.toolchain(Draft().toolchain).targets[name].packages)
        found.append(
            Finding(
                name=f"{name} in QEMU",
                ok=here or not _native(name),
                found="works" if here else "missing",
                needed_for="boot tests, kernfarm boot",
                mend="" if here else f"apt-get install {' '.join(packages)}",
            )
        )
    return found


def _native(arch: str) -> bool:
    return tables.arch(arch).machine == platform.machine()


def _venv() -> Finding:
    """Debian's Python comes without what puts pip into a new virtual environment."""
    there = importlib.util.find_spec("ensurepip") is not None
    return Finding(
        name="ensurepip",
        ok=there,
        found="works" if there else "missing",
        needed_for="make: virtual environment",
        mend="" if there else "apt-get install python3-venv",
    )


def _user_namespaces() -> Finding:
    """Tried, not read from a setting: distributions switch it off in several places."""
    name, needed = "unprivileged sandbox", "worker: sandbox"
    drop = ("setpriv", "--reuid", "64000", "--regid", "64000", "--clear-groups") if os.geteuid() == 0 else ()
    argv = (*drop, "bwrap", "--ro-bind", "/", "/", "--unshare-all", "--die-with-parent", "true")
    try:
        done = process.run(argv, env=MINIMAL_ENV, timeout_seconds=20)
    except FarmError as error:
        return Finding(name=name, ok=False, found=str(error), needed_for=needed, mend="apt-get install bubblewrap")
    if done.code == 0:
        return Finding(name=name, ok=True, found="works", needed_for=needed)
    said = done.output.decode(errors="replace").strip().splitlines()
    mend = "allow unprivileged user namespaces: sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000"
    return Finding(name=name, ok=False, found=said[-1] if said else f"exit code {done.code}", needed_for=needed, mend=mend)


def _cgroups() -> Finding:
    name, needed = "control groups", "worker: memory and CPU limits, CPU accounting"
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return Finding(name=name, ok=True, found="version 2", needed_for=needed)
    mounted = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    wanted = {"memory", "pids", "cpuacct"}
    if wanted <= set(mounted):
        return Finding(
            name=name, ok=os.geteuid() == 0, found="version 1", needed_for=needed, mend="" if os.geteuid() == 0 else "run as root"
        )
    return Finding(name=name, ok=False, found=", ".join(mounted) or "none", needed_for=needed, mend="mount the cgroup file systems")


def _disk(state_dir: Path) -> Finding:
    folder = next(parent for parent in (state_dir, *state_dir.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(folder).free
    return Finding(
        name="disk space",
        ok=free >= _TREE_BYTES,
        found=f"{free / (1 << 30):.0f} GiB free in {folder}",
        needed_for="worker: trees, layers, blobs",
        mend="" if free >= _TREE_BYTES else f"free {_TREE_BYTES >> 30} GiB, or give another folder with --state",
    )
