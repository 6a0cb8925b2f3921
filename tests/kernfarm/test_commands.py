"""Verbs of the command line against a farm that is played."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from kernel import oci
from kernel.errors import FarmError
from kernfarm import layout
from kernfarm.cli import commands
from kernfarm.cli.output import Output
from kernfarm.client import BuildInfo, FarmClient

ORDER = ("source", "configure", "prepare", "compile-000", "compile-001", "link", "package")


class Growing:
    """A build whose compile steps come a moment after prepare has ended; watching or following a log lets it go on."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.planned = False

    def info(self) -> BuildInfo:
        known = [key for key in ORDER if self.planned or not key.startswith("compile")]
        left = [key for key in known if key not in self.ended]
        # Between prepare and the plan nothing can run.
        runs = left[0] if left and (self.planned or left[0] != "link") else ""
        states = {key: "succeeded" if key in self.ended else "running" if key == runs else "waiting" for key in known}
        return {"state": "running" if left else "succeeded", "steps": [{"key": key, "state": states[key]} for key in known]}

    async def get(self, build_id: str) -> BuildInfo:
        return self.info()

    async def watch(self, build_id: str) -> AsyncIterator[BuildInfo]:
        yield self.info()
        if "prepare" in self.ended:
            self.planned = True
            yield self.info()

    async def logs(self, build_id: str, step: str, *, offset: int, follow: bool) -> AsyncIterator[bytes]:
        yield f"output of {step}\n".encode()
        if follow:
            self.ended.append(step)


@pytest.mark.parametrize("follow", [True, False])
async def test_logs_show_each_step_once_and_in_order_and_following_also_those_that_come_with_the_plan(
    capfdbinary: pytest.CaptureFixture[bytes], follow: bool
) -> None:
    words = argparse.Namespace(build="b", step="", offset=0, follow=follow)
    assert await commands.logs(words, cast(FarmClient, Growing()), Output(json_mode=False)) == 0
    shown = [line.rpartition(" ")[2] for line in capfdbinary.readouterr().out.decode().splitlines()]
    assert shown == [key for key in ORDER if follow or not key.startswith("compile")]


class Store:
    """Gives out blobs and remembers which."""

    def __init__(self, *contents: bytes) -> None:
        self.blobs = {f"sha256:{hashlib.sha256(data).hexdigest()}": data for data in contents}
        self.asked: list[str] = []
        self.signed: tuple[str, list[dict[str, Any]]] = ("", [])

    def info(self) -> BuildInfo:
        blobs: list[dict[str, Any]] = [{"digest": digest} for digest in self.blobs]
        return {"id": "b", "release": "6.1.1-linuxkit", "images": [{"index": next(iter(self.blobs)), "blobs": blobs}], "attachments": []}

    async def download(self, digest: str, to: Path) -> None:
        self.asked.append(digest)
        to.write_bytes(self.blobs[digest])

    async def result(self, build_id: str) -> dict[str, Any]:
        return {}

    async def sign_index(self, build_ids: Sequence[str]) -> tuple[str, list[dict[str, Any]]]:
        self.asked += build_ids
        return self.signed


async def test_fetching_again_mends_a_damaged_blob_and_leaves_whole_ones(tmp_path: Path) -> None:
    store = Store(b'{"manifests": []}', b"layer")
    index, layer = store.blobs
    await commands.fetch_to(cast(FarmClient, store), store.info(), tmp_path)
    assert store.asked == [index, layer]
    layout.blob_path(tmp_path, layer).write_bytes(b"lay3r")
    store.asked.clear()
    await commands.fetch_to(cast(FarmClient, store), store.info(), tmp_path)
    assert store.asked == [layer]
    assert layout.blob_path(tmp_path, layer).read_bytes() == b"layer"


async def test_builds_for_two_architectures_become_one_image_with_what_is_attached_to_each(tmp_path: Path) -> None:
    images = [oci.ImageSpec(platform=platform, layers=()) for platform in ("linux/amd64", "linux/arm64")]
    documents = [(oci.index([image]), oci.manifest(image), oci.config(image)) for image in images]
    store = Store(*(document.data for each in documents for document in each), b"signature")
    signature = {"name": "s", "digest": list(store.blobs)[-1], "size": 9}
    infos = []
    for arch, (index, *others) in zip(("x86_64", "arm64"), documents, strict=True):
        blobs = [{"digest": document.digest} for document in (index, *others)]
        about = {"tag": arch, "subject": index.digest, "media_type": oci.MANIFEST, "artifact_type": "", "manifest": signature, "blobs": []}
        image = {"index": index.digest, "blobs": blobs}
        infos.append({"id": arch, "arch": arch, "release": "6.1.1-linuxkit", "images": [image], "attachments": [about]})
    of_both = {"tag": "both", "subject": "", "media_type": oci.MANIFEST, "artifact_type": "", "manifest": signature, "blobs": []}
    store.signed = ("sha256:else", [of_both])
    with pytest.raises(FarmError, match="the farm signed the index sha256:else"):
        await commands.fetch_together(cast(FarmClient, store), infos, tmp_path / "wrong")
    assert not (tmp_path / "wrong/index.json").exists(), "broken off, it is no layout"
    with pytest.raises(FarmError, match="for one architecture"):
        await commands.fetch_together(cast(FarmClient, store), [infos[0], infos[0] | {"id": "other"}], tmp_path / "twice")
    assert not (tmp_path / "twice").exists()
    store.signed = (oci.index(images).digest, [of_both])
    await commands.fetch_to(cast(FarmClient, store), infos[0], tmp_path)
    digest = await commands.fetch_together(cast(FarmClient, store), infos, tmp_path)
    assert store.asked[-2:] == ["x86_64", "arm64"], "asked for the index over both"
    assert digest == oci.index(images).digest
    top, *attached = json.loads((tmp_path / "index.json").read_text())["manifests"]
    assert top["digest"] == digest
    assert [each["annotations"]["org.opencontainers.image.ref.name"] for each in attached] == ["x86_64", "arm64", "both"]
    assert sorted(path.name for path in tmp_path.glob("result*")) == ["result-arm64.json", "result-x86_64.json"]
    infos[1]["release"] = "6.1.2-linuxkit"
    with pytest.raises(FarmError, match="different kernels"):
        await commands.fetch_together(cast(FarmClient, store), infos, tmp_path / "more")
    assert not (tmp_path / "more").exists()
