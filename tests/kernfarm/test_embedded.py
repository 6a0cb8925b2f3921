"""An embedded farm's hold on its state folder, and its end while it starts; with a program in Ray's place that never comes up."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.errors import Code, FarmError
from kernfarm.cli import embedded
from kernfarm.cli.claim import Claim
from kernfarm.cli.embedded import EmbeddedFarm, Plan


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(state=tmp_path / "state", workers=1, jobs=1, listen="127.0.0.1:0")


@pytest.fixture
def no_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = tmp_path / "bin/ray"
    ray.parent.mkdir()
    ray.write_text("#!/bin/sh\nexec sleep 60\n")
    ray.chmod(0o755)
    monkeypatch.setattr(embedded.sys, "executable", str(ray.with_name("python")))


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those that `run` replaces."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_farm_on_one_folder_is_refused_and_leaves_the_first_ones_files_alone(plan: Plan) -> None:
    first = Claim(plan.state)
    first.take()
    first.ray_folder.mkdir()
    (plan.state / "logs").mkdir()
    for name in ("ray-token", "address", "logs/worker-1.log", "worker-1.yaml"):
        (plan.state / name).write_text("the first one's")
    before = contents(plan.state)
    second = EmbeddedFarm(plan)
    try:
        with pytest.raises(FarmError) as caught:
            second.start()
        second.stop()
        assert caught.value.problem.code is Code.CONFLICT
        assert "kernfarm workers --state" in caught.value.problem.hint
        assert contents(plan.state) == before
        assert first.ray_folder.is_dir()
    finally:
        first.release()
    assert not first.ray_folder.parent.exists()


def test_a_folder_that_was_let_go_can_be_taken_again(plan: Plan) -> None:
    for _ in range(2):
        claim = Claim(plan.state)
        claim.take()
        claim.release()
    assert not claim.held


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FarmError) as caught:
        Claim(tmp_path / "file/state").take()
    assert caught.value.problem.code is Code.INVALID_ARGUMENT


def test_rays_folder_of_a_dead_farm_is_removed_at_the_next_start(plan: Plan) -> None:
    dead = Path(f"/tmp/kf-{secrets.token_hex(4)}")
    (dead / "session").mkdir(parents=True)
    plan.state.mkdir()
    (plan.state / "ray-temp").write_text(str(dead))
    claim = Claim(plan.state)
    claim.take()
    try:
        assert not dead.exists()
        assert (plan.state / "ray-temp").read_text() == str(claim.ray_folder.parent)
    finally:
        claim.release()


def test_a_note_that_names_anything_else_removes_nothing(plan: Plan, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    link = Path(f"/tmp/kf-{secrets.token_hex(4)}")
    link.symlink_to(precious)
    plan.state.mkdir()
    try:
        for named in (str(precious), f"/tmp/kf-00000000/../..{precious}", str(link)):
            (plan.state / "ray-temp").write_text(named)
            claim = Claim(plan.state)
            claim.take()
            claim.release()
        assert precious.is_dir()
        assert link.is_symlink()
    finally:
        link.unlink()


@pytest.mark.usefixtures("no_ray")
def test_a_farm_told_to_stop_while_it_starts_ends_what_it_started(plan: Plan) -> None:
    farm, stop = EmbeddedFarm(plan), threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    started = time.monotonic()
    with pytest.raises(FarmError) as caught:
        farm.start(stop)
    farm.stop()
    timer.join()
    assert caught.value.problem.code is Code.CANCELLED
    assert time.monotonic() - started < 10
    assert farm.services["ray-head"].poll() is not None
    assert not (plan.state / "ray-temp").exists()


@pytest.mark.usefixtures("no_ray", "handlers")
def test_ctrl_c_while_a_farm_starts_is_a_clean_end(plan: Plan) -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    said: list[str] = []
    assert embedded.run(plan, said.append) == 0
    timer.join()
    assert said == []
