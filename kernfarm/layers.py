"""Reading one layer of an image in a single pass: the files in it, and the digests of both its forms. A small one may unpack to anything,
so what it may cost is bounded."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Self, cast

from kernel import digest as digests
from kernel.errors import Code, FarmError

_CHUNK = 1 << 20
# Kept whole, to be compared with provenance; up to this size.
_KEPT = frozenset({"kernel-source-info"})
_KEPT_BYTES = 256 << 10
_MOST_FILES = 100_000
# What makes a path or a link's target long; the kernel's own limit for those is 4096.
_HEADER_BYTES = 64 << 10
_DATA_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A regular file in a layer. `text` is the content of one that is compared with provenance, None for others."""

    name: str
    digest: str
    sha1: str
    size: int
    text: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer as it was read: digest and size of what is stored, and `diff_id` of the tar inside."""

    digest: str
    size: int
    diff_id: str
    files: tuple[File, ...]


@dataclass(slots=True)
class Budget:
    """How many bytes layers may unpack to together. One that is refused has spent its part as well: it may be named again and again."""

    left: int


def read_layer(chunks: Iterable[bytes], name: str, budget: Budget) -> Layer:
    """A gzip-compressed layer in one pass; digests are for the caller to compare. `name` is the digest that it should have. One that is
    refused is read to its end too, packed: only then it is known for what it is.

    Raises FarmError: BAD_ARCHIVE for what is no such thing, BAD_DIGEST when that is because it is damaged; and what `chunks` raises."""
    stream = _Inflated(iter(chunks), budget)
    files: list[File] = []
    try:
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|", bufsize=_CHUNK, tarinfo=_PlainHeader) as tar:
            for count, member in enumerate(tar):
                if count >= _MOST_FILES:  # of any kind: tarfile keeps them all
                    raise _Refused(f"the layer has more than {_MOST_FILES} members")
                if member.issparse():  # its zeros would be read, as many as it says
                    raise _Refused(f"{member.name[:80]!r} is a sparse file")
                if member.isreg():
                    files.append(_file(tar, member))
        stream.drain()
    except _Refused as error:
        raise _unfit(stream, name, str(error)) from error
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, RecursionError) as error:
        raise _unfit(stream, name, f"the layer is no gzip-compressed tar: {type(error).__name__} {error}") from error
    return Layer(
        digest=f"{digests.ALGORITHM}:{stream.packed.hexdigest()}",
        size=stream.size,
        diff_id=f"{digests.ALGORITHM}:{stream.plain.hexdigest()}",
        files=tuple(files),
    )


class _Refused(Exception):
    """A layer has what none may have."""


def _unfit(stream: _Inflated, name: str, reason: str) -> FarmError:
    """What to say of a layer: one that is not what it is called has another digest, and that is the better thing to say."""
    stream.skip()
    found = f"{digests.ALGORITHM}:{stream.packed.hexdigest()}"
    if found != name:
        return FarmError(Code.BAD_DIGEST, f"{name} is damaged: its content has the digest {found}", where=name)
    return FarmError(Code.BAD_ARCHIVE, reason, where=name)


class _PlainHeader(tarfile.TarInfo):
    """Headers as we pack them: tarfile reads an extended one into memory as a whole, and keeps those for all members."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.type == tarfile.XGLTYPE:
            raise _Refused("the layer has a global header")
        if found.type not in _DATA_TYPES and found.size > _HEADER_BYTES:
            raise _Refused(f"the layer has an extended header of {found.size} bytes")
        return found


def _file(tar: tarfile.TarFile, member: tarfile.TarInfo) -> File:
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    kept = bytearray() if member.name in _KEPT and member.size <= _KEPT_BYTES else None
    source = tar.extractfile(member)
    assert source is not None
    while chunk := source.read(_CHUNK):
        sha256.update(chunk)
        sha1.update(chunk)
        if kept is not None:
            kept += chunk
    return File(
        name=member.name,
        digest=f"{digests.ALGORITHM}:{sha256.hexdigest()}",
        sha1=sha1.hexdigest(),
        size=member.size,
        text=bytes(kept) if kept is not None else None,
    )


class _Inflated:
    """The tar inside a gzip stream, as a file that can only be read; counts and hashes both forms on the way."""

    def __init__(self, chunks: Iterator[bytes], budget: Budget) -> None:
        self._chunks = chunks
        self._budget, self._most = budget, budget.left
        self._inflate = zlib.decompressobj(wbits=31)
        self._rest = b""
        self.packed, self.plain, self.size = hashlib.sha256(), hashlib.sha256(), 0

    def read(self, size: int) -> bytes:
        """At most `size` bytes; b"" at the end. Raises EOFError when the stream ends before gzip's own end."""
        while not self._inflate.eof:
            if not self._rest:
                self._rest = self._next()
                if not self._rest:
                    raise EOFError("the gzip stream is cut short")
            data = self._inflate.decompress(self._rest, size)
            self._rest = self._inflate.unconsumed_tail
            if data:
                self.plain.update(data)
                if len(data) > self._budget.left:
                    self._budget.left = 0
                    raise _Refused(f"the layer unpacks to more than the {self._most} bytes that are left for it")
                self._budget.left -= len(data)
                return data
        if self._inflate.unused_data:
            raise ValueError("there is data after the gzip stream")
        return b""

    def drain(self) -> None:
        """Read to the end: tar stops at its own."""
        while self.read(_CHUNK):
            pass
        if self._next():
            raise ValueError("there is data after the gzip stream")

    def skip(self) -> None:
        """Hash what is left of the packed form."""
        while self._next():
            pass

    def _next(self) -> bytes:
        chunk = next(self._chunks, b"")
        self.packed.update(chunk)
        self.size += len(chunk)
        return chunk
