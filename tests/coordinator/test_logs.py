from __future__ import annotations

from pathlib import Path

import pytest

from coordinator import logs
from coordinator.logs import Logs
from kernel.errors import FarmError


def test_output_is_read_from_any_offset_and_follows_itself(tmp_path: Path) -> None:
    kept = Logs(tmp_path)
    kept.append("b1", "link", b"one\n")
    kept.append("b1", "link", b"two\n")
    assert kept.read("b1", "link", 0) == b"one\ntwo\n"
    assert kept.read("b1", "link", 4) == b"two\n"
    assert kept.read("b1", "link", 100) == b""
    assert kept.read("b1", "other", 0) == b""
    assert kept.read("b1", "link", 0, limit=3) == b"one"


def test_endless_output_is_cut_once_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_BOUND", 10)
    kept = Logs(tmp_path)
    for _ in range(5):
        kept.append("b1", "link", b"123456")
    data = kept.read("b1", "link", 0)
    assert data.startswith(b"1234561234\n[the log is cut here")
    assert data.count(b"cut") == 1


@pytest.mark.parametrize(("build", "step"), [("..", "link"), ("b1", "../../etc/passwd"), ("b1", ""), ("B", "link")])
def test_names_from_outside_lead_nowhere(tmp_path: Path, build: str, step: str) -> None:
    with pytest.raises(FarmError):
        Logs(tmp_path).read(build, step, 0)
    with pytest.raises(FarmError):
        Logs(tmp_path).append(build, step, b"x")
    assert list(tmp_path.iterdir()) == []
