"""What builds and dead processes leave on a worker's disk, and that it stops nobody."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.errors import Code, FarmError
from kernfarm import process
from kernfarm.settings import WorkerSettings
from worker import archive, leftovers
from worker.node import Node


def dig(folder: Path, levels: int) -> None:
    """A folder in a folder in a folder, as `mkdir d && cd d` makes it: deeper than any path may be long."""
    current = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=current)
        deeper = os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = deeper
    os.close(current)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """Gone afterwards even when the test fails: pytest's own removal would end in RecursionError, in every later session."""
    folder = tmp_path / "deep"
    folder.mkdir()
    dig(folder, 3000)
    yield folder
    process.run(("rm", "-rf", "--", str(folder)), env={"PATH": "/usr/bin:/bin"}, timeout_seconds=60)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_folder_of_any_depth_is_removed(deep: Path) -> None:
    archive.remove_tree(deep)
    assert not deep.exists()


def test_a_link_in_place_of_a_folder_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "dangling").symlink_to("nowhere")
    archive.remove_tree(tmp_path / "link")
    archive.remove_tree(tmp_path / "dangling")
    archive.remove_tree(tmp_path / "none")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept/file").exists()


def test_a_folder_that_cannot_be_removed_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(FarmError) as caught:
        archive.remove_tree(tmp_path / "a/..")  # which rm refuses, even for root
    assert caught.value.problem.code is Code.SANDBOX_FAILED
    assert "refusing to remove" in str(caught.value)


def test_a_tree_too_deep_to_walk_is_refused_and_leaves_no_descriptor_open(deep: Path) -> None:
    before = descriptors()
    with pytest.raises(FarmError) as caught:
        archive.normalize(deep, 1)
    assert caught.value.problem.code is Code.BAD_ARCHIVE
    assert descriptors() == before


def test_a_walk_names_folders_after_what_is_in_them_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_text("four")
    (tmp_path / "a/link").symlink_to("/etc")
    (tmp_path / "empty").mkdir()
    dig(tmp_path / "empty", archive.DEEPEST - 1)
    before = descriptors()
    found = {}
    for path, info, descriptor in archive.walk(tmp_path):
        assert os.path.samestat(os.stat(path.rpartition("/")[2], dir_fd=descriptor, follow_symlinks=False), info)
        found[path] = info
    order = list(found)
    assert {path for path in order if not path.startswith("empty/")} == {"a", "a/b", "a/b/file", "a/link", "empty"}
    assert order.index("a/b/file") < order.index("a/b") < order.index("a")
    assert len([path for path in order if path.startswith("empty/")]) == archive.DEEPEST - 1
    assert stat.S_ISLNK(found["a/link"].st_mode)
    assert descriptors() == before
    unfinished = archive.walk(tmp_path)
    next(unfinished)
    unfinished.close()
    assert descriptors() == before


def test_a_leftover_that_cannot_be_removed_stops_no_later_attempt(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(WorkerSettings(state_dir=open_folder / "worker", blobs_url=f"file://{open_folder}/blobs", compile_cache=False))
    scratch = open_folder / "worker/scratch"
    for name in ("stuck", "other"):
        (scratch / name).mkdir()
        (scratch / f"{name}.lock").touch()
    remove = archive.remove_tree

    def as_if_immutable(folder: Path) -> None:
        if folder.name == "stuck":
            raise FarmError(Code.SANDBOX_FAILED, "Operation not permitted", where=str(folder))
        remove(folder)

    monkeypatch.setattr(archive, "remove_tree", as_if_immutable)
    with node.scratch("mine") as folder:
        assert sorted(path.name for path in scratch.iterdir()) == ["mine", "mine.lock", "stuck", "stuck.lock"]
        (folder / "file").touch()
    assert "Operation not permitted" in caplog.text
    monkeypatch.undo()
    with node.scratch("later"):
        assert sorted(path.name for path in scratch.iterdir()) == ["later", "later.lock"]


def test_what_cannot_be_removed_of_an_attempt_does_not_spoil_its_result(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        if folder.exists():
            raise FarmError(Code.SANDBOX_FAILED, "Operation not permitted", where=str(folder))

    monkeypatch.setattr(archive, "remove_tree", refuse)
    with leftovers.own(open_folder / "mine"):
        pass
    assert (open_folder / "mine.lock").exists(), "the lock says that there is something to sweep"


def test_a_folder_in_use_is_not_swept(open_folder: Path) -> None:
    with leftovers.own(open_folder / "mine") as folder:
        leftovers.sweep(open_folder)
        assert folder.exists()
    assert list(open_folder.iterdir()) == []
