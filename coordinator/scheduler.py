"""Which ready step goes to which worker: a pure function of queue, workers and load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from coordinator.fleet import WorkerInfo
from kernel import tables
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
    return worker.can_build(item.arch, item.toolchain)


def refuse(workers: Sequence[WorkerInfo], arch: str, toolchain: str, *, build: bool = True, boot: bool = False) -> Problem | None:
    """Why no worker could ever do this, with everything that would make it possible, or None when one can. `boot`: boot it as well."""
    if not workers:
        return Problem(code=Code.NO_WORKER, message="the farm has no worker", hint="kernfarm workers; kernfarm up --workers 2")
    lacks: list[str] = []
    ways: list[str] = []
    if build and not any(worker.can_build(arch, toolchain) for worker in workers):
        lacks.append(f"no worker can build {arch} with {toolchain}")
        ways += _ways_to_build(workers, arch, toolchain)
    if boot and not any(arch in worker.boots for worker in workers):
        lacks.append(f"no worker can boot {arch}")
        ways.append(f"to boot it, on a worker: apt-get install {tables.arch(arch).qemu.package}; or build without a boot test (--no-boot)")
    if not lacks:
        return None
    return Problem(code=Code.NO_WORKER, message="; ".join(lacks), where="arch", hint="; ".join(ways))


def _ways_to_build(workers: Sequence[WorkerInfo], arch: str, toolchain: str) -> list[str]:
    """Packages that would make a worker able; other toolchains that are there; what the farm can do as it is."""
    packages = " ".join(tables.toolchain(toolchain).targets[arch].packages)
    ways = [f"on a worker: apt-get install {packages}, then start it anew; or start a worker that has them"]
    others = sorted(name for name in tables.names("toolchain") if any(worker.can_build(arch, name) for worker in workers))
    ways += [f"or build it with --toolchain {name}" for name in others]
    able = sorted({name for worker in workers for name in worker.builds})
    return [*ways, f"possible now: {', '.join(' with '.join(name.split('/')) for name in able) or 'nothing'}"]


def why_waiting(item: ReadyStep, workers: Sequence[WorkerInfo]) -> str:
    """For people: why a ready step does not run."""
    if item.kind is StepKind.SIGN:
        return "the signer is about to be asked"
    boot = item.kind is StepKind.BOOT
    problem = refuse(workers, item.arch, item.toolchain, build=not boot, boot=boot)
    return problem.message if problem is not None else "all workers that can do it are busy"
