"""The other side of every comparison: one plain `make` of a tree and a configuration, without ccache, in the sandbox workers use."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kernel import tables
from kernel.steps import Attempt, LinkTask, StepKind, Tree, Usage
from kernfarm.settings import WorkerSettings
from worker import archive
from worker.context import Context
from worker.kbuild import Place
from worker.meter import Meter, Metered
from worker.node import Node

_TIMEOUT_SECONDS = 4 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainBuild:
    """A finished plain build: its output tree, what it compiled, and what make cost (wall and CPU seconds)."""

    out: Path
    scratch: Path
    context: Context
    compiled: tuple[str, ...]
    usage: Usage


@contextmanager
def plain_make(
    *,
    state: Path,
    blobs_url: str,
    tree: Tree,
    config: Path,
    arch: str,
    toolchain: str,
    jobs: int,
    log: Callable[[bytes], None] | None = None,
) -> Iterator[PlainBuild]:
    """`make olddefconfig` and then the architecture's goals, as one call with `jobs` jobs; the output tree is there inside the `with`.

    Raises FarmError as worker.kbuild.Place.make does."""
    node = Node(WorkerSettings(state_dir=state, blobs_url=blobs_url, compile_cache=False))
    with node.scratch("plain") as scratch, node.trees.checkout(tree, node.sandbox) as checkout:
        context = context_of(node, scratch, tree, arch=arch, toolchain=toolchain, jobs=jobs, log=log)
        out = archive.make_folder(scratch / "out", node.sandbox)
        shutil.copyfile(config, out / ".config")
        archive.give(out / ".config", node.sandbox)
        place = Place(context=context, source=checkout, out=out, arch=arch, toolchain=toolchain)
        started = time.monotonic()
        place.make("olddefconfig", cached=False)
        made = place.make(*tables.arch(arch).goals, cached=False)
        usage = context.meter.total(time.monotonic() - started)
        yield PlainBuild(out=out, scratch=scratch, context=context, compiled=made.compiled, usage=usage)


def context_of(
    node: Node, scratch: Path, tree: Tree, *, arch: str, toolchain: str, jobs: int, log: Callable[[bytes], None] | None = None
) -> Context:
    """What a step would get to work with, outside a farm."""
    task = LinkTask(tree=tree, arch=arch, toolchain=toolchain, prepared="", inventory="", shards=(), domain="plain")
    attempt = Attempt(
        attempt_id="plain",
        build_id="plain",
        kind=StepKind.LINK,
        task=task,
        domain="plain",
        jobs=jobs,
        timeout_seconds=_TIMEOUT_SECONDS,
    )
    meter = Meter()
    return Context(
        attempt=attempt,
        scratch=scratch,
        blobs=node.blobs,
        trees=node.trees,
        sandbox=Metered(node.sandbox, meter),
        cache=node.cache,
        meter=meter,
        log=log or (lambda data: None),
        report=lambda progress: None,
        cancel=threading.Event(),
        sources=node.settings.sources,
        epoch=node.epoch,
    )
