"""What a team and a caller may be called: one rule for the farm, which refuses a whole tokens file for a wrong entry, and for the
command that prints its entries."""

from __future__ import annotations

import re

from kernel.errors import Code, FarmError

# A team is a cache domain too, so it becomes a folder's name. `release` is the domain that no team may write to.
# Also a name of a cache domain, see worker.ccache.
_TEAM = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_RESERVED = frozenset({"release"})
_LONGEST_NAME = 200


def team_name(value: object, where: str) -> str:
    """The value, if it can name a team. Raises FarmError(INVALID_ARGUMENT) naming the place (`where`)."""
    if not isinstance(value, str) or _TEAM.fullmatch(value) is None or value in _RESERVED:
        hint = "at most 63 lower-case letters, digits, - and _, beginning with a letter or digit; not `release`"
        raise FarmError(Code.INVALID_ARGUMENT, f"no team's name: {value!r:.80}", where=where, hint=hint)
    return value


def caller_name(value: object, where: str) -> str:
    """The value, if it can name a caller in the audit record. Raises FarmError(INVALID_ARGUMENT) naming the place (`where`)."""
    if not isinstance(value, str) or not value or len(value) > _LONGEST_NAME or not value.isprintable():
        hint = f"1 to {_LONGEST_NAME} printable characters"
        raise FarmError(Code.INVALID_ARGUMENT, f"no caller's name: {value!r:.80}", where=where, hint=hint)
    return value
