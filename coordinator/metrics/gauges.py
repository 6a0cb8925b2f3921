"""Gauges: a census of the farm, taken in its event loop when somebody scrapes, so that they are right after a restart too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from coordinator.census import Census
from coordinator.metrics.labels import ABILITY, ARCH, KIND, STATE, Label
from coordinator.state import BuildState
from kernel.errors import Code, FarmError
from kernel.steps import StepKind

# A third of Prometheus' usual 10 s for a scrape. A loop that can't answer in that time can't serve anybody else either.
_DEADLINE_SECONDS = 3.0


def on_loop(loop: asyncio.AbstractEventLoop, take: Callable[[], Census], seconds: float = _DEADLINE_SECONDS) -> Callable[[], Census]:
    """`take`, for other threads: it runs in the loop, which alone owns the farm's state. FarmError(TIMEOUT) when that is too busy: the
    scrape fails then, and the farm counts as down."""

    async def here() -> Census:
        return take()

    def ask() -> Census:
        asked = asyncio.run_coroutine_threadsafe(here(), loop)
        try:
            return asked.result(seconds)
        except (TimeoutError, CancelledError) as error:
            asked.cancel()
            raise FarmError(Code.TIMEOUT, f"the coordinator's event loop did not answer within {seconds} s", where="metrics") from error

    return ask


class Gauges(Collector):
    """`census` may be called from any thread; so may `committing_seconds`."""

    labels: Mapping[str, tuple[Label, ...]] = {
        "kernfarm_builds": (STATE, ARCH),
        "kernfarm_queue_steps": (ARCH,),
        "kernfarm_queue_oldest_seconds": (ARCH,),
        "kernfarm_attempts_running": (KIND,),
        "kernfarm_workers_able": (ABILITY, ARCH),
    }

    def __init__(self, census: Callable[[], Census], committing_seconds: Callable[[], float]) -> None:
        self._census = census
        self._committing = committing_seconds

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The families alone: when this collector is registered nobody can be asked yet."""
        return self._families(Census(), 0.0)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        return self._families(self._census(), self._committing())

    def _families(self, census: Census, committing: float) -> list[GaugeMetricFamily]:
        return [
            self._family("kernfarm_builds", "Builds that are not finished.", lambda s, a: census.builds.get((BuildState(s), a), 0)),
            self._family("kernfarm_queue_steps", "Steps that are ready and wait for a worker.", lambda a: census.queued.get(a, 0)),
            self._family(
                "kernfarm_queue_oldest_seconds",
                "How long the oldest of the steps that are ready has waited.",
                lambda a: max(0.0, census.oldest.get(a, 0.0)),
            ),
            self._family("kernfarm_attempts_running", "Attempts in flight.", lambda k: census.running.get(StepKind(k), 0)),
            self._family("kernfarm_workers", "Workers in service.", lambda: census.workers),
            self._family(
                "kernfarm_workers_able",
                "Workers in service that can build, or boot, an architecture.",
                lambda does, a: (census.build if does == "build" else census.boot).get(a, 0),
            ),
            self._family("kernfarm_slots", "Attempts that the workers in service can run at a time.", lambda: census.slots),
            self._family("kernfarm_slots_busy", "Slots that an attempt is on.", lambda: census.busy),
            self._family(
                "kernfarm_journal_commit_pending_seconds",
                "How long the commit under way has taken, or 0.",
                lambda: committing,
            ),
        ]

    def _family(self, name: str, text: str, value: Callable[..., float]) -> GaugeMetricFamily:
        """All series of a gauge, those with nothing to count too."""
        labels = self.labels.get(name, ())
        family = GaugeMetricFamily(name, text, labels=[label.name for label in labels])
        rows: list[list[str]] = [[]]
        for label in labels:
            rows = [[*row, each] for row in rows for each in label.values]
        for row in rows:
            family.add_metric(row, value(*row))
        return family
