"""What is in an image: index, manifests, configs, layers and the files in them, with every digest and size computed anew.

Used by whoever vouches for an image and by whoever checks it; `fetch` may return anything, nothing is believed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from kernel import digest as digests
from kernel import oci
from kernel.errors import Code, FarmError, Problem
from kernfarm.layers import Budget, File, read_layer

Fetch = Callable[[str], Iterable[bytes]]

# A JSON document of an image: a manifest has a few kilobytes. Larger ones are refused before they are read.
DOCUMENT_BYTES = 4 << 20
# Of all layers that an index leads to, unpacked: a kernel's debug build has a few gigabytes.
_MOST_BYTES = 32 << 30


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
