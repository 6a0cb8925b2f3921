"""What a worker process sets up once from its settings, and shares between attempts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from kernel.errors import Code, FarmError
from kernfarm.blobs import BlobStore
from kernfarm.settings import WorkerSettings
from worker import cgroup, leftovers
from worker.ccache import CompileCache, find_binary
from worker.sandbox import Bubblewrap, NullSandbox, Sandbox
from worker.toolchain import newest_header
from worker.trees import TreeCache


class Node:
    """Blob store, sandbox, trees and compile cache of one worker."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.blobs = BlobStore.open(settings.blobs_url, settings.blobs_options)
        self.cgroups = cgroup.detect()
        self.sandbox = _sandbox(settings, self.cgroups)
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        settings.state_dir.chmod(0o755)  # jobs run as another user and have to reach their folders below it
        self.trees = TreeCache(settings.state_dir / "trees", self.blobs, limit_bytes=settings.tree_cache_bytes)
        binary = find_binary() if settings.compile_cache else None
        self.cache = CompileCache(lambda domain: self.blobs.keyed(f"ccache/{domain}"), binary)
        self.epoch = newest_header()
        self._scratch = settings.state_dir / "scratch"
        self._scratch.mkdir(exist_ok=True)
        self._scratch.chmod(0o755)

    @contextlib.contextmanager
    def scratch(self, attempt_id: str) -> Iterator[Path]:
        """A folder for one attempt, gone afterwards. What dead processes left is removed first, as far as that is possible."""
        leftovers.sweep(self._scratch)
        with leftovers.own(self._scratch / "".join(letter if letter.isalnum() else "-" for letter in attempt_id)) as folder:
            yield folder


def _sandbox(settings: WorkerSettings, cgroups: cgroup.Manager) -> Sandbox:
    if settings.sandbox == "bubblewrap":
        return Bubblewrap(uid=settings.sandbox_uid, cgroups=cgroups)
    if settings.sandbox == "none":
        return NullSandbox(cgroups=cgroups)
    raise FarmError(Code.UNKNOWN_VALUE, f"unknown sandbox {settings.sandbox!r}", where="sandbox", hint="bubblewrap or none")


def usable_cpus() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0))
