"""The port to whoever counts what the farm does. Observers only look: nothing they are told waits for them or depends on them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from coordinator.events import Event
from coordinator.fleet import FleetEvent
from coordinator.machine import Machine


class Observer(Protocol):
    """Called in the event loop; must return at once and never raise."""

    def commit(self) -> AbstractContextManager[None]:
        """Around each commit of the journal."""

    def committed(self, events: Sequence[Event], machine: Machine) -> None:
        """Events that the journal has taken, with the machine as it is after them. Replayed ones are not told again: the first event
        that is told is the Started of this life."""

    def heard(self, event: FleetEvent) -> None:
        """What the fleet said, before the farm does anything about it."""


class Unobserved:
    """Nobody looks."""

    def commit(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def committed(self, events: Sequence[Event], machine: Machine) -> None:
        return None

    def heard(self, event: FleetEvent) -> None:
        return None
