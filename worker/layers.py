"""Layers: archives of output-tree files, with logical times.

`make` decides by modification times, but clocks of nodes differ. So the distinct times of a layer's files, sorted, become
consecutive ticks from a base that depends only on the layer's place in the build and on the toolchain's headers.
Order within a layer is kept, equal times stay equal, a layer is newer than what it was made from (docs/adr/0002-logical-times.md).
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import IO

import zstandard

from kernel import kconfig
from kernel.errors import Code, FarmError
from kernel.steps import Usage
from worker import archive
from worker.context import Context

_LEVEL = 3
_PIECE = 1 << 20
# Ticks of 10 microseconds: exact enough in a tar header's decimal fraction, and a second holds more of them than a tree has files.
_TICKS = 100_000
# Hundreds of times what an allyesconfig has.
_CONFIG_BYTES = 64 << 20


class Base(IntEnum):
    """Where the logical times of a kind of layer begin: seconds after Context.epoch, the newest of the node's own headers."""

    PREPARED = 1
    SHARD = 2
    LINK = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """What tells whether a file was written: mode, size (bytes), modification time (ns), inode."""

    mode: int
    size: int
    mtime_ns: int
    inode: int


Snapshot = Mapping[str, Entry]


def scan(folder: Path) -> dict[str, Entry]:
    """Every regular file and symbolic link below a folder."""
    found: dict[str, Entry] = {}
    for path, info, _ in archive.walk(folder):
        if stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode):
            found[path] = Entry(info.st_mode, info.st_size, info.st_mtime_ns, info.st_ino)
    return found


def folders(folder: Path) -> list[str]:
    """Every folder below a folder. kbuild finds `a/b/../../c` only where a/b exists, so empty ones count too."""
    return [path for path, info, _ in archive.walk(folder) if stat.S_ISDIR(info.st_mode)]


def changed(before: Snapshot, after: Snapshot) -> list[str]:
    """Paths that are new or were written between two scans, sorted."""
    return sorted(path for path, entry in after.items() if before.get(path) != entry)


def logical_times(times: Mapping[str, int], base: int) -> dict[str, float]:
    """Seconds for each path: rank of its time (ns) among the distinct times, in ticks from `base` (seconds) on.

    Raises FarmError(INTERNAL) when there are more distinct times than fit before the next layer's base.
    """
    distinct = sorted(set(times.values()))
    if len(distinct) > _TICKS:
        raise FarmError(Code.INTERNAL, f"a layer with {len(distinct)} different times", where="layer")
    ranks = {time: base + rank / _TICKS for rank, time in enumerate(distinct)}
    return {path: ranks[time] for path, time in times.items()}


def pack(context: Context, folder: Path, paths: Iterable[str], entries: Snapshot, base: Base, *, folders: Iterable[str] = ()) -> str:
    """Store the named files (and empty `folders`) of a folder as a layer; returns its digest. Symbolic links stay links."""
    chosen = sorted(paths)
    times = logical_times({path: entries[path].mtime_ns for path in chosen}, context.epoch + base)
    root = _open(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=context.scratch) as file:
            with (
                zstandard.ZstdCompressor(level=_LEVEL).stream_writer(file, closefd=False) as stream,
                tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
            ):
                for path in sorted(folders):
                    _add_folder(tar, path, context.epoch + base)
                for path in chosen:
                    _add(tar, root, path, times[path])
            file.flush()
            digest, size = context.blobs.put_file(Path(file.name))
    finally:
        os.close(root)
    context.meter.add(Usage(bytes_stored=size))
    return digest


def unpack(context: Context, digest: str, folder: Path, *, name: str) -> None:
    """Put a layer's files into a folder that the sandbox's user owns; times as they are in the layer."""
    with tempfile.NamedTemporaryFile(dir=context.scratch) as file:
        path = Path(file.name)
        size = context.blobs.get_file(digest, path)
        path.chmod(0o644)
        context.meter.add(Usage(bytes_fetched=size))
        archive.unpack(context.sandbox, path, folder, name=name, cancel=context.cancel)
        path.touch()  # get_file replaced it; the context manager wants something to remove


def merge(layer: Path, folder: Path, protected: Snapshot, *, name: str) -> None:
    """Move an unpacked layer's files into a folder. Raises FarmError(INTERNAL) for a file of `protected`.

    Two shards may have generated the same file. Equal content is kept once, with the older time, so that objects of both are
    newer; different content is an error, since one of them was compiled against something else.
    """
    for path, info, descriptor in archive.walk(layer):
        if stat.S_ISDIR(info.st_mode):
            continue
        if path in protected:
            raise FarmError(Code.INTERNAL, f"{name} holds a file of the prepared layer", where=path)
        *parents, base = path.split("/")
        to = _descend(_open(folder), parents, make=info)
        try:
            if _exists(base, to):
                _keep_older(base, info, descriptor, to, f"{name}: {path}")
            else:
                os.rename(base, base, src_dir_fd=descriptor, dst_dir_fd=to)
        finally:
            os.close(to)


def _keep_older(base: str, info: os.stat_result, source: int, target: int, where: str) -> None:
    there = os.stat(base, dir_fd=target, follow_symlinks=False)
    if there.st_mode != info.st_mode or not _same(base, source, target, link=stat.S_ISLNK(info.st_mode)):
        raise FarmError(Code.INTERNAL, "two shards made this file differently", where=where)
    if info.st_mtime_ns < there.st_mtime_ns:
        os.utime(base, ns=(info.st_mtime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _same(base: str, one: int, two: int, *, link: bool) -> bool:
    """Whether two folders' entries of this name are alike; read piece by piece, since an object may be larger than the memory."""
    if link:
        return os.readlink(base, dir_fd=one) == os.readlink(base, dir_fd=two)
    with archive.open_below(one, base) as first, archive.open_below(two, base) as second:
        if os.fstat(first.fileno()).st_size != os.fstat(second.fileno()).st_size:
            return False
        while True:
            piece = first.read(_PIECE)
            if piece != second.read(_PIECE):
                return False
            if not piece:
                return True


def _exists(base: str, folder: int) -> bool:
    try:
        os.stat(base, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _add_folder(tar: tarfile.TarFile, path: str, seconds: int) -> None:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, seconds
    tar.addfile(info)


def _add(tar: tarfile.TarFile, root: int, path: str, seconds: float) -> None:
    info = tarfile.TarInfo(path)
    info.mtime = seconds
    *parents, name = path.split("/")
    folder = _descend(os.dup(root), parents)
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            info.type = tarfile.SYMTYPE
            info.linkname = os.readlink(name, dir_fd=folder)
            tar.addfile(info)
            return
        info.mode = 0o755 if status.st_mode & 0o100 else 0o644
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FarmError(Code.INTERNAL, "no regular file any more", where=path)
            info.size = os.fstat(descriptor).st_size
            tar.addfile(info, file)
    finally:
        os.close(folder)


def _descend(root: int, parents: list[str], make: os.stat_result | None = None) -> int:
    """A descriptor of the folder below `root` (which is closed), following no link on the way. With `make`, missing folders
    are made and belong to whom that entry belongs."""
    current = root
    for name in parents:
        try:
            if make is not None and not _exists(name, current):
                os.mkdir(name, 0o755, dir_fd=current)
                os.chown(name, make.st_uid, make.st_gid, dir_fd=current, follow_symlinks=False)
            deeper = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
        finally:
            os.close(current)
        current = deeper
    return current


def open_file(folder: Path, path: str) -> IO[bytes]:
    """A regular file of a folder that a sandbox wrote, with no link on the way. Raises OSError."""
    root = _open(folder)
    try:
        return archive.open_below(root, path)
    finally:
        os.close(root)


def overwrite(folder: Path, path: str, data: bytes) -> None:
    """Replace the content of a regular file in a folder that a sandbox wrote, following no link. Raises OSError."""
    *parents, name = path.split("/")
    parent = _descend(_open(folder), parents)
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
    finally:
        os.close(parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def read_config(out: Path) -> dict[str, str]:
    """The configuration of an output tree. Raises OSError, and FarmError: BAD_ARCHIVE for one that no Kconfig writes."""
    with open_file(out, ".config") as file:
        data = file.read(_CONFIG_BYTES + 1)
    if len(data) > _CONFIG_BYTES:
        raise FarmError(Code.BAD_ARCHIVE, f"a configuration of more than {_CONFIG_BYTES} bytes", where=".config")
    return kconfig.values(data.decode(errors="replace"))


def sha256(path: Path) -> str:
    """Hex digest of a file of ours."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
