"""Bearer tokens: how they are made, and how the farm knows them without keeping them."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass

# A fixed beginning lets secret scanners find a token that got into a repository, and tells it apart from a provider's.
PREFIX = "kft_"
_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEntry:
    """A token as the farm's tokens file has it. `sha256` of the whole token, hex; `expires` in RFC 3339, "" for never."""

    sha256: str
    team: str
    role: str
    name: str
    expires: str = ""

    def line(self) -> str:
        """The entry as one line of the tokens file, below `tokens:`. JSON is YAML too, and quotes what has to be quoted."""
        values = {"sha256": self.sha256, "team": self.team, "role": self.role, "name": self.name}
        if self.expires:
            values["expires"] = self.expires
        return f"- {json.dumps(values)}"


def new_token() -> str:
    """A token with 256 random bits."""
    return PREFIX + secrets.token_urlsafe(_BYTES)


def hash_of(token: str) -> str:
    """What is kept of a token. A plain hash will do: 256 random bits can't be guessed, unlike a password."""
    return hashlib.sha256(token.encode()).hexdigest()
