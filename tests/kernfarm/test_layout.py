from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from kernel import oci
from kernel.errors import Code, FarmError
from kernfarm import layout


def put(folder: Path, data: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    path = layout.blob_path(folder, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return digest


def tar(entries: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return raw.getvalue()


def make(folder: Path, data: bytes) -> tuple[str, str]:
    """A layout of one layer; returns the digests of index and layer."""
    layer = put(folder, gzip.compress(data, mtime=0))
    manifest = put(folder, json.dumps({"layers": [{"digest": layer, "size": layout.blob_path(folder, layer).stat().st_size}]}).encode())
    entry = {"digest": manifest, "platform": {"architecture": "amd64", "os": "linux"}, "mediaType": oci.MANIFEST, "size": 1}
    index = put(folder, json.dumps({"manifests": [entry]}).encode())
    layout.finish(folder, index, reference="docker.io/linuxkit/kernel:6.1.1")
    return index, layer


def test_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    make(tmp_path / "image", tar({"kernel": b"k", "kernel.tar": b"t"}))
    (tmp_path / "to").mkdir()
    assert layout.extract(tmp_path / "image", "linux/amd64", tmp_path / "to") == ["kernel", "kernel.tar"]
    assert (tmp_path / "to/kernel").read_bytes() == b"k"


def test_only_our_own_regular_files_land_anywhere(tmp_path: Path) -> None:
    make(tmp_path / "image", tar({"../evil": b"x", "/abs": b"x", "other": b"x", "kernel": b"k"}, {"System.map": "/etc/passwd"}))
    (tmp_path / "to").mkdir()
    assert layout.extract(tmp_path / "image", "linux/amd64", tmp_path / "to") == ["kernel"]
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["kernel"]


@pytest.mark.parametrize("which", ["index", "layer"])
def test_a_damaged_blob_is_named(tmp_path: Path, which: str) -> None:
    index, layer = make(tmp_path, tar({"kernel": b"k"}))
    digest = index if which == "index" else layer
    layout.blob_path(tmp_path, digest).write_bytes(b"damaged")
    with pytest.raises(FarmError) as caught:
        layout.extract(tmp_path, "linux/amd64", tmp_path)
    assert caught.value.problem.code is Code.BAD_DIGEST
    assert digest in caught.value.problem.message


def test_a_missing_blob_platform_or_layout_is_said(tmp_path: Path) -> None:
    index, layer = make(tmp_path / "image", tar({"kernel": b"k"}))
    with pytest.raises(FarmError, match="nothing for linux/arm64"):
        layout.extract(tmp_path / "image", "linux/arm64", tmp_path)
    layout.blob_path(tmp_path / "image", layer).unlink()
    with pytest.raises(FarmError, match="lacks"):
        layout.extract(tmp_path / "image", "linux/amd64", tmp_path)
    with pytest.raises(FarmError, match="no OCI layout"):
        layout.extract(tmp_path / "nowhere", "linux/amd64", tmp_path)
    assert index


def put_image(folder: Path, platform: str) -> str:
    """The index of a single image without layers."""
    image = oci.ImageSpec(platform=platform, layers=())
    for document in (oci.config(image), oci.manifest(image), oci.index([image])):
        put(folder, document.data)
    return oci.index([image]).digest


def test_images_of_two_architectures_become_one(tmp_path: Path) -> None:
    indexes = [put_image(tmp_path, platform) for platform in ("linux/arm64", "linux/amd64")]
    index = layout.unite(tmp_path, indexes)
    assert index == layout.unite(tmp_path, indexes[::-1])
    layout.finish(tmp_path, index, reference="docker.io/linuxkit/kernel:6.1.1")
    for platform in ("linux/amd64", "linux/arm64"):
        assert layout.extract(tmp_path, platform, tmp_path) == []
    with pytest.raises(FarmError, match="nothing for linux/riscv64"):
        layout.extract(tmp_path, "linux/riscv64", tmp_path)
    assert layout.unite(tmp_path, indexes[:1]) == indexes[0]


def test_two_images_of_one_architecture_are_no_one_image(tmp_path: Path) -> None:
    index = put_image(tmp_path, "linux/arm64")
    with pytest.raises(FarmError, match="two images for one platform") as caught:
        layout.unite(tmp_path, [index, index])
    assert caught.value.problem.code is Code.INVALID_ARGUMENT
