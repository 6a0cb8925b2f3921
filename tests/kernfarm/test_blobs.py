from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from kernel import digest
from kernel.errors import Code, FarmError
from kernfarm.blobs import BlobStore


@pytest.fixture(scope="module")
def s3() -> Iterator[BlobStore]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    import boto3

    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    boto3.client("s3", region_name="us-east-1", endpoint_url=f"http://{host}:{port}", **keys).create_bucket(Bucket="farm")
    options = {"endpoint": f"http://{host}:{port}", "region": "us-east-1", "access_key_id": "test", "secret_access_key": "test"}
    yield BlobStore.open("s3://farm/kernels", {**options, "allow_http": "true"})
    server.stop()


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "file":
        return BlobStore.open(f"file://{tmp_path}/blobs")
    s3_store: BlobStore = request.getfixturevalue("s3")
    return s3_store


def test_round_trip(store: BlobStore, tmp_path: Path) -> None:
    data = os.urandom(20_000_000)
    (tmp_path / "big").write_bytes(data)
    name, size = store.put_file(tmp_path / "big")
    assert (name, size) == (digest.of_bytes(data), len(data))
    assert store.has(name)
    assert store.size(name) == len(data)
    assert store.get_file(name, tmp_path / "copy") == len(data)
    assert (tmp_path / "copy").read_bytes() == data
    assert b"".join(store.stream(name, offset=19_999_990)) == data[19_999_990:]
    store.delete(name)
    assert not store.has(name)
    store.delete(name)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=3000))
def test_small_blobs_come_back(tmp_path: Path, data: bytes) -> None:
    store = BlobStore.open(f"file://{tmp_path}/blobs")
    assert store.get_bytes(store.put_bytes(data)) == data


def test_a_missing_blob_is_named(store: BlobStore) -> None:
    name = digest.of_bytes(b"never stored")
    for read in (store.get_bytes, store.size, lambda each: list(store.stream(each))):
        with pytest.raises(FarmError) as caught:
            read(name)
        assert caught.value.problem.code is Code.BLOB_LOST
        assert caught.value.problem.where == name


@pytest.mark.parametrize("damage", [b"", b"other bytes, same", b"short"])
def test_a_damaged_blob_is_never_read_and_can_be_made_again(tmp_path: Path, damage: bytes) -> None:
    store = BlobStore.open(f"file://{tmp_path}/blobs")
    name = store.put_bytes(b"the right content")
    path = next(entry for entry in (tmp_path / "blobs/blobs").rglob("*") if entry.is_file())
    path.write_bytes(damage)
    with pytest.raises(FarmError) as caught:
        store.get_file(name, tmp_path / "copy")
    assert caught.value.problem.code is Code.BLOB_LOST
    assert not (tmp_path / "copy").exists()
    assert sorted(tmp_path.glob(".copy*")) == []
    assert store.put_bytes(b"the right content") == name
    assert store.get_bytes(name) == b"the right content"


def test_a_stream_that_is_not_what_it_claims_leaves_nothing(store: BlobStore) -> None:
    wanted = digest.of_bytes(b"right")
    with pytest.raises(FarmError) as caught:
        store.put_stream([b"wr", b"ong"], expect=wanted)
    assert caught.value.problem.code is Code.BAD_DIGEST
    assert not store.has(wanted)
    assert not store.has(digest.of_bytes(b"wrong"))
    with pytest.raises(FarmError) as caught:
        store.put_stream([b"x" * 11], limit=10)
    assert caught.value.problem.code is Code.INVALID_ARGUMENT
    assert store.put_stream([b"ri", b"ght"], expect=wanted) == (wanted, 5)


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    store = BlobStore.open(f"file://{tmp_path}/blobs")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(FarmError, match="not a regular file"):
            store.put_file(tmp_path / name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_named_and_nothing_half_is_left(small_disk: Path, tmp_path: Path) -> None:
    store = BlobStore.open(f"file://{small_disk}/blobs")
    data = os.urandom(3_000_000)
    (tmp_path / "big").write_bytes(data)
    puts = (lambda: store.put_bytes(data), lambda: store.put_file(tmp_path / "big"), lambda: store.put_stream([data]))
    for put in puts:
        with pytest.raises(FarmError) as caught:
            put()
        assert caught.value.problem.code is Code.DISK_FULL
    assert not store.has(digest.of_bytes(data))
    assert store.get_bytes(store.put_bytes(bytes(1_000_000))) == bytes(1_000_000)


def test_a_full_disk_at_the_receiver(small_disk: Path, tmp_path: Path) -> None:
    store = BlobStore.open(f"file://{tmp_path}/blobs")
    name = store.put_bytes(os.urandom(3_000_000))
    with pytest.raises(FarmError) as caught:
        store.get_file(name, small_disk / "copy")
    assert caught.value.problem.code is Code.DISK_FULL
    assert list(small_disk.iterdir()) == []


def test_a_folder_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    store = BlobStore.open(f"file://{tmp_path}/blobs")
    (tmp_path / "blobs").rmdir()
    (tmp_path / "blobs").write_text("a file now")
    for call in (lambda: store.put_bytes(b"x"), lambda: store.put_stream([b"x"]), lambda: store.keyed("c").put(b"k", b"v")):
        with pytest.raises(FarmError):
            call()


def test_many_writers_of_one_blob(store: BlobStore) -> None:
    data = os.urandom(300_000)
    failures: list[Exception] = []

    def write() -> None:
        try:
            store.put_bytes(data)
        except FarmError as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.get_bytes(digest.of_bytes(data)) == data


@pytest.mark.parametrize("name", ["sha256:../../../etc/passwd", "sha256:ABC", "sha256:" + "a" * 65, "", "sha256:" + "a" * 64 + "\n"])
def test_what_is_no_digest_never_becomes_a_path(store: BlobStore, name: str) -> None:
    with pytest.raises(ValueError, match="not a sha256 digest"):
        store.has(name)


@pytest.mark.parametrize("url", ["", "blobs", "file://blobs", "http://x/y", "s3:///x"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(FarmError) as caught:
        BlobStore.open(url)
    assert caught.value.problem.code is Code.INVALID_ARGUMENT


def test_a_store_that_is_away_is_unavailable() -> None:
    options = {"endpoint": "http://127.0.0.1:1", "region": "x", "access_key_id": "a", "secret_access_key": "hidden", "allow_http": "true"}
    with pytest.raises(FarmError) as caught:
        BlobStore.open("s3://farm/x", options).put_bytes(b"x")
    assert caught.value.problem.code is Code.UNAVAILABLE
    assert "hidden" not in str(caught.value)


def test_keyed_entries(store: BlobStore) -> None:
    entries = store.keyed("ccache/tenant")
    assert entries.get(b"\x01\x02key") is None
    entries.put(b"\x01\x02key", b"one")
    entries.put(b"\x01\x02key", b"two")
    assert entries.get(b"\x01\x02key") == b"two"
    assert store.keyed("ccache/other").get(b"\x01\x02key") is None
    entries.remove(b"\x01\x02key")
    assert entries.get(b"\x01\x02key") is None


def test_swapped_and_damaged_entries_are_none(tmp_path: Path) -> None:
    entries = BlobStore.open(f"file://{tmp_path}/blobs").keyed("ccache/t")
    entries.put(b"aa", b"one")
    entries.put(b"bb", b"two")
    one, two = (tmp_path / "blobs/ccache/t" / name[:2] / name[2:] for name in (b"aa".hex(), b"bb".hex()))
    one.write_bytes(two.read_bytes())
    assert entries.get(b"aa") is None
    assert not one.exists()
    two.write_bytes(two.read_bytes()[:-1])
    assert entries.get(b"bb") is None


def test_a_prefix_cannot_climb(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no prefix"):
        BlobStore.open(f"file://{tmp_path}/blobs").keyed("ccache/../blobs")
