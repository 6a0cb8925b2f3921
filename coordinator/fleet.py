"""The port to the machines: what the coordinator asks of a fleet, and what a fleet tells it. `fleet_ray` is the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from kernel import tables
from kernel.errors import Problem
from kernel.steps import Attempt, Progress, Result, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """One worker: a node that offers `slots` attempts at a time, each with make -j`jobs`. `builds`: what it can build, as
    kernel.tables.build_name says it; `arches` and `toolchains` in that, for people;
    `boots` are those whose kernels it can boot; `sandbox` and `cgroup` say how attempts are confined; `memory_bytes` is the node's."""

    worker_id: str
    name: str
    arches: tuple[str, ...]
    toolchains: tuple[str, ...]
    slots: int
    jobs: int
    memory_bytes: int
    sandbox: str
    cgroup: str
    ccache: str
    boots: tuple[str, ...] = ()
    builds: tuple[str, ...] = ()

    def can_build(self, arch: str, toolchain: str) -> bool:
        return tables.build_name(arch, toolchain) in self.builds


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerJoined:
    worker: WorkerInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    worker_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptHeard:
    """A sign of life of an attempt, with its progress; sent at least every Attempt.heartbeat_seconds."""

    attempt_id: str
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLog:
    """Output of an attempt's commands, in order, as raw bytes."""

    attempt_id: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFinished:
    attempt_id: str
    result: Result
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    attempt_id: str
    problem: Problem
    usage: Usage


FleetEvent = WorkerJoined | WorkerLost | AttemptHeard | AttemptLog | AttemptFinished | AttemptFailed


class Fleet(Protocol):
    """Runs attempts on workers. Never retries, never chooses a worker, may deliver late or twice: the caller fences by attempt id."""

    async def start(self) -> None:
        """Connect. Raises FarmError(UNAVAILABLE) when the cluster cannot be reached in time."""

    async def stop(self) -> None:
        """Abort what runs and disconnect. Idempotent."""

    def events(self) -> AsyncIterator[FleetEvent]:
        """Everything that happens, in order for each attempt, until stop()."""

    async def launch(self, attempt: Attempt, worker_id: str) -> None:
        """Start an attempt on that worker. Its outcome comes as an event, a failure to start too (WORKER_LOST)."""

    async def doubt(self, worker_id: str, reason: str) -> None:
        """A worker was silent: WorkerLost at once, WorkerJoined again only when it has answered and its slots are free."""

    async def abort(self, attempt_id: str) -> None:
        """End an attempt and everything it started. Unknown ids are ignored. No event is promised."""
