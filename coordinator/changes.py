"""Who waits for a change of what: a version for each build, and one place to wait."""

from __future__ import annotations

import asyncio
import uuid


class Changes:
    """Counts changes by build. Tokens of an earlier coordinator never match, so that a reader gets the state again."""

    def __init__(self) -> None:
        self._epoch = uuid.uuid4().hex[:8]
        self._versions: dict[str, int] = {}
        self._condition = asyncio.Condition()

    def token(self, build_id: str) -> str:
        """What stands for the build's state as it is now."""
        return f"{self._epoch}-{self._versions.get(build_id, 0)}"

    async def announce(self, build_id: str) -> None:
        """Something of this build has changed."""
        async with self._condition:
            self._versions[build_id] = self._versions.get(build_id, 0) + 1
            self._condition.notify_all()

    async def after(self, build_id: str, token: str) -> None:
        """Return once the build's state is another than the one the token stands for."""
        async with self._condition:
            while self.token(build_id) == token:
                await self._condition.wait()
