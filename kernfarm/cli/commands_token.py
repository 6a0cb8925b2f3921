"""`kernfarm token new`: a bearer token, shown once, and what the farm has to know of it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from kernel.errors import Code, FarmError
from kernfarm.cli.output import Output
from kernfarm.teams import caller_name, team_name
from kernfarm.tokens import TokenEntry, hash_of, new_token

_MOST_DAYS = 3650  # as long as an embedded farm's authority; for longer there is "until it is revoked"


def new(words: argparse.Namespace, out: Output) -> int:
    """Needs no farm: whoever may write the farm's tokens file can let in whoever has the token.

    Raises FarmError(INVALID_ARGUMENT) for what the farm would refuse: with a wrong line in its file it lets in nobody by token."""
    team = team_name(words.team, "--team")
    name = caller_name(f"{team}-{words.role}" if words.name is None else words.name, "--name")
    if words.days is not None and words.days > _MOST_DAYS:
        hint = f"at most {_MOST_DAYS}; without --days it is good until it is revoked"
        raise FarmError(Code.INVALID_ARGUMENT, f"{words.days} days are too many", where="--days", hint=hint)
    token = new_token()
    expires = ""
    if words.days is not None:
        expires = (datetime.now(UTC) + timedelta(days=words.days)).isoformat(timespec="seconds").replace("+00:00", "Z")
    entry = TokenEntry(sha256=hash_of(token), team=team, role=words.role, name=name, expires=expires)
    if out.json_mode:
        out.data({"token": token, "entry": {key: value for key, value in asdict(entry).items() if value}})
        return 0
    out.say("the token, for its user; it is not shown again:")
    out.data(token)
    out.say("the line for the farm's tokens file, below `tokens:`:")
    out.data(entry.line())
    return 0
