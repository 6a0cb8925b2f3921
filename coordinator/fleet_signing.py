"""A fleet whose sign steps are the signer's: everything else goes to the fleet below, events of both come in one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from coordinator.fleet import AttemptFailed, AttemptFinished, AttemptHeard, Fleet, FleetEvent
from kernel.errors import Code, FarmError, Problem
from kernel.steps import Attempt, Progress, SignResult, StepKind, Usage

# The signer reads every blob of an image again: seconds. One that is being started again is asked until then.
_PATIENCE_SECONDS = 60.0
_RETRY_SECONDS = 1.0

Sign = Callable[[str], Awaitable[SignResult]]


class SigningFleet:
    """Implements coordinator.fleet.Fleet. `sign(build_id)` raises FarmError; UNAVAILABLE ones are tried again for a minute."""

    def __init__(self, fleet: Fleet, sign: Sign, *, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._fleet = fleet
        self._sign = sign
        self._patience = patience_seconds
        self._events: asyncio.Queue[FleetEvent | None] = asyncio.Queue()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._relay: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._fleet.start()
        self._relay = asyncio.create_task(self._hand_on())

    async def stop(self) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await self._fleet.stop()
        if self._relay is not None:
            await self._relay
        await self._events.put(None)

    async def events(self) -> AsyncIterator[FleetEvent]:
        while (event := await self._events.get()) is not None:
            yield event

    async def launch(self, attempt: Attempt, worker_id: str) -> None:
        if attempt.kind is not StepKind.SIGN:
            await self._fleet.launch(attempt, worker_id)
            return
        task = asyncio.create_task(self._attempt(attempt))
        self._running[attempt.attempt_id] = task
        task.add_done_callback(lambda _: self._running.pop(attempt.attempt_id, None))

    async def doubt(self, worker_id: str, reason: str) -> None:
        await self._fleet.doubt(worker_id, reason)

    async def abort(self, attempt_id: str) -> None:
        task = self._running.get(attempt_id)
        if task is None:
            await self._fleet.abort(attempt_id)
        else:
            task.cancel()

    async def _hand_on(self) -> None:
        async for event in self._fleet.events():
            await self._events.put(event)

    async def _attempt(self, attempt: Attempt) -> None:
        """Ask the signer, with signs of life while it works. Whatever happens is told: nobody else follows this attempt."""
        clock = asyncio.get_running_loop().time
        started = clock()
        beats = asyncio.create_task(self._beat(attempt))
        try:
            result = await self._patiently(attempt.build_id)
            outcome: FleetEvent = AttemptFinished(attempt_id=attempt.attempt_id, result=result, usage=Usage(wall_seconds=clock() - started))
        except FarmError as error:
            outcome = AttemptFailed(attempt_id=attempt.attempt_id, problem=error.problem, usage=Usage(wall_seconds=clock() - started))
        except Exception as error:
            problem = Problem(code=Code.INTERNAL, message=f"asking the signer failed: {type(error).__name__}: {error}", where="sign")
            outcome = AttemptFailed(attempt_id=attempt.attempt_id, problem=problem, usage=Usage(wall_seconds=clock() - started))
        finally:
            beats.cancel()
        await self._events.put(outcome)

    async def _patiently(self, build_id: str) -> SignResult:
        deadline = asyncio.get_running_loop().time() + self._patience
        while True:
            try:
                return await self._sign(build_id)
            except FarmError as error:
                if error.problem.code is not Code.UNAVAILABLE or asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(_RETRY_SECONDS)

    async def _beat(self, attempt: Attempt) -> None:
        while True:
            await self._events.put(AttemptHeard(attempt_id=attempt.attempt_id, progress=Progress(doing="signing")))
            await asyncio.sleep(attempt.heartbeat_seconds)
