"""Files that hold secrets: keys, tokens and their hashes; what others can read is no secret, so it is refused. And folders for the rest."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kernel.errors import Code, FarmError


def read_private(path: Path, what: str) -> bytes:
    """The content of a file that holds secrets (`what`: for messages, "the token").

    The group may read it, because Kubernetes gives a pod its mounted secrets that way; others may not. Raises FarmError:
    MISSING_FILE, INVALID_ARGUMENT when others can get at it. The open file is looked at, so it can't be swapped in between."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o007:
                raise FarmError(
                    Code.INVALID_ARGUMENT, f"others can get at {what} (mode {mode:04o})", where=str(path), hint=f"chmod 600 {path}"
                )
            return file.read()
    except OSError as error:
        raise FarmError(Code.MISSING_FILE, f"cannot read {what}: {error.strerror}", where=str(path)) from error


def private_folder(path: Path, group: int | None = None) -> None:
    """Make a folder, or take one that is there, which only its owner can enter, and the members of `group`. The modes of what lies in it
    need no care then. Raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if group is None:
        path.chmod(0o700)
    else:
        os.chown(path, -1, group)
        path.chmod(0o750)


def write_private(path: Path, data: bytes) -> None:
    """Replace a file by one that only its owner can read, all or nothing, safe from the first byte on."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
