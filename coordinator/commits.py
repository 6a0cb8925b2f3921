"""How far the journal is behind the state: the state changes first, and nobody is told of it before the journal has it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from kernel.errors import Code, FarmError


class Commits:
    """One commit at a time, in one event loop. After one that failed the state is ahead of the journal for good: nothing more is taken,
    and nothing is told."""

    def __init__(self) -> None:
        self._under_way: asyncio.Event | None = None
        self.failed = asyncio.Event()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Around a change of the state and its commit. Raises FarmError(UNAVAILABLE) when an earlier one has failed."""
        self._check()
        ended = self._under_way = asyncio.Event()
        try:
            yield
        except BaseException:
            self.failed.set()
            raise
        finally:
            self._under_way = None
            ended.set()

    async def cover(self) -> None:
        """Return once the journal has all that the state shows at the time of the call; later changes are not waited for.

        Raises FarmError(UNAVAILABLE) when the journal can't have it."""
        if self._under_way is not None:
            await self._under_way.wait()
        self._check()

    def _check(self) -> None:
        if self.failed.is_set():
            raise FarmError(Code.UNAVAILABLE, "the coordinator has failed, and stops", hint="its log says why")
