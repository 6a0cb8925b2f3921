"""From the machine's records to what users see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from coordinator import scheduler
from coordinator.api import BuildView, StepView
from coordinator.fleet import WorkerInfo
from coordinator.scheduler import ReadyStep
from coordinator.state import Build, Step, StepState, final_tree, packaged, signed
from kernel import result
from kernel.steps import CompileResult, CompileTask, ConfigureResult, LinkResult, PrepareResult, Progress, SourceResult, Usage


def ready_step(build: Build, step: Step) -> ReadyStep:
    """What the scheduler has to know of a ready step."""
    return ReadyStep(
        build_id=build.build_id,
        step=step.key,
        kind=step.kind,
        arch=build.spec.arch,
        toolchain=build.spec.toolchain,
        submitted_at=build.submitted_at,
        weight_seconds=step.task.weight_seconds if isinstance(step.task, CompileTask) else 0.0,
        avoid=frozenset(each.worker_id for each in step.tries if each.problem is not None),
    )


def build_view(build: Build, progress: Mapping[str, Progress], workers: Sequence[WorkerInfo]) -> BuildView:
    """A build as it is now."""
    steps = tuple(_step_view(build, step, progress, workers) for step in build.steps.values())
    made = packaged(build)
    attached = signed(build)
    configured = cast(ConfigureResult | None, build.steps["configure"].result)
    prepared = cast(PrepareResult | None, build.steps["prepare"].result)
    return BuildView(
        build_id=build.build_id,
        state=build.state,
        source=str(build.spec.source),
        arch=build.spec.arch,
        flavour=build.spec.flavour,
        toolchain=build.spec.toolchain,
        release=prepared.release if prepared else "",
        steps=steps,
        problem=build.problem,
        created_at=build.submitted_at,
        ended_at=build.ended_at,
        artifacts=made.artifacts if made else (),
        images=made.images if made else (),
        objects_done=sum(step.objects_done for step in steps if step.kind == "compile"),
        objects_planned=build.covered,
        warnings=configured.warnings if configured else (),
        attachments=attached.attachments if attached else (),
    )


def _step_view(build: Build, step: Step, progress: Mapping[str, Progress], workers: Sequence[WorkerInfo]) -> StepView:
    last = step.tries[-1] if step.tries else None
    now = progress.get(last.attempt_id, Progress()) if last and step.state is StepState.RUNNING else Progress()
    compiled = step.result.compiled if isinstance(step.result, (PrepareResult, CompileResult, LinkResult)) else now.objects
    waits = scheduler.why_waiting(ready_step(build, step), workers) if step.state is StepState.READY else ""
    planned = step.task.objects if isinstance(step.task, CompileTask) else 0
    return StepView(
        key=step.key,
        kind=step.kind,
        state=step.state,
        worker=last.worker_name if last else "",
        attempts=len(step.tries),
        objects_done=compiled,
        objects_planned=planned,
        doing=now.doing,
        reused=step.reused,
        started_at=last.started_at if last else 0.0,
        ended_at=step.ended_at,
        why_waiting=waits,
        problem=last.problem if last else None,
    )


def result_record(build: Build) -> dict[str, Any]:
    """The result record of a build, finished or not."""
    configured = cast(ConfigureResult | None, build.steps["configure"].result)
    return result.record(
        build_id=build.build_id,
        state=build.state,
        spec=build.spec,
        steps=[_step_record(step) for step in build.steps.values()],
        source=cast(SourceResult | None, build.steps["source"].result),
        tree=final_tree(build),
        config=configured.config if configured else "",
        prepared=cast(PrepareResult | None, build.steps["prepare"].result),
        packaged=packaged(build),
        problem=build.problem,
        warnings=configured.warnings if configured else (),
    )


def results(build: Build) -> Iterator[str]:
    """Digests of the blobs that are a build's results: what its team may download. Only from fields that workers and the signer fill,
    because a user could write another team's digest into a name."""
    made = packaged(build)
    if made is not None:
        for image in made.images:
            yield from (image.index, image.manifest, *(blob.digest for blob in image.blobs))
        yield from (artifact.digest for artifact in made.artifacts)
    attached = signed(build)
    for attachment in attached.attachments if attached else ():
        yield from (attachment.manifest.digest, *(blob.digest for blob in attachment.blobs))
    if attached is not None and attached.record:
        yield attached.record
    configured = cast(ConfigureResult | None, build.steps["configure"].result)
    if configured is not None:
        yield configured.config
    tree = final_tree(build)
    if tree is not None:
        yield from (blob for blob in (tree.tarball, tree.upper) if blob)


def _step_record(step: Step) -> result.StepRecord:
    last = step.tries[-1] if step.tries else None
    compiled = step.result.compiled if isinstance(step.result, (PrepareResult, CompileResult, LinkResult)) else 0
    return result.StepRecord(
        key=step.key,
        state=step.state,
        worker=last.worker_name if last else "",
        attempts=len(step.tries),
        reused=step.reused,
        started_at=last.started_at if last else 0.0,
        ended_at=step.ended_at,
        usage=last.usage if last else Usage(),
        compiled=compiled,
        unplanned=step.result.unplanned if isinstance(step.result, LinkResult) else (),
    )
