"""Adds up what an attempt costs while its step runs."""

from __future__ import annotations

import threading
from dataclasses import fields, replace

from kernel.steps import Usage


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


def _plus(one: Usage, two: Usage) -> Usage:
    values = {f.name: getattr(one, f.name) + getattr(two, f.name) for f in fields(Usage)}
    values["peak_memory_bytes"] = max(one.peak_memory_bytes, two.peak_memory_bytes)
    return Usage(**values)
