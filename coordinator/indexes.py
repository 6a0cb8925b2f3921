"""Indexes over the images of several builds. They follow from the builds, signatures too: kept in memory, made again when asked again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import cast

from coordinator.api import ANY_TEAM
from coordinator.state import Build, BuildState
from kernel.errors import Code, FarmError
from kernel.steps import PrepareResult, SignedIndex
from kernfarm.blobs import BlobStore

SignIndex = Callable[[Sequence[str]], Awaitable[SignedIndex]]

# A few kilobytes each.
_KEPT = 256
# An image for each architecture; the signer takes no more.
_MOST = 16


class Indexes:
    """`sign` asks the signer (None: the farm does not sign) and raises FarmError."""

    def __init__(self, blobs: BlobStore, sign: SignIndex | None) -> None:
        self._blobs = blobs
        self._sign = sign
        self._known: OrderedDict[tuple[str, ...], tuple[str, SignedIndex]] = OrderedDict()
        self._teams: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._turn = asyncio.Lock()

    async def signed(self, builds: Sequence[Build]) -> SignedIndex:
        """The index over the builds' images. Raises FarmError: INVALID_ARGUMENT for builds that don't make one, CONFLICT for a farm that
        does not sign, and what the signer says."""
        key = _key(builds)
        if self._sign is None:
            raise FarmError(Code.CONFLICT, "this farm signs nothing", where=", ".join(key), hint="set signer_socket, or go without")
        if found := await self._found(key):
            return found
        # One at a time: a sign step waits behind one index at most, and two who ask for the same need one answer. A team has one place in
        # the queue, so that one which asks for many does not keep the others waiting.
        async with self._teams[builds[0].tenant], self._turn:
            if found := await self._found(key):
                return found
            made = await self._sign(key)
            self._known[key] = (builds[0].tenant, made)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
            return made

    async def _found(self, key: tuple[str, ...]) -> SignedIndex | None:
        known = self._known.get(key)
        if known is None or not await asyncio.to_thread(self._whole, known[1]):
            return None
        if key in self._known:  # it may have been dropped meanwhile
            self._known.move_to_end(key)
        return known[1]

    def made(self, tenant: str, digest: str) -> bool:
        """Whether a blob belongs to an index over builds of that team."""
        return any(digest in set(_blobs(made)) for owner, made in self._known.values() if tenant in (owner, ANY_TEAM))

    def _whole(self, made: SignedIndex) -> bool:
        return all(self._blobs.has(digest) for digest in _blobs(made))


def _key(builds: Sequence[Build]) -> tuple[str, ...]:
    """The builds' ids, in order. Raises FarmError(INVALID_ARGUMENT)."""
    key = tuple(sorted({build.build_id for build in builds}))
    where = ", ".join(key)
    if not 2 <= len(key) == len(builds) <= _MOST:
        raise FarmError(Code.INVALID_ARGUMENT, f"an index is over two to {_MOST} different builds", where=where)
    if len({build.tenant for build in builds}) > 1:
        raise FarmError(Code.INVALID_ARGUMENT, "the builds are of different teams", where=where)
    for build in builds:
        if build.state is not BuildState.SUCCEEDED:
            raise FarmError(Code.INVALID_ARGUMENT, f"the build is {build.state}, it has no image", where=build.build_id)
        if build.damaged:
            raise FarmError(Code.INVALID_ARGUMENT, "the store has lost its image", where=build.build_id, hint="submit it again")
    if len({build.spec.arch for build in builds}) < len(builds):
        raise FarmError(Code.INVALID_ARGUMENT, "two of the builds are for one architecture", where=where)
    releases = sorted({_release(build) for build in builds})
    if len(releases) > 1:
        raise FarmError(Code.INVALID_ARGUMENT, f"the builds are of different kernels: {', '.join(releases)}", where=where)
    return key


def _release(build: Build) -> str:
    prepared = cast(PrepareResult | None, build.steps["prepare"].result)
    return prepared.release if prepared is not None else ""


def _blobs(made: SignedIndex) -> Iterator[str]:
    yield made.index.digest
    for attachment in made.attachments:
        yield from (attachment.manifest.digest, *(blob.digest for blob in attachment.blobs))
