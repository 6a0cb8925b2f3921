"""From the inventory of a prepared build to its shards, or to the problem that keeps it from being split."""

from __future__ import annotations

import json
from collections.abc import Iterable

from coordinator.fleet import WorkerInfo
from kernel import plan
from kernel.codec import CodecError, from_plain
from kernel.errors import Code, FarmError, Problem
from kernel.plan import Plan
from kernel.spec import BuildSpec
from kernfarm.blobs import BlobStore


def split(blobs: BlobStore, inventory: str, spec: BuildSpec, workers: Iterable[WorkerInfo], longest_seconds: float) -> Plan | Problem:
    """Split for the workers that are there now. Blocks. An inventory is made from what a build printed: nothing in it may raise."""
    able = [info for info in workers if info.can_build(spec.arch, spec.toolchain)]
    slots = max(1, sum(info.slots for info in able))
    try:
        found = from_plain(plan.Inventory, json.loads(blobs.get_bytes(inventory)))
        return plan.plan(found, slots=slots, longest_seconds=longest_seconds)
    except FarmError as error:
        return error.problem
    except (CodecError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        message = f"what there is to compile can't be split: {type(error).__name__} {error}"
        return Problem(code=Code.BAD_SOURCE, message=message[:500], where="prepare")
