"""What is known of finished work, by the digest of its task; the longest unused is forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from kernel.codec import to_plain
from kernel.steps import Result

_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Known:
    """A result and when it was made (unix seconds)."""

    result: Result
    at: float


class Memory:
    """Bounded; the order of its events alone decides what it holds, so that a replay gives the same."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()

    def __contains__(self, work: str) -> bool:
        return work in self._known

    def get(self, work: str) -> Known | None:
        return self._known.get(work)

    def learn(self, work: str, result: Result, at: float) -> None:
        self._known[work] = Known(result, at)
        self._known.move_to_end(work)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def unlearn(self, lost: set[str]) -> None:
        """Forget every result that names a blob that is gone."""
        for work in [work for work, known in self._known.items() if lost & strings(known.result)]:
            del self._known[work]


def strings(result: Result) -> set[str]:
    """Every string in a result, digests among them."""
    found: set[str] = set()
    queue: list[Any] = [to_plain(result)]
    while queue:
        item = queue.pop()
        if isinstance(item, str):
            found.add(item)
        elif isinstance(item, dict):
            queue += item.values()
        elif isinstance(item, list):
            queue += item
    return found
