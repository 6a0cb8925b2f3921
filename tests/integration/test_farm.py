from __future__ import annotations

import asyncio
import json
import os
import signal
import tarfile
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from kernel import elf, tables
from kernel.errors import Code, FarmError
from kernfarm import layout, process, request
from kernfarm.cli import commands
from kernfarm.cli.embedded import EmbeddedFarm
from kernfarm.client import FarmClient
from kernfarm.request import Draft
from tests import faults
from tests.fakes import fake_linux
from tests.integration.builds import SLOW, SLOWISH, compiling, end, idle, kernfarm, submit, until, with_config

pytestmark = pytest.mark.ray

EMBEDDED = "urn:kernfarm:builder:embedded"


async def test_a_build_from_submit_to_image(farm: EmbeddedFarm, draft: Draft, tmp_path: Path) -> None:
    async with FarmClient(farm.address, farm.credentials) as client:
        build_id = await submit(client, draft)
        info = await end(client, build_id)
        assert info["state"] == "succeeded", info["problem"]
        assert {step["worker"] for step in info["steps"]} <= {"worker-1", "worker-2", "signer"}
        assert info["objects_done"] == info["objects_planned"] > 0
        await commands.fetch_to(client, info, tmp_path / "image")
        files = tmp_path / "files"
        files.mkdir()
        names = layout.extract(tmp_path / "image", "linux/amd64", files)
        assert {"kernel", "kernel.tar", "System.map", "kernel_config", "kernel-source-info", "kernel-dev.tar", "kernel-headers.tar"} == set(
            names
        )
        record = json.loads((tmp_path / "image/result.json").read_text())
        assert record["objects_compiled"] > 0
        assert record["reproduce"].startswith("umask 022 && env -i")
        assert next(step for step in record["steps"] if step["key"] == "link")["unplanned"] == []
        log = b"".join([data async for data in client.logs(build_id, "compile-000")])
        assert b"  CC " in log
        middle = b"".join([data async for data in client.logs(build_id, "compile-000", offset=10)])
        assert middle == log[10:]
        image, key = tmp_path / "image", farm._plan.state / "signer/cosign.pub"
        checked = await asyncio.to_thread(kernfarm, farm, "verify", str(image), "--key", str(key), "--builder", EMBEDDED)
        assert checked.code == 0, checked.output.decode()
        # The same request again is the same build, at once; a clean one is another with the same bytes.
        started = time.monotonic()
        assert await submit(client, draft) == build_id
        assert time.monotonic() - started < 0.5
        again = await end(client, await submit(client, draft, clean=True))
        assert again["id"] != build_id
        assert again["images"] == info["images"]


def test_the_key_is_the_signers_alone(farm: EmbeddedFarm) -> None:
    key = farm._plan.state / "signer/signer.key"
    owner = psutil.Process(farm.services["signer"].pid).uids().effective
    assert (key.stat().st_uid, key.stat().st_mode & 0o777) == (owner, 0o600)
    assert os.geteuid() != 0 or owner != 0, farm.log_of("signer").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as somebody else")
def test_another_user_of_the_machine_finds_nothing_but_addresses_and_the_public_key(farm: EmbeddedFarm) -> None:
    """Runs after builds, so that there are journal, logs, trees and blobs to be found."""
    state = farm._plan.state
    rays = (state / "ray-temp").read_text()
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    found = process.run((*nobody, "find", str(state), rays, "-type", "f", "-readable"), env=dict(os.environ), timeout_seconds=60)
    names = {line.removeprefix(f"{state}/") for line in found.output.decode().splitlines() if not line.startswith("find: ")}
    metrics = {f"metrics/{name}.json" for name in ("coordinator", "worker-1", "worker-2")}
    assert names == {"address", "ray-temp", "signer/cosign.pub", *metrics}
    assert (Path(rays) / "r").is_dir()


async def test_one_request_for_two_architectures_gives_one_image(farm: EmbeddedFarm, draft: Draft, tmp_path: Path) -> None:
    prepared = request.prepare(replace(draft, arch=("x86_64", "arm64")))
    async with FarmClient(farm.address, farm.credentials) as client:
        builds = await client.submit(prepared.spec, prepared.uploads, request_id=str(uuid.uuid4()))
        infos = [await end(client, build["id"]) for build in builds]
        assert [(info["arch"], info["state"]) for info in infos] == [("x86_64", "succeeded"), ("arm64", "succeeded")]
        index = await commands.fetch_together(client, infos, tmp_path / "image")
    top = json.loads((tmp_path / "image/index.json").read_text())["manifests"]
    assert top[0]["digest"] == index
    image, key = tmp_path / "image", farm._plan.state / "signer/cosign.pub"
    checked = await asyncio.to_thread(kernfarm, farm, "verify", str(image), "--key", str(key), "--builder", EMBEDDED)
    assert checked.code == 0, checked.output.decode()
    for arch in (tables.arch("x86_64"), tables.arch("arm64")):
        files = tmp_path / arch.name
        files.mkdir()
        layout.extract(tmp_path / "image", arch.platform, files)
        with tarfile.open(files / "kernel.tar") as tar:
            members = {member.name: member for member in tar}
            modules = [tar.extractfile(member) for name, member in members.items() if name.endswith(".ko")]
            assert {elf.machine(module.read(20)) for module in modules if module} == {arch.elf_machine}
            assert ("./boot/dtb/fake/board.dtb" in members) is arch.device_trees
        record = json.loads((tmp_path / f"image/result-{arch.name}.json").read_text())
        assert next(step for step in record["steps"] if step["key"] == "link")["unplanned"] == []
        assert f"ARCH={arch.kbuild} " in record["reproduce"]


async def test_an_image_that_does_not_boot_is_not_signed(farm: EmbeddedFarm, draft: Draft) -> None:
    """What stands in for a kernel is none to QEMU."""
    async with FarmClient(farm.address, farm.credentials) as client:
        info = await end(client, await submit(client, replace(draft, boot=True)))
    assert info["state"] == "failed"
    assert info["problem"]["code"] == Code.KERNEL_DOES_NOT_BOOT
    assert info["attachments"] == []
    assert {step["key"]: step["state"] for step in info["steps"] if step["kind"] in ("package", "boot", "sign")} == {
        "package": "succeeded",
        "boot": "failed",
        "sign": "cancelled",
    }
    refused = await asyncio.to_thread(kernfarm, farm, "fetch", info["id"], "--to", "/nowhere")
    assert refused.code == 2


def test_one_request_is_a_matrix_of_architectures_and_flavours(farm: EmbeddedFarm, tarball: Path, tmp_path: Path) -> None:
    (tmp_path / "foo.config").write_text("CONFIG_FAKE_CORE_SIZE=48\n")
    first = fake_linux.files()["README"].decode().splitlines()[0]
    (tmp_path / "0001-foo.patch").write_text(f"--- a/README\n+++ b/README\n@@ -1 +1 @@\n-{first}\n+foo\n")
    (tmp_path / "kernfarm.yaml").write_text(
        f"""
source: file:{tarball}
arch: [x86_64, arm64]
config: {{base: defconfig}}
boot: false
flavours:
  - plain
  - {{name: foo, extends: plain, fragments: [foo.config], patches: [0001-foo.patch]}}
"""
    )
    done = kernfarm(farm, "build", str(tmp_path / "kernfarm.yaml"))
    assert done.code == 0, done.output.decode()
    rows = [line.split("\t") for line in done.output.decode().splitlines() if line.count("\t") == 6]
    assert [(arch, flavour, state) for arch, flavour, state, *_ in rows] == [
        ("x86_64", "plain", "succeeded"),
        ("x86_64", "foo", "succeeded"),
        ("arm64", "plain", "succeeded"),
        ("arm64", "foo", "succeeded"),
    ]
    assert {release for _, flavour, _, _, release, *_ in rows if flavour == "foo"} == {"6.1.999-linuxkit-foo"}
    assert len({image for *_, image in rows}) == 4
    together = [build for _, flavour, _, _, _, build, _ in rows if flavour == "foo"]
    fetched = kernfarm(farm, "fetch", *together, "--to", str(tmp_path / "image"))
    assert fetched.code == 0, fetched.output.decode()
    layout.extract(tmp_path / "image", "linux/arm64", tmp_path)
    assert "CONFIG_FAKE_CORE_SIZE=48" in (tmp_path / "kernel_config").read_text().splitlines()
    assert "0001-foo.patch" in (tmp_path / "kernel-source-info").read_text()


async def test_an_image_that_the_store_has_lost_is_made_again(farm: EmbeddedFarm, draft: Draft) -> None:
    draft = replace(draft, local_version="-lost")
    async with FarmClient(farm.address, farm.credentials) as client:
        first = await end(client, await submit(client, draft))
        layer = next(blob["digest"] for blob in first["images"][0]["blobs"] if blob["name"].startswith("layer"))
        name = layer.removeprefix("sha256:")
        (farm._plan.state / "blobs/blobs" / name[:2] / name[2:]).unlink()
        again = await end(client, await submit(client, draft))
        assert again["id"] != first["id"]
        assert again["images"] == first["images"]
        assert [step["key"] for step in again["steps"] if not step["reused"]] == ["package", "sign"]
        assert await submit(client, draft) == again["id"]


async def test_two_builds_of_one_source_fetch_it_once(farm: EmbeddedFarm, draft: Draft, tmp_path: Path) -> None:
    async with FarmClient(farm.address, farm.credentials) as client:
        tarball = fake_linux.tarball(tmp_path / "linux-fresh.tar", {"FRESH": f"{tmp_path}\n"})
        patch = tmp_path / "0001-new.patch"
        patch.write_text("diff --git a/new.txt b/new.txt\nnew file mode 100644\n--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1 @@\n+hello\n")
        drafts = [replace(draft, source=f"file:{tarball}", patches=patches) for patches in ((), (patch,))]
        ids = await asyncio.gather(*(submit(client, each) for each in drafts))
        builds = [await end(client, build_id) for build_id in ids]
        assert [build["problem"] for build in builds] == [None, None]
        sources = [next(step for step in build["steps"] if step["kind"] == "source") for build in builds]
        assert sorted(source["reused"] for source in sources) == [False, True]


async def test_cancel_and_retry(farm: EmbeddedFarm, draft: Draft, tmp_path: Path) -> None:
    async with FarmClient(farm.address, farm.credentials) as client:
        build_id = await submit(client, replace(with_config(draft, tmp_path, SLOWISH), local_version="-cancel"))
        await until(client, build_id, compiling)
        assert (await client.cancel(build_id))["state"] == "cancelled"
        assert (await client.cancel(build_id))["state"] == "cancelled"
        await idle(farm)
        await client.retry(build_id)
        assert (await end(client, build_id))["state"] == "succeeded"
        with pytest.raises(FarmError) as caught:
            await client.retry(build_id)
        assert caught.value.problem.code is Code.CONFLICT


@pytest.mark.parametrize("victim", ["coordinator", "raylet", "worker process"])
async def test_kill_9_in_the_middle_ends_in_the_right_bytes(farm: EmbeddedFarm, draft: Draft, tmp_path: Path, victim: str) -> None:
    draft = replace(with_config(draft, tmp_path, SLOWISH), local_version=f"-{victim.split()[0]}")
    async with FarmClient(farm.address, farm.credentials) as client:
        build_id = await submit(client, draft)
        before = await until(client, build_id, compiling)
        faults.kill(farm, victim, build_id)
    if victim == "coordinator":
        faults.restart_coordinator(farm)
    async with FarmClient(farm.address, farm.credentials) as client:
        after = await end(client, build_id)
        assert after["state"] == "succeeded", after["problem"]
        finished = {step["key"]: step for step in before["steps"] if step["state"] == "succeeded"}
        assert finished
        for step in after["steps"]:
            if step["key"] in finished:
                assert step["started_at"] == finished[step["key"]]["started_at"], "a finished step was done again"
        assert sum(step["attempts"] for step in after["steps"]) > len(after["steps"]) - sum(step["reused"] for step in after["steps"])
        if victim == "raylet":
            faults.restart_dead_workers(farm)
        undisturbed = await end(client, await submit(client, draft, clean=True))
        assert undisturbed["images"] == after["images"]


async def test_a_node_that_dies_while_the_others_are_busy_gets_nothing_more(farm: EmbeddedFarm, draft: Draft, tmp_path: Path) -> None:
    """Until Ray has noticed, the dead node is the only one with a free slot."""
    slow = with_config(draft, tmp_path, SLOW)
    async with FarmClient(farm.address, farm.credentials) as client:
        ids = [await submit(client, replace(slow, local_version=f"-busy{number}")) for number in range(3)]
        for build_id in ids[:2]:
            await until(client, build_id, compiling)
        faults.kill(farm, "raylet", ids[0])
        builds = [await end(client, build_id) for build_id in ids]
        assert [build["problem"] for build in builds] == [None, None, None]
        assert max(step["attempts"] for build in builds for step in build["steps"]) <= 3
    faults.restart_dead_workers(farm)


async def test_a_worker_that_hangs_is_given_up_and_its_late_answer_refused(farm: EmbeddedFarm, draft: Draft, tmp_path: Path) -> None:
    """As in a network partition: the process lives, nothing is heard of it, and one day its answer arrives."""
    slow = replace(with_config(draft, tmp_path, SLOW), local_version="-hang")
    async with FarmClient(farm.address, farm.credentials) as client:
        build_id = await submit(client, slow)
        await until(client, build_id, compiling)
        hung = faults.above_sandbox(farm, build_id)
        os.kill(hung.pid, signal.SIGSTOP)
        try:
            info = await end(client, build_id)
            assert len(await client.workers()) == 1, "a worker that does not answer gets no work"
        finally:
            os.kill(hung.pid, signal.SIGCONT)
        assert info["state"] == "succeeded", info["problem"]
        assert any(step["attempts"] > 1 for step in info["steps"])
        # Woken up, it goes on with an attempt that is not current any more; the farm has to stay as it is.
        await idle(farm)
        assert await client.get(build_id) == info
        deadline = time.monotonic() + 30
        while len(await client.workers()) < 2:
            assert time.monotonic() < deadline, "a worker that answers again gets work again"
            await asyncio.sleep(0.2)
        assert (await end(client, await submit(client, slow, clean=True)))["images"] == info["images"]


BAD: list[tuple[str, list[str], int, str]] = [
    ("arch", ["--arch", "x86-64"], 2, "did you mean 'x86_64'"),
    ("flavour", ["--flavour", "plian"], 2, "did you mean 'plain'"),
    ("output", ["--output", "pizza"], 2, "unknown output 'pizza'"),
    ("toolchain", ["--toolchain", "gcc12"], 2, "did you mean 'gcc-12'"),
    ("option", ["--no-such-option"], 2, "unrecognized arguments"),
    ("base", ["--base", "defconfg"], 2, "did you mean 'defconfig'"),
    ("missing fragment", ["--config", "/nowhere/my.config"], 2, "/nowhere/my.config"),
    ("source kind", ["--source", "tape:1"], 2, "names no source"),
]


@pytest.mark.parametrize(("words", "code", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_words_are_refused_with_the_mend(farm: EmbeddedFarm, tarball: Path, words: list[str], code: int, said: str) -> None:
    source = [] if "--source" in words else ["--source", f"file:{tarball}"]
    done = kernfarm(farm, "build", "--no-boot", *source, *words)
    assert done.code == code, done.output
    assert said in " ".join(done.output.decode().split())


FRAGMENTS: list[tuple[str, str, int, list[str]]] = [
    ("unknown symbol", "CONFIG_NO_SUCH_THING=y\n", 2, ["CONFIG_NO_SUCH_THING", "no such symbol", "my.config:1"]),
    ("does not stick", "CONFIG_FAKE_NEVER=y\n", 2, ["CONFIG_FAKE_NEVER did not stick", "asked y, got n"]),
    ("no config line", "FAKE=y\n", 2, ["not a configuration line", "my.config:1"]),
    ("contradiction", "CONFIG_FAKE_SLOW=y\n# CONFIG_FAKE_SLOW is not set\n", 2, ["contradicts", "my.config:1", "my.config:2"]),
    ("path outside", 'CONFIG_INITRAMFS_SOURCE="/etc"\n', 2, ["points outside the source tree"]),
    ("does not compile", "CONFIG_FAKE_FAIL_COMPILE=y\n", 3, ["kernel/core.c:17:16", "'this_is_not_declared' undeclared", "kernfarm logs"]),
]


@pytest.mark.parametrize(("text", "code", "said"), [row[1:] for row in FRAGMENTS], ids=[row[0] for row in FRAGMENTS])
def test_bad_fragments_name_symbol_place_and_reason(
    farm: EmbeddedFarm, tarball: Path, tmp_path: Path, text: str, code: int, said: list[str]
) -> None:
    path = tmp_path / "my.config"
    path.write_text(text)
    done = kernfarm(farm, "build", "--no-boot", "--source", f"file:{tarball}", "--config", str(path))
    assert done.code == code, done.output
    shown = " ".join(done.output.decode().split())
    assert all(word in shown for word in said), shown


def test_bad_patches_name_patch_file_and_hunk(farm: EmbeddedFarm, tarball: Path, tmp_path: Path) -> None:
    patch = tmp_path / "0001-x.patch"
    patch.write_text("--- a/Makefile\n+++ b/Makefile\n@@ -1,2 +1,2 @@\n-not what is there\n+x\n y\n")
    done = kernfarm(farm, "build", "--no-boot", "--source", f"file:{tarball}", "--patches", str(patch))
    assert done.code == 2
    assert "0001-x.patch" in done.output.decode()
    assert "hunk 1" in done.output.decode()
    patch.write_text("--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n")
    assert kernfarm(farm, "build", "--no-boot", "--source", f"file:{tarball}", "--patches", str(patch)).code == 2


def test_no_kernel_and_no_archive_are_the_users_fault(farm: EmbeddedFarm, tmp_path: Path) -> None:
    bad = tmp_path / "linux.tar.xz"
    bad.write_bytes(b"this is no archive")
    done = kernfarm(farm, "build", "--no-boot", "--source", f"file:{bad}")
    assert done.code == 2, done.output
    assert "cannot unpack" in done.output.decode()


def test_unknown_builds_and_absent_farms(farm: EmbeddedFarm) -> None:
    done = kernfarm(farm, "show", "nothing")
    assert done.code == 2
    assert "no build 'nothing'" in done.output.decode()
    done = kernfarm(farm, "list", "--farm", "127.0.0.1:1")
    assert done.code == 4
    assert "kernfarm up" in done.output.decode()


def test_json_is_on_stdout_alone(farm: EmbeddedFarm, tarball: Path) -> None:
    done = kernfarm(farm, "build", "--no-boot", "--source", f"file:{tarball}", "--json")
    assert done.code == 0, done.output
    data: Any = json.loads(done.output[done.output.index(b"[\n") :])
    assert data[0]["state"] == "succeeded"
    assert json.loads(kernfarm(farm, "workers", "--json").output)[0]["sandbox"] == "bubblewrap"
    assert json.loads(kernfarm(farm, "list", "--json").output)


def test_the_farm_still_serves_and_nothing_is_left_behind(farm: EmbeddedFarm, tarball: Path) -> None:
    assert kernfarm(farm, "build", "--no-boot", "--source", f"file:{tarball}").code == 0
    scratch = farm._plan.state / "worker/state/scratch"
    assert [entry.name for entry in scratch.iterdir() if entry.is_dir()] == []
