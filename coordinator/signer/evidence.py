"""What the journal says was built: the signer's own replay, so that a question can't bring its own answer."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from coordinator import views
from coordinator.journal_reader import JournalReader
from coordinator.machine import Machine, Stale
from coordinator.state import Build, BuildState, Step, StepState, packaged
from kernel import digest as digests
from kernel.codec import canonical
from kernel.errors import Code, FarmError
from kernel.signing.provenance import BuildFacts, config_files
from kernel.steps import ConfigureResult, PackageResult, PrepareResult, SourceResult
from kernfarm import tags


class Evidence:
    """Follows the journal; each question reads what was committed since the last one. Not thread-safe: one question at a time."""

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader
        self._reset()

    def _reset(self) -> None:
        # How long a source stays fresh decides what is launched, not what a replay gives.
        self._machine = Machine(source_ttl_seconds=0.0)
        self._seq = 0

    def build(self, build_id: str) -> Build:
        """A build that may be signed. Raises FarmError: SIGNING_REFUSED with the reason; UNAVAILABLE, INTERNAL of the journal."""
        try:
            self._follow()
        except FarmError as error:
            self._reset()
            if error.problem.code is not Code.CONFLICT:
                raise
            self._follow()
        build = self._machine.builds.get(build_id)
        if build is None:
            raise refused("the journal knows no such build", build_id)
        _check(build)
        return build

    def _follow(self) -> None:
        for seq, event in self._reader.after(self._seq):
            try:
                self._machine.apply(event)
            except Stale as error:
                raise FarmError(Code.INTERNAL, f"the journal does not fit this version: {error}", where=self._reader.name) from error
            self._seq = seq


def _check(build: Build) -> None:
    if build.state not in (BuildState.RUNNING, BuildState.SUCCEEDED):
        raise refused(f"the build is {build.state}", build.build_id)
    if build.damaged:
        raise refused("blobs of the build's images are gone", build.build_id)
    for key in ("package", "boot"):
        step = build.steps.get(key)
        if step is not None and step.state is not StepState.SUCCEEDED:
            raise refused(f"its {key} step is {step.state}", build.build_id)


def made(build: Build) -> PackageResult:
    """What a build that may be signed has made."""
    result = packaged(build)
    if result is None or not result.images:
        raise refused("the build has made no image", build.build_id)
    return result


def release_of(build: Build) -> str:
    """The kernel's release of a build that has succeeded."""
    return cast(PrepareResult, build.steps["prepare"].result).release


def record_of(build: Build) -> bytes:
    """The result record of everything before signing, as canonical JSON: signing again gives the same."""
    steps = {key: step for key, step in build.steps.items() if key != "sign"}
    return canonical(views.result_record(replace(build, steps=steps, state=BuildState.SUCCEEDED, problem=None)))


def facts_of(build: Build, builder_id: str, record: str) -> BuildFacts:
    """What provenance says of a build. `record`: digest of its record. Raises FarmError(SIGNING_REFUSED) for facts that are none."""
    source = cast(SourceResult, build.steps["source"].result)
    configured = cast(ConfigureResult, build.steps["configure"].result)
    prepared = cast(PrepareResult, build.steps["prepare"].result)
    facts = replace(source.facts, patches=build.spec.patches)
    result = views.result_record(build)
    named = {
        "source": f"{digests.ALGORITHM}:{facts.sha256}",
        "tree": source.tree.tarball,
        "config": configured.config,
        **{f"patch {patch.name}": patch.digest for patch in facts.patches},
        **{f"fragment {each.name}": each.digest for each in config_files(build.spec)},
    }
    for what, digest in named.items():
        if not digests.is_digest(digest):
            raise refused(f"the journal has no digest of the {what}: {digest[:80]!r}", build.build_id)
    return BuildFacts(
        build_id=build.build_id,
        builder_id=builder_id,
        spec=build.spec,
        facts=facts,
        tarball=source.tree.tarball,
        version=source.tree.version,
        config=configured.config,
        release=prepared.release,
        compiler=prepared.compiler,
        reproduce=str(result["reproduce"]),
        inputs=tags.inputs_digest(result),
        record=record,
        booted="boot" in build.steps and build.steps["boot"].state is StepState.SUCCEEDED,
        started_at=build.submitted_at,
        finished_at=max(_ended(build.steps["package"]), _ended(build.steps.get("boot"))),
    )


def _ended(step: Step | None) -> float:
    return step.ended_at if step is not None else 0.0


def refused(reason: str, where: str) -> FarmError:
    """The signer's no."""
    return FarmError(Code.SIGNING_REFUSED, f"not signed: {reason}", where=where)
