"""Kernel source trees of a node: unpacked once, shared read-only by all attempts, patched ones as hard-link copies.

Every file has one constant time; a patched file has a later one, in an inode of its own. A tree in use holds a shared lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kernel import digest as digests
from kernel.errors import Code, FarmError
from kernel.steps import Tree
from kernfarm import process
from kernfarm.blobs import BlobStore
from worker import archive, leftovers
from worker.ccache import shadow_salt
from worker.sandbox import HOST_PATH, Sandbox

log = logging.getLogger(__name__)

PATCHED_EPOCH = archive.SOURCE_EPOCH + 100
_FETCH = ".fetch-"
WHITEOUT = ".wh."  # OCI image specification, layer.md: how a layer says that a file is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A tree to be mounted read-only. `salt` keeps compiler results of trees with other header names apart."""

    path: Path
    salt: str


class TreeCache:
    """Trees below `folder`, at most about `limit_bytes` of them beyond those in use."""

    def __init__(self, folder: Path, blobs: BlobStore, *, limit_bytes: int) -> None:
        self._folder = folder
        self._blobs = blobs
        self._limit = limit_bytes
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)

    @contextlib.contextmanager
    def checkout(self, tree: Tree, sandbox: Sandbox) -> Iterator[Checkout]:
        """The tree's folder, for as long as the context lasts; unpacked in `sandbox` if need be.

        Raises FarmError: BLOB_LOST, BAD_ARCHIVE, DISK_FULL, SANDBOX_FAILED."""
        with contextlib.ExitStack() as stack:
            base = stack.enter_context(self._ready(_name(tree.tarball), lambda to: self._unpack(tree.tarball, to, sandbox)))
            if not tree.upper:
                yield self._checkout(base)
                return
            name = f"{_name(tree.tarball)}-{_name(tree.upper)}"
            patched = self._ready(name, lambda to: self._overlay(base / "src", tree.upper, to, sandbox))
            yield self._checkout(stack.enter_context(patched))

    def _checkout(self, place: Path) -> Checkout:
        os.utime(place / "salt")  # last use, for eviction
        return Checkout(path=place / "src", salt=(place / "salt").read_text())

    @contextlib.contextmanager
    def _ready(self, name: str, make: Callable[[Path], None]) -> Iterator[Path]:
        """Hold a shared lock on a finished tree; make it first, under an exclusive lock, if need be."""
        place = self._folder / name
        with (self._folder / f"{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            # Asked again each time: a lock is converted by giving it up first (flock(2)), and eviction may come in between.
            while not (place / "salt").exists():
                fcntl.flock(lock, fcntl.LOCK_UN)
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not (place / "salt").exists():
                    self._make(place, make)
                fcntl.flock(lock, fcntl.LOCK_SH)
            yield place

    def _make(self, place: Path, make: Callable[[Path], None]) -> None:
        archive.remove_tree(place)  # half-done, of a process that died
        leftovers.sweep(self._folder, _FETCH)
        self._sweep()
        self._evict()
        place.mkdir(mode=0o755)
        place.chmod(0o755)
        try:
            make(place / "src")
            files = [(path, info.st_size) for path, info, _ in archive.walk(place / "src")]
            headers = [path for path, _ in files if path.endswith(".h")]
            (place / "size").write_text(str(sum(size for _, size in files)))
            (place / "salt").write_text(shadow_salt(headers))
        except BaseException:
            archive.remove_tree(place)
            raise

    def _unpack(self, tarball: str, to: Path, sandbox: Sandbox) -> None:
        archive.make_folder(to, sandbox)
        with self._fetched(tarball) as path:
            archive.unpack(sandbox, path, to, name=f"source {tarball}", strip=1)
        archive.normalize(to, archive.SOURCE_EPOCH, owner=os.geteuid())
        self._seal(to)

    def _overlay(self, base: Path, upper: str, to: Path, sandbox: Sandbox) -> None:
        _link_copy(base, to)
        staging = archive.make_folder(to.parent / "upper", sandbox)
        with self._fetched(upper) as path:
            archive.unpack(sandbox, path, staging, name=f"patches {upper}")
        archive.normalize(staging, PATCHED_EPOCH, owner=os.geteuid())
        merge(staging, to)
        archive.remove_tree(staging)

    def _seal(self, folder: Path) -> None:
        if os.geteuid() == 0:
            os.chown(folder, 0, 0)
        folder.chmod(0o755)

    @contextlib.contextmanager
    def _fetched(self, digest: str) -> Iterator[Path]:
        with leftovers.own(self._folder / f"{_FETCH}{uuid.uuid4().hex}") as folder:
            path = folder / "blob"
            self._blobs.get_file(digest, path)
            path.chmod(0o644)
            yield path

    def _sweep(self) -> None:
        """Remove parts of trees that processes left which died while they made or removed them. They count for nothing, and nobody may
        ever ask for such a tree again."""
        for place in self._folder.iterdir():
            if place.name.startswith(_FETCH) or not place.is_dir() or (place / "salt").exists():
                continue
            try:
                self._drop(place)
            except FarmError as error:
                log.error("%s stays, the next tree that is made will try again: %s", place, error)

    def _evict(self) -> None:
        """Remove the longest unused trees until the others fit; those in use stay."""
        sizes = sizes_of(self._folder)
        total = sum(sizes.values())
        for place in sorted(sizes, key=_last_use):
            if total <= self._limit:
                return
            if self._drop(place):
                total -= sizes[place]

    def _drop(self, place: Path) -> bool:
        """Remove a tree that nobody uses. Whether it is gone, or another process is just removing it."""
        with (self._folder / f"{place.name}.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return not (place / "salt").exists()
            # First: whoever is killed half-way must not leave a part of a tree that passes for the whole.
            (place / "salt").unlink(missing_ok=True)
            archive.remove_tree(place)
            return True


def _last_use(place: Path) -> float:
    """Unix seconds. The trees of a folder are measured without their locks: another process may have removed this one since."""
    try:
        return (place / "salt").stat().st_mtime
    except FileNotFoundError:
        return 0.0


def sizes_of(folder: Path) -> dict[Path, int]:
    """The finished trees of a cache's folder, and the bytes of their files as `limit_bytes` counts them: hard links of a patched tree
    again, as if they were copies. A tree that is being removed may be missing."""
    sizes: dict[Path, int] = {}
    for salt in folder.glob("*/salt"):
        with contextlib.suppress(FileNotFoundError, ValueError):
            sizes[salt.parent] = int((salt.parent / "size").read_text())
        # Made before trees had their size written down.
        if salt.parent not in sizes and salt.exists():
            with contextlib.suppress(FileNotFoundError):
                sizes[salt.parent] = sum(info.st_size for _, info, _ in archive.walk(salt.parent))
    return sizes


def _link_copy(base: Path, to: Path) -> None:
    """A copy that shares all files. Raises FarmError: DISK_FULL, SANDBOX_FAILED; a part of a tree must never pass for the whole."""
    done = process.run(("cp", "-al", "--", str(base), str(to)), env={"PATH": HOST_PATH, "LC_ALL": "C"}, timeout_seconds=600)
    if done.code != 0:
        said = done.output.decode(errors="replace").strip()
        full = "No space left on device" in said or "Disk quota exceeded" in said
        code = Code.DISK_FULL if full else Code.SANDBOX_FAILED
        raise FarmError(code, f"cannot copy a tree (exit code {done.code}): {said[-500:]}", where=str(to.parent))


def merge(upper: Path, tree: Path) -> None:
    """Put an upper layer's files in place of a tree's; whiteouts remove. Follows no symbolic link in either folder."""
    for path, info, descriptor in archive.walk(upper):
        *parents, name = path.split("/")
        if stat.S_ISDIR(info.st_mode):
            continue
        folder = open_folder(tree, parents)
        try:
            if name.startswith(WHITEOUT):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name.removeprefix(WHITEOUT), dir_fd=folder)
            else:
                os.rename(name, name, src_dir_fd=descriptor, dst_dir_fd=folder)
        finally:
            os.close(folder)


def open_folder(root: Path, parents: list[str]) -> int:
    """A descriptor of a folder below `root`, made where it is missing. Raises OSError where a link or file is in the way."""
    current = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    for name in parents:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=current)
        try:
            deeper = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
        finally:
            os.close(current)
        current = deeper
    return current


def read_text(tree: Path, path: str, limit: int = 1 << 20) -> str:
    """A small text file of a tree, following no symbolic link. Raises FileNotFoundError or OSError(ELOOP)."""
    return read_bytes(tree, path, limit).decode(errors="replace")


def read_bytes(tree: Path, path: str, limit: int = 1 << 26) -> bytes:
    """A file of a tree, at most `limit` bytes of it, following no symbolic link. Raises FileNotFoundError or OSError(ELOOP)."""
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        return archive.read_below(root, path, limit)
    finally:
        os.close(root)


def _name(digest: str) -> str:
    return digests.hex_of(digest)[:32]
