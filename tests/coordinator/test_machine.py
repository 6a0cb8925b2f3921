from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordinator.events import (
    EVENTS,
    BlobsLost,
    Cancelled,
    Event,
    Failed,
    Launched,
    NewBuild,
    Planned,
    Retried,
    Reused,
    Started,
    Submitted,
    Succeeded,
)
from coordinator.machine import MAX_FAILURES, Abort, Instruction, Machine, MakePlan, Stale
from coordinator.state import BuildState, StepState
from kernel import digest
from kernel.codec import from_tagged, tagged
from kernel.errors import Code, FarmError, Problem
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
    SignTask,
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


def test_a_build_goes_through_its_steps() -> None:
    driver = Driver()
    build_id = driver.submit(spec())
    assert driver.finish() == 7
    build = driver.machine.build(build_id)
    assert build.state is BuildState.SUCCEEDED
    assert list(build.steps) == ["source", "configure", "prepare", "compile-000", "compile-001", "link", "package"]


def test_an_image_is_booted_and_then_signed() -> None:
    driver = Driver()
    build_id = driver.submit(spec(), boot=True, sign=True)
    assert driver.finish() == 9
    build = driver.machine.build(build_id)
    assert list(build.steps)[-3:] == ["package", "boot", "sign"]
    package, task = build.steps["package"].result, build.steps["sign"].task
    assert isinstance(package, PackageResult) and isinstance(task, SignTask)
    assert task.images == package.images


def test_an_image_that_does_not_boot_is_not_signed() -> None:
    driver = Driver()
    build_id = driver.submit(spec(), boot=True, sign=True)
    while next(step.key for _, step in driver.machine.ready()) != "package":
        for attempt in driver.launch():
            driver.succeed(attempt)
    (package,) = driver.launch()
    driver.succeed(package)
    (boot,) = driver.launch()
    assert driver.machine.running()[boot][1].kind is StepKind.BOOT
    driver.fail(boot, Code.KERNEL_DOES_NOT_BOOT)
    build = driver.machine.build(build_id)
    assert build.state is BuildState.FAILED
    assert build.steps["sign"].state is StepState.CANCELLED
    assert driver.launch() == []


def test_a_signature_is_of_one_build_and_never_reused() -> None:
    driver = Driver()
    driver.submit(spec(), sign=True)
    driver.finish()
    again = driver.submit(spec(), sign=True)
    assert driver.finish() == 1, "all but the signature is known"
    assert not driver.machine.build(again).steps["sign"].reused


def test_a_build_that_was_not_signed_answers_no_request_that_wants_it() -> None:
    driver = Driver()
    plain = driver.submit(spec())
    driver.finish()
    assert driver.machine.match("t", spec(), driver.now) == plain
    assert driver.machine.match("t", spec(), driver.now, sign=True) is None
    assert driver.machine.match("t", spec(), driver.now, boot=True) is None
    whole = driver.submit(spec(), boot=True, sign=True)
    driver.finish()
    assert driver.machine.match("t", spec(), driver.now, boot=True, sign=True) == whole
    assert driver.machine.match("t", spec(), driver.now) == whole


def test_the_same_work_is_done_once_for_two_builds() -> None:
    driver = Driver()
    one, two = driver.submit(spec()), driver.submit(spec(patch="defconfig"))
    (attempt,) = driver.launch()
    driver.succeed(attempt)
    driver.reuse()
    assert driver.machine.build(one).steps["source"].state is StepState.SUCCEEDED
    assert driver.machine.build(two).steps["source"].reused
    assert driver.finish() == 12


def test_builds_with_other_patches_share_the_fetch() -> None:
    driver = Driver()
    builds = [driver.submit(spec(patches=patches)) for patches in (("a.patch",), ("a.patch", "b.patch"), ())]
    (fetch,) = driver.launch()
    driver.succeed(fetch)
    driver.finish()
    one, two, plain = (driver.machine.build(build_id) for build_id in builds)
    assert (one.steps["source"].reused, two.steps["source"].reused, plain.steps["source"].reused) == (False, True, True)
    assert list(one.steps)[:3] == ["source", "patch", "configure"]
    assert "patch" not in plain.steps
    upper = {str(build.steps["configure"].task) for build in (one, two, plain)}
    assert len(upper) == 3, "each is configured on its own tree"


def test_an_unchanged_build_needs_no_attempt_and_a_clean_one_all() -> None:
    driver = Driver()
    driver.submit(spec())
    driver.finish()
    again = driver.submit(spec())
    assert driver.finish() == 0
    assert driver.machine.build(again).state is BuildState.SUCCEEDED
    driver.submit(spec(), clean=True)
    assert driver.finish() == 7


def test_a_mutable_source_is_fetched_again_after_a_while_but_nothing_is_compiled() -> None:
    driver = Driver()
    first = driver.submit(spec())
    driver.finish()
    assert driver.machine.match("t", spec(), driver.now) == first
    driver.now += TTL
    assert driver.machine.match("t", spec(), driver.now) is None
    driver.submit(spec())
    assert driver.finish() == 1


def test_late_double_and_unknown_results_are_refused() -> None:
    driver = Driver()
    build_id = driver.submit(spec())
    (old,) = driver.launch()
    driver.fail(old, Code.WORKER_LOST)
    (new,) = driver.launch()
    before = state_of(driver.machine)
    with pytest.raises(Stale):
        driver.machine.apply(Succeeded(at=1, attempt_id=old, result=result_of(StepKind.SOURCE, ""), usage=Usage()))
    assert state_of(driver.machine) == before
    driver.succeed(new)
    with pytest.raises(Stale):
        driver.machine.apply(Succeeded(at=1, attempt_id=new, result=result_of(StepKind.SOURCE, ""), usage=Usage()))
    with pytest.raises(Stale):
        driver.machine.apply(Failed(at=1, attempt_id="never", problem=Problem(code=Code.TIMEOUT, message=""), usage=Usage()))
    assert len(driver.machine.build(build_id).steps["source"].tries) == 2


def test_the_kernels_fault_ends_the_build_and_aborts_the_rest() -> None:
    driver = Driver()
    build_id = driver.submit(spec())
    for _ in range(3):
        for attempt in driver.launch():
            driver.succeed(attempt)
    one, two = driver.launch()
    driver.fail(one, Code.KERNEL_DOES_NOT_BUILD, "mm/a.c:1")
    build = driver.machine.build(build_id)
    assert build.state is BuildState.FAILED
    assert build.problem is not None
    assert build.problem.where == "mm/a.c:1"
    assert driver.aborted == [two]
    driver.apply(Retried(at=driver.now, build_id=build_id))
    assert driver.finish() == 4
    assert build.state is BuildState.SUCCEEDED


def test_the_farms_fault_is_tried_again_a_bounded_number_of_times() -> None:
    driver = Driver()
    build_id = driver.submit(spec())
    for _ in range(MAX_FAILURES):
        (attempt,) = driver.launch()
        driver.fail(attempt, Code.DISK_FULL)
    assert driver.machine.build(build_id).state is BuildState.FAILED
    assert driver.launch() == []


def test_a_lost_blob_is_made_again_by_the_step_that_made_it() -> None:
    driver = Driver()
    build_id = driver.submit(spec())
    for _ in range(3):
        for attempt in driver.launch():
            driver.succeed(attempt)
    prepared = driver.machine.build(build_id).steps["prepare"].result
    assert isinstance(prepared, PrepareResult)
    one, two = driver.launch()
    driver.succeed(two)
    driver.fail(one, Code.BLOB_LOST, prepared.layer)
    assert driver.machine.build(build_id).steps["prepare"].state is StepState.READY
    assert driver.machine.build(build_id).steps["source"].state is StepState.SUCCEEDED
    assert driver.finish() >= 4
    assert driver.machine.build(build_id).state is BuildState.SUCCEEDED


def test_a_lost_blob_ends_what_runs_on_it() -> None:
    driver = Driver()
    build_id = driver.submit(spec())
    for _ in range(3):
        for attempt in driver.launch():
            driver.succeed(attempt)
    prepared = driver.machine.build(build_id).steps["prepare"].result
    assert isinstance(prepared, PrepareResult)
    one, two = driver.launch()
    driver.fail(one, Code.BLOB_LOST, prepared.layer)
    assert driver.aborted == [two], "its slot would be taken for free while it still runs"
    driver.finish()
    assert driver.machine.build(build_id).state is BuildState.SUCCEEDED


def test_a_finished_build_whose_blobs_are_gone_answers_nothing_any_more() -> None:
    driver = Driver()
    first = driver.submit(spec())
    driver.finish()
    package = driver.machine.build(first).steps["package"].result
    assert isinstance(package, PackageResult)
    lost = package.artifacts[0].digest
    driver.apply(BlobsLost(at=driver.now, build_id=first, digests=(lost,)))
    assert driver.machine.match("t", spec(), driver.now) is None
    driver.submit(spec())
    assert driver.finish() == 1, "only the step that made it is done again"
    with pytest.raises(Stale):
        driver.machine.apply(BlobsLost(at=1, build_id=first, digests=(lost,)))


def test_a_restart_redoes_only_what_was_in_flight() -> None:
    driver = Driver()
    build_id = driver.submit(spec())
    for _ in range(3):
        for attempt in driver.launch():
            driver.succeed(attempt)
    one, two = driver.launch()
    driver.succeed(one)
    driver.machine = driver.replayed()
    driver.apply(Started(at=driver.now))
    with pytest.raises(Stale):
        driver.machine.apply(Succeeded(at=1, attempt_id=two, result=result_of(StepKind.COMPILE, ""), usage=Usage()))
    assert driver.finish() == 3
    assert driver.machine.build(build_id).state is BuildState.SUCCEEDED


def test_an_idempotency_key_answers_once_and_not_for_something_else() -> None:
    driver = Driver()
    new = NewBuild(build_id="b", spec=spec())
    driver.apply(Submitted(at=1, tenant="t", request_id="key", fingerprint="f", answered=("b",), builds=(new,)))
    assert driver.machine.answered("t", "key", "f") == ("b",)
    assert driver.machine.answered("u", "key", "f") is None
    with pytest.raises(FarmError) as caught:
        driver.machine.answered("t", "key", "other")
    assert caught.value.problem.code is Code.CONFLICT


class Chaos(RuleBasedStateMachine):
    """Anything in any order: the invariants hold, and the journal gives the same state again."""

    @initialize()
    def begin(self) -> None:
        self.driver = Driver()

    @rule(patch=st.sampled_from(["tinyconfig", "defconfig"]), clean=st.booleans(), boot=st.booleans(), sign=st.booleans())
    def submit(self, patch: str, clean: bool, boot: bool, sign: bool) -> None:
        if len(self.driver.machine.builds) < 5:
            self.driver.submit(spec(patch=patch), clean=clean, boot=boot, sign=sign)

    @rule()
    def launch(self) -> None:
        self.driver.launch()

    @precondition(lambda self: self.driver.machine.running())
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        self.driver.succeed(data.draw(st.sampled_from(sorted(self.driver.machine.running()))))

    @precondition(lambda self: self.driver.machine.running())
    @rule(data=st.data(), code=st.sampled_from([Code.WORKER_LOST, Code.KERNEL_DOES_NOT_BUILD, Code.DISK_FULL, Code.BLOB_LOST]))
    def fail(self, data: st.DataObject, code: Code) -> None:
        attempt = data.draw(st.sampled_from(sorted(self.driver.machine.running())))
        build, _ = self.driver.machine.running()[attempt]
        known = [step.result for step in build.steps.values() if isinstance(step.result, (PrepareResult, CompileResult))]
        lost = data.draw(st.sampled_from([each.layer for each in known])) if known and code is Code.BLOB_LOST else ""
        self.driver.fail(attempt, code, lost)

    @precondition(lambda self: self.driver.machine.builds)
    @rule(data=st.data())
    def cancel_or_retry(self, data: st.DataObject) -> None:
        build = self.driver.machine.builds[data.draw(st.sampled_from(sorted(self.driver.machine.builds)))]
        if build.live:
            self.driver.apply(Cancelled(at=self.driver.now, build_id=build.build_id))
        elif build.state is not BuildState.SUCCEEDED:
            self.driver.apply(Retried(at=self.driver.now, build_id=build.build_id))

    @precondition(lambda self: any(build.state is BuildState.SUCCEEDED for build in self.driver.machine.builds.values()))
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        whole = [build for build in self.driver.machine.builds.values() if build.state is BuildState.SUCCEEDED and not build.damaged]
        if whole:
            build = data.draw(st.sampled_from(whole))
            package = build.steps["package"].result
            assert isinstance(package, PackageResult)
            lost = tuple(each.digest for each in package.artifacts)
            self.driver.apply(BlobsLost(at=self.driver.now, build_id=build.build_id, digests=lost))

    @rule(seconds=st.floats(0, TTL))
    def wait(self, seconds: float) -> None:
        self.driver.now += seconds

    @rule()
    def restart(self) -> None:
        self.driver.machine = self.driver.replayed()
        self.driver.apply(Started(at=self.driver.now))

    @invariant()
    def sound(self) -> None:
        if hasattr(self, "driver"):
            self.driver.machine.validate()
            assert state_of(self.driver.replayed()) == state_of(self.driver.machine)

    def teardown(self) -> None:
        if hasattr(self, "driver"):
            for attempt in list(self.driver.machine.running()):
                self.driver.succeed(attempt)
            self.driver.finish()
            assert all(not build.live for build in self.driver.machine.builds.values())


Chaos.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestChaos = Chaos.TestCase
