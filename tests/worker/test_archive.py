from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.errors import Code, FarmError
from worker import archive, layers, tarball
from worker.sandbox import Bubblewrap

NAMES = ("a", "b", "d/x", "../out", "../../out", "/tmp/kf-escape", "/build/to/../../usr/x", "link", "link/x", "link/../x", "d", "./c")
TARGETS = ("..", "../..", "/", "/var/tmp", "a", "link", "../outside/secret", "/build/archive", ".")

member = st.tuples(
    st.sampled_from(["file", "symlink", "hardlink", "folder", "device", "fifo"]), st.sampled_from(NAMES), st.sampled_from(TARGETS)
)


def pack(members: list[tuple[str, str, str]]) -> bytes:
    buffer = io.BytesIO()
    kinds = {
        "symlink": tarfile.SYMTYPE,
        "hardlink": tarfile.LNKTYPE,
        "folder": tarfile.DIRTYPE,
        "device": tarfile.CHRTYPE,
        "fifo": tarfile.FIFOTYPE,
    }
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for kind, name, target in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o6777
            if kind == "file":
                info.size = 4
                tar.addfile(info, io.BytesIO(b"evil"))
            else:
                info.type, info.linkname = kinds[kind], target
                tar.addfile(info)
    return buffer.getvalue()


def fingerprint(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"") for path in sorted(folder.rglob("*"))}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=st.lists(member, min_size=1, max_size=8))
def test_no_archive_reaches_outside_its_folder(members: list[tuple[str, str, str]], sandbox: Bubblewrap, open_folder: Path) -> None:
    archive.remove_tree(open_folder / "work")
    work = open_folder / "work"
    work.mkdir()
    outside = work / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    (outside / "secret").write_text("untouched")
    (outside / "secret").chmod(0o666)
    file = work / "x.tar"
    file.write_bytes(pack(members))
    before = fingerprint(outside)
    to = archive.make_folder(work / "to", sandbox)
    try:
        archive.unpack(sandbox, file, to, name="x.tar")
    except FarmError as error:
        assert error.problem.code is Code.BAD_ARCHIVE
    archive.normalize(to, 1_000_000_000)
    assert fingerprint(outside) == before
    assert not Path("/tmp/kf-escape").exists()
    assert sorted(path.name for path in work.iterdir()) == ["outside", "to", "x.tar"]
    for path in to.rglob("*"):
        mode = path.lstat().st_mode
        assert path.is_symlink() or mode & 0o6000 == 0
        assert path.is_symlink() or path.is_dir() or path.is_file()
    archive.remove_tree(to)
    assert fingerprint(outside) == before


def test_broken_and_oversized_archives_are_refused(sandbox: Bubblewrap, open_folder: Path) -> None:
    good = pack([("file", "a", "")])
    file = open_folder / "x.tar"
    for data, bound in ((b"", 1 << 20), (b"nonsense" * 100, 1 << 20), (good[:700], 1 << 20), (b"\xfd7zXZ\x00broken", 1 << 20), (good, 600)):
        file.write_bytes(data)
        to = archive.make_folder(open_folder / "to", sandbox)
        with pytest.raises(FarmError) as caught:
            archive.unpack(sandbox, file, to, name="x.tar", max_bytes=bound)
        assert caught.value.problem.code is Code.BAD_ARCHIVE
        assert caught.value.problem.where == "x.tar"
        archive.remove_tree(to)


times = st.dictionaries(st.text("abc", min_size=1, max_size=5), st.integers(1, 50), min_size=1, max_size=30)


@given(times=times, base=st.integers(1, 2_000_000_000))
def test_logical_times_keep_order_and_ties_and_stay_below_the_next_base(times: dict[str, int], base: int) -> None:
    logical = layers.logical_times(times, base)
    for one, one_time in times.items():
        for two, two_time in times.items():
            assert (one_time < two_time) == (logical[one] < logical[two])
            assert (one_time == two_time) == (logical[one] == logical[two])
    assert all(base <= time < base + 1 for time in logical.values())


def fill(folder: Path, content: dict[str, bytes], order: list[str]) -> None:
    for name in order:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[name])
        os.utime(path, (len(name), len(name)))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(st.sampled_from(["a", "b/c", "b/d", "e/f/g", "h"]), st.binary(max_size=50), min_size=1), data=st.data())
def test_a_tarball_depends_on_content_alone(content: dict[str, bytes], data: st.DataObject, open_folder: Path) -> None:
    made = []
    for name in ("one", "two"):
        folder = open_folder / name
        archive.remove_tree(folder)
        folder.mkdir()
        fill(folder, content, data.draw(st.permutations(sorted(content))))
        (folder / sorted(content)[0]).chmod(0o644 if name == "one" else 0o664)
        sink = io.BytesIO()
        tarball.write(folder, sink)
        made.append(sink.getvalue())
    assert made[0] == made[1]
    with tarfile.open(fileobj=io.BytesIO(made[0])) as tar:
        members = tar.getmembers()
        assert all(member.uid == member.gid == member.mtime == 0 for member in members)
        assert not tar.pax_headers


class Counted(io.RawIOBase):
    """Takes any number of bytes and keeps none."""

    size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.size += len(data)
        return len(data)


def test_a_tarball_of_large_files_is_made_in_little_memory(tmp_path: Path) -> None:
    with (tmp_path / "large.ko").open("wb") as file:
        file.truncate(96 << 20)
    sink = Counted()
    tracemalloc.start()
    try:
        tarball.write(tmp_path, sink)  # type: ignore[arg-type]  # all of IO that a stream of tar needs
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert sink.size > 96 << 20


def test_merging_two_layers(open_folder: Path) -> None:
    target, one, two = (open_folder / name for name in ("target", "one", "two"))
    for folder in (target, one, two):
        folder.mkdir()
    (target / "prepared.h").write_text("p")
    protected = layers.scan(target)
    for folder, when in ((one, 50), (two, 40)):
        (folder / "sub").mkdir()
        (folder / "sub/generated.h").write_text("same")
        os.utime(folder / "sub/generated.h", (when, when))
    layers.merge(one, target, protected, name="shard 0")
    layers.merge(two, target, protected, name="shard 1")
    assert (target / "sub/generated.h").stat().st_mtime == 40, "objects of both shards have to be newer"
    (one / "sub/generated.h").write_text("different")
    with pytest.raises(FarmError, match="made this file differently"):
        layers.merge(one, target, protected, name="shard 2")
    (two / "prepared.h").write_text("p")
    with pytest.raises(FarmError, match="file of the prepared layer"):
        layers.merge(two, target, protected, name="shard 3")


def test_merging_follows_no_link(open_folder: Path) -> None:
    target, layer, outside = (open_folder / name for name in ("target", "layer", "outside"))
    for folder in (target, layer, outside):
        folder.mkdir()
    (target / "sub").symlink_to(outside)
    (layer / "sub").mkdir()
    (layer / "sub/x").write_text("evil")
    with pytest.raises(OSError, match="sub"):
        layers.merge(layer, target, {}, name="shard")
    assert list(outside.iterdir()) == []
