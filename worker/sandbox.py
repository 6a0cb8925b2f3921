"""A sandbox is a value: what a command may see and use. bubblewrap confines it; the null sandbox only looks the same.

Inside: a read-only root made of the host's /usr and a few made-up files, own user, mount, PID, IPC, UTS and network
namespaces, no network, no capability, an empty environment but for what the job names, and a control group with limits.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kernel.errors import Code, FarmError
from kernfarm import process
from worker.cgroup import Limits, Manager, Spent, job_name

log = logging.getLogger(__name__)

HOST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOST_ENV = {"PATH": HOST_PATH, "LC_ALL": "C"}
# bwrap itself ends with 1 when it cannot set up; a marker on a pipe of ours tells that apart from the command's own 1.
_STARTED = b"\x01kernfarm-sandbox-started\n"
_ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec "$@"'
_ANNOUNCE = "printf '\\001kernfarm-sandbox-started\\n'; exec \"$@\""
_ETC = ("ld.so.cache", "alternatives", "ssl/certs", "ca-certificates", "localtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A host path seen inside at `inside`; read-only unless `writable`."""

    host: Path
    inside: str
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command to be confined. `env` is its whole environment; paths are those inside."""

    argv: tuple[str, ...]
    binds: tuple[Bind, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    limits: Limits = field(default_factory=Limits)
    timeout_seconds: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A command's own exit code (128 + n for signal n), the tail of its output, and what it cost."""

    code: int
    output: bytes
    seconds: float
    spent: Spent

    @property
    def out_of_memory(self) -> bool:
        return self.spent.out_of_memory


class Sandbox(Protocol):
    """Runs jobs. `uid`: who must own what a job may write to."""

    @property
    def name(self) -> str: ...

    @property
    def uid(self) -> int: ...

    def describe(self, job: Job) -> tuple[str, ...]:
        """The command that would run."""

    def run(self, job: Job, *, on_line: process.OnLine | None = None, cancel: process.Cancel | None = None) -> Outcome:
        """Run a job to its end. Raises FarmError: SANDBOX_FAILED, TIMEOUT, CANCELLED."""


class Bubblewrap:
    """bubblewrap without privileges: started as root it drops to `uid` first, so that a hole in it gives nothing."""

    name = "bubblewrap"

    def __init__(self, *, uid: int, cgroups: Manager) -> None:
        self._root = os.geteuid() == 0
        self.uid = uid if self._root else os.geteuid()
        self._cgroups = cgroups

    def describe(self, job: Job) -> tuple[str, ...]:
        drop = ("setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--no-new-privs") if self._root else ()
        binds: list[str] = []
        for bind in job.binds:
            binds += ["--bind" if bind.writable else "--ro-bind", str(bind.host), bind.inside]
        environment: list[str] = []
        for key, value in job.env.items():
            environment += ["--setenv", key, value]
        return (
            *drop,
            "bwrap",
            *("--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000", "--hostname", "kernfarm"),
            *("--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"),
            *_root_file_system(),
            *binds,
            *("--remount-ro", "/"),
            *environment,
            *("--chdir", job.cwd, "--"),
            *("/bin/sh", "-c", _ANNOUNCE, "sh"),
            *job.argv,
        )

    def run(self, job: Job, *, on_line: process.OnLine | None = None, cancel: process.Cancel | None = None) -> Outcome:
        started = time.monotonic()
        gate = _Gate(on_line)
        with self._cgroups.group(job_name(), job.limits) as group:
            entries = (str(path) for path in group.entries)
            argv = ("/bin/sh", "-c", _ENTER, "sh", *entries, "--", *self.describe(job))
            done = process.run(argv, env=_HOST_ENV, timeout_seconds=job.timeout_seconds, on_line=gate, cancel=cancel)
            spent = group.spent()
        if not gate.open:
            said = done.output.decode(errors="replace").strip()
            raise FarmError(
                Code.SANDBOX_FAILED,
                f"the sandbox could not be set up (exit code {done.code}): {said[-500:]}",
                where=" ".join(job.argv[:2]),
                hint="run `kernfarm doctor` on the worker",
            )
        code = done.code if done.code >= 0 else 128 - done.code
        output = done.output.partition(_STARTED)[2] if _STARTED in done.output else done.output
        return Outcome(code=code, output=output, seconds=time.monotonic() - started, spent=spent)


class NullSandbox:
    """No confinement at all, for machines where nothing else runs; chosen by an explicit setting only. Control groups still hold.

    Paths look the same in a mount namespace of its own, which takes root; everything else of the machine is in reach.
    """

    name = "none"

    def __init__(self, *, cgroups: Manager) -> None:
        log.warning("NO SANDBOX: sources, patches and configurations that are built here can do whatever this worker can")
        self.uid = os.geteuid()
        self._cgroups = cgroups

    def describe(self, job: Job) -> tuple[str, ...]:
        mounts: list[str] = []
        for bind in job.binds:
            inside = shlex.quote(bind.inside)
            mounts.append(f"mkdir -p {inside}" if bind.host.is_dir() else f": > {inside}")
            mounts.append(f"mount --bind {shlex.quote(str(bind.host))} {inside}")
            if not bind.writable:
                mounts.append(f"mount -o remount,bind,ro {inside}")  # a stray write must not change a tree that others use
        script = " && ".join(["mount -t tmpfs none /build", *mounts, f"cd {shlex.quote(job.cwd)}", 'exec "$@"'])
        return ("unshare", "--mount", "/bin/sh", "-c", f"mkdir -p /build && {script}", "sh", *job.argv)

    def run(self, job: Job, *, on_line: process.OnLine | None = None, cancel: process.Cancel | None = None) -> Outcome:
        started = time.monotonic()
        with self._cgroups.group(job_name(), job.limits) as group:
            argv = ("/bin/sh", "-c", _ENTER, "sh", *(str(path) for path in group.entries), "--", *self.describe(job))
            done = process.run(argv, env={**_HOST_ENV, **job.env}, timeout_seconds=job.timeout_seconds, on_line=on_line, cancel=cancel)
            spent = group.spent()
        code = done.code if done.code >= 0 else 128 - done.code
        return Outcome(code=code, output=done.output, seconds=time.monotonic() - started, spent=spent)


class _Gate:
    """Lets lines through from the marker on: before it, bubblewrap itself speaks."""

    def __init__(self, on_line: process.OnLine | None) -> None:
        self._on_line = on_line
        self.open = False

    def __call__(self, line: bytes) -> None:
        if not self.open:
            self.open = line.endswith(_STARTED)
        elif self._on_line is not None:
            self._on_line(line)


def _root_file_system() -> list[str]:
    """The host's programs and libraries, nothing of its data."""
    words = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/") / name
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    for name in _ETC:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    words += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/run", "--dir", "/build"]
    return words
