"""Callers as values: a team, a name, a role; and what a role may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from kernel.errors import Code, FarmError
from kernfarm.teams import caller_name, team_name


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
    team, name = team_name(team, where), caller_name(name, where)
    if role not in {str(each) for each in Role}:
        raise FarmError(Code.INVALID_ARGUMENT, f"no role: {role!r:.80}", where=where, hint=f"one of {', '.join(Role)}")
    return Caller(team=team, name=name, role=Role(str(role)), proof=proof)
