"""The cache of source trees, when something goes wrong on its disk."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from kernel.errors import Code, FarmError
from kernel.steps import Tree
from kernfarm import process
from kernfarm.blobs import BlobStore
from tests.fakes import fake_linux
from worker import trees
from worker.sandbox import Bubblewrap
from worker.trees import TreeCache


@pytest.fixture
def cache(open_folder: Path) -> TreeCache:
    return TreeCache(open_folder / "trees", BlobStore.open(f"file://{open_folder}/blobs", {}), limit_bytes=1 << 30)


@pytest.fixture
def tree(cache: TreeCache, open_folder: Path) -> Tree:
    digest, _ = cache._blobs.put_file(fake_linux.tarball(open_folder / "linux.tar"))
    upper, _ = cache._blobs.put_file(fake_linux.tarball(open_folder / "upper.tar", {"new": "x"}))
    return Tree(tarball=digest, upper=upper, version="")


@pytest.mark.parametrize(
    ("said", "code"), [(b"cp: x: No space left on device", Code.DISK_FULL), (b"cp: x: Input/output error", Code.SANDBOX_FAILED)]
)
def test_a_part_of_a_tree_is_not_taken_for_the_whole(
    cache: TreeCache, tree: Tree, sandbox: Bubblewrap, monkeypatch: pytest.MonkeyPatch, said: bytes, code: Code
) -> None:
    run = process.run

    def failing_copy(argv: tuple[str, ...], **more: object) -> process.Completed:
        done = run(argv, **more)  # type: ignore[arg-type]  # the keywords of run
        return process.Completed(code=1, output=said, seconds=0) if argv[0] == "cp" else done

    monkeypatch.setattr(process, "run", failing_copy)
    with pytest.raises(FarmError) as caught, cache.checkout(tree, sandbox):
        pass
    assert caught.value.problem.code is code
    assert said.decode() in str(caught.value)
    monkeypatch.undo()
    with cache.checkout(tree, sandbox) as found:
        assert (found.path / "Makefile").exists()


def test_a_tree_that_is_evicted_while_its_lock_is_converted_is_made_again(
    cache: TreeCache, tree: Tree, sandbox: Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    made: list[Path] = []

    def evicting(file: object, operation: int) -> None:
        """Another process is sooner, once, in the moment between the two locks."""
        if operation == fcntl.LOCK_SH and made == [] and (ready := list(cache._folder.glob("*/salt"))):
            made.extend(ready)
            trees.archive.remove_tree(ready[0].parent)
        lock(file, operation)  # type: ignore[arg-type]  # a file

    monkeypatch.setattr(fcntl, "flock", evicting)
    with cache.checkout(Tree(tarball=tree.tarball, version=""), sandbox) as found:
        assert made
        assert (found.path / "Makefile").exists()


def test_what_a_dead_process_was_fetching_is_removed(cache: TreeCache, tree: Tree, sandbox: Bubblewrap) -> None:
    dead = cache._folder / ".fetch-0123"
    dead.mkdir()
    (dead / "blob").write_text("half of it")
    (cache._folder / ".fetch-0123.lock").touch()
    with cache.checkout(tree, sandbox):
        assert list(cache._folder.glob(".fetch-*")) == []
        assert len(list(cache._folder.glob("*.lock"))) == 2, "locks of trees are not leftovers"


def finished(folder: Path, name: str, *, size: int, used: int) -> Path:
    """A tree that counts for so many bytes, last used at that time."""
    place = folder / name
    (place / "src").mkdir(parents=True)
    (place / "size").write_text(str(size))
    (place / "salt").touch()
    os.utime(place / "salt", (used, used))
    return place


def test_a_tree_that_another_process_is_removing_counts_as_gone(
    cache: TreeCache, tree: Tree, sandbox: Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes between the measuring and the choice; its going makes room enough, so the younger one stays."""
    older = finished(cache._folder, "older", size=800 << 20, used=1)
    younger = finished(cache._folder, "younger", size=800 << 20, used=2)
    measure = trees.sizes_of

    with (cache._folder / "older.lock").open("a") as lock:

        def removing(folder: Path) -> dict[Path, int]:
            sizes = measure(folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
            (older / "salt").unlink(missing_ok=True)
            return sizes

        monkeypatch.setattr(trees, "sizes_of", removing)
        with cache.checkout(Tree(tarball=tree.tarball, version=""), sandbox) as found:
            assert (found.path / "Makefile").exists()
    assert (younger / "salt").exists()


def test_a_tree_in_use_stays_and_the_next_oldest_goes(cache: TreeCache, tree: Tree, sandbox: Bubblewrap) -> None:
    used = finished(cache._folder, "used", size=800 << 20, used=1)
    idle = finished(cache._folder, "idle", size=800 << 20, used=2)
    with (cache._folder / "used.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with cache.checkout(Tree(tarball=tree.tarball, version=""), sandbox):
            assert used.exists() and not idle.exists()


def test_a_tree_whose_removal_breaks_off_is_not_taken_for_the_whole(
    cache: TreeCache, tree: Tree, sandbox: Bubblewrap, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = TreeCache(open_folder / "trees", cache._blobs, limit_bytes=0)
    plain = Tree(tarball=tree.tarball, version="")
    with cache.checkout(plain, sandbox) as found:
        makefile = found.path / "Makefile"
    run = process.run

    def dying(argv: tuple[str, ...], **more: object) -> process.Completed:
        """rm is killed after the first file."""
        if argv[0] == "rm":
            makefile.unlink()
            return process.Completed(code=137, output=b"Killed", seconds=0)
        return run(argv, **more)  # type: ignore[arg-type]  # the keywords of run

    monkeypatch.setattr(process, "run", dying)
    other, _ = cache._blobs.put_file(fake_linux.tarball(open_folder / "other.tar", {"new": "y"}))
    with pytest.raises(FarmError, match="cannot remove a folder"), small.checkout(Tree(tarball=other, version=""), sandbox):
        pass
    monkeypatch.undo()
    with cache.checkout(plain, sandbox):
        assert makefile.exists()


def test_parts_of_trees_that_dead_processes_left_are_removed(cache: TreeCache, tree: Tree, sandbox: Bubblewrap) -> None:
    """Nobody may ask for those trees again, and they count for nothing: they would stay for ever."""
    half, made = finished(cache._folder, "half", size=1, used=1), finished(cache._folder, "made", size=1, used=1)
    for place in (half, made):
        (place / "salt").unlink()
    with (cache._folder / "made.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with cache.checkout(Tree(tarball=tree.tarball, version=""), sandbox):
            assert not half.exists()
            assert made.exists(), "somebody is just making it"
