"""What the machine asks of its shell when an event has changed the state: all that it ever causes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MakePlan:
    """Read the inventory, split it, and apply Planned."""

    build_id: str
    inventory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """End an attempt that nobody wants any more."""

    attempt_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """Something of this build changed."""

    build_id: str


Instruction = MakePlan | Abort | Announce
