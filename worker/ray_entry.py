"""The worker's side of Ray: bytes in, a stream of bytes out. One worker process keeps one Node."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path

from kernfarm import settings
from kernfarm.settings import WorkerSettings
from kernfarm.v1 import build_service_pb2 as api
from kernfarm.v1 import worker_pb2 as pb
from kernfarm.wire import attempt_from, finished_to, to_message
from worker import executor
from worker.facts import facts
from worker.node import Node

# Set for the raylet when the node is started; its worker processes inherit it.
CONFIG_VARIABLE = "KERNFARM_WORKER_CONFIG"


def attempt(task: bytes) -> Iterator[bytes]:
    """Run an Attempt; yields AttemptEvents, the last one its outcome. Closing the iterator ends everything it started."""
    node = _node()
    asked = attempt_from(task)
    # Closed by hand: an interrupt that lands between two events must not leave it to the garbage collector.
    with contextlib.closing(executor.execute(node, executor.load_steps(node.settings.steps), asked)) as events:
        for event in events:
            yield _event(event).SerializeToString()


def probe() -> bytes:
    """WorkerFacts of this node."""
    return to_message(facts(_node()), pb.WorkerFacts).SerializeToString()


def _event(event: executor.Event) -> pb.AttemptEvent:
    match event:
        case executor.Heard(progress=progress):
            return pb.AttemptEvent(heard=pb.Heard(objects=progress.objects, doing=progress.doing))
        case executor.Logged(data=data):
            return pb.AttemptEvent(log=data)
        case executor.Finished(result=result, usage=usage):
            return pb.AttemptEvent(finished=finished_to(result, usage))
        case executor.Failed(problem=problem, usage=usage):
            return pb.AttemptEvent(failed=pb.Failed(problem=to_message(problem, api.Problem), usage=to_message(usage, pb.Usage)))


@functools.cache
def _node() -> Node:
    return Node(settings.load(WorkerSettings, Path(os.environ[CONFIG_VARIABLE])))
