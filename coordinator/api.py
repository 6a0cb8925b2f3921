"""What the coordinator answers with: views of builds, and the port that the gRPC services call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from coordinator.fleet import WorkerInfo
from kernel.errors import Problem
from kernel.spec import RequestSpec
from kernel.steps import Artifact, Attachment, Image, SignedIndex

# In a team's place: builds of all teams (for admins). No team's name, see coordinator.access.callers.
ANY_TEAM = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """Times in unix seconds, 0 for none."""

    key: str
    kind: str
    state: str
    worker: str
    attempts: int
    objects_done: int
    objects_planned: int
    doing: str
    reused: bool
    started_at: float
    ended_at: float
    why_waiting: str
    problem: Problem | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildView:
    build_id: str
    state: str
    source: str
    arch: str
    flavour: str
    toolchain: str
    release: str
    steps: tuple[StepView, ...]
    problem: Problem | None
    created_at: float
    ended_at: float
    artifacts: tuple[Artifact, ...]
    images: tuple[Image, ...]
    objects_done: int
    objects_planned: int
    warnings: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()


class FarmApi(Protocol):
    """All methods raise FarmError."""

    async def submit(self, spec: RequestSpec, *, tenant: str, request_id: str, clean: bool) -> tuple[BuildView, ...]: ...

    async def build(self, tenant: str, build_id: str) -> BuildView: ...

    async def builds(self, tenant: str, *, before: str, limit: int) -> tuple[BuildView, ...]:
        """Newest first, those older than `before` ("" for all)."""

    async def cancel(self, tenant: str, build_id: str) -> BuildView: ...

    async def retry(self, tenant: str, build_id: str) -> BuildView: ...

    async def result(self, tenant: str, build_id: str) -> dict[str, Any]: ...

    async def sign_index(self, tenant: str, build_ids: Sequence[str]) -> SignedIndex:
        """Of two or more finished builds, in any order."""

    async def workers(self) -> tuple[tuple[WorkerInfo, int], ...]:
        """Each with how many attempts it runs."""

    def watch(self, tenant: str, build_id: str, token: str) -> AsyncIterator[tuple[str, BuildView]]:
        """(token, view) for each change until the build has ended."""

    def logs(self, tenant: str, build_id: str, step: str, *, offset: int, follow: bool) -> AsyncIterator[bytes]: ...

    async def has_blob(self, digest: str) -> bool: ...

    async def put_blob(self, digest: str, chunks: Iterable[bytes]) -> None: ...

    def get_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]: ...

    async def made_blob(self, tenant: str, digest: str) -> bool:
        """Whether it is among the results of one of the tenant's builds."""
