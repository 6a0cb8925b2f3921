"""Which ready step goes to which worker: a pure function of queue, workers and load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from coordinator.fleet import WorkerInfo
from kernel.errors import Code, Problem
from kernel.steps import ORDER, StepKind

# Signing is no worker's: the coordinator asks the signer itself, and nothing of it competes for slots.
SIGNER = "signer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyStep:
    """A step that could be launched. `avoid`: workers on which it failed before; `weight_seconds`: its expected cost."""

    build_id: str
    step: str
    kind: StepKind
    arch: str
    toolchain: str
    submitted_at: float
    weight_seconds: float = 0.0
    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    build_id: str
    step: str
    worker_id: str


def assign(ready: Iterable[ReadyStep], workers: Sequence[WorkerInfo], busy: Mapping[str, int]) -> list[Assignment]:
    """Older builds first; of one build, later kinds first (finish what was begun), longer shards first; onto the least loaded worker
    that can serve it, preferably none where it failed. The order of the arguments' items makes no difference."""
    used = dict(busy)
    assignments: list[Assignment] = []
    queue = sorted(ready, key=lambda item: (item.submitted_at, item.build_id, -ORDER[item.kind], -item.weight_seconds, item.step))
    for item in queue:
        if item.kind is StepKind.SIGN:
            assignments.append(Assignment(build_id=item.build_id, step=item.step, worker_id=SIGNER))
            continue
        able = [worker for worker in workers if _serves(worker, item) and used.get(worker.worker_id, 0) < worker.slots]
        if not able:
            continue
        load = {worker.worker_id: used.get(worker.worker_id, 0) / worker.slots for worker in able}
        chosen = min(able, key=lambda worker: (worker.worker_id in item.avoid, load[worker.worker_id], worker.name, worker.worker_id))
        used[chosen.worker_id] = used.get(chosen.worker_id, 0) + 1
        assignments.append(Assignment(build_id=item.build_id, step=item.step, worker_id=chosen.worker_id))
    return assignments


def _serves(worker: WorkerInfo, item: ReadyStep) -> bool:
    if item.kind is StepKind.BOOT:
        return item.arch in worker.boots
    return item.arch in worker.arches and item.toolchain in worker.toolchains


def refuse(workers: Sequence[WorkerInfo], arch: str, toolchain: str, *, boot: bool = False) -> Problem | None:
    """Why no worker could ever serve this, or None when one can. `boot`: boot it as well."""
    if boot and workers and not any(arch in worker.boots for worker in workers):
        return Problem(
            code=Code.NO_WORKER,
            message=f"no worker can boot {arch}",
            where="arch",
            hint="install QEMU for it on a worker (kernfarm doctor), or build without a boot test (--no-boot)",
        )
    if any(arch in worker.arches and toolchain in worker.toolchains for worker in workers):
        return None
    if not workers:
        return Problem(code=Code.NO_WORKER, message="the farm has no worker", hint="kernfarm workers; kernfarm up --workers 2")
    able = ", ".join(sorted({f"{a} with {t}" for worker in workers for a in worker.arches for t in worker.toolchains})) or "nothing"
    return Problem(code=Code.NO_WORKER, message=f"no worker can build {arch} with {toolchain}", where="arch", hint=f"possible: {able}")


def why_waiting(item: ReadyStep, workers: Sequence[WorkerInfo]) -> str:
    """For people: why a ready step does not run."""
    if item.kind is StepKind.SIGN:
        return "the signer is about to be asked"
    problem = refuse(workers, item.arch, item.toolchain, boot=item.kind is StepKind.BOOT)
    return problem.message if problem is not None else "all workers that can do it are busy"
