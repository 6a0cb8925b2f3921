from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from coordinator.fleet import AttemptFailed, AttemptFinished, AttemptHeard, FleetEvent, WorkerJoined
from coordinator.fleet_signing import SigningFleet
from kernel.errors import Code, FarmError
from kernel.spec import SourceKind, SourceSpec
from kernel.steps import Attempt, SignResult, SignTask, SourceTask, StepKind
from tests.fakes.fleet import FakeFleet

NOTHING = SignResult(attachments=())


def attempt(kind: StepKind = StepKind.SIGN) -> Attempt:
    source = SourceTask(source=SourceSpec(kind=SourceKind.DEBIAN, ref="6.1"))
    task = SignTask(build_id="b", images=()) if kind is StepKind.SIGN else source
    return Attempt(attempt_id="a", build_id="b", kind=kind, task=task, domain="t", jobs=1, timeout_seconds=60, heartbeat_seconds=0.01)


async def started(sign: Callable[[str], Awaitable[SignResult]], patience: float = 0.0) -> tuple[SigningFleet, FakeFleet]:
    below = FakeFleet()
    fleet = SigningFleet(below, sign, patience_seconds=patience)
    await fleet.start()
    return fleet, below


async def outcome(fleet: SigningFleet) -> tuple[FleetEvent, list[FleetEvent]]:
    """The first outcome, and what came before it."""
    before: list[FleetEvent] = []
    async with asyncio.timeout(10):
        async for event in fleet.events():
            if isinstance(event, (AttemptFinished, AttemptFailed)):
                return event, before
            before.append(event)
    raise AssertionError("the stream ended without an outcome")


async def test_a_sign_step_is_the_signers_and_gives_signs_of_life() -> None:
    async def sign(build_id: str) -> SignResult:
        assert build_id == "b"
        await asyncio.sleep(0.1)
        return NOTHING

    fleet, below = await started(sign)
    await fleet.launch(attempt(), "signer")
    event, before = await outcome(fleet)
    assert isinstance(event, AttemptFinished) and event.result == NOTHING
    assert sum(isinstance(each, AttemptHeard) for each in before) >= 2
    assert any(isinstance(each, WorkerJoined) for each in before)
    assert below.launched == []
    await fleet.stop()


async def test_other_steps_go_to_the_fleet_below() -> None:
    async def sign(build_id: str) -> SignResult:
        raise AssertionError("not a signature")

    fleet, below = await started(sign)
    await fleet.launch(attempt(StepKind.SOURCE), "w")
    assert [each.kind for each in below.launched] == [StepKind.SOURCE]
    await fleet.stop()


async def test_a_refusal_fails_at_once_with_the_signers_words() -> None:
    async def sign(build_id: str) -> SignResult:
        raise FarmError(Code.BAD_DIGEST, "the store holds another blob", where="kernel")

    fleet, _ = await started(sign, patience=60)
    await fleet.launch(attempt(), "signer")
    event, _ = await outcome(fleet)
    assert isinstance(event, AttemptFailed) and event.problem.code is Code.BAD_DIGEST
    await fleet.stop()


async def test_a_signer_that_comes_back_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.fleet_signing._RETRY_SECONDS", 0.01)
    asked = 0

    async def sign(build_id: str) -> SignResult:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise FarmError(Code.UNAVAILABLE, "no signer")
        return NOTHING

    fleet, _ = await started(sign, patience=10)
    await fleet.launch(attempt(), "signer")
    event, _ = await outcome(fleet)
    assert isinstance(event, AttemptFinished) and asked == 3
    await fleet.stop()


async def test_a_bug_is_an_outcome_too() -> None:
    async def sign(build_id: str) -> SignResult:
        raise ValueError("oops")

    fleet, _ = await started(sign)
    await fleet.launch(attempt(), "signer")
    event, _ = await outcome(fleet)
    assert isinstance(event, AttemptFailed) and event.problem.code is Code.INTERNAL
    await fleet.stop()


async def test_an_aborted_one_says_nothing_more() -> None:
    begun = asyncio.Event()

    async def sign(build_id: str) -> SignResult:
        begun.set()
        await asyncio.sleep(60)
        return NOTHING

    fleet, _ = await started(sign)
    await fleet.launch(attempt(), "signer")
    await begun.wait()
    await fleet.abort("a")
    await fleet.stop()
    events = [event async for event in fleet.events()]
    assert not any(isinstance(event, (AttemptFinished, AttemptFailed)) for event in events)
