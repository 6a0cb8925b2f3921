"""What can happen to builds. Events are what the journal keeps; replaying them gives the same state again.

Every event has `at`, unix seconds, given by whoever applies it: the machine itself knows no clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernel.errors import Problem
from kernel.plan import Shard
from kernel.spec import BuildSpec
from kernel.steps import Result, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBuild:
    """One build of a submission. `salt` is not empty for a clean build, whose work shares nothing with others. `boot`, `sign`: whether
    it has those steps."""

    build_id: str
    spec: BuildSpec
    salt: str = ""
    boot: bool = False
    sign: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A request was accepted. `fingerprint` is the digest of what was asked, to tell a repeated key from a reused one;
    `answered` are all builds of the answer, `builds` those of them that are new."""

    at: float
    tenant: str
    request_id: str
    fingerprint: str
    answered: tuple[str, ...]
    builds: tuple[NewBuild, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The compile steps of a build are known."""

    at: float
    build_id: str
    shards: tuple[Shard, ...]
    covered: int
    link_only: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotPlanned:
    """A prepared build can't be split: its inventory is gone, or nothing that could be one."""

    at: float
    build_id: str
    problem: Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A step was given to a worker."""

    at: float
    build_id: str
    step: str
    attempt_id: str
    worker_id: str
    worker_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    at: float
    attempt_id: str
    result: Result
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An attempt ended with a problem; a lost worker is one too (WORKER_LOST)."""

    at: float
    attempt_id: str
    problem: Problem
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Reused:
    """A step was answered with what another one made."""

    at: float
    build_id: str
    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    at: float
    build_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """A failed or cancelled build goes on; its finished steps stay finished."""

    at: float
    build_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobsLost:
    """The store has lost (or was relieved of) blobs of a finished build's images: it answers no further request."""

    at: float
    build_id: str
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The coordinator started: whatever was in flight has lost its driver."""

    at: float


Event = Submitted | Planned | NotPlanned | Launched | Succeeded | Failed | Reused | Cancelled | Retried | BlobsLost | Started
EVENTS: tuple[type[Event], ...] = (
    Submitted,
    Planned,
    NotPlanned,
    Launched,
    Succeeded,
    Failed,
    Reused,
    Cancelled,
    Retried,
    BlobsLost,
    Started,
)
