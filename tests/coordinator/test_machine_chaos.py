"""Events in any order: what must hold of the machine's state does, and the journal gives it again."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordinator.events import BlobsLost, Cancelled, Retried, Started
from coordinator.state import BuildState
from kernel.errors import Code
from kernel.steps import CompileResult, PackageResult, PrepareResult
from tests.coordinator.driver import TTL, Driver, spec, state_of


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
