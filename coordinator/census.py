"""How many there are of everything at one moment: a pure look at the machine and the workers, for gauges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.fleet import WorkerInfo
from coordinator.machine import Machine
from coordinator.state import BuildState
from kernel.steps import StepKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """`builds` that are not finished, by state and architecture; `queued` steps that are ready, and the seconds that the `oldest` of
    them waits, by architecture; attempts `running` by kind; `slots` of all workers and how many are `busy`; workers that can `build`
    and `boot` each architecture. What is not there counts as none."""

    builds: Mapping[tuple[BuildState, str], int] = field(default_factory=dict)
    queued: Mapping[str, int] = field(default_factory=dict)
    oldest: Mapping[str, float] = field(default_factory=dict)
    running: Mapping[StepKind, int] = field(default_factory=dict)
    workers: int = 0
    slots: int = 0
    busy: int = 0
    build: Mapping[str, int] = field(default_factory=dict)
    boot: Mapping[str, int] = field(default_factory=dict)


def take(machine: Machine, workers: Sequence[WorkerInfo], now: float) -> Census:
    """The numbers at `now` (unix seconds). Signing steps are in nobody's queue and on no slot: no worker runs them."""
    ready = [(build, step) for build, step in machine.ready() if step.kind is not StepKind.SIGN]
    running = [step for _, step in machine.running().values()]
    oldest: dict[str, float] = {}
    for build, step in ready:
        oldest[build.spec.arch] = max(oldest.get(build.spec.arch, 0.0), now - step.ready_at)
    return Census(
        builds=Counter((build.state, build.spec.arch) for build in machine.live()),
        queued=Counter(build.spec.arch for build, _ in ready),
        oldest=oldest,
        running=Counter(step.kind for step in running),
        workers=len(workers),
        slots=sum(worker.slots for worker in workers),
        busy=sum(1 for step in running if step.kind is not StepKind.SIGN),
        build=Counter(arch for worker in workers for arch in worker.arches),
        boot=Counter(arch for worker in workers for arch in worker.boots),
    )
