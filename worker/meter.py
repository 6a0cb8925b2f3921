"""Adds up what an attempt costs while its step runs."""

from __future__ import annotations

import threading
from dataclasses import fields, replace

from kernel.steps import Usage
from kernfarm.process import Cancel, OnLine
from worker.sandbox import Job, Outcome, Sandbox


class Meter:
    """Sum of Usage values; thread-safe. Peak memory is a maximum, everything else a sum."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = Usage()

    def add(self, usage: Usage) -> None:
        """Count one more command, transfer or cache session."""
        with self._lock:
            self._total = _plus(self._total, usage)

    def total(self, wall_seconds: float) -> Usage:
        """The sum so far, with the attempt's own wall time (commands may overlap, so theirs would not add up)."""
        with self._lock:
            return replace(self._total, wall_seconds=wall_seconds)


class Metered:
    """A sandbox whose jobs are all counted: whatever an attempt runs is part of its cost."""

    def __init__(self, sandbox: Sandbox, meter: Meter) -> None:
        self._sandbox = sandbox
        self._meter = meter

    @property
    def name(self) -> str:
        return self._sandbox.name

    @property
    def uid(self) -> int:
        return self._sandbox.uid

    def describe(self, job: Job) -> tuple[str, ...]:
        return self._sandbox.describe(job)

    def run(self, job: Job, *, on_line: OnLine | None = None, cancel: Cancel | None = None) -> Outcome:
        outcome = self._sandbox.run(job, on_line=on_line, cancel=cancel)
        spent = outcome.spent
        usage = Usage(
            cpu_user_seconds=spent.cpu_user_seconds,
            cpu_system_seconds=spent.cpu_system_seconds,
            peak_memory_bytes=spent.peak_memory_bytes,
        )
        self._meter.add(usage)
        return outcome


def _plus(one: Usage, two: Usage) -> Usage:
    values = {f.name: getattr(one, f.name) + getattr(two, f.name) for f in fields(Usage)}
    values["peak_memory_bytes"] = max(one.peak_memory_bytes, two.peak_memory_bytes)
    return Usage(**values)
