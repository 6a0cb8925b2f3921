"""Output of steps, one file each, bounded; names are made here, never taken from outside."""

from __future__ import annotations

import re
from pathlib import Path

from kernel.errors import Code, FarmError

_BOUND = 64 << 20
_NAME = re.compile(r"[a-z0-9-]{1,64}")


class Logs:
    """Files below a folder: BUILD/STEP.log. A new attempt's output follows the old one's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, build_id: str, step: str, data: bytes) -> None:
        """Add output; past the bound it is cut, and says so once."""
        path = self._path(build_id, step)
        path.parent.mkdir(parents=True, exist_ok=True)
        size = path.stat().st_size if path.exists() else 0
        if size >= _BOUND:
            return
        if size + len(data) > _BOUND:
            data = data[: _BOUND - size] + b"\n[the log is cut here: 64 MiB]\n"
        with path.open("ab") as file:
            file.write(data)

    def read(self, build_id: str, step: str, offset: int, limit: int = 1 << 18) -> bytes:
        """Up to `limit` bytes from `offset` on; nothing when there is no more."""
        path = self._path(build_id, step)
        if not path.exists():
            return b""
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(limit)

    def _path(self, build_id: str, step: str) -> Path:
        for name in (build_id, step):
            if not _NAME.fullmatch(name):
                raise FarmError(Code.NOT_FOUND, f"no log {build_id}/{step}", where=step)
        return self._folder / build_id / f"{step}.log"
