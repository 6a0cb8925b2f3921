"""Layouts that come from others, with something else than files in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel import digest as digests
from kernel.errors import Code, FarmError
from kernfarm import layout, publication, records, regular
from kernfarm.verify_source import LayoutSource
from tests.deadline import deadline
from tests.fakes import layouts


@pytest.mark.parametrize("name", ["result.json", "index.json", "the index", "a layer", "a signature"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "folder", "device"])
def test_what_is_no_file_is_said_and_not_waited_for(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    """Nobody writes to the pipe, and a device never ends: whoever reads them would hang."""
    index = layouts.write(tmp_path, seed="s", signatures=["first"])
    image = publication.read(tmp_path)
    named = {"the index": index, "a layer": image.blobs[1].digest, "a signature": image.attached[0].document.digest}
    path = layout.blob_path(tmp_path, named[name]) if name in named else tmp_path / name
    path.unlink()
    make(path)
    readers = [publication.read, verify_layout] + ([extract_again] if name in ("index.json", "the index", "a layer") else [])
    for read in readers:
        with deadline(5):
            assert "not a regular file" in said(read, tmp_path)


def verify_layout(folder: Path) -> None:
    """Everything that `kernfarm verify` would open."""
    source = LayoutSource(folder)
    for path in source.records():
        records.read(path)
    for path in sorted((folder / "blobs/sha256").iterdir()):
        for _ in source.blob(f"sha256:{path.name}"):
            pass


def extract_again(folder: Path) -> None:
    layout.extract(folder, "linux/amd64", folder)


def said(read: Callable[[Path], object], folder: Path) -> str:
    with pytest.raises(FarmError) as caught:
        read(folder)
    assert caught.value.problem.code in (Code.MISSING_FILE, Code.NOT_FOUND)
    return str(caught.value)


def test_what_is_read_whole_has_a_bound(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"1234")
    assert regular.read_regular(file, 4) == b"1234"
    with pytest.raises(FarmError) as caught:
        regular.read_regular(file, 3)
    assert caught.value.problem.code is Code.BAD_ARCHIVE


def test_a_blob_is_what_was_opened_whatever_its_name_leads_to_later(tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(b"checked")
    digest = digests.of_bytes(b"checked")
    with regular.open_blob(file, digest, 7) as opened:
        file.unlink()
        file.write_bytes(b"another")
        assert opened.read() == b"checked"
    for read in (lambda path, digest: regular.open_blob(path, digest, 7), lambda path, digest: regular.read_blob(path, digest, 100)):
        with pytest.raises(FarmError, match=f"{digest} is damaged") as caught:
            read(file, digest)
        assert caught.value.problem.code is Code.BAD_DIGEST
        with pytest.raises(FarmError, match=f"lacks {digest}") as caught:
            read(tmp_path / "nowhere", digest)
        assert caught.value.problem.code is Code.MISSING_FILE


def test_a_blob_of_another_size_is_not_hashed(tmp_path: Path) -> None:
    layouts.write(tmp_path, seed="s")
    (blob, *_) = publication.read(tmp_path).blobs
    with blob.path.open("r+b") as file:
        file.truncate(1 << 42)
    with deadline(20), pytest.raises(FarmError, match=f"{1 << 42} bytes instead of {blob.size}") as caught:
        publication.read(tmp_path)
    assert caught.value.problem.code is Code.BAD_DIGEST
