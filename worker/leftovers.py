"""Folders that live no longer than the process that uses them: a lock beside each tells whether it lives, even after kill -9."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from kernel.errors import FarmError
from worker import archive

log = logging.getLogger(__name__)

_SUFFIX = ".lock"


@contextlib.contextmanager
def own(folder: Path) -> Iterator[Path]:
    """A new, empty folder, gone afterwards. Waits while another process owns it. What can't be removed is left to `sweep`.

    Raises FarmError(SANDBOX_FAILED) when the folder is there and can't be removed."""
    lock_path = folder.with_name(folder.name + _SUFFIX)
    with _lock(lock_path):
        try:
            archive.remove_tree(folder)
            folder.mkdir()
            folder.chmod(0o755)
            yield folder
        finally:
            _remove(folder, lock_path)


def sweep(parent: Path, prefix: str = "") -> None:
    """Remove the folders below `parent` whose owner has died. What can't be removed is logged and left: others go on without it."""
    for lock_path in parent.glob(f"{prefix}*{_SUFFIX}"):
        try:
            with lock_path.open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(lock_path.with_name(lock_path.name.removesuffix(_SUFFIX)), lock_path)
        except (FileNotFoundError, BlockingIOError):
            continue  # its owner was sooner, or lives
        except OSError as error:
            log.error("cannot look after %s: %s", lock_path, error)


def count(parent: Path) -> tuple[int, int]:
    """How many folders below `parent` an owner uses that lives, and how many were left by owners that died.

    Asks for a shared lock and gives it back at once: a sweep that meets it passes the folder over until the next time."""
    living = dead = 0
    for lock_path in parent.glob(f"*{_SUFFIX}"):
        try:
            with lock_path.open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                dead += lock_path.with_name(lock_path.name.removesuffix(_SUFFIX)).is_dir()
        except BlockingIOError:
            living += 1
        except FileNotFoundError:
            continue  # just ended
    return living, dead


def _lock(path: Path) -> IO[str]:
    while True:
        lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Whoever had the lock before has removed its file: a lock on that tells nobody anything.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                return lock
        except FileNotFoundError:
            pass  # removed between the two questions
        except BaseException:
            lock.close()
            raise
        lock.close()


def _remove(folder: Path, lock_path: Path) -> None:
    try:
        archive.remove_tree(folder)
        lock_path.unlink(missing_ok=True)
    except (FarmError, OSError) as error:
        log.error("%s stays, the next attempt will try again: %s", folder, error)
