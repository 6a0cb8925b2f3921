"""Unpacking and cleaning up of what others made: archives and folders that a sandbox wrote are hostile.

Archives are unpacked by GNU tar inside the sandbox, where only the destination can be written: whatever an archive tries,
no member can land elsewhere (Python's own tarfile filter can be escaped: CVE-2025-4517). Folders that a sandbox wrote are
walked by descriptor, never following a symbolic link.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from kernel.errors import Code, FarmError
from kernfarm import process
from kernfarm.process import Cancel
from worker.cgroup import Limits
from worker.sandbox import HOST_PATH, Bind, Job, Sandbox

SOURCE_EPOCH = 1_000_000_000
# Kernel trees have about 15 levels. Each level that is walked holds a descriptor, of which a process often has 1024.
DEEPEST = 100
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_MAX_BYTES = 16 << 30
_SCRIPT = 'set -o pipefail; "${@:3}" < /build/archive | head -c "$1" | tar --extract --directory /build/to --strip-components "$2" '
_TAR_FLAGS = "--no-same-owner --no-same-permissions --delay-directory-restore --warning=no-unknown-keyword --file -"
_MAGIC = {
    b"\xfd7zXZ\x00": ("xz", "-dc", "-T0"),
    b"\x1f\x8b": ("gzip", "-dc"),
    b"\x28\xb5\x2f\xfd": ("zstd", "-dcq"),
    b"BZh": ("bzip2", "-dc"),
}


def unpack(
    sandbox: Sandbox,
    archive: Path,
    destination: Path,
    *,
    name: str,
    strip: int = 0,
    max_bytes: int = _MAX_BYTES,
    cancel: Cancel | None = None,
) -> None:
    """Unpack a tar archive (plain, gz, xz, bz2 or zstd, told by content) into a folder that the sandbox's user owns.

    `name` stands for the archive in messages. Raises FarmError: BAD_ARCHIVE (broken, cut off, larger than `max_bytes` unpacked).
    """
    with archive.open("rb") as file:
        head = file.read(8)
    decompress = next((argv for magic, argv in _MAGIC.items() if head.startswith(magic)), ("cat",))
    job = Job(
        argv=("bash", "-c", _SCRIPT + _TAR_FLAGS, "unpack", str(max_bytes), str(strip), *decompress),
        binds=(Bind(host=archive, inside="/build/archive"), Bind(host=destination, inside="/build/to", writable=True)),
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        limits=Limits(memory_bytes=2 << 30, pids=64),
        timeout_seconds=1800,
    )
    outcome = sandbox.run(job, cancel=cancel)
    if outcome.code != 0:
        said = outcome.output.decode(errors="replace").strip().splitlines()
        if any("No space left on device" in line for line in said):
            raise FarmError(Code.DISK_FULL, f"no space left to unpack {name}", where=str(destination))
        reason = said[-1] if said else "it is cut off or larger than allowed"
        raise FarmError(Code.BAD_ARCHIVE, f"cannot unpack: {reason}", where=name)


def make_folder(path: Path, sandbox: Sandbox) -> Path:
    """A new, empty folder that jobs may write to."""
    path.mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(path, sandbox.uid, sandbox.uid)
    return path


def give(path: Path, sandbox: Sandbox) -> None:
    """Let jobs write to a file that we made."""
    path.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(path, sandbox.uid, sandbox.uid)


def walk(folder: Path) -> Iterator[tuple[str, os.stat_result, int]]:
    """Every entry below `folder` as (relative path, lstat, descriptor of its directory), directories after what is in them.

    Needs a descriptor for each level, so the depth is bounded. Raises FarmError(BAD_ARCHIVE) for what is deeper, or closed to us.
    """
    levels = [_Level("", os.open(folder, _FOLDER))]
    try:
        while levels:
            level = levels[-1]
            if level.names:
                name = level.names.pop()
                path = level.prefix + name
                info = os.stat(name, dir_fd=level.descriptor, follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    levels.append(_enter(name, path, level.descriptor, len(levels)))
                else:
                    yield path, info, level.descriptor
            else:
                info = os.fstat(level.descriptor)
                os.close(levels.pop().descriptor)
                if levels:
                    yield level.prefix[:-1], info, levels[-1].descriptor
    finally:
        for level in levels:
            os.close(level.descriptor)


class _Level:
    """An open folder on the way down: what is before its entries' names, and those that are still to come."""

    def __init__(self, prefix: str, descriptor: int) -> None:
        self.prefix = prefix
        self.descriptor = descriptor
        try:
            self.names = os.listdir(descriptor)
        except BaseException:
            os.close(descriptor)
            raise


def _enter(name: str, path: str, parent: int, depth: int) -> _Level:
    if depth > DEEPEST:
        raise FarmError(Code.BAD_ARCHIVE, f"folders are more than {DEEPEST} levels deep", where=f"{path[:200]}...")
    try:
        return _Level(f"{path}/", os.open(name, _FOLDER, dir_fd=parent))
    except PermissionError as error:
        raise FarmError(Code.BAD_ARCHIVE, "a folder that may not be read", where=path) from error


def open_below(root: int, path: str) -> IO[bytes]:
    """A regular file below the folder of a descriptor, following no link on the way. Raises OSError."""
    *parents, name = path.split("/")
    current = os.dup(root)
    try:
        for parent in parents:
            deeper = os.open(parent, _FOLDER, dir_fd=current)
            os.close(current)
            current = deeper
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=current)
    finally:
        os.close(current)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ELOOP, "not a regular file", path)
    return os.fdopen(descriptor, "rb")


def read_below(root: int, path: str, limit: int) -> bytes:
    """The content of a file that `open_below` finds, at most `limit` bytes. Raises OSError."""
    with open_below(root, path) as file:
        return file.read(limit)


def normalize(folder: Path, seconds: int, *, owner: int | None = None) -> None:
    """Give everything below a folder one modification time (and owner); remove devices, pipes and sockets, and setuid bits."""
    times = (seconds * 10**9, seconds * 10**9)
    for path, info, descriptor in walk(folder):
        name = path.rpartition("/")[2]
        if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode) or stat.S_ISLNK(info.st_mode)):
            os.unlink(name, dir_fd=descriptor)
            continue
        if owner is not None:
            os.chown(name, owner, owner, dir_fd=descriptor, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            wanted = 0o755 if stat.S_ISDIR(info.st_mode) or info.st_mode & 0o100 else 0o644
            if stat.S_IMODE(info.st_mode) != wanted:
                os.chmod(name, wanted, dir_fd=descriptor)
        os.utime(name, ns=times, dir_fd=descriptor, follow_symlinks=False)


def remove_tree(folder: Path) -> None:
    """Remove a folder that a sandbox wrote, however deep it is; symbolic links are removed, not followed. None there is fine.

    Raises FarmError: SANDBOX_FAILED when something of it can't be removed, TIMEOUT.
    """
    if not os.path.lexists(folder):
        return
    # Not shutil.rmtree: it calls itself for each level, and a build can make more levels than Python has frames.
    removal = ("rm", "-rf", "--one-file-system", "--", str(folder))
    done = _tool(removal)
    if done.code != 0 and os.geteuid() != 0:
        # A hostile build may leave folders that nobody may enter; root may anyway, others have to open them first. Folders only:
        # files may be hard links of others. Its exit code says nothing new: what stayed closed fails the removal.
        _tool(("find", str(folder), "-xdev", "-type", "d", "!", "-perm", "-700", "-execdir", "chmod", "u+rwx", "--", "{}", ";"))
        done = _tool(removal)
    if done.code != 0:
        said = done.output.decode(errors="replace").strip()
        raise FarmError(
            Code.SANDBOX_FAILED,
            f"cannot remove a folder (exit code {done.code}): {said[-500:]}",
            where=str(folder),
            hint="remove it on the worker by hand; look for mounts and for files that are immutable (lsattr)",
        )


def _tool(argv: tuple[str, ...]) -> process.Completed:
    return process.run(argv, env={"PATH": HOST_PATH, "LC_ALL": "C"}, timeout_seconds=600)
