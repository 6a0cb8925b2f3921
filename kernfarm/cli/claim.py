"""One embedded farm at a time in a state folder, and nothing left of one that died."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import stat
from pathlib import Path

from kernel.errors import Code, FarmError

# Ray's sockets have long names below its temporary folder, and a socket's path has at most 107 bytes: so it can't be in the state folder.
_TEMP = re.compile(r"/tmp/kf-[0-9a-f]{8}")


class Claim:
    """A lock on a state folder, which the kernel lets go of when its holder dies, however it dies; and the folder around Ray's."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._note = state / "ray-temp"
        self._lock: int | None = None
        self._temp = Path(f"/tmp/kf-{secrets.token_hex(4)}")

    @property
    def ray_folder(self) -> Path:
        """For Ray, which lets everybody into the folder that it makes: so it lies in one of ours, which lets nobody in."""
        return self._temp / "r"

    @property
    def held(self) -> bool:
        """Whether the folder is ours."""
        return self._lock is not None

    def take(self) -> None:
        """Make the folder ours. Raises FarmError: CONFLICT while another farm runs in it, INVALID_ARGUMENT when it can't be used."""
        try:
            self._state.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FarmError(
                Code.INVALID_ARGUMENT, f"cannot use the folder: {error.strerror}", where=str(self._state), hint="another --state"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            hint = f"kernfarm workers --state {self._state}, or another --state"
            raise FarmError(Code.CONFLICT, "a farm is running in this folder already", where=str(self._state), hint=hint) from error
        self._lock = lock
        self._remove_temp_of_the_dead()
        self._temp.mkdir(mode=0o700)
        self._note.write_text(str(self._temp))

    def release(self) -> None:
        """Remove the temporary folder and let go. The lock's file stays: with a new one in its place two farms could each hold one."""
        if self._lock is None:
            return
        shutil.rmtree(self._temp, ignore_errors=True)
        self._note.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None

    def _remove_temp_of_the_dead(self) -> None:
        """The note in a folder that was locked by nobody is a dead farm's. Only what is certainly such a folder is removed."""
        try:
            temp = self._note.read_text()
            info = os.lstat(temp) if _TEMP.fullmatch(temp) else None
        except FileNotFoundError:
            return
        if info is not None and stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid():
            shutil.rmtree(temp, ignore_errors=True)
