"""Callers as values: a team, a name, a role; and what a role may do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from kernel.errors import Code, FarmError

# A team is a cache domain too, so it becomes a folder's name. `release` is the domain that no team may write to.
# Also a name of a cache domain, see worker.ccache.
_TEAM = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_RESERVED = frozenset({"release"})
_LONGEST_NAME = 200


class Role(StrEnum):
    """Each role may do what those before it may. An admin sees and stops builds of all teams."""

    READER = "reader"
    SUBMITTER = "submitter"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls: `proof` is how that is known (token, oidc, certificate)."""

    team: str
    name: str
    role: Role
    proof: str

    def may(self, needed: Role) -> bool:
        """Whether the caller's role includes `needed`."""
        ranks = list(Role)
        return ranks.index(self.role) >= ranks.index(needed)


def caller(*, team: object, name: object, role: object, proof: str, where: str) -> Caller:
    """A caller from words of a file or a token. Raises FarmError(INVALID_ARGUMENT) naming the place (`where`)."""
    if not isinstance(team, str) or _TEAM.fullmatch(team) is None or team in _RESERVED:
        hint = "at most 63 lower-case letters, digits, - and _, beginning with a letter or digit; not `release`"
        raise FarmError(Code.INVALID_ARGUMENT, f"no team's name: {team!r:.80}", where=where, hint=hint)
    if not isinstance(name, str) or not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise FarmError(Code.INVALID_ARGUMENT, f"no caller's name: {name!r:.80}", where=where)
    if role not in {str(each) for each in Role}:
        raise FarmError(Code.INVALID_ARGUMENT, f"no role: {role!r:.80}", where=where, hint=f"one of {', '.join(Role)}")
    return Caller(team=team, name=name, role=Role(str(role)), proof=proof)
