"""Control groups: limits and accounting of one attempt. Version 1 (controllers mounted apart) and version 2 (one delegated tree).

Sources: Documentation/admin-guide/cgroup-v1/*.rst and cgroup-v2.rst of the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)

ROOT = Path("/sys/fs/cgroup")
_PARENT = "kernfarm"
_JOB = re.compile(r"job-([1-9][0-9]*)-[0-9a-f]{32}")
_PERIOD_US = 100_000
_REMOVE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Hard limits of one command and everything it starts. 0: no limit."""

    memory_bytes: int = 0
    cpus: float = 0.0
    pids: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a group used: CPU seconds in user and kernel mode, peak memory in bytes, and whether the memory limit killed something."""

    cpu_user_seconds: float
    cpu_system_seconds: float
    peak_memory_bytes: int
    out_of_memory: bool


class Group(Protocol):
    """A group that exists. A process enters it by writing its pid to each of `entries`."""

    @property
    def entries(self) -> tuple[Path, ...]: ...

    def spent(self) -> Spent: ...


class Manager(Protocol):
    """Makes groups. `describe` says in a few words what is limited and counted."""

    def describe(self) -> str: ...

    def group(self, name: str, limits: Limits) -> AbstractContextManager[Group]: ...


def detect(root: Path = ROOT) -> Manager:
    """What this machine allows us. Without usable control groups the answer says so, and a warning is logged: limits don't hold then.

    Groups that workers left when they were killed are removed."""
    if (root / "cgroup.controllers").exists():
        parent = _own_v2(root)
        if parent is not None:
            _sweep(parent)
            return Version2(parent)
    elif all(os.access(root / name, os.W_OK) for name in Version1.CONTROLLERS):
        for name in Version1.CONTROLLERS:
            _sweep(root / name / _PARENT)
        return Version1(root)
    log.warning("no usable control groups below %s: memory, CPU and process limits do not hold, CPU time is not counted", root)
    return Unlimited()


def job_name() -> str:
    """A name for a new group of this process; by its pid `detect` knows it for a leftover later."""
    return f"job-{os.getpid()}-{uuid.uuid4().hex}"


class Version1:
    """One folder in each controller's hierarchy."""

    CONTROLLERS = ("memory", "cpu", "cpuacct", "pids")

    def __init__(self, root: Path, parent: str = _PARENT) -> None:
        self._root = root
        self._parent = parent

    def describe(self) -> str:
        return "v1: memory, cpu, pids"

    @contextmanager
    def group(self, name: str, limits: Limits) -> Iterator[Group]:
        folders = {controller: self._root / controller / self._parent / name for controller in self.CONTROLLERS}
        try:
            for folder in folders.values():
                folder.mkdir(parents=True)
            group = _Group1(folders)
            group.limit(limits)
            yield group
        finally:
            for folder in folders.values():
                _remove(folder)


class _Group1:
    def __init__(self, folders: dict[str, Path]) -> None:
        self._folders = folders

    @property
    def entries(self) -> tuple[Path, ...]:
        return tuple(folder / "cgroup.procs" for folder in self._folders.values())

    def limit(self, limits: Limits) -> None:
        if limits.memory_bytes:
            (self._folders["memory"] / "memory.limit_in_bytes").write_text(str(limits.memory_bytes))
        if limits.cpus:
            (self._folders["cpu"] / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (self._folders["cpu"] / "cpu.cfs_quota_us").write_text(str(int(limits.cpus * _PERIOD_US)))
        if limits.pids:
            (self._folders["pids"] / "pids.max").write_text(str(limits.pids))

    def spent(self) -> Spent:
        account, memory = self._folders["cpuacct"], self._folders["memory"]
        user, system = _number(account / "cpuacct.usage_user"), _number(account / "cpuacct.usage_sys")
        return Spent(
            cpu_user_seconds=user / 1e9,
            cpu_system_seconds=system / 1e9,
            peak_memory_bytes=_number(memory / "memory.max_usage_in_bytes"),
            out_of_memory=_keyed(memory / "memory.oom_control").get("oom_kill", 0) > 0,
        )


class Version2:
    """One folder below a tree that was delegated to us."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._controllers = (parent / "cgroup.subtree_control").read_text().split()

    def describe(self) -> str:
        return f"v2: {', '.join(self._controllers) or 'accounting only'}"

    @contextmanager
    def group(self, name: str, limits: Limits) -> Iterator[Group]:
        folder = self._parent / name
        try:
            folder.mkdir(parents=True)
            group = _Group2(folder)
            group.limit(limits, self._controllers)
            yield group
        finally:
            _remove(folder)


class _Group2:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def entries(self) -> tuple[Path, ...]:
        return (self._folder / "cgroup.procs",)

    def limit(self, limits: Limits, controllers: list[str]) -> None:
        if limits.memory_bytes and "memory" in controllers:
            (self._folder / "memory.max").write_text(str(limits.memory_bytes))
            (self._folder / "memory.swap.max").write_text("0")
        if limits.cpus and "cpu" in controllers:
            (self._folder / "cpu.max").write_text(f"{int(limits.cpus * _PERIOD_US)} {_PERIOD_US}")
        if limits.pids and "pids" in controllers:
            (self._folder / "pids.max").write_text(str(limits.pids))

    def spent(self) -> Spent:
        stat = _keyed(self._folder / "cpu.stat")
        return Spent(
            cpu_user_seconds=stat.get("user_usec", 0) / 1e6,
            cpu_system_seconds=stat.get("system_usec", 0) / 1e6,
            peak_memory_bytes=_number(self._folder / "memory.peak"),
            out_of_memory=_keyed(self._folder / "memory.events").get("oom_kill", 0) > 0,
        )


class Unlimited:
    """No control groups: nothing limited, nothing counted."""

    entries: tuple[Path, ...] = ()

    def describe(self) -> str:
        return "none"

    @contextmanager
    def group(self, name: str, limits: Limits) -> Iterator[Group]:
        yield self

    def spent(self) -> Spent:
        return Spent(cpu_user_seconds=0.0, cpu_system_seconds=0.0, peak_memory_bytes=0, out_of_memory=False)


def _own_v2(root: Path, own: Path = Path("/proc/self/cgroup")) -> Path | None:
    """A folder for our groups: below the group that was delegated to us, else (as root) at the top, where systemd lets root be.

    A group that has children with limits must hold no process itself, so whatever shares ours goes into a leaf beside the folder."""
    path = next((line[3:] for line in own.read_text().splitlines() if line.startswith("0::")), "/")
    homes = [root / path.strip("/")]
    if os.geteuid() == 0 and homes[0] != root:
        # A login session's group holds programs that are not ours to move; the top may hold processes and children.
        homes.insert(0, root)
    for home in homes:
        parent = home / _PARENT
        try:
            parent.mkdir(exist_ok=True)
            available = (home / "cgroup.controllers").read_text().split()
            wanted = " ".join(f"+{name}" for name in ("memory", "cpu", "pids") if name in available)
            _enable(home, wanted)
            (parent / "cgroup.subtree_control").write_text(wanted)
        except OSError as error:
            log.warning("control group %s can't be used: %s", home, error)
            continue
        return parent
    return None


def _enable(home: Path, controllers: str) -> None:
    """Hand controllers on to a group's children. The kernel refuses (EBUSY) while it holds processes: then they go into a leaf."""
    try:
        (home / "cgroup.subtree_control").write_text(controllers)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        leaf = home / "kernfarm-processes"
        leaf.mkdir(exist_ok=True)
        for pid in (home / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (leaf / "cgroup.procs").write_text(pid)
        (home / "cgroup.subtree_control").write_text(controllers)


def _sweep(parent: Path) -> None:
    """Remove the groups of dead processes. A live one's may be about to be entered, so it stays even when it is empty.

    The kernel refuses (EBUSY) to remove a group that holds a process, whatever its name says."""
    if not parent.is_dir():
        return
    for folder in parent.iterdir():
        name = _JOB.fullmatch(folder.name)
        if name is None or Path(f"/proc/{name[1]}").exists():
            continue
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue  # another worker was sooner
        except OSError as error:
            log.info("the control group %s of a dead worker stays: %s", folder, error)


def _remove(folder: Path) -> None:
    """End whatever is left in a group and remove it. A member may need a moment to disappear after SIGKILL."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    while folder.exists():
        try:
            for pid in (folder / "cgroup.procs").read_text().split():
                _kill(int(pid))
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                log.warning("cannot remove the control group %s", folder)
                return
            time.sleep(0.01)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return 0  # a controller that is not delegated, or memory.peak before Linux 5.19


def _keyed(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {key: int(value) for key, _, value in (line.partition(" ") for line in lines) if value.strip().lstrip("-").isdigit()}
