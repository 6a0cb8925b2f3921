"""One view of several builds, and one table at their end."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from rich.console import Console

from kernel.errors import Code, FarmError
from kernfarm.cli import commands, progress
from kernfarm.cli.output import Output
from kernfarm.client import BuildInfo, FarmClient


def step(key: str, state: str, **more: Any) -> dict[str, Any]:
    kind = key.partition("-")[0]
    plain: dict[str, Any] = {"key": key, "kind": kind, "state": state, "worker": "worker-1", "attempts": 1, "doing": "", "reused": False}
    return {
        **plain,
        "objects_done": 0,
        "objects_planned": 0,
        "why_waiting": "",
        "problem": None,
        "started_at": 1.0,
        "ended_at": 0.0,
        **more,
    }


def info(arch: str, state: str, *steps: dict[str, Any], problem: dict[str, str] | None = None) -> BuildInfo:
    return {
        "id": f"b-{arch}",
        "state": state,
        "source": "debian:6.1",
        "arch": arch,
        "flavour": "plain",
        "release": "6.1.0-linuxkit" if state == "succeeded" else "",
        "steps": list(steps),
        "problem": problem,
        "created_at": 100.0,
        "ended_at": 160.0 if state in progress.ENDED else None,
        "artifacts": [],
        "images": [{"name": "kernel", "index": f"sha256:{arch}"}] if state == "succeeded" else [],
        "objects_done": 3,
        "objects_planned": 10,
        "warnings": [],
    }


class Played:
    """Watches that go on in turns: none of two builds can end before the other has been seen."""

    def __init__(self, *, broken: str = "") -> None:
        self.both = asyncio.Barrier(2)
        self.broken = broken
        self.open = 0

    async def watch(self, build_id: str) -> AsyncIterator[BuildInfo]:
        arch = build_id.removeprefix("b-")
        self.open += 1
        try:
            yield info(arch, "running", step("compile-000", "running", doing="CC init/main.o", objects_done=1, objects_planned=4))
            async with asyncio.timeout(5):
                await self.both.wait()
            if arch == self.broken:
                raise FarmError(Code.UNAVAILABLE, "gone")
            if self.broken:
                await asyncio.sleep(60)
            failure = {"code": "kernel-does-not-build", "message": "no", "where": "a.c", "hint": ""}
            yield info(arch, "succeeded") if arch == "x86_64" else info(arch, "failed", step("link", "failed"), problem=failure)
        finally:
            self.open -= 1


def shown(builds: list[BuildInfo]) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(progress.view(builds))
    return cast(io.StringIO, console.file).getvalue()


async def test_builds_are_watched_together_and_come_back_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    ended = await progress.follow(cast(FarmClient, Played()), ["b-arm64", "b-x86_64"], Output(json_mode=False))
    assert [(each["arch"], each["state"]) for each in ended] == [("arm64", "failed"), ("x86_64", "succeeded")]
    said = capsys.readouterr().err
    assert "b-arm64  compile-000 running" in said
    assert "b-x86_64  compile-000 running" in said


async def test_the_same_build_twice_in_an_answer_is_watched_once() -> None:
    played = Played()
    played.both = asyncio.Barrier(1)
    ended = await progress.follow(cast(FarmClient, played), ["b-x86_64", "b-x86_64"], Output(json_mode=False))
    assert [each["id"] for each in ended] == ["b-x86_64"] * 2


async def test_a_farm_that_goes_ends_all_watches() -> None:
    played = Played(broken="arm64")
    with pytest.raises(FarmError, match="gone"):
        await progress.follow(cast(FarmClient, played), ["b-arm64", "b-x86_64"], Output(json_mode=False))
    assert played.open == 0


def test_the_view_has_a_line_for_each_build_and_for_what_runs_or_failed() -> None:
    text = shown(
        [
            info("x86_64", "running", step("prepare", "succeeded"), step("compile-000", "running", doing="CC init/main.o \x1b[2J")),
            info("arm64", "failed", step("link", "failed"), step("package", "waiting")),
        ]
    )
    lines = text.splitlines()
    assert "1 of 2 builds have ended" in lines[0]
    assert [line.split()[1] for line in lines if "b-" in line] == ["b-x86_64", "b-arm64"]
    assert "CC init/main.o \\x1b[2J" in text
    assert "failed after 60 s" in text
    assert "prepare" not in text
    assert "package" not in text


def test_several_builds_end_in_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    failure = {"code": "kernel-does-not-build", "message": "no", "where": "a.c", "hint": ""}
    code = commands.report([info("x86_64", "succeeded"), info("arm64", "failed", problem=failure)], Output(json_mode=False))
    assert code == 3
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "x86_64\tplain\tsucceeded\t60\t6.1.0-linuxkit\tb-x86_64\tsha256:x86_64",
        "arm64\tplain\tfailed\t60\t\tb-arm64\t",
    ]
    assert "a.c: no" in captured.err
