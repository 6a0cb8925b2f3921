"""Breaking a running farm on purpose."""

from __future__ import annotations

import os
import signal
import time

import psutil

from kernfarm.cli.embedded import EmbeddedFarm


def in_sandbox(farm: EmbeddedFarm) -> list[psutil.Process]:
    """bubblewrap's processes with a folder of this farm inside, orphans included."""
    state = f"{farm._plan.state}/"
    return [each for each in psutil.process_iter() if _name(each) == "bwrap" and any(word.startswith(state) for word in _words(each))]


def above_sandbox(farm: EmbeddedFarm, build_id: str) -> psutil.Process:
    """The Ray worker process, named after its attempt, above a sandbox of this build."""
    deadline = time.monotonic() + 20
    while True:
        for box in in_sandbox(farm):
            for parent in _parents(box):
                if f"ray::{build_id}" in " ".join(_words(parent)):
                    return parent
        assert time.monotonic() < deadline, "no step of this build is in a sandbox"
        time.sleep(0.05)


def kill(farm: EmbeddedFarm, victim: str, build_id: str) -> None:
    """kill -9: the coordinator; or the process that runs a step of this build; or that one's raylet."""
    if victim == "coordinator":
        os.kill(farm.services["coordinator"].pid, signal.SIGKILL)
        return
    process_above = above_sandbox(farm, build_id)
    target = process_above if victim == "worker process" else process_above.parent()
    assert target is not None
    os.kill(target.pid, signal.SIGKILL)


def restart_coordinator(farm: EmbeddedFarm) -> None:
    """Start it again, as a supervisor would; it listens elsewhere."""
    address = farm._plan.state / "address"
    farm.services["coordinator"].wait(10)
    address.unlink()
    farm.restart("coordinator")
    deadline = time.monotonic() + 60
    while not address.exists() or not address.read_text().strip():
        assert time.monotonic() < deadline, "the coordinator did not come back"
        time.sleep(0.1)
    farm.address = address.read_text().strip()


def restart_dead_workers(farm: EmbeddedFarm) -> None:
    """Start the workers again whose raylet has ended."""
    for name, service in farm.services.items():
        if name.startswith("worker"):
            service.wait(15 if service.poll() is None else 0)
            if service.poll() is not None:
                farm.restart(name)


def _parents(each: psutil.Process) -> list[psutil.Process]:
    try:
        return list(each.parents())
    except psutil.Error:
        return []


def _name(each: psutil.Process) -> str:
    try:
        return str(each.name())
    except psutil.Error:
        return ""


def _words(each: psutil.Process) -> list[str]:
    try:
        return list(each.cmdline())
    except psutil.Error:
        return []
