"""Layers that cost whoever reads them more than they weigh."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc

import pytest

from kernel import digest as digests
from kernel.errors import Code, FarmError
from kernfarm import contents


def gnu_sparse() -> bytes:
    """A member that claims a pebibyte of zeros, in the old GNU form."""
    member = tarfile.TarInfo("kernel")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = b"\x80" + (1 << 50).to_bytes(11, "big")  # the real size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + b"\0" * 1024


def pax_sparse() -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("kernel")
        member.pax_headers = {"GNU.sparse.size": str(1 << 50), "GNU.sparse.map": f"0,0,{1 << 50},0", "GNU.sparse.name": "kernel"}
        tar.addfile(member)
    return raw.getvalue()


def long_header() -> bytes:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 64 << 20
    return header.tobuf(tarfile.GNU_FORMAT) + b"0" * (64 << 20)


@pytest.mark.parametrize("tar", [gnu_sparse, pax_sparse, long_header], ids=lambda make: make.__name__)
def test_a_small_layer_costs_little(tar: object) -> None:
    packed = gzip.compress(tar(), mtime=0)  # type: ignore[operator]
    tracemalloc.start()
    try:
        with pytest.raises(FarmError) as caught:
            contents.read_layer([packed], digests.of_bytes(packed))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.problem.code is Code.BAD_ARCHIVE


def test_a_layer_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_MOST_BYTES", 1 << 20)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        member = tarfile.TarInfo("kernel")
        member.size = 4 << 20
        tar.addfile(member, io.BytesIO(b"\0" * member.size))
    packed = gzip.compress(raw.getvalue(), mtime=0)
    with pytest.raises(FarmError, match="unpacks to more") as caught:
        contents.read_layer([packed], digests.of_bytes(packed))
    assert caught.value.problem.code is Code.BAD_ARCHIVE
