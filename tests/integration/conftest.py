"""A whole embedded farm for a module: real Ray, gRPC, ccache and bubblewrap, building a fake kernel in seconds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernfarm.cli.embedded import EmbeddedFarm, Plan
from kernfarm.request import Draft
from tests.fakes import fake_linux
from tests.homes import make_home


@pytest.fixture(scope="module")
def farm() -> Iterator[EmbeddedFarm]:
    home = make_home()
    embedded = EmbeddedFarm(
        Plan(state=home, workers=2, jobs=1, listen="127.0.0.1:0", coordinator_overrides={"heartbeat_timeout_seconds": 5.0})
    )
    try:
        embedded.start()
        yield embedded
    finally:
        embedded.stop()
        if "KEEP" not in os.environ:
            shutil.rmtree(home)


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fake") / "linux-fake.tar"
    fake_linux.tarball(path)
    return path


@pytest.fixture
def draft(tarball: Path) -> Draft:
    """The smallest request."""
    return Draft(source=f"file:{tarball}", base="defconfig", boot=False)
