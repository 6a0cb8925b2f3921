"""How a registry wants requests to be authorized: its answer 401, and the token that it asks for (Docker's token authentication)."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import requests
from requests.auth import AuthBase
from requests.utils import parse_dict_header
from urllib3.util import Url, parse_url

from kernel.errors import Code, FarmError
from kernfarm.registry.credentials import Login
from kernfarm.registry.reference import is_loopback

_SECONDS = (10.0, 30.0)
_PORTS = {"https": 443, "http": 80}


class Authorization(AuthBase):
    """Puts the header on requests to the registry itself, and on no others: an upload may lead to another host.

    Being set on each request it also keeps `requests` from taking other credentials out of ~/.netrc."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self.header = ""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.header and origin_of(request.url or "") == self._origin:
            request.headers["Authorization"] = self.header
        return request


def origin_of(url: str) -> str:
    """Scheme, host and port: who gets what is sent there. Raises FarmError(UNAVAILABLE) for text that is no address."""
    parts = _parsed(url)
    return f"{parts.scheme}://{parts.host}:{parts.port or _PORTS[str(parts.scheme)]}"


def on_loopback(url: str) -> bool:
    """Whether an address is of this machine itself. Raises FarmError(UNAVAILABLE) for text that is no address."""
    return is_loopback(str(_parsed(url).host))


def _parsed(url: str) -> Url:
    """By the parser that the request goes by: another one may see another host in the same text (`http://one\\@other/`)."""
    try:
        parts = parse_url(url)
    except ValueError as error:
        raise _no_address(url) from error
    if parts.scheme not in _PORTS or not parts.host:
        raise _no_address(url)
    return parts


def _no_address(url: str) -> FarmError:
    return FarmError(Code.UNAVAILABLE, f"the registry names an address that is none: {url[:200]!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """A WWW-Authenticate header: `scheme` in small letters, its parameters."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""

    @classmethod
    def parse(cls, header: str) -> Challenge:
        """The first challenge of the header."""
        scheme, _, rest = header.strip().partition(" ")
        values: dict[str, str | None] = parse_dict_header(rest)  # type: ignore[no-untyped-call]
        known = {name: values[name] or "" for name in ("realm", "service", "scope") if name in values}
        return cls(scheme=scheme.lower(), **known)


def answer(challenge: Challenge, login: Login | None, session: requests.Session, *, origin: str, scope: str) -> str:
    """The Authorization header that answers a challenge; "" when there is nothing to answer with.

    `scope` is what is asked for where the challenge names none. Raises FarmError: PERMISSION_DENIED for a realm that would get the password
    in plain text, UNAUTHENTICATED when the token server refuses the login, UNAVAILABLE."""
    if challenge.scheme == "basic":
        return _basic(login) if login is not None and login.username else ""
    if challenge.scheme != "bearer" or not challenge.realm:
        return ""
    _check_realm(challenge.realm, login, origin)
    return f"Bearer {_token(challenge, login, session, challenge.scope or scope)}"


def _check_realm(realm: str, login: Login | None, origin: str) -> None:
    """A challenge that came in plain text is anybody's: what it may ask for is what the registry's own host would get in plain text."""
    asked, registry = _parsed(realm), _parsed(origin)
    if asked.scheme == "https":
        return
    if registry.scheme == "http" and (login is None or asked.host == registry.host or is_loopback(str(asked.host))):
        return
    message = f"the registry {origin_of(origin)} sends logins to {origin_of(realm)}, without encryption"
    hint = "its token service needs TLS"
    if registry.scheme == "http":
        hint += ", or has to be on the registry's own host; `docker logout` goes on without a login"
    raise FarmError(Code.PERMISSION_DENIED, message, where=origin_of(realm), hint=hint)


def _token(challenge: Challenge, login: Login | None, session: requests.Session, scope: str) -> str:
    values = {name: value for name, value in (("service", challenge.service), ("scope", scope)) if value}
    where = origin_of(challenge.realm)
    try:
        if login is not None and login.identity_token:
            form = {**values, "grant_type": "refresh_token", "refresh_token": login.identity_token, "client_id": "kernfarm"}
            response = session.post(challenge.realm, data=form, timeout=_SECONDS, auth=_Header(""), allow_redirects=False)
        else:
            header = _basic(login) if login is not None else ""
            response = session.get(challenge.realm, params=values, timeout=_SECONDS, auth=_Header(header), allow_redirects=False)
        if response.status_code in (400, 401, 403):
            who = f"the login {login.username}".rstrip() if login else "asking without a login"
            raise FarmError(Code.UNAUTHENTICATED, f"the token server refuses {who}", where=where, hint="docker login")
        if response.status_code != 200:
            raise FarmError(Code.UNAVAILABLE, f"the token server answers {response.status_code}", where=where)
        found = response.json()
        token = (found.get("token") or found.get("access_token")) if isinstance(found, dict) else None
    except (requests.RequestException, ValueError) as error:
        raise FarmError(Code.UNAVAILABLE, f"the token server does not answer: {_short(error)}", where=where) from error
    if not isinstance(token, str) or not token:
        raise FarmError(Code.UNAVAILABLE, "the token server's answer holds no token", where=where)
    return token


class _Header(AuthBase):
    def __init__(self, value: str) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value:
            request.headers["Authorization"] = self._value
        return request


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
