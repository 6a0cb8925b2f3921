"""What a step gets to work with: the same value for every step, made by the executor, so that steps share no globals."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from kernel.steps import Attempt, Progress, Tree
from kernfarm.blobs import BlobStore
from kernfarm.process import Cancel
from kernfarm.settings import SourceSettings
from worker.ccache import CompileCache
from worker.meter import Meter
from worker.sandbox import Sandbox
from worker.trees import Checkout, TreeCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """`scratch` is a folder of this attempt alone, removed afterwards, writable to the sandbox's user. `log` takes output lines
    (raw, with newline), `report` progress; both are cheap and thread-safe. `cancel` is set when the attempt shall end. `epoch`:
    unix seconds of the newest header outside the tree that host tools are compiled with."""

    attempt: Attempt
    scratch: Path
    blobs: BlobStore
    trees: TreeCache
    sandbox: Sandbox
    cache: CompileCache
    meter: Meter
    log: Callable[[bytes], None]
    report: Callable[[Progress], None]
    cancel: Cancel
    sources: SourceSettings
    epoch: int

    def checkout(self, tree: Tree) -> AbstractContextManager[Checkout]:
        """The tree's folder, unpacked at this attempt's cost if this node does not have it. Raises as TreeCache.checkout."""
        return self.trees.checkout(tree, self.sandbox)
