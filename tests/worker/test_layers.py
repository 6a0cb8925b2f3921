from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.plain import context_of
from kernel.errors import Code, FarmError
from kernel.steps import Tree
from kernfarm.settings import WorkerSettings
from worker import archive, layers
from worker.context import Context
from worker.layers import Base
from worker.node import Node

TIMES = st.dictionaries(st.text("abc/", min_size=1), st.integers(0, 2**62), min_size=1, max_size=50)


@given(times=TIMES, base=st.integers(1, 2**33))
def test_logical_times_keep_the_order_and_forget_the_clock(times: dict[str, int], base: int) -> None:
    made = layers.logical_times(times, base)
    for one, first in times.items():
        for two, second in times.items():
            assert (first < second) == (made[one] < made[two])
    assert min(made.values()) == base
    assert max(made.values()) < base + 1, "the next kind of layer begins there"
    shifted = {path: time + 3600 * 10**9 for path, time in times.items()}
    assert layers.logical_times(shifted, base) == made, "a node whose clock is an hour off makes the same layer"


def test_more_times_than_fit_are_refused() -> None:
    with pytest.raises(FarmError):
        layers.logical_times({str(number): number for number in range(100_001)}, 1)


@pytest.fixture
def context(open_folder: Path) -> Iterator[Context]:
    node = Node(WorkerSettings(state_dir=open_folder / "worker", blobs_url=f"file://{open_folder}/blobs", compile_cache=False))
    with node.scratch("layers") as scratch:
        yield context_of(node, scratch, Tree(tarball="", version=""), arch="x86_64", toolchain="gcc-12", jobs=1)


def folder(context: Context, name: str, files: dict[str, str], seconds: int = 1000) -> Path:
    made = archive.make_folder(context.scratch / name, context.sandbox)
    for path, text in files.items():
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_text(text)
        os.utime(made / path, (seconds, seconds))
    return made


def pack(context: Context, place: Path, base: Base = Base.SHARD) -> str:
    entries = layers.scan(place)
    return layers.pack(context, place, entries, entries, base, folders=layers.folders(place))


def test_a_layer_comes_back_with_links_modes_folders_and_exact_times(context: Context) -> None:
    made = folder(context, "made", {"a/script": "#!/bin/sh\n", "a/data": "x"})
    (made / "a/script").chmod(0o755)
    (made / "link").symlink_to("/etc/passwd")
    (made / "empty/deep").mkdir(parents=True)
    os.utime(made / "a/data", ns=(0, 5_000_000_001))
    digest = pack(context, made)
    back = archive.make_folder(context.scratch / "back", context.sandbox)
    layers.unpack(context, digest, back, name="layer")
    assert (back / "a/script").stat().st_mode & 0o777 == 0o755
    assert (back / "a/data").stat().st_mode & 0o777 == 0o644
    assert (back / "link").readlink() == Path("/etc/passwd")
    assert (back / "empty/deep").is_dir()
    assert 0 < (back / "a/script").stat().st_mtime_ns - (back / "a/data").stat().st_mtime_ns < 10**9
    assert pack(context, back) == digest, "a layer is a fixed point"


def test_the_same_files_at_other_times_of_day_are_the_same_layer(context: Context) -> None:
    one = folder(context, "one", {"x.o": "1", "y.o": "2"}, seconds=1000)
    two = folder(context, "two", {"x.o": "1", "y.o": "2"}, seconds=2_000_000)
    assert pack(context, one) == pack(context, two)


def merged(context: Context, name: str, target: Path, files: dict[str, str], seconds: int, protected: dict[str, layers.Entry]) -> None:
    layers.merge(folder(context, name, files, seconds), target, protected, name=name)


def test_what_two_shards_made_alike_is_kept_once_with_the_older_time(context: Context) -> None:
    target = folder(context, "out", {})
    merged(context, "one", target, {"lib/table.h": "t", "lib/a.o": "a"}, 2000, {})
    merged(context, "two", target, {"lib/table.h": "t", "lib/b.o": "b"}, 1000, {})
    assert sorted(layers.scan(target)) == ["lib/a.o", "lib/b.o", "lib/table.h"]
    assert (target / "lib/table.h").stat().st_mtime == 1000


def test_what_two_shards_made_differently_is_an_error(context: Context) -> None:
    target = folder(context, "out", {})
    merged(context, "one", target, {"lib/table.h": "t"}, 1, {})
    with pytest.raises(FarmError) as caught:
        merged(context, "two", target, {"lib/table.h": "other"}, 1, {})
    assert caught.value.problem.code is Code.INTERNAL
    assert "lib/table.h" in caught.value.problem.where


def test_large_files_of_two_shards_are_compared_to_the_last_byte_and_in_pieces(context: Context) -> None:
    one, two, other, target = (folder(context, name, {}) for name in ("one", "two", "other", "out"))
    for place, last in ((one, b"x"), (two, b"x"), (other, b"y")):
        with (place / "large.o").open("wb") as file:
            file.seek((96 << 20) + 7)
            file.write(last)
        os.utime(place / "large.o", (1, 1))
    layers.merge(one, target, {}, name="one")
    tracemalloc.start()
    try:
        layers.merge(two, target, {}, name="two")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(FarmError, match="differently"):
        layers.merge(other, target, {}, name="other")


def test_a_file_of_the_prepared_layer_in_a_shard_is_an_error(context: Context) -> None:
    target = folder(context, "out", {"include/generated/autoconf.h": "x"})
    prepared = layers.scan(target)
    with pytest.raises(FarmError) as caught:
        merged(context, "shard 3", target, {"include/generated/autoconf.h": "x"}, 1, prepared)
    assert caught.value.problem.code is Code.INTERNAL
    assert "shard 3" in caught.value.problem.message


def test_links_that_a_build_made_lead_nowhere(context: Context, tmp_path: Path) -> None:
    """A shard's layer with a link where another has a folder; and a tree whose folder became a link after it was scanned."""
    target = folder(context, "out", {})
    trap = folder(context, "trap", {})
    (trap / "lib").symlink_to(tmp_path)
    layers.merge(trap, target, {}, name="trap")
    with pytest.raises(OSError):
        merged(context, "victim", target, {"lib/evil.o": "x"}, 1, {})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "secret").write_text("s")
    made = folder(context, "made", {"lib/secret": "x"})
    entries = layers.scan(made)
    (made / "lib/secret").unlink()
    (made / "lib").rmdir()
    (made / "lib").symlink_to(tmp_path)
    with pytest.raises(OSError):
        layers.pack(context, made, entries, entries, Base.SHARD)
    with pytest.raises(OSError):
        layers.open_file(made, "lib/secret")


def test_an_endless_configuration_is_not_read_to_its_end(context: Context) -> None:
    out = folder(context, "out", {".config": "CONFIG_MODULES=y\n# CONFIG_SMP is not set\n"})
    assert layers.read_config(out)["MODULES"] == "y"
    with (out / ".config").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(FarmError) as caught:
        layers.read_config(out)
    assert caught.value.problem.code is Code.BAD_ARCHIVE


def test_a_damaged_layer_is_noticed(context: Context) -> None:
    digest = pack(context, folder(context, "made", {"x": "y"}))
    back = archive.make_folder(context.scratch / "back", context.sandbox)
    with pytest.raises(FarmError) as caught:
        layers.unpack(replace(context), digest[:-4] + "0000", back, name="layer")
    assert caught.value.problem.code is Code.BLOB_LOST
