"""Requests to one registry: authorized, limited in time, repeated where that is safe; refusals become problems that name the mend."""

from __future__ import annotations

import email.utils
import io
import logging
import socket
import ssl
import time
import urllib.parse
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from kernel.errors import Code, FarmError
from kernfarm.registry import challenge, refusal
from kernfarm.registry.challenge import Authorization, Challenge
from kernfarm.registry.credentials import Login, find
from kernfarm.registry.reference import Reference

log = logging.getLogger(__name__)

_BUSY = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often a request is tried in all, the first wait between two tries (it doubles), the longest wait that a registry may ask for.

    `connect_seconds` limits connecting and each piece that is sent, `answer_seconds` silence: the last request of an upload answers only
    when the registry has stored and hashed it."""

    attempts: int = 5
    first_seconds: float = 0.5
    longest_seconds: float = 120.0
    connect_seconds: float = 10.0
    answer_seconds: float = 300.0


class _Direct(HTTPAdapter):
    """`requests` takes a proxy out of the environment also for this machine itself: what is plain HTTP here would leave it, logins and all.
    Here, as with Go's clients, loopback has no proxy, whatever NO_PROXY says."""

    def send(self, request: requests.PreparedRequest, *words: Any, **options: Any) -> requests.Response:
        if challenge.on_loopback(request.url or ""):
            options["proxies"] = None
            request.headers.pop("Proxy-Authorization", None)
        return super().send(request, *words, **options)


class _Session(requests.Session):
    """`requests` follows reads to other hosts, which get no login of ours, none out of ~/.netrc, and nothing without encryption."""

    def __init__(self) -> None:
        super().__init__()
        for scheme in ("https://", "http://"):
            self.mount(scheme, _Direct())

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        if self.should_strip_auth(response.request.url, prepared_request.url):  # type: ignore[no-untyped-call]
            prepared_request.headers.pop("Authorization", None)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        found: str | None = super().get_redirect_target(resp)
        if found is None:
            return None
        try:
            url = _joined(resp, found)
            if resp.url.startswith("https:") and not url.startswith("https:"):
                message = "the registry leads to an address without encryption"
                raise FarmError(Code.PERMISSION_DENIED, message, where=challenge.origin_of(url))
        except FarmError:
            resp.close()
            raise
        return found


def _joined(response: requests.Response, found: str) -> str:
    """An address in an answer, relative or not. Raises FarmError(UNAVAILABLE) for text that is none."""
    try:
        url = urllib.parse.urljoin(response.url, found)
    except ValueError as error:
        raise FarmError(Code.UNAVAILABLE, f"the registry leads to {found[:200]!r}") from error
    challenge.origin_of(url)
    return url


class Transport:
    """A connection to the registry of a reference. All methods raise FarmError: UNAUTHENTICATED, PERMISSION_DENIED, NOT_FOUND,
    INVALID_ARGUMENT, BAD_DIGEST for what it refuses, UNAVAILABLE when it does not answer or breaks off."""

    def __init__(
        self,
        reference: Reference,
        *,
        plain_http: bool = False,
        patience: Patience | None = None,
        logins: Callable[[str], Login | None] = find,
    ) -> None:
        self.reference = reference
        self.patience = patience or Patience()
        self._timeout = (self.patience.connect_seconds, self.patience.answer_seconds)
        self._session = _Session()
        self._session.headers["User-Agent"] = "kernfarm"
        self._login = logins(reference.host)
        scheme = "http" if plain_http or (reference.loopback and not self._speaks_tls()) else "https"
        self.base = f"{scheme}://{reference.address}"
        self._origin = challenge.origin_of(self.base)
        self._authorization = Authorization(self._origin)

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections. Nothing can be asked afterwards."""
        self._session.close()

    def url(self, path: str, **query: str) -> str:
        """An address below the repository's own."""
        words = f"?{urllib.parse.urlencode(query)}" if query else ""
        return f"{self.base}/v2/{self.reference.repository}/{path}{words}"

    def location(self, response: requests.Response) -> str:
        """Where an answer leads: may be relative, may be another host, must not be less protected than the registry itself."""
        found = response.headers.get("Location", "")
        if not found:
            raise FarmError(Code.UNAVAILABLE, "the registry's answer lacks a Location", where=self.reference.name)
        url = self.joined(response, found)
        if self.base.startswith("https:") and not url.startswith("https:"):
            message = "the registry leads to an address without encryption"
            raise FarmError(Code.PERMISSION_DENIED, message, where=challenge.origin_of(url))
        return url

    def joined(self, response: requests.Response, found: str) -> str:
        """An address in an answer, relative or not. Raises FarmError(UNAVAILABLE) for text that is none."""
        return _joined(response, found)

    def request(
        self,
        method: str,
        url: str,
        *,
        good: Collection[int],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        stream: bool = False,
        push: bool = False,
        repeat: bool = True,
    ) -> requests.Response:
        """An answer whose status is one of `good`. `push`: the scope that a token is asked for; `repeat`: whether a request of which
        nobody knows how far it came may be sent again. One that the registry put off (429, 503 with Retry-After) always may."""
        delay = self.patience.first_seconds
        for left in range(self.patience.attempts - 1, -1, -1):
            wait = delay
            try:
                response = self._authorized(method, url, headers, body, stream, push)
            except FarmError as error:
                if error.problem.code is not Code.UNAVAILABLE or not repeat or not left:
                    raise
                why = error
            else:
                if response.status_code in good:
                    return response
                why = refusal.problem(response, self.reference, self._login)
                response.close()
                wait = max(delay, _retry_after(response) or 0.0)
                if (
                    not left
                    or not (_put_off(response) or (repeat and response.status_code in _BUSY))
                    or wait > self.patience.longest_seconds
                ):
                    raise why
            log.info("%s %s: %s; trying again in %.1f s", method, self.reference.name, why.problem.message, wait)
            time.sleep(wait)
            delay *= 2
        raise AssertionError("unreachable")

    def _authorized(
        self, method: str, url: str, headers: Mapping[str, str] | None, body: bytes | None, stream: bool, push: bool
    ) -> requests.Response:
        """One try. A 401 is answered once: tokens run out, and one for pulling does not push."""
        response = self._send(method, url, headers, body, stream)
        if response.status_code != 401 or challenge.origin_of(url) != self._origin:
            return response
        asked = Challenge.parse(response.headers.get("WWW-Authenticate", ""))
        scope = f"repository:{self.reference.repository}:{'pull,push' if push else 'pull'}"
        try:
            header = challenge.answer(asked, self._login, self._session, origin=self.base, scope=scope)
        except FarmError:
            response.close()
            raise
        if not header or (asked.scheme == "basic" and header == self._authorization.header):
            return response
        response.close()
        self._authorization.header = header
        return self._send(method, url, headers, body, stream)

    def _send(self, method: str, url: str, headers: Mapping[str, str] | None, body: bytes | None, stream: bool) -> requests.Response:
        # Reads may lead to an object store; `requests` drops the header on the way to another host. Writes follow nobody.
        follow = method in ("GET", "HEAD")
        try:
            return self._session.request(
                method,
                url,
                headers=dict(headers or {}),
                # As a file it is sent in pieces, each with a time limit of its own: a slow line is no broken one.
                data=None if body is None else io.BytesIO(body),
                auth=self._authorization,
                stream=stream,
                timeout=self._timeout,
                allow_redirects=follow,
            )
        except (requests.RequestException, UnicodeError) as error:
            raise refusal.unreachable(error, self.reference) from error

    def _speaks_tls(self) -> bool:
        """Whether a registry on this machine uses TLS; what listens there answers a handshake, or it does not."""
        parts = urllib.parse.urlsplit(f"//{self.reference.address}")
        host = parts.hostname or ""
        try:
            with (
                socket.create_connection((host, parts.port or 443), timeout=self.patience.connect_seconds) as raw,
                ssl.create_default_context().wrap_socket(raw, server_hostname=host),
            ):
                return True
        except ssl.SSLCertVerificationError:
            return True  # a certificate that nobody vouches for is TLS all the same: going on without it would hide that
        except OSError:
            return False  # nothing there, or it hung up on the handshake: the first real request tells


def _put_off(response: requests.Response) -> bool:
    """Whether the registry refused to look at the request for now: then nothing has come of it."""
    return response.status_code == 429 or (response.status_code == 503 and "Retry-After" in response.headers)


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that the registry asks to wait (RFC 9110, 10.2.3): a number, or a date by its own clock."""
    text = response.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(response.headers["Date"])
        return max(0.0, (until - now).total_seconds())
    except (KeyError, ValueError, TypeError):
        return None
