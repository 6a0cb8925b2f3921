"""The fleet on Ray: one streaming task an attempt, protobuf bytes in and out, no retry and no placement of Ray's own.

What was measured of Ray and shaped this: results of a lost node are delivered late (the caller fences by attempt id), a task in flight
across a partition does not fail (the caller watches heartbeats), `ray.cancel` interrupts the generator, whose end ends the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from coordinator.fleet import AttemptFailed, AttemptFinished, AttemptHeard, AttemptLog, FleetEvent, WorkerInfo, WorkerJoined, WorkerLost
from kernel.errors import Code, FarmError, Problem
from kernel.steps import Attempt, Progress, Usage
from kernfarm.v1 import worker_pb2 as pb
from kernfarm.wire import attempt_to, finished_from, from_message, problem_from

log = logging.getLogger(__name__)

# The resource of which a worker node has as many as it has slots.
SLOT = "kernfarm_slot"
_POLL_SECONDS = 0.5
_PROBE_SECONDS = 60.0
# One process of a node failed; the node and its other attempts are none the worse for it.
_OF_THE_PROCESS = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.TaskCancelledError,
    ray.exceptions.RayTaskError,
)
# Found by name: coordinator and worker are separate programs and don't import each other.
_ENTRY = "worker.ray_entry"


def _attempt(task: bytes) -> Iterator[bytes]:
    yield from import_module(_ENTRY).attempt(task)


def _probe() -> bytes:
    return bytes(import_module(_ENTRY).probe())


class RayFleet:
    """Implements coordinator.fleet.Fleet. The cluster's token is in the environment, see coordinator.__main__."""

    def __init__(self, *, address: str, node_ip: str = "") -> None:
        self._address = address
        self._node_ip = node_ip
        self._events: asyncio.Queue[FleetEvent | None] = asyncio.Queue()
        self._streams: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._known: dict[str, str] = {}
        self._alive: set[str] = set()

    async def start(self) -> None:
        options: dict[str, Any] = {"_node_ip_address": self._node_ip} if self._node_ip else {}
        try:
            await asyncio.to_thread(
                ray.init, address=self._address, log_to_driver=False, logging_level=logging.WARNING, configure_logging=False, **options
            )
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise FarmError(Code.UNAVAILABLE, f"cannot connect to Ray: {error}", where=self._address) from error
        self._spawn(self._watch_nodes())

    async def stop(self) -> None:
        for attempt_id in list(self._streams):
            await self.abort(attempt_id)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(ray.shutdown)
        await self._events.put(None)

    async def events(self) -> AsyncIterator[FleetEvent]:
        while (event := await self._events.get()) is not None:
            yield event

    async def launch(self, attempt: Attempt, worker_id: str) -> None:
        message = attempt_to(attempt)
        remote = ray.remote(num_cpus=0, max_retries=0, num_returns="streaming")(_attempt)
        where = NodeAffinitySchedulingStrategy(worker_id, soft=False)
        stream = remote.options(scheduling_strategy=where, resources={SLOT: 1}, name=attempt.attempt_id).remote(message)
        self._streams[attempt.attempt_id] = stream
        self._spawn(self._follow(attempt.attempt_id, worker_id, stream))

    async def doubt(self, worker_id: str, reason: str) -> None:
        name = self._known.pop(worker_id, None)
        if name is not None:
            await self._events.put(WorkerLost(worker_id=worker_id, reason=f"{name}: {reason}"))
            self._spawn(self._join(worker_id))

    async def abort(self, attempt_id: str) -> None:
        stream = self._streams.pop(attempt_id, None)
        if stream is not None:
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                ray.cancel(stream)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, attempt_id: str, worker_id: str, stream: Any) -> None:
        """Hand on an attempt's events; its end without an outcome is a lost worker.

        Where more than the attempt's own process failed, the node is doubted before anyone hears of it: what is lost is launched anew at
        once, and a dead node that still counts as alive would refuse it again and again."""
        problem = Problem(code=Code.WORKER_LOST, message="the worker was lost: its stream ended without an outcome")
        try:
            async for reference in stream:
                event = _event(attempt_id, await reference)
                await self._events.put(event)
                if isinstance(event, (AttemptFinished, AttemptFailed)):
                    return
        except ray.exceptions.RayError as error:
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            problem = Problem(code=Code.WORKER_LOST, message=f"the worker was lost: {reason}")
            if not isinstance(error, _OF_THE_PROCESS):
                await self.doubt(worker_id, reason)
        except Exception as error:  # whatever it is, the attempt has to end: nobody else follows it
            log.exception("following %s", attempt_id)
            problem = Problem(code=Code.INTERNAL, message=f"what the worker said can't be read: {type(error).__name__}: {error}")
        finally:
            self._streams.pop(attempt_id, None)
        await self._events.put(AttemptFailed(attempt_id=attempt_id, problem=problem, usage=Usage()))

    async def _watch_nodes(self) -> None:
        probing: set[str] = set()
        while True:
            try:
                nodes = await asyncio.to_thread(ray.nodes)
            except Exception:  # not to know is no reason to give up every worker; the next look may succeed
                log.exception("cannot list the nodes")
                await asyncio.sleep(_POLL_SECONDS)
                continue
            alive = {node["NodeID"] for node in nodes if node["Alive"] and node["Resources"].get(SLOT)}
            self._alive = alive
            for worker_id in [known for known in self._known if known not in alive]:
                await self._events.put(WorkerLost(worker_id=worker_id, reason=f"node {self._known.pop(worker_id)} is dead"))
                probing.discard(worker_id)
            for worker_id in alive - probing:
                probing.add(worker_id)
                self._spawn(self._join(worker_id))
            await asyncio.sleep(_POLL_SECONDS)

    async def _join(self, worker_id: str) -> None:
        """Ask a node what it offers, until it answers or is dead. Asked on a slot: an attempt that we gave up may still hold it."""
        where = NodeAffinitySchedulingStrategy(worker_id, soft=False)
        remote = ray.remote(num_cpus=0, max_retries=0)(_probe).options(scheduling_strategy=where, resources={SLOT: 1})
        while True:
            asked = remote.remote()
            try:
                data = await asyncio.wait_for(asked, _PROBE_SECONDS)
                info = from_message(WorkerInfo, pb.WorkerFacts.FromString(data), worker_id=worker_id)
                break
            except TimeoutError:
                log.error("node %s has not said for %.0f s what it offers; it gets no work until it does", worker_id, _PROBE_SECONDS)
                ray.cancel(asked)
            except Exception as error:  # a node of another version, a broken installation: it may be mended while we ask
                log.error("node %s does not say what it offers: %s", worker_id, error)
                await asyncio.sleep(_POLL_SECONDS)
            if worker_id not in self._alive:
                return
        self._known[worker_id] = info.name
        await self._events.put(WorkerJoined(worker=info))


def _event(attempt_id: str, data: bytes) -> FleetEvent:
    message = pb.AttemptEvent.FromString(data)
    match message.WhichOneof("event"):
        case "heard":
            progress = Progress(objects=message.heard.objects, doing=message.heard.doing)
            return AttemptHeard(attempt_id=attempt_id, progress=progress)
        case "log":
            return AttemptLog(attempt_id=attempt_id, data=message.log)
        case "finished":
            result, usage = finished_from(message.finished)
            return AttemptFinished(attempt_id=attempt_id, result=result, usage=usage)
        case _:
            usage = from_message(Usage, message.failed.usage)
            return AttemptFailed(attempt_id=attempt_id, problem=problem_from(message.failed.problem), usage=usage)
