"""Tar archives whose bytes depend on their content only: sorted, owned by root, one time, no global headers, no hard links."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from worker import archive

TIME = 0


def write(folder: Path, sink: IO[bytes], *, prefix: str = "./", keep: Callable[[str], bool] = lambda path: True) -> None:
    """Archive what is below a folder, under `prefix`; folders included, so that each has one owner and mode. Links are not followed."""
    entries = sorted((path, info) for path, info, _ in archive.walk(folder) if keep(path))
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for path, info in entries:
                _add(tar, root, path, info, prefix)
    finally:
        os.close(root)


def write_files(files: dict[str, Path], sink: IO[bytes]) -> None:
    """Archive regular files under the given names, at the top; mode 0644."""
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(files):
            info = _info(name, 0o644)
            with files[name].open("rb") as file:
                info.size = os.fstat(file.fileno()).st_size
                tar.addfile(info, file)


def compress(source: IO[bytes], sink: IO[bytes]) -> None:
    """gzip without name and time."""
    with gzip.GzipFile(filename="", mode="wb", fileobj=sink, compresslevel=6, mtime=0) as packed:
        while chunk := source.read(1 << 20):
            packed.write(chunk)


def _add(tar: tarfile.TarFile, root: int, path: str, status: os.stat_result, prefix: str) -> None:
    executable = bool(status.st_mode & 0o100)
    if stat.S_ISDIR(status.st_mode):
        info = _info(prefix + path, 0o755)
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    elif stat.S_ISLNK(status.st_mode):
        info = _info(prefix + path, 0o777)
        info.type = tarfile.SYMTYPE
        info.linkname = os.readlink(path, dir_fd=root)
        tar.addfile(info)
    elif stat.S_ISREG(status.st_mode):
        info = _info(prefix + path, 0o755 if executable else 0o644)
        with archive.open_below(root, path) as file:
            info.size = os.fstat(file.fileno()).st_size
            tar.addfile(info, file)


def _info(name: str, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = mode
    info.mtime = TIME
    info.uname = info.gname = "root"
    return info
