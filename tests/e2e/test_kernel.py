"""A real kernel through a real farm: the bytes of a plain make, an image that boots, a module made from kernel-dev alone."""

from __future__ import annotations

import json
import tarfile
import uuid
from pathlib import Path

import pytest

from kernfarm import boot, process, request
from kernfarm.client import FarmClient
from tests import faults
from tests.e2e.comparison import assert_bytes_of_a_plain_make
from tests.e2e.conftest import Built, RealFarm
from tests.kernels import MODULES, draft, make_hello

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def built(real_farm: RealFarm) -> Built:
    return real_farm.build(draft("x86_64"))


def test_the_bytes_are_those_of_a_plain_make(built: Built, real_farm: RealFarm, plain_state: Path) -> None:
    assert_bytes_of_a_plain_make(built, real_farm, plain_state)
    shards = [step for step in built.record["steps"] if step["key"].startswith("compile")]
    assert len(shards) >= 10
    assert {step["worker"] for step in shards} == {"worker-1", "worker-2"}


def test_kernel_dev_alone_makes_a_module_and_the_image_boots_and_loads_it(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.files / "kernel-dev.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    (headers,) = (tmp_path / "usr/src").iterdir()
    assert headers.name == f"linux-headers-{built.info['release']}"
    module = make_hello(tmp_path / "hello")
    env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    done = process.run(("make", "-C", str(headers), f"M={module}", "CC=gcc-12", "modules"), env=env, timeout_seconds=120)
    assert done.code == 0, done.output.decode()
    booted = boot.boot(built.files, arch="x86_64", modules=MODULES, extra=(module / "hello.ko",), timeout_seconds=120)
    assert booted.release == built.info["release"]
    assert set(booted.loaded) == {*MODULES, "hello"}


def test_the_image_is_what_linuxkit_expects(built: Built) -> None:
    with tarfile.open(built.files / "kernel.tar", "r:") as tar:
        names = {member.name: member for member in tar.getmembers()}
        release = built.info["release"]
        build = names[f"./lib/modules/{release}/build"]
        assert build.issym()
        assert build.linkname == f"/usr/src/linux-headers-{release}"
        assert f"./lib/modules/{release}/source" not in names
        assert f"./lib/modules/{release}/modules.dep" in names
        assert all(member.uid == member.gid == 0 and not member.islnk() for member in names.values())
    info = (built.files / "kernel-source-info").read_text().splitlines()
    assert info[0].startswith("KERNEL_SOURCE=debian:linux-source-6.1=")
    with tarfile.open(built.files / "kernel-headers.tar") as tar:
        assert "./usr/include/linux/types.h" in tar.getnames()
    index = json.loads((built.files.parent / "image/index.json").read_text())
    assert index["manifests"][0]["digest"] == built.info["images"][0]["index"]


async def test_kill_9_of_a_worker_a_raylet_and_the_coordinator_in_one_build_changes_no_byte(built: Built, real_farm: RealFarm) -> None:
    """A clean build, with the compile cache warm; each victim dies while another shard of the real kernel compiles."""
    prepared = request.prepare(draft("x86_64"))
    farm = real_farm.embedded
    seen: dict[str, float] = {}
    async with real_farm.client() as client:
        build_id = (await client.submit(prepared.spec, prepared.uploads, request_id=str(uuid.uuid4()), clean=True))[0]["id"]
        # With the cache warm a shard takes seconds: nothing here may wait for a restart before the last blow has fallen.
        for shards, victim in ((1, "worker process"), (3, "raylet"), (5, "coordinator")):
            await _compiled(client, build_id, shards, seen)
            faults.kill(farm, victim, build_id)
    faults.restart_coordinator(farm)
    faults.restart_dead_workers(farm)
    async with real_farm.client() as client:
        info = [each async for each in client.watch(build_id)][-1]
        record = await client.result(build_id)
    assert info["state"] == "succeeded", info["problem"]
    assert info["images"] == built.info["images"]
    assert sum(step["attempts"] for step in info["steps"]) >= len(info["steps"]) + 3, "three attempts were lost"
    again = [step["key"] for step in info["steps"] if step["key"] in seen and step["started_at"] != seen[step["key"]]]
    assert again == [], "a finished step was done again"
    assert record["objects_compiled"] == built.record["objects_compiled"]


async def _compiled(client: FarmClient, build_id: str, shards: int, seen: dict[str, float]) -> None:
    """Wait until so many shards are done and another is running; remember when each finished step had started."""
    async for info in client.watch(build_id):
        finished = [step for step in info["steps"] if step["state"] == "succeeded"]
        seen.update({step["key"]: step["started_at"] for step in finished})
        running = any(step["kind"] == "compile" and step["state"] == "running" for step in info["steps"])
        if running and sum(step["kind"] == "compile" for step in finished) >= shards:
            return
    raise AssertionError(f"the build ended before: {info}")
