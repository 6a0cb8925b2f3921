"""One table of everything that can go wrong: whose fault, gRPC status, exit code, and whether a retry can help.

Every problem names the thing, the place and the mend, because it ends up in front of a person who has to act on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """Who has to act: the caller, the kernel's author, the farm's operator, or kernfarm's developers."""

    USER = "user"
    KERNEL = "kernel"
    INFRASTRUCTURE = "infrastructure"
    BUG = "bug"


class Code(StrEnum):
    """Machine-readable reason of a failure; stable, part of the API (google.rpc.ErrorInfo.reason)."""

    UNKNOWN_VALUE = "unknown-value"
    INVALID_ARGUMENT = "invalid-argument"
    MISSING_FILE = "missing-file"
    BAD_SOURCE = "bad-source"
    BAD_DIGEST = "bad-digest"
    BAD_SIGNATURE = "bad-signature"
    BAD_ARCHIVE = "bad-archive"
    BAD_PATCH = "bad-patch"
    BAD_CONFIG = "bad-config"
    UNSAFE_CONFIG = "unsafe-config"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission-denied"
    NO_WORKER = "no-worker"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    CANCELLED = "cancelled"
    KERNEL_DOES_NOT_BUILD = "kernel-does-not-build"
    KERNEL_DOES_NOT_BOOT = "kernel-does-not-boot"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out-of-memory"
    DISK_FULL = "disk-full"
    WORKER_LOST = "worker-lost"
    BLOB_LOST = "blob-lost"
    FETCH_FAILED = "fetch-failed"
    SANDBOX_FAILED = "sandbox-failed"
    UNAVAILABLE = "unavailable"
    SIGNING_REFUSED = "signing-refused"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handling:
    """How one code is answered: grpc status name (grpc.StatusCode member), process exit code, retry by the farm."""

    fault: Fault
    status: str
    exit_code: int
    retry: bool = False


_USER = Handling(fault=Fault.USER, status="INVALID_ARGUMENT", exit_code=2)
_KERNEL = Handling(fault=Fault.KERNEL, status="FAILED_PRECONDITION", exit_code=3)
_INFRA = Handling(fault=Fault.INFRASTRUCTURE, status="UNAVAILABLE", exit_code=4, retry=True)

HANDLING: dict[Code, Handling] = {
    Code.UNKNOWN_VALUE: _USER,
    Code.INVALID_ARGUMENT: _USER,
    Code.MISSING_FILE: _USER,
    Code.BAD_SOURCE: _USER,
    Code.BAD_DIGEST: _USER,
    Code.BAD_SIGNATURE: _USER,
    Code.BAD_ARCHIVE: _USER,
    Code.BAD_PATCH: _USER,
    Code.BAD_CONFIG: _USER,
    Code.UNSAFE_CONFIG: _USER,
    Code.UNAUTHENTICATED: Handling(fault=Fault.USER, status="UNAUTHENTICATED", exit_code=2),
    Code.PERMISSION_DENIED: Handling(fault=Fault.USER, status="PERMISSION_DENIED", exit_code=2),
    Code.NO_WORKER: Handling(fault=Fault.USER, status="FAILED_PRECONDITION", exit_code=2),
    Code.NOT_FOUND: Handling(fault=Fault.USER, status="NOT_FOUND", exit_code=2),
    Code.CONFLICT: Handling(fault=Fault.USER, status="ALREADY_EXISTS", exit_code=2),
    Code.CANCELLED: Handling(fault=Fault.USER, status="CANCELLED", exit_code=2),
    Code.KERNEL_DOES_NOT_BUILD: _KERNEL,
    Code.KERNEL_DOES_NOT_BOOT: _KERNEL,
    Code.TIMEOUT: Handling(fault=Fault.INFRASTRUCTURE, status="DEADLINE_EXCEEDED", exit_code=4, retry=True),
    Code.OUT_OF_MEMORY: _INFRA,
    Code.DISK_FULL: _INFRA,
    Code.WORKER_LOST: _INFRA,
    Code.BLOB_LOST: _INFRA,
    Code.FETCH_FAILED: _INFRA,
    Code.SANDBOX_FAILED: _INFRA,
    Code.UNAVAILABLE: _INFRA,
    Code.SIGNING_REFUSED: Handling(fault=Fault.INFRASTRUCTURE, status="FAILED_PRECONDITION", exit_code=4),
    Code.INTERNAL: Handling(fault=Fault.BUG, status="INTERNAL", exit_code=1),
}

# For people who look a code up (docs/reference/errors.md).
MEANING: dict[Code, str] = {
    Code.UNKNOWN_VALUE: "a word that is none of those that are known; the nearest one is named",
    Code.INVALID_ARGUMENT: "a value, or several together, that make no sense",
    Code.MISSING_FILE: "a file, program or upload that is not there or can't be read",
    Code.BAD_SOURCE: "no such version, or a tree that is no kernel",
    Code.BAD_DIGEST: "content that is not what its digest says",
    Code.BAD_SIGNATURE: "a signature that is missing, does not hold, or is of a key that does not count",
    Code.BAD_ARCHIVE: "a tarball, package or image that is damaged, or unpacks to what it must not",
    Code.BAD_PATCH: "a patch that does not apply, or is none; file and hunk are named",
    Code.BAD_CONFIG: "a fragment that can't be read, contradicts another, or has an option that did not stick; or no name for a release",
    Code.UNSAFE_CONFIG: "an option that would make the build read files outside the tree",
    Code.UNAUTHENTICATED: "no credentials, or ones that are wrong, expired or revoked; or a farm whose certificate is not accepted",
    Code.PERMISSION_DENIED: "credentials that are known, with a role that does not allow this",
    Code.NO_WORKER: "no worker could ever do this, with everything that would make it possible",
    Code.NOT_FOUND: "no such build, step or blob, or one of another team",
    Code.CONFLICT: "something stands against it that is there already",
    Code.CANCELLED: "somebody stopped it",
    Code.KERNEL_DOES_NOT_BUILD: "compiler, linker or make refused the kernel; the first error is quoted",
    Code.KERNEL_DOES_NOT_BOOT: "the boot test did not get to its end; the console's last lines are quoted",
    Code.TIMEOUT: "an answer or the end of a step did not come in time",
    Code.OUT_OF_MEMORY: "a step needed more memory than an attempt may have",
    Code.DISK_FULL: "no space on a worker's disk or in the blob store",
    Code.WORKER_LOST: "the worker died, or nothing was heard of it",
    Code.BLOB_LOST: "the blob store has lost content, or has it damaged; it is made again",
    Code.FETCH_FAILED: "a source could not be downloaded",
    Code.SANDBOX_FAILED: "the sandbox could not be set up, or the worker's system refused",
    Code.UNAVAILABLE: "nobody answers: coordinator, signer, database, registry, identity provider",
    Code.SIGNING_REFUSED: "the signer found that journal, blob store and image do not agree, or that the build is not one to be signed",
    Code.INTERNAL: "a bug; the coordinator's log has the incident's number",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What went wrong (`message`), at which place (`where`: file:line, option, symbol), and the mend (`hint`)."""

    code: Code
    message: str
    where: str = ""
    hint: str = ""

    @property
    def handling(self) -> Handling:
        """The row of the table for this problem's code."""
        return HANDLING[self.code]

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        mend = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{place}{self.message}{mend}"


class FarmError(Exception):
    """A problem on its way to whoever has to act on it. The only exception that crosses a folder's border on purpose."""

    def __init__(self, code: Code, message: str, *, where: str = "", hint: str = "") -> None:
        self.problem = Problem(code=code, message=message, where=where, hint=hint)
        super().__init__(str(self.problem))

    @classmethod
    def of(cls, problem: Problem) -> FarmError:
        """The error that carries an existing problem."""
        return cls(problem.code, problem.message, where=problem.where, hint=problem.hint)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.problem,))


def _rebuild(problem: Problem) -> FarmError:
    return FarmError.of(problem)
