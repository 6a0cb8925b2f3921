from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kernfarm import publication
from kernfarm.registry.content import Content
from tests.fakes import layouts
from tests.fakes.registry_server import FakeRegistry
from tests.kernfarm.pushing import OPEN


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as found:
        yield found
        while OPEN:
            OPEN.pop().close()


@pytest.fixture
def content(tmp_path: Path) -> Content:
    layouts.write(tmp_path / "image", seed="s", size=30_000, signatures=["signature"])
    return publication.content([publication.read(tmp_path / "image")])
