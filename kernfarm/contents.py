"""What is in an image: index, manifests, configs, layers and the files in them, with every digest and size computed anew.

Used by whoever vouches for an image and by whoever checks it; `fetch` may return anything, nothing is believed.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import IO, Any, Self, cast

from kernel import digest as digests
from kernel import oci
from kernel.errors import Code, FarmError, Problem

Fetch = Callable[[str], Iterable[bytes]]

# A JSON document of an image: a manifest has a few kilobytes. Larger ones are refused before they are read.
DOCUMENT_BYTES = 4 << 20
_CHUNK = 1 << 20
# Kept whole, to be compared with provenance; up to this size.
_KEPT = frozenset({"kernel-source-info"})
_KEPT_BYTES = 256 << 10
_MOST_FILES = 100_000
# Of all layers that an index leads to, unpacked: a kernel's debug build has a few gigabytes.
_MOST_BYTES = 32 << 30
# What makes a path or a link's target long; the kernel's own limit for those is 4096.
_HEADER_BYTES = 64 << 10
_DATA_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at: its name, the place, and the problem (None: it holds)."""

    name: str
    where: str
    problem: Problem | None = None

    @property
    def ok(self) -> bool:
        return self.problem is None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """An image of which everything was looked at. `manifests`: (digest, size, platform); `inside`: the files of all platforms, each with
    the digest of its manifest; `reached`: digests and sizes of everything that the index leads to, itself included."""

    index: str
    manifests: tuple[tuple[str, int, str], ...]
    inside: tuple[tuple[str, File], ...]
    reached: dict[str, int]
    checks: tuple[Check, ...]

    @property
    def files(self) -> tuple[File, ...]:
        """Of all platforms."""
        return tuple(file for _, file in self.inside)

    def part(self, manifests: Collection[str]) -> Contents:
        """What is in those of the manifests only; everything, if the image has none of them."""
        mine = tuple(each for each in self.manifests if each[0] in manifests)
        if not mine:
            return self
        return replace(self, manifests=mine, inside=tuple(each for each in self.inside if each[0] in manifests))

    @property
    def problem(self) -> Problem | None:
        """The first problem."""
        return next((check.problem for check in self.checks if check.problem is not None), None)


@dataclass(slots=True)
class Budget:
    """How many bytes layers may unpack to together. One that is refused has spent its part as well: it may be named again and again."""

    left: int


@dataclass(slots=True)
class _Walk:
    """What has been found so far."""

    fetch: Fetch
    checks: list[Check] = field(default_factory=list)
    manifests: list[tuple[str, int, str]] = field(default_factory=list)
    inside: list[tuple[str, File]] = field(default_factory=list)
    reached: dict[str, int] = field(default_factory=dict)
    budget: Budget = field(default_factory=lambda: Budget(_MOST_BYTES))

    def check(self, name: str, where: str, look: Callable[[], None]) -> bool:
        """Note whether `look` raises FarmError."""
        try:
            look()
        except FarmError as error:
            self.checks.append(Check(name=name, where=where, problem=error.problem))
            return False
        self.checks.append(Check(name=name, where=where))
        return True


def inspect(index: bytes, fetch: Fetch) -> Contents:
    """Look at everything that the index of an image leads to. Problems are in the answer, none is raised; a part that can't be read is
    reported and what it leads to left out."""
    walk, digest = _Walk(fetch=fetch), digests.of_bytes(index)
    walk.reached[digest] = len(index)
    body: dict[str, Any] = {}
    platforms: list[str] = []
    if walk.check("index", digest, lambda: body.update(document(index, oci.INDEX))):
        entries = body.get("manifests")
        if not isinstance(entries, list) or not entries:
            walk.checks.append(Check(name="index", where=digest, problem=_bad("the index names no image")))
            entries = []
        for entry in entries:
            _platform(walk, entry, platforms)
    return Contents(
        index=digest,
        manifests=tuple(walk.manifests),
        inside=tuple(walk.inside),
        reached=walk.reached,
        checks=tuple(walk.checks),
    )


def read(fetch: Fetch, descriptor: Any) -> bytes:
    """A small blob that a descriptor names. Raises FarmError: BAD_DIGEST, BAD_ARCHIVE, or what `fetch` raises."""
    digest, size = named(descriptor)
    if size > DOCUMENT_BYTES:
        raise FarmError(Code.BAD_ARCHIVE, f"{digest} is said to have {size} bytes, too many for a document", where=digest)
    data = bytearray()
    for chunk in fetch(digest):
        data += chunk
        if len(data) > size:
            raise FarmError(Code.BAD_DIGEST, f"{digest} is longer than the {size} bytes that its descriptor says", where=digest)
    _same(digest, size, digests.of_bytes(bytes(data)), len(data))
    return bytes(data)


def named(descriptor: Any) -> tuple[str, int]:
    """Digest and size in a descriptor. Raises FarmError(BAD_ARCHIVE)."""
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    size = descriptor.get("size") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str) or not digests.is_digest(digest):
        raise FarmError(Code.BAD_ARCHIVE, f"a descriptor has no sha256 digest: {str(digest)[:80]!r}")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise FarmError(Code.BAD_ARCHIVE, f"the descriptor of {digest} has no size", where=digest)
    return digest, size


def _platform(walk: _Walk, entry: Any, platforms: list[str]) -> None:
    name = _platform_of(entry)

    def look() -> None:
        if not name:
            raise FarmError(Code.BAD_ARCHIVE, "an entry of the index has no platform", hint="linuxkit crashes on such an index")
        if name in platforms:
            raise FarmError(Code.BAD_ARCHIVE, f"the index has two images for {name}")

    walk.check("platform", name or "index", look)
    platforms.append(name)
    manifest: dict[str, Any] = {}

    def fetch_manifest() -> None:
        digest, size = named(entry)
        manifest.update(document(read(walk.fetch, entry), oci.MANIFEST))
        walk.reached[digest] = size
        walk.manifests.append((digest, size, name))

    if walk.check("manifest", name or "index", fetch_manifest):
        _image(walk, manifest, named(entry)[0], name)


def _image(walk: _Walk, manifest: dict[str, Any], owner: str, platform: str) -> None:
    config: dict[str, Any] = {}

    def fetch_config() -> None:
        descriptor = manifest.get("config")
        digest, size = named(descriptor)
        config.update(_json(read(walk.fetch, descriptor), digest))
        walk.reached[digest] = size
        if platform and f"{config.get('os')}/{config.get('architecture')}" != platform:
            raise FarmError(
                Code.BAD_ARCHIVE, f"the config says {config.get('os')}/{config.get('architecture')}, the index {platform}", where=digest
            )

    walk.check("config", platform, fetch_config)
    layers = manifest.get("layers")
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(layers, list) or not isinstance(diff_ids, list) or len(layers) != len(diff_ids):
        walk.checks.append(Check(name="layers", where=platform, problem=_bad("manifest and config don't have the same number of layers")))
        return
    for number, (descriptor, diff_id) in enumerate(zip(layers, diff_ids, strict=True), 1):
        _one_layer(walk, descriptor, diff_id, owner, f"{platform} layer {number}")


def _one_layer(walk: _Walk, descriptor: Any, diff_id: Any, owner: str, where: str) -> None:
    def look() -> None:
        digest, size = named(descriptor)
        # What is left of the bound for all: a manifest may name one small layer thousands of times.
        found = read_layer(_bounded(walk.fetch(digest), digest, size), digest, walk.budget)
        _same(digest, size, found.digest, found.size)
        if found.diff_id != diff_id:
            raise FarmError(Code.BAD_DIGEST, f"the tar in {digest} is {found.diff_id}, the config says {str(diff_id)[:80]}", where=digest)
        walk.reached[digest] = size
        walk.inside.extend((owner, file) for file in found.files)

    walk.check("layer", where, look)


def _bounded(chunks: Iterable[bytes], digest: str, size: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > size:
            raise FarmError(Code.BAD_DIGEST, f"{digest} is longer than the {size} bytes that its descriptor says", where=digest)
        yield chunk


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


def _same(digest: str, size: int, found: str, found_size: int) -> None:
    if found != digest:
        raise FarmError(Code.BAD_DIGEST, f"{digest} is damaged: its content has the digest {found}", where=digest)
    if found_size != size:
        raise FarmError(Code.BAD_DIGEST, f"{digest} has {found_size} bytes, its descriptor says {size}", where=digest)


def _platform_of(entry: Any) -> str:
    platform = entry.get("platform") if isinstance(entry, dict) else None
    if not isinstance(platform, dict) or not platform.get("os") or not platform.get("architecture"):
        return ""
    return f"{platform['os']}/{platform['architecture']}"


def document(data: bytes, media_type: str) -> dict[str, Any]:
    """A JSON document of an image. Raises FarmError(BAD_ARCHIVE)."""
    body = _json(data, media_type)
    if body.get("mediaType", media_type) != media_type or body.get("schemaVersion") != 2:
        raise FarmError(Code.BAD_ARCHIVE, f"expected {media_type}, got {str(body.get('mediaType'))[:80]!r}")
    return body


def _json(data: bytes, where: str) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FarmError(Code.BAD_ARCHIVE, f"not JSON: {error}", where=where) from error
    if not isinstance(body, dict):
        raise FarmError(Code.BAD_ARCHIVE, "not a JSON object", where=where)
    return body


def _bad(message: str) -> Problem:
    return Problem(code=Code.BAD_ARCHIVE, message=message)
