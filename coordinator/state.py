"""The state of builds: mutable records that only the machine changes, and the tasks that follow from what is finished."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import cast

from kernel import tables
from kernel.errors import Problem
from kernel.plan import Shard
from kernel.spec import BuildSpec
from kernel.steps import (
    BootTask,
    CompileResult,
    CompileTask,
    ConfigureResult,
    ConfigureTask,
    LinkResult,
    LinkTask,
    PackageResult,
    PackageTask,
    PatchResult,
    PatchTask,
    PrepareResult,
    PrepareTask,
    Result,
    SignResult,
    SignTask,
    SourceResult,
    SourceTask,
    StepKind,
    Task,
    Tree,
    Usage,
)


class StepState(StrEnum):
    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BuildState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({BuildState.SUCCEEDED, BuildState.FAILED, BuildState.CANCELLED})


@dataclass(slots=True, kw_only=True)
class Try:
    """One attempt of a step. `problem` is set when it failed."""

    attempt_id: str
    worker_id: str
    worker_name: str
    started_at: float
    ended_at: float = 0.0
    usage: Usage = field(default_factory=Usage)
    problem: Problem | None = None


@dataclass(slots=True, kw_only=True)
class Step:
    """One step of a build. `work` is the digest of its task, once the task is known; `previous` what it made before a blob of that
    was lost, until it has been made again."""

    key: str
    kind: StepKind
    index: int = 0
    state: StepState = StepState.WAITING
    work: str = ""
    task: Task | None = None
    tries: list[Try] = field(default_factory=list)
    result: Result | None = None
    previous: Result | None = None
    reused: bool = False
    ready_at: float = 0.0
    ended_at: float = 0.0

    @property
    def attempt(self) -> Try | None:
        """The attempt that is current, while running."""
        return self.tries[-1] if self.state is StepState.RUNNING else None


@dataclass(slots=True, kw_only=True)
class Build:
    """One build, with its steps in order. `problem` says why it failed; `damaged`: finished, but blobs of its images are gone;
    `blobs_lost`: how often steps were done again because the store had lost what they made."""

    build_id: str
    spec: BuildSpec
    salt: str
    tenant: str
    submitted_at: float
    steps: dict[str, Step]
    state: BuildState = BuildState.QUEUED
    planned: bool = False
    shards: tuple[Shard, ...] = ()
    covered: int = 0
    link_only: int = 0
    problem: Problem | None = None
    ended_at: float = 0.0
    damaged: bool = False
    blobs_lost: int = 0

    @property
    def live(self) -> bool:
        return self.state not in FINAL


def new_build(build_id: str, spec: BuildSpec, salt: str, tenant: str, at: float, *, boot: bool = False, sign: bool = False) -> Build:
    """A build with the steps that are known before it is planned."""
    asked = {StepKind.COMPILE: False, StepKind.PATCH: bool(spec.patches), StepKind.BOOT: boot, StepKind.SIGN: sign}
    kinds = [kind for kind in StepKind if asked.get(kind, True)]
    steps = {kind.value: Step(key=kind.value, kind=kind) for kind in kinds}
    return Build(build_id=build_id, spec=spec, salt=salt, tenant=tenant, submitted_at=at, steps=steps)


def add_shards(build: Build) -> None:
    """Put the compile steps of a plan between prepare and link."""
    steps: dict[str, Step] = {}
    for key, step in build.steps.items():
        if step.kind is StepKind.COMPILE:
            continue
        if step.kind is StepKind.LINK:
            for index in range(len(build.shards)):
                name = f"compile-{index:03}"
                steps[name] = Step(key=name, kind=StepKind.COMPILE, index=index)
        steps[key] = step
    build.steps = steps


def task_of(build: Build, step: Step) -> Task | None:
    """The task of a step, once everything it is made from is finished."""
    spec = build.spec
    if step.kind is StepKind.SOURCE:
        return SourceTask(source=spec.source)
    source = cast(SourceResult | None, build.steps["source"].result)
    configured = cast(ConfigureResult | None, build.steps["configure"].result)
    prepared = cast(PrepareResult | None, build.steps["prepare"].result)
    if source is None:
        return None
    if step.kind is StepKind.PATCH:
        return PatchTask(tree=source.tree, patches=spec.patches)
    tree = final_tree(build)
    if tree is None:
        return None
    if step.kind is StepKind.CONFIGURE:
        return ConfigureTask(
            tree=tree,
            arch=spec.arch,
            flavour=spec.base_flavour,
            toolchain=spec.toolchain,
            config=spec.config,
            local_version=spec.local_version,
        )
    if configured is None:
        return None
    if step.kind is StepKind.PREPARE:
        return PrepareTask(tree=tree, arch=spec.arch, toolchain=spec.toolchain, config=configured.config, domain=spec.domain)
    if prepared is None or not build.planned:
        return None
    return _task_of_planned(build, step, source=source, tree=tree, config=configured.config, prepared=prepared)


def _task_of_planned(
    build: Build, step: Step, *, source: SourceResult, tree: Tree, config: str, prepared: PrepareResult
) -> CompileTask | LinkTask | PackageTask | BootTask | SignTask | None:
    """The task of a step that comes after the plan, once everything it is made from is finished."""
    spec = build.spec
    if step.kind is StepKind.COMPILE:
        shard = build.shards[step.index]
        return CompileTask(
            tree=tree,
            arch=spec.arch,
            toolchain=spec.toolchain,
            prepared=prepared.layer,
            domain=spec.domain,
            goals=shard.goals,
            objects=shard.objects,
            weight_seconds=shard.weight_seconds,
        )
    compiled = [cast(CompileResult | None, each.result) for each in build.steps.values() if each.kind is StepKind.COMPILE]
    layers = tuple(each.layer for each in compiled if each is not None)
    if len(layers) < len(build.shards):
        return None
    if step.kind is StepKind.LINK:
        return LinkTask(
            tree=tree,
            arch=spec.arch,
            toolchain=spec.toolchain,
            prepared=prepared.layer,
            inventory=prepared.inventory,
            shards=layers,
            domain=spec.domain,
        )
    linked = cast(LinkResult | None, build.steps["link"].result)
    if linked is None:
        return None
    if step.kind in (StepKind.BOOT, StepKind.SIGN):
        return _task_of_image(build, step, prepared.release)
    return PackageTask(
        tree=tree,
        arch=spec.arch,
        flavour=spec.flavour,
        toolchain=spec.toolchain,
        config=config,
        prepared=prepared.layer,
        linked=linked.layer,
        release=prepared.release,
        outputs=spec.outputs,
        facts=replace(source.facts, patches=spec.patches),
        compiler=prepared.compiler,
        vmlinux=tables.flavour(spec.base_flavour).vmlinux,
    )


def _task_of_image(build: Build, step: Step, release: str) -> BootTask | SignTask | None:
    made = packaged(build)
    if made is None:
        return None
    if step.kind is StepKind.BOOT:
        files = {artifact.name: artifact.digest for artifact in made.artifacts}
        return BootTask(arch=build.spec.arch, kernel=files["kernel"], modules=files["kernel.tar"], release=release)
    boot = build.steps.get("boot")
    # An image that does not boot is not signed.
    if boot is not None and boot.result is None:
        return None
    return SignTask(build_id=build.build_id, images=made.images)


def final_tree(build: Build) -> Tree | None:
    """The tree that is built: as fetched, or patched where the request has patches."""
    patch = build.steps.get("patch")
    if patch is not None:
        patched = cast(PatchResult | None, patch.result)
        return patched.tree if patched else None
    source = cast(SourceResult | None, build.steps["source"].result)
    return source.tree if source else None


def packaged(build: Build) -> PackageResult | None:
    """What a finished build made."""
    return cast(PackageResult | None, build.steps["package"].result)


def signed(build: Build) -> SignResult | None:
    """What signing a build made; None for a build that is not signed (yet)."""
    step = build.steps.get("sign")
    return cast(SignResult | None, step.result) if step is not None else None


def blobs_of(build: Build) -> set[str]:
    """Digests that the store must have for a finished build to be fetched whole."""
    made, attached = packaged(build), signed(build)
    blobs = [blob for image in made.images for blob in image.blobs] if made else []
    for attachment in attached.attachments if attached else ():
        blobs += [attachment.manifest, *attachment.blobs]
    return {blob.digest for blob in blobs}
