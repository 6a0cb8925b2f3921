"""JSON Web Tokens of an OpenID Connect provider as proof of who calls (RFC 7519; good practice: RFC 8725)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt

from coordinator.access.callers import Caller, Role, caller
from coordinator.access.jwks import KeySet
from kernel.errors import Code, FarmError
from kernfarm.settings import OidcSettings

_REQUIRED = ("exp", "iss", "aud", "sub")
# A provider's token with many groups is 4 KiB; gRPC takes 8 KiB of metadata.
_LONGEST = 16 << 10


class Oidc:
    """Verifies tokens of one issuer for one audience."""

    def __init__(self, settings: OidcSettings) -> None:
        """Raises FarmError(INVALID_ARGUMENT) when the settings can't work."""
        if not settings.audience:
            raise FarmError(
                Code.INVALID_ARGUMENT,
                "without an audience tokens for any other service of the provider would open this one",
                where="access.oidc.audience",
            )
        for role in (settings.roles or {}).values():
            if role not in {str(each) for each in Role}:
                raise FarmError(Code.INVALID_ARGUMENT, f"no role: {role!r}", where="access.oidc.roles", hint=f"one of {', '.join(Role)}")
        self._settings = settings
        self._keys = KeySet(jwks=settings.jwks, issuer=settings.issuer)
        # Not the loop's own threads, which journal, logs and blobs need: one may wait for the provider, the other answers the rest.
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="oidc")

    async def caller(self, token: str) -> Caller:
        """Who the token is for. Raises FarmError: UNAUTHENTICATED, PERMISSION_DENIED (no team or role), UNAVAILABLE (no keys)."""
        if len(token) > _LONGEST:
            raise FarmError(Code.UNAUTHENTICATED, "the token is too long")
        try:
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            found = await asyncio.get_running_loop().run_in_executor(self._threads, self._keys.find, kid if kid is None else str(kid))
            claims = jwt.decode(
                token,
                key=found.key,
                algorithms=[found.algorithm],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=self._settings.leeway_seconds,
                options={"require": list(_REQUIRED)},
            )
        except jwt.PyJWTError as error:
            hint = "ask the identity provider for a new one"
            raise FarmError(Code.UNAUTHENTICATED, f"the token is not accepted: {error}", hint=hint) from error
        return self._caller(claims)

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        settings = self._settings
        teams = _values(claims, settings.team_claim, settings.teams)
        roles = [role for role in Role if role in _values(claims, settings.role_claim, settings.roles)]
        if len(teams) != 1 or not roles:
            found = f"{len(teams)} teams and {len(roles)} roles"
            hint = f"they follow from the claims {settings.team_claim!r} and {settings.role_claim!r}"
            raise FarmError(Code.PERMISSION_DENIED, f"the token gives {found} on this farm", hint=hint)
        try:
            return caller(team=teams.pop(), name=claims["sub"], role=str(roles[-1]), proof="oidc", where="token")
        except FarmError as error:
            raise FarmError(Code.PERMISSION_DENIED, error.problem.message, where="token", hint=error.problem.hint) from error


def _values(claims: Mapping[str, Any], name: str, meanings: Mapping[str, str] | None) -> set[str]:
    """The words of a claim, one or a list, as what they mean here; what has no meaning here is left out."""
    value = claims.get(name)
    words = [word for word in (value if isinstance(value, list) else [value]) if isinstance(word, str)]
    return set(words) if not meanings else {meanings[word] for word in words if word in meanings}
