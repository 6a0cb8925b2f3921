"""The audit record: a JSON line when a mutating call begins and one when it has ended, on disk before the call goes on. Never a token."""

from __future__ import annotations

import json
import logging
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coordinator.access.callers import Caller
from kernel.errors import Code, FarmError

log = logging.getLogger(__name__)

_LONGEST = 200


class Audit:
    """Appends to one file. It is opened for each record, so that logrotate may move it away at any time. Methods block."""

    def __init__(self, path: Path, *, clock: Callable[[], float]) -> None:
        """Raises FarmError(UNAVAILABLE) when the file can't be written."""
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._write("")

    def began(self, who: Caller, method: str, peer: str, about: Sequence[str]) -> str:
        """A call is about to be done. Returns its number, which the end repeats. Raises FarmError(UNAVAILABLE): then don't do it."""
        call = uuid.uuid4().hex
        self._record(event="began", call=call, **_who(who), method=method, peer=peer, about=[each[:_LONGEST] for each in about])
        return call

    def ended(self, call: str, who: Caller, method: str, about: Sequence[str], outcome: str) -> None:
        """How it went: "ok", or the code of the problem; `about`: builds and blobs."""
        self._record(event="ended", call=call, **_who(who), method=method, about=[each[:_LONGEST] for each in about], outcome=outcome)

    def refused(self, who: Caller, method: str, peer: str, about: Sequence[str]) -> None:
        """A known caller asked for what its role does not allow."""
        self._record(event="refused", **_who(who), method=method, peer=peer, about=[each[:_LONGEST] for each in about])

    def _record(self, **values: Any) -> None:
        moment = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        self._write(json.dumps({"time": moment, **values}) + "\n")

    def _write(self, line: str) -> None:
        try:
            with self._lock:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                try:
                    # A line that a power cut tore must not swallow the next one.
                    size = os.fstat(descriptor).st_size
                    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                    data = (("\n" if torn else "") + line).encode()
                    while data:
                        data = data[os.write(descriptor, data) :]
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                if not size:
                    _sync_folder(self._path.parent)
        except OSError as error:
            log.critical("the audit record can't be written: %s: %s", self._path, error)
            raise FarmError(
                Code.UNAVAILABLE,
                f"the audit record can't be written: {error.strerror}",
                where=self._path.name,
                hint="see the coordinator's log",
            ) from error


def _who(who: Caller) -> dict[str, str]:
    return {"team": who.team, "name": who.name, "role": who.role.value, "proof": who.proof}


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
