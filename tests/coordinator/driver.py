"""The machine without a farm around it: a driver that plays the shell, and results that follow from the work."""

from __future__ import annotations

import json
from collections.abc import Sequence

from coordinator.events import EVENTS, Event, Failed, Launched, NewBuild, Planned, Reused, Submitted, Succeeded
from coordinator.instructions import Abort, Instruction, MakePlan
from coordinator.machine import Machine
from kernel import digest
from kernel.codec import from_tagged, tagged
from kernel.errors import Code, Problem
from kernel.plan import Shard
from kernel.spec import BuildSpec, ConfigSpec, NamedBlob, SourceKind, SourceSpec
from kernel.steps import (
    Artifact,
    Attachment,
    BootResult,
    CompileResult,
    ConfigureResult,
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

TTL = 100.0


def spec(ref: str = "6.1", patch: str = "", patches: tuple[str, ...] = ()) -> BuildSpec:
    return BuildSpec(
        source=SourceSpec(kind=SourceKind.DEBIAN, ref=ref),
        arch="x86_64",
        flavour="plain",
        config=ConfigSpec(base=patch or "tinyconfig"),
        patches=tuple(NamedBlob(name=name, digest=blob(name)) for name in patches),
        toolchain="gcc-12",
        outputs=("kernel",),
        local_version="-x",
        domain="t",
    )


def blob(text: str) -> str:
    return digest.of_bytes(text.encode())


def result_of(kind: StepKind, work: str) -> Result:
    """A result that follows from the work alone, as real ones do."""
    match kind:
        case StepKind.SOURCE:
            facts = SourceFacts(url="u", resolved="r", sha256="s")
            return SourceResult(tree=Tree(tarball=blob("tree"), version="6.1"), facts=facts)
        case StepKind.PATCH:
            return PatchResult(tree=Tree(tarball=blob("tree"), upper=blob(f"upper {work}"), version="6.1"))
        case StepKind.CONFIGURE:
            return ConfigureResult(config=blob(f"config {work}"))
        case StepKind.PREPARE:
            return PrepareResult(
                layer=blob(f"layer {work}"), inventory=blob(f"inventory {work}"), release="6.1-x", compiler="gcc", compiled=3
            )
        case StepKind.COMPILE:
            return CompileResult(layer=blob(f"shard {work}"), compiled=3)
        case StepKind.LINK:
            return LinkResult(layer=blob(f"linked {work}"), compiled=1)
        case StepKind.PACKAGE:
            files = tuple(Artifact(name=name, digest=blob(f"{name} {work}"), size=1) for name in ("kernel", "kernel.tar"))
            return PackageResult(artifacts=files, images=())
        case StepKind.BOOT:
            return BootResult(release="6.1-x", loaded=("loop",))
        case StepKind.SIGN:
            manifest = Artifact(name="manifest", digest=blob(f"signature {work}"), size=1)
            signature = Attachment(tag="s", subject=blob("index"), media_type="m", artifact_type="a", manifest=manifest, blobs=())
            return SignResult(attachments=(signature,))


SHARDS = (Shard(goals=("mm/",), objects=2, weight_seconds=3.0), Shard(goals=("fs/",), objects=1, weight_seconds=2.0))


class Driver:
    """Plays the shell: applies events, keeps the journal, carries out what the machine asks."""

    def __init__(self) -> None:
        self.machine = Machine(source_ttl_seconds=TTL)
        self.journal: list[Event] = []
        self.now = 1000.0
        self.count = 0
        self.aborted: list[str] = []

    def apply(self, event: Event) -> Sequence[Instruction]:
        done = self.machine.apply(event)
        self.journal.append(event)
        for instruction in done:
            match instruction:
                case MakePlan(build_id=build_id):
                    self.apply(Planned(at=self.now, build_id=build_id, shards=SHARDS, covered=3, link_only=1))
                case Abort(attempt_id=attempt_id):
                    self.aborted.append(attempt_id)
        self.machine.validate()
        return done

    def submit(self, what: BuildSpec, *, clean: bool = False, boot: bool = False, sign: bool = False) -> str:
        self.count += 1
        build_id = f"b{self.count}"
        new = NewBuild(build_id=build_id, spec=what, salt=build_id if clean else "", boot=boot, sign=sign)
        self.apply(Submitted(at=self.now, tenant="t", request_id="", fingerprint="f", answered=(build_id,), builds=(new,)))
        return build_id

    def launch(self) -> list[str]:
        self.reuse()
        launched = []
        for build, step in self.machine.ready():
            self.count += 1
            attempt_id = f"a{self.count}"
            self.apply(Launched(at=self.now, build_id=build.build_id, step=step.key, attempt_id=attempt_id, worker_id="w", worker_name="w"))
            launched.append(attempt_id)
        return launched

    def reuse(self) -> None:
        while found := self.machine.reusable(self.now):
            for build_id, step in found:
                self.apply(Reused(at=self.now, build_id=build_id, step=step))

    def succeed(self, attempt_id: str) -> None:
        _, step = self.machine.running()[attempt_id]
        self.apply(Succeeded(at=self.now, attempt_id=attempt_id, result=result_of(step.kind, step.work), usage=Usage(wall_seconds=1)))

    def fail(self, attempt_id: str, code: Code, where: str = "") -> None:
        self.apply(Failed(at=self.now, attempt_id=attempt_id, problem=Problem(code=code, message="m", where=where), usage=Usage()))

    def finish(self) -> int:
        """Everything that can be done; returns how many attempts it took."""
        attempts = 0
        while launched := self.launch():
            attempts += len(launched)
            for attempt_id in launched:
                self.succeed(attempt_id)
        return attempts

    def replayed(self) -> Machine:
        """The state after a restart: the journal through its stored form."""
        machine = Machine(source_ttl_seconds=TTL)
        for event in self.journal:
            machine.apply(from_tagged(EVENTS, json.loads(json.dumps(tagged(event)))))
        return machine


def state_of(machine: Machine) -> dict[str, object]:
    return {
        build.build_id: (build.state, build.problem, {key: (step.state, step.work, step.result) for key, step in build.steps.items()})
        for build in machine.builds.values()
    }
