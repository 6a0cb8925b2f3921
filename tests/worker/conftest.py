from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernfarm.settings import WorkerSettings
from worker import cgroup
from worker.node import Node
from worker.sandbox import Bubblewrap


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that build steps' own user can reach; pytest's can't be."""
    folder = Path(tempfile.mkdtemp(prefix="kf-unit-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def sandbox() -> Bubblewrap:
    return Bubblewrap(uid=64000, cgroups=cgroup.detect())


@pytest.fixture
def node(open_folder: Path) -> Node:
    """A worker without a compile cache, with a blob store of its own."""
    return Node(WorkerSettings(state_dir=open_folder / "worker", blobs_url=f"file://{open_folder}/blobs", compile_cache=False))
