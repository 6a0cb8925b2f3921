"""One Docker daemon with the farm's images, for all tests that need them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import images
from tests.deploy.engine import FOLDER, Engine, daemon, network, remove


@pytest.fixture(scope="session")
def built() -> Iterator[Path]:
    """Both images, in the data folder of a daemon that has ended. With KEEP in the environment they stay for the next run."""
    keep = "KEEP" in os.environ
    if not keep:
        remove(FOLDER)
    FOLDER.mkdir(mode=0o711, exist_ok=True)
    done = FOLDER / "built"
    if not done.exists():
        images.build(FOLDER)
        done.touch()
    yield FOLDER
    if not keep:
        remove(FOLDER)


@pytest.fixture(scope="session")
def engine(built: Path) -> Iterator[Engine]:
    """A daemon with the images, in a network namespace where nothing else is."""
    with network(f"kernfarm-docker-{os.getpid()}") as namespace, daemon(built, namespace=namespace) as found:
        yield found
