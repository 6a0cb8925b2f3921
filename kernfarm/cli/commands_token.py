"""`kernfarm token new`: a bearer token, shown once, and what the farm has to know of it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from kernfarm.cli.output import Output
from kernfarm.tokens import TokenEntry, hash_of, new_token


def new(words: argparse.Namespace, out: Output) -> int:
    """Needs no farm: whoever may write the farm's tokens file can let in whoever has the token."""
    token = new_token()
    expires = ""
    if words.days is not None:
        expires = (datetime.now(UTC) + timedelta(days=words.days)).isoformat(timespec="seconds").replace("+00:00", "Z")
    name = words.name or f"{words.team}-{words.role}"
    entry = TokenEntry(sha256=hash_of(token), team=words.team, role=words.role, name=name, expires=expires)
    if out.json_mode:
        out.data({"token": token, "entry": {key: value for key, value in asdict(entry).items() if value}})
        return 0
    out.say("the token, for its user; it is not shown again:")
    out.data(token)
    out.say("the line for the farm's tokens file, below `tokens:`:")
    out.data(entry.line())
    return 0
