"""The tokens file: hashes of bearer tokens with team, role, name and expiry. Read again when it changes, so revoking is deleting a line."""

from __future__ import annotations

import hmac
import logging
import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from coordinator.access.callers import Caller, caller
from kernel.errors import Code, FarmError
from kernfarm.private import read_private
from kernfarm.tokens import hash_of

log = logging.getLogger(__name__)

_HASH = re.compile(r"[0-9a-f]{64}")
_NAMES = frozenset({"sha256", "team", "role", "name", "expires"})
_Version = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    sha256: str
    caller: Caller
    expires: float  # unix seconds, 0 for never


class TokenFile:
    """The tokens of one file. A file that has become unreadable or wrong lets nobody in: a revoked token must not live on because of a
    slip of the editor."""

    def __init__(self, path: Path) -> None:
        """Raises FarmError: MISSING_FILE, INVALID_ARGUMENT naming the entry."""
        self._path = path
        self._version = _version(path)
        self._known = _read(path)

    def caller(self, token: str, now: float) -> Caller:
        """Whose token it is. Raises FarmError: UNAUTHENTICATED, or UNAVAILABLE while the file can't be read."""
        self._refresh()
        hashed = hash_of(token)
        found: _Known | None = None
        for known in self._known:  # always all of them: the time tells nothing about what is known
            if hmac.compare_digest(known.sha256, hashed):
                found = known
        if found is None:
            raise FarmError(Code.UNAUTHENTICATED, "this token is not known, or was revoked", hint="ask the farm's admin for a new one")
        if found.expires and now >= found.expires:
            raise FarmError(Code.UNAUTHENTICATED, "this token has expired", hint="ask the farm's admin for a new one")
        return found.caller

    def _refresh(self) -> None:
        version = None
        try:
            version = _version(self._path)
            if version != self._version:
                self._known = _read(self._path)
                self._version = version
                log.info("%d tokens from %s", len(self._known), self._path)
        except FarmError as error:
            log.error("nobody gets in by token until this is mended: %s", error)
            raise FarmError(
                Code.UNAVAILABLE, "the farm can't read its tokens; its admin finds the reason in the coordinator's log"
            ) from error


def _version(path: Path) -> _Version:
    try:
        info = path.stat()
    except OSError as error:
        raise FarmError(Code.MISSING_FILE, f"cannot read the tokens: {error.strerror}", where=str(path)) from error
    # The mode too: a file that others can read from now on is refused from now on.
    return info.st_ino, info.st_mtime_ns, info.st_size, stat.S_IMODE(info.st_mode)


def _read(path: Path) -> tuple[_Known, ...]:
    try:
        values = yaml.safe_load(read_private(path, "the tokens").decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # The error's text would quote the file.
        raise FarmError(Code.INVALID_ARGUMENT, "not YAML", where=str(path)) from error
    entries = values.get("tokens") if isinstance(values, dict) and set(values) == {"tokens"} else None
    if not isinstance(entries, list):
        raise FarmError(Code.INVALID_ARGUMENT, "expected one list, `tokens:`", where=str(path), hint="kernfarm token new prints a line")
    known = tuple(_entry(entry, f"{path}: entry {number}") for number, entry in enumerate(entries, 1))
    if len({each.sha256 for each in known}) != len(known):
        raise FarmError(Code.INVALID_ARGUMENT, "one token stands there twice", where=str(path))
    return known


def _entry(entry: Any, where: str) -> _Known:
    if not isinstance(entry, dict) or not {"sha256", "team", "role", "name"} <= set(entry) <= _NAMES:
        raise FarmError(Code.INVALID_ARGUMENT, "expected sha256, team, role, name and perhaps expires", where=where)
    if _HASH.fullmatch(str(entry["sha256"])) is None:
        raise FarmError(Code.INVALID_ARGUMENT, "sha256 is not 64 hex digits", where=where, hint="the hash goes there, not the token")
    who = caller(team=entry["team"], name=entry["name"], role=entry["role"], proof="token", where=where)
    return _Known(sha256=str(entry["sha256"]), caller=who, expires=_moment(entry.get("expires"), where))


def _moment(value: Any, where: str) -> float:
    """Unix seconds of an RFC 3339 time, which YAML may have read already; 0 when there is none."""
    if value is None:
        return 0.0
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError as error:
        hint = "for example 2027-01-31T00:00:00Z"
        raise FarmError(Code.INVALID_ARGUMENT, f"expires is no time: {value!r:.80}", where=where, hint=hint) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
