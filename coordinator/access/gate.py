"""The gate that every call passes: who is it, may it do that, and what is recorded of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from coordinator.access.audit import Audit
from coordinator.access.callers import Caller, Role
from coordinator.access.certificates import Certificates
from coordinator.access.oidc import Oidc
from coordinator.access.tokens import TokenFile
from kernel.errors import Code, FarmError
from kernfarm import tokens
from kernfarm.rpc import Policy
from kernfarm.settings import AccessSettings

_SCHEME = "bearer "
_MUTATING = frozenset({Policy.SUBMITTER, Policy.ADMIN})
_HINT = "kernfarm sends what --token-file, KERNFARM_TOKEN, or --cert and --key name"


class Gate:
    """Implements kernfarm.rpc.Gate. `clock`: unix seconds."""

    def __init__(self, settings: AccessSettings, audit: Audit, *, clock: Callable[[], float] = time.time) -> None:
        """Raises FarmError(INVALID_ARGUMENT) when callers could not be told apart, or as the files that it reads."""
        if settings.certificates and not settings.tls.client_ca:
            raise FarmError(
                Code.INVALID_ARGUMENT, "callers can't be known by certificates that are not asked for", where="access.tls.client_ca"
            )
        if not (settings.tokens_file or settings.oidc.issuer or settings.certificates):
            hint = "access.tokens_file (kernfarm token new makes the lines), access.oidc, or access.certificates"
            raise FarmError(Code.INVALID_ARGUMENT, "there is no way to tell callers apart", where="access", hint=hint)
        self._tokens = TokenFile(Path(settings.tokens_file)) if settings.tokens_file else None
        self._oidc = Oidc(settings.oidc) if settings.oidc.issuer else None
        self._certificates = Certificates(settings.certificates) if settings.certificates else None
        self._audit = audit
        self._clock = clock
        self.recheck_seconds = settings.recheck_seconds

    @asynccontextmanager
    async def visit(self, method: str, policy: Policy, context: Any, about: str) -> AsyncIterator[Visit]:
        """A call's stay. Raises FarmError: UNAUTHENTICATED, PERMISSION_DENIED. `about`: the build that the call names, or ""."""
        visit = Visit(self, context, about)
        if policy is Policy.PUBLIC:
            yield visit
            return
        visit.caller = await self.caller(context)
        peer = context.peer()
        if not visit.caller.may(Role(policy.value)):
            if policy in _MUTATING:
                await asyncio.to_thread(self._audit.refused, visit.caller, method, peer, visit.about)
            raise _denied(visit.caller, policy)
        _VISIT.set(visit)
        if policy not in _MUTATING:
            yield visit
            return
        call = await asyncio.to_thread(self._audit.began, visit.caller, method, peer, visit.about)
        outcome = "ok"
        try:
            yield visit
        except BaseException as error:
            outcome = _outcome(error)
            raise
        finally:
            await asyncio.to_thread(self._audit.ended, call, visit.caller, method, visit.about, outcome)

    async def caller(self, context: Any) -> Caller:
        """Who is at the other end. A token counts before a certificate: it is the more particular of the two."""
        given = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
        if given:
            return await self._by_token(given)
        pem = context.auth_context().get("x509_pem_cert")
        if pem and self._certificates is not None:
            return self._certificates.caller(pem[0], self._clock())
        raise FarmError(Code.UNAUTHENTICATED, "the farm has to know who calls", hint=_HINT)

    async def _by_token(self, given: list[Any]) -> Caller:
        value = given[0] if len(given) == 1 and isinstance(given[0], str) else ""
        if value[: len(_SCHEME)].lower() != _SCHEME:
            raise FarmError(Code.UNAUTHENTICATED, "expected one header `authorization: Bearer TOKEN`", hint=_HINT)
        token = value[len(_SCHEME) :].strip()
        if self._tokens is not None and (token.startswith(tokens.PREFIX) or self._oidc is None):
            return self._tokens.caller(token, self._clock())
        if self._oidc is not None:
            return await self._oidc.caller(token)
        raise FarmError(Code.UNAUTHENTICATED, "this farm takes no tokens", hint="--cert and --key name a client's certificate")


class Visit:
    """One call while it lasts. What it is about (builds, blobs) is added as it becomes known."""

    def __init__(self, gate: Gate, context: Any, about: str) -> None:
        self._gate = gate
        self._context = context
        self.about: list[str] = [about] if about else []
        self.caller: Caller | None = None

    async def check(self) -> None:
        """Whether the caller may go on: the token may have expired, been revoked, or lost its role since. Raises FarmError."""
        if self.caller is None:
            return
        now = await self._gate.caller(self._context)
        # The answers were chosen for what the caller was at the start: an admin's are of all teams.
        if now.team != self.caller.team or not now.may(self.caller.role):
            said = f"{self.caller.name} is no longer {self.caller.role} of team {self.caller.team}"
            raise FarmError(Code.PERMISSION_DENIED, said, hint="ask again")


_VISIT: ContextVar[Visit] = ContextVar("kernfarm_visit")


def current() -> Caller:
    """The caller of the call that is being answered. Raises FarmError(INTERNAL) where the gate was not passed."""
    visit = _VISIT.get(None)
    if visit is None or visit.caller is None:
        raise FarmError(Code.INTERNAL, "a call got past the gate")
    return visit.caller


async def recheck() -> None:
    """Whether the caller of the call that is being answered may still go on, for calls that last. Raises FarmError."""
    current()
    await _VISIT.get().check()


def note(*about: str) -> None:
    """What the call that is being answered is about, for the audit record."""
    visit = _VISIT.get(None)
    if visit is not None:
        visit.about += [each for each in about if each not in visit.about]


def _denied(who: Caller, policy: Policy) -> FarmError:
    said = f"{who.name} of team {who.team} is {who.role}; this needs {policy}"
    return FarmError(Code.PERMISSION_DENIED, said, hint="ask the farm's admin for another token")


def _outcome(error: BaseException) -> str:
    if isinstance(error, FarmError):
        return error.problem.code.value
    return Code.CANCELLED.value if isinstance(error, (asyncio.CancelledError, GeneratorExit)) else Code.INTERNAL.value
