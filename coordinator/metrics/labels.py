"""Labels with all the values they can have. However hostile a request is, it can't make new series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import grpc
from prometheus_client import Counter, Histogram

from coordinator.events import EVENTS
from coordinator.state import FINAL, BuildState
from kernel import tables
from kernel.errors import Code, Fault
from kernel.steps import StepKind
from kernfarm import rpc

M = TypeVar("M", bound=Counter | Histogram)
Pairs = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Label:
    """A label's name, and its values. Any other word counts as `other`."""

    name: str
    values: tuple[str, ...]
    other: str = "other"

    def of(self, word: str) -> str:
        """The value for a word."""
        return word if word in self.values else self.other


ARCH = Label("arch", tables.names("arch"))
FLAVOUR = Label("flavour", tables.names("flavour"), other="custom")
KIND = Label("kind", tuple(kind.value for kind in StepKind))
STATE = Label("state", tuple(state.value for state in BuildState if state not in FINAL))
OUTCOME = Label("outcome", tuple(state.value for state in BuildState if state in FINAL))
# lost: with its worker; aborted: nobody wanted it any more (its build was cancelled or has failed, its work had to be done anew).
ENDING = Label("outcome", ("succeeded", "failed", "lost", "aborted"))
FAULT = Label("fault", tuple(fault.value for fault in Fault))
CODE = Label("code", tuple(code.value for code in Code))
MODE = Label("mode", ("user", "system"))
ABILITY = Label("ability", ("build", "boot"))
EVENT = Label("event", tuple(kind.__name__ for kind in EVENTS))
METHOD = Label("method", tuple(sorted(rpc.POLICIES)))
STATUS = Label("code", tuple(status.name for status in grpc.StatusCode))


class Bounded(Generic[M]):
    """A counter or histogram whose series are all there from the start, at 0, so that the first increment is not missed by rate().

    `pairs` are the only combinations of values that occur, where that is not all of them."""

    def __init__(self, metric: M, labels: tuple[Label, ...] = (), pairs: Pairs | None = None) -> None:
        self._metric = metric
        self.labels = labels
        for values in _product(labels) if pairs is None else pairs:
            self.at(*values)

    def at(self, *words: str) -> M:
        """The series for these words, one for each label."""
        if not self.labels:
            return self._metric
        return cast(M, self._metric.labels(*(label.of(word) for label, word in zip(self.labels, words, strict=True))))


def _product(labels: tuple[Label, ...]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [()]
    for label in labels:
        rows = [(*row, value) for row in rows for value in label.values]
    return rows
