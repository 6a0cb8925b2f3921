"""A fleet in memory: one worker, attempts end when the test says so; and a journal whose commits can be held up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from coordinator.events import Event
from coordinator.farm import Farm
from coordinator.fleet import AttemptFailed, AttemptFinished, FleetEvent, WorkerInfo, WorkerJoined, WorkerLost
from coordinator.journal import Journal
from coordinator.observer import Observer
from kernel.codec import canonical
from kernel.errors import Code, FarmError, Problem
from kernel.plan import Inventory
from kernel.spec import RequestSpec, SourceKind, SourceSpec
from kernel.steps import (
    Artifact,
    Attempt,
    BootResult,
    CompileResult,
    ConfigureResult,
    Image,
    LinkResult,
    PackageResult,
    PatchResult,
    PrepareResult,
    Result,
    SignResult,
    SourceFacts,
    SourceResult,
    StepKind,
    Tree,
    Usage,
)
from kernfarm.blobs import BlobStore
from kernfarm.settings import CoordinatorSettings

WORKER = WorkerInfo(
    worker_id="w",
    name="worker-1",
    arches=("x86_64",),
    toolchains=("gcc-12",),
    slots=1,
    jobs=1,
    memory_bytes=1,
    sandbox="none",
    cgroup="none",
    ccache="off",
    boots=("x86_64",),
    builds=("x86_64/gcc-12",),
)


class FakeFleet:
    """Implements coordinator.fleet.Fleet."""

    def __init__(self) -> None:
        self.launched: list[Attempt] = []
        self.aborted: list[str] = []
        self._events: asyncio.Queue[FleetEvent | None] = asyncio.Queue()

    async def start(self) -> None:
        await self._events.put(WorkerJoined(worker=WORKER))

    async def stop(self) -> None:
        await self._events.put(None)

    async def events(self) -> AsyncIterator[FleetEvent]:
        while (event := await self._events.get()) is not None:
            yield event

    async def launch(self, attempt: Attempt, worker_id: str) -> None:
        self.launched.append(attempt)

    async def doubt(self, worker_id: str, reason: str) -> None:
        return None

    async def abort(self, attempt_id: str) -> None:
        self.aborted.append(attempt_id)

    async def finish(self, attempt: Attempt, result: Result, usage: Usage | None = None) -> None:
        await self._events.put(AttemptFinished(attempt_id=attempt.attempt_id, result=result, usage=usage or Usage()))

    async def lose_worker(self) -> None:
        await self._events.put(WorkerLost(worker_id=WORKER.worker_id, reason="gone"))

    async def fail(self, attempt: Attempt, problem: Problem) -> None:
        await self._events.put(AttemptFailed(attempt_id=attempt.attempt_id, problem=problem, usage=Usage()))


class SlowJournal(Journal):
    """The next commit waits for `gate`, when there is one; while it `fails`, none succeeds."""

    gate: threading.Event | None = None
    fails = False

    def append(self, events: Sequence[Event]) -> None:
        gate, self.gate = self.gate, None
        if gate is not None:
            assert gate.wait(20)
        if self.fails:
            raise FarmError(Code.UNAVAILABLE, "the disk is full", where="journal")
        super().append(events)


class Bench:
    """A farm on a fake fleet, and what is needed to play it."""

    def __init__(self, home: Path, *, signer_socket: str = "", observer: Observer | None = None) -> None:
        self.settings = CoordinatorSettings(state_dir=home, blobs_url=f"file://{home}/blobs", signer_socket=signer_socket)
        self.journal = SlowJournal(f"sqlite:///{home}/journal.sqlite")
        self.fleet = FakeFleet()
        self.blobs = BlobStore.open(self.settings.blobs_url)
        self.farm = Farm(self.settings, journal=self.journal, fleet=self.fleet, blobs=self.blobs, clock=time.time, observer=observer)

    async def submit(self, name: str = "", request_id: str = "", *, boot: bool = False) -> str:
        source = SourceSpec(kind=SourceKind.DEBIAN, ref="6.1=1")
        spec = RequestSpec(source=source, arches=("x86_64",), local_version=f"-x{name}", skip_boot=not boot)
        return (await self.farm.submit(spec, tenant="t", request_id=request_id, clean=False))[0].build_id

    async def attempt(self, kind: StepKind, number: int = 1) -> Attempt:
        """The attempt of a kind of step that was launched as the `number`th of it."""
        deadline = time.monotonic() + 10
        while len(found := [attempt for attempt in self.fleet.launched if attempt.kind is kind]) < number:
            assert time.monotonic() < deadline, f"{kind} was not launched: {[each.kind for each in self.fleet.launched]}"
            await asyncio.sleep(0.01)
        return found[number - 1]

    async def play(self, kind: StepKind, number: int = 1, *, inventory: str = "", tree: str = "tree") -> None:
        """Wait for an attempt and let it succeed."""
        await self.fleet.finish(await self.attempt(kind, number), self.result(kind, inventory, tree))

    async def state(self, build_id: str, wanted: str) -> None:
        """Wait until a build is in that state."""
        deadline = time.monotonic() + 10
        while (view := await self.farm.build("t", build_id)).state != wanted:
            assert time.monotonic() < deadline, (view.state, view.problem)
            await asyncio.sleep(0.01)

    def stored(self, found: Inventory) -> str:
        return self.blobs.put_bytes(canonical(found))

    def result(self, kind: StepKind, inventory: str, tree: str) -> Result:
        blob = self.blobs.put_bytes
        match kind:
            case StepKind.SOURCE:
                facts = SourceFacts(url="u", resolved="r", sha256="s")
                return SourceResult(tree=Tree(tarball=blob(tree.encode()), version="6.1"), facts=facts)
            case StepKind.PATCH:
                return PatchResult(tree=Tree(tarball=blob(tree.encode()), upper=blob(b"upper"), version="6.1"))
            case StepKind.CONFIGURE:
                return ConfigureResult(config=blob(b"config"))
            case StepKind.PREPARE:
                return PrepareResult(layer=blob(b"layer"), inventory=inventory, release="r", compiler="gcc", compiled=1)
            case StepKind.COMPILE:
                return CompileResult(layer=blob(b"shard"), compiled=1)
            case StepKind.LINK:
                return LinkResult(layer=blob(b"linked"), compiled=1)
            case StepKind.PACKAGE:
                index = Artifact(name="index", digest=blob(b"index"), size=5)
                image = Image(name="kernel", index=index.digest, manifest="m", platform="linux/amd64", blobs=(index,))
                files = tuple(Artifact(name=name, digest=blob(name.encode()), size=len(name)) for name in ("kernel", "kernel.tar"))
                return PackageResult(artifacts=files, images=(image,))
            case StepKind.BOOT:
                return BootResult(release="r")
            case StepKind.SIGN:
                return SignResult(attachments=())
