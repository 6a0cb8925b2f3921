"""What is in an image, over all its layers."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from kernel import digest as digests
from kernel import oci
from kernel.errors import Code
from kernfarm import contents


def image(layers: int) -> tuple[bytes, dict[str, bytes]]:
    """An image whose layers are all the same, of a mebibyte; its index and the rest by digest."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        member = tarfile.TarInfo("kernel")
        member.size = 1 << 20
        tar.addfile(member, io.BytesIO(b"\0" * member.size))
    packed = gzip.compress(raw.getvalue(), mtime=0)
    made = oci.Layer(digest=digests.of_bytes(packed), size=len(packed), diff_id=digests.of_bytes(raw.getvalue()), holds="files")
    spec = oci.ImageSpec(platform="linux/amd64", layers=(made,) * layers, labels={})
    documents = (oci.config(spec), oci.manifest(spec), oci.index([spec]))
    return documents[2].data, {made.digest: packed, **{each.digest: each.data for each in documents}}


def test_all_layers_of_an_image_share_one_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest may name one small layer thousands of times."""
    monkeypatch.setattr(contents, "_MOST_BYTES", 3 << 20)
    index, blobs = image(2)
    assert contents.inspect(index, lambda digest: [blobs[digest]]).problem is None
    index, blobs = image(4)
    found = contents.inspect(index, lambda digest: [blobs[digest]])
    assert found.problem is not None and found.problem.code is Code.BAD_ARCHIVE
    assert "unpacks to more" in found.problem.message


def test_a_layer_that_costs_too_much_is_paid_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_MOST_BYTES", 1 << 19)
    index, blobs = image(3)
    found = contents.inspect(index, lambda digest: [blobs[digest]])
    said = [check.problem.message for check in found.checks if check.name == "layer" and check.problem is not None]
    assert [f"more than the {left} bytes" in message for left, message in zip((1 << 19, 0, 0), said, strict=True)] == [True, True, True]
