"""The modules in a kernel.tar: what each one needs, and their files as the kernel loads them."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import zstandard

from kernel.errors import Code, FarmError

# With debug information the largest have some tens of MiB. The archive comes out of a build: it can claim any size.
_LARGEST = 512 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Modules:
    """`files`: name to path in the archive, without the leading `./`; `needs`: name to the names it depends on; `built_in`: names of what
    would be modules but is in the kernel. Names have no dashes, as the kernel has them."""

    files: dict[str, str] = field(default_factory=dict)
    needs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    built_in: frozenset[str] = frozenset()

    def order(self, names: Iterable[str]) -> list[str]:
        """The modules named with all that they need, each behind what it needs itself; names that are no modules are left out."""
        order: list[str] = []
        seen: set[str] = set()
        # A name comes back, marked, when all that it needs is in order. No recursion: a build can write chains of any length.
        stack = [(name, False) for name in reversed(list(names))]
        while stack:
            name, ready = stack.pop()
            if ready:
                order.append(name)
            elif name in self.files and name not in seen:
                seen.add(name)
                stack.append((name, True))
                stack += [(other, False) for other in reversed(self.needs.get(name, ()))]
        return order


def read(kernel_tar: Path) -> Modules:
    """What depmod wrote into the archive (modules.dep, modules.builtin); empty for a kernel without modules."""
    texts = dict(_contents(kernel_tar, lambda name: name.rpartition("/")[2] in ("modules.dep", "modules.builtin")))
    files: dict[str, str] = {}
    needs: dict[str, tuple[str, ...]] = {}
    built_in: frozenset[str] = frozenset()
    for name, data in texts.items():
        folder, _, kind = name.rpartition("/")
        lines = data.decode(errors="replace").splitlines()
        if kind == "modules.builtin":
            built_in = frozenset(module_name(line) for line in lines)
            continue
        for path, _, behind in (line.partition(":") for line in lines):
            files[module_name(path)] = f"{folder}/{path}"
            needs[module_name(path)] = tuple(module_name(each) for each in behind.split())
    return Modules(files=files, needs=needs, built_in=built_in)


def contents(kernel_tar: Path, paths: Iterable[str]) -> dict[str, bytes]:
    """Modules by their path in the archive, unpacked where they are compressed. Raises FarmError(BAD_ARCHIVE)."""
    wanted = frozenset(paths)
    return {name: _plain(name, data) for name, data in _contents(kernel_tar, wanted.__contains__)}


def module_name(path: str) -> str:
    """`nls_iso8859_1` of kernel/fs/nls/nls_iso8859-1.ko.xz."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def everything(kernel_tar: Path) -> Iterator[tuple[str, bytes]]:
    """All of lib/modules as it is."""
    return _contents(kernel_tar, lambda name: name.startswith("lib/modules/"))


def _contents(kernel_tar: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(kernel_tar) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if member.isreg() and wanted(name):
                source = tar.extractfile(member)
                assert source is not None
                yield name, source.read()


def _plain(name: str, data: bytes) -> bytes:
    """The kernel unpacks modules itself only where it was configured to."""
    try:
        match name.rpartition(".")[2]:
            case "gz":
                return _bounded(name, zlib.decompressobj(wbits=31).decompress(data, _LARGEST + 1))
            case "xz":
                return _bounded(name, lzma.LZMADecompressor().decompress(data, _LARGEST + 1))
            case "zst":
                with zstandard.ZstdDecompressor().stream_reader(data) as stream:
                    return _bounded(name, _read(stream))
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError) as error:
        raise FarmError(Code.BAD_ARCHIVE, f"a module that can't be unpacked: {error}", where=name) from error
    return data


def _read(stream: IO[bytes]) -> bytes:
    data = bytearray()
    while len(data) <= _LARGEST and (chunk := stream.read(_CHUNK)):
        data += chunk
    return bytes(data)


def _bounded(name: str, data: bytes) -> bytes:
    if len(data) > _LARGEST:
        raise FarmError(Code.BAD_ARCHIVE, f"a module of more than {_LARGEST >> 20} MiB", where=name)
    return data
