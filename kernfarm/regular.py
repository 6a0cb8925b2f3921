"""Opening files in folders that others have written: a pipe or a device under a file's name would be waited for, or read for ever; and
what was looked at under a name may be something else when the name is opened again."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path

from kernel import digest as digests
from kernel.errors import Code, FarmError

_HINT = "kernfarm fetch into the same folder mends it"


class NotRegularError(OSError):
    """There is something else under that name."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EINVAL, "not a regular file", str(path))


def open_regular(path: Path, *, follow: bool = True) -> BufferedReader:
    """Open a regular file for reading, without waiting; `follow`: also one that a symbolic link leads to.

    Raises OSError, of these NotRegularError for anything else. The open file is looked at, so it can't be swapped in between."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        # A socket; or, where none is followed, a link.
        if error.errno == errno.ENXIO or (error.errno == errno.ELOOP and not follow):
            raise NotRegularError(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(path)
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises OSError as open_regular, FarmError(BAD_ARCHIVE) for a larger one."""
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise FarmError(Code.BAD_ARCHIVE, f"more than {most} bytes", where=str(path))
    return data


def open_blob(path: Path, digest: str, size: int) -> BufferedReader:
    """Open a layout's blob of `size` bytes, its content checked, at its beginning: what is read from the open file is what was checked,
    whatever the name leads to later. Raises FarmError: MISSING_FILE, BAD_DIGEST."""
    try:
        file = open_regular(path)
        try:
            found = os.fstat(file.fileno()).st_size
            if found != size:  # first: a file that is all hole has any size, and would be hashed for days
                raise FarmError(Code.BAD_DIGEST, f"{digest} is damaged: {found} bytes instead of {size}", where=str(path), hint=_HINT)
            _check(path, digest, f"{digests.ALGORITHM}:{hashlib.file_digest(file, digests.ALGORITHM).hexdigest()}")
            file.seek(0)
        except BaseException:
            file.close()
            raise
    except OSError as error:
        raise _lacks(path, digest, error) from error
    return file


def read_blob(path: Path, digest: str, most: int) -> bytes:
    """A layout's blob of at most `most` bytes as a whole, its content checked. Raises FarmError: BAD_ARCHIVE for a larger one, and as
    open_blob."""
    try:
        data = read_regular(path, most)
    except OSError as error:
        raise _lacks(path, digest, error) from error
    _check(path, digest, digests.of_bytes(data))
    return data


def _check(path: Path, digest: str, found: str) -> None:
    if found != digest:
        raise FarmError(Code.BAD_DIGEST, f"{digest} is damaged", where=str(path), hint=_HINT)


def _lacks(path: Path, digest: str, error: OSError) -> FarmError:
    return FarmError(Code.MISSING_FILE, f"the layout lacks {digest}: {error.strerror}", where=str(path), hint=_HINT)
