"""Layers that cost whoever reads them more than they weigh."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from kernel import digest as digests
from kernel.errors import Code, FarmError
from kernfarm import layers


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
            layers.read_layer([packed], digests.of_bytes(packed), layers.Budget(1 << 40))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.problem.code is Code.BAD_ARCHIVE


def test_a_layer_that_unpacks_to_too_much_is_refused() -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        member = tarfile.TarInfo("kernel")
        member.size = 4 << 20
        tar.addfile(member, io.BytesIO(b"\0" * member.size))
    packed = gzip.compress(raw.getvalue(), mtime=0)
    with pytest.raises(FarmError, match="unpacks to more") as caught:
        layers.read_layer([packed], digests.of_bytes(packed), layers.Budget(1 << 20))
    assert caught.value.problem.code is Code.BAD_ARCHIVE


def refused(tar: bytes) -> str:
    packed = gzip.compress(tar, mtime=0)
    with pytest.raises(FarmError) as caught:
        layers.read_layer([packed], digests.of_bytes(packed), layers.Budget(1 << 40))
    assert caught.value.problem.code is Code.BAD_ARCHIVE
    return caught.value.problem.message


def header(kind: bytes, size: int = 0) -> bytes:
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def test_members_that_are_no_files_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs memory, and gzip packs a thousand of them into two kilobytes."""
    monkeypatch.setattr(layers, "_MOST_FILES", 100)
    assert "more than 100 members" in refused(header(tarfile.DIRTYPE) * 101 + b"\0" * 1024)


def test_headers_for_all_members_are_refused() -> None:
    """tarfile keeps what they say for as long as the layer is read, and there may be any number."""
    record = b"11 a=bcdef\n".ljust(512, b"\0")
    assert "global" in refused(header(tarfile.XGLTYPE, 11) + record + header(tarfile.DIRTYPE) + b"\0" * 1024)


def test_headers_of_headers_are_refused() -> None:
    """tarfile calls itself for each."""
    record = b"11 a=bcdef\n".ljust(512, b"\0")
    assert "RecursionError" in refused((header(tarfile.XHDTYPE, 11) + record) * 2000 + b"\0" * 1024)


def global_header() -> bytes:
    return header(tarfile.XGLTYPE, 11) + b"11 a=bcdef\n".ljust(512, b"\0")


def many_members() -> bytes:
    return header(tarfile.DIRTYPE) * 101 + b"\0" * 1024


def many_bytes() -> bytes:
    return header(tarfile.REGTYPE, 2 << 20) + bytes((2 << 20) + 1024)


@pytest.mark.parametrize(
    "tar", [gnu_sparse, pax_sparse, long_header, global_header, many_members, many_bytes], ids=lambda make: make.__name__
)
def test_a_refused_layer_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch, tar: Callable[[], bytes]) -> None:
    """Whoever remembers the refusal has to know that the layer is the one that was meant; and a damaged one is called that."""
    monkeypatch.setattr(layers, "_MOST_FILES", 100)
    packed = gzip.compress(tar() + random.Random(1).randbytes(100_000), mtime=0)
    chunks = iter([packed[:-50_000], packed[-50_000:]])
    with pytest.raises(FarmError) as caught:
        layers.read_layer(chunks, digests.of_bytes(packed), layers.Budget(1 << 20))
    assert caught.value.problem.code is Code.BAD_ARCHIVE
    assert next(chunks, None) is None
    with pytest.raises(FarmError, match="damaged") as caught:
        layers.read_layer([packed, b"more"], digests.of_bytes(packed), layers.Budget(1 << 20))
    assert caught.value.problem.code is Code.BAD_DIGEST


def test_what_the_source_of_a_refused_layer_says_is_not_lost() -> None:
    """That nobody waits any more, or that its store is away, says nothing of the layer."""

    def chunks() -> Iterator[bytes]:
        yield gzip.compress(global_header(), mtime=0)
        raise FarmError(Code.UNAVAILABLE, "away")

    with pytest.raises(FarmError, match="away"):
        layers.read_layer(chunks(), digests.of_bytes(b""), layers.Budget(1 << 40))
