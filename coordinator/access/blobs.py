"""Which blobs a team may read and build from: what it uploaded, and what its builds made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Protocol

from coordinator.access.callers import Caller, Role
from coordinator.access.ownership import Ownership
from coordinator.api import ANY_TEAM
from kernel import digest as digests
from kernel.errors import Code, FarmError
from kernel.spec import NamedBlob, RequestSpec

_WORDS = {"file": "base config", "base_fragments": "base fragment", "fragments": "fragment", "patches": "patch"}


class Store(Protocol):
    """The farm's side, see coordinator.api.FarmApi."""

    async def has_blob(self, digest: str) -> bool: ...

    async def put_blob(self, digest: str, chunks: Iterable[bytes]) -> None: ...

    def get_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]: ...

    async def made_blob(self, tenant: str, digest: str) -> bool: ...


class TeamBlobs:
    """The blob store as one team sees it. A blob of another team and none at all can't be told apart."""

    def __init__(self, store: Store, ownership: Ownership) -> None:
        self._store = store
        self._ownership = ownership

    async def uploaded(self, who: Caller, digest: str) -> bool:
        """Whether the team need not send it: it did so before, and the store still has it."""
        return await self._owns(who, digest) and await self._store.has_blob(digest)

    async def put(self, who: Caller, digest: str, chunks: Iterable[bytes]) -> None:
        """Store content, which proves that the team has it. Raises FarmError(BAD_DIGEST)."""
        await self._store.put_blob(digest, chunks)
        await asyncio.to_thread(self._ownership.add, who.team, digest, time.time())

    async def get(self, who: Caller, digest: str, offset: int) -> AsyncIterator[bytes]:
        """The content from an offset on. Raises FarmError(NOT_FOUND)."""
        team = ANY_TEAM if who.role is Role.ADMIN else who.team
        if not await self._owns(who, digest) and not await self._store.made_blob(team, digest):
            raise FarmError(Code.NOT_FOUND, f"no blob {digest}", where=digest)
        async for data in self._store.get_blob(digest, offset):
            yield data

    async def check(self, who: Caller, spec: RequestSpec) -> None:
        """That a request is made from the team's own blobs only. Raises FarmError(MISSING_FILE), as for a blob that is not there."""
        for what, name, digest in _references(spec):
            if not digests.is_digest(digest):
                continue  # refused at submit, with the mend
            if not await self._owns(who, digest) and not await self._store.made_blob(who.team, digest):
                raise FarmError(Code.MISSING_FILE, f"the {what} was not uploaded", where=name)

    async def _owns(self, who: Caller, digest: str) -> bool:
        return await asyncio.to_thread(self._ownership.owns, who.team, digest)


def _references(spec: RequestSpec) -> Iterator[tuple[str, str, str]]:
    """(what, its name, its digest) of each blob that a request refers to."""
    if spec.source.digest:
        yield "source tarball", spec.source.ref, spec.source.digest
    yield from _files(spec, "file")


def _files(value: object, what: str) -> Iterator[tuple[str, str, str]]:
    """Wherever in a request they are: one that is forgotten here would open other teams' blobs."""
    if isinstance(value, NamedBlob):
        yield what, value.name, value.digest
    elif isinstance(value, tuple):
        for each in value:
            yield from _files(each, what)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _files(getattr(value, field.name), _WORDS.get(field.name, what))
