"""The public keys of an identity provider (JWK set, RFC 7517), from a file or an address, kept for a while and asked for again for a key
that is not known."""

from __future__ import annotations

import http.client
import json
import logging
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from kernel.errors import Code, FarmError
from kernfarm import timely

log = logging.getLogger(__name__)

_FRESH_SECONDS = 600.0
# How long keys are used while the provider can't be reached; longer, and a key that was withdrawn would go on to open doors.
_STALE_SECONDS = 3600.0
# Anybody can send a token with a made-up key id: such tokens must not make us a flood for the provider.
_BETWEEN_SECONDS = 10.0
_TIMEOUT_SECONDS = 10.0
_MAX_BYTES = 1 << 20
# The algorithm follows from the key. A token's own word for it is checked against this and never obeyed (RFC 8725, 3.1).
_ALGORITHMS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_LEAST_RSA_BITS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A public key and the one algorithm it is used with."""

    key: Any
    algorithm: str


class KeySet:
    """`find` blocks the one caller that fetches: call it in a thread. `clock`: monotonic seconds."""

    def __init__(self, *, jwks: str, issuer: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._jwks = jwks
        self._issuer = issuer
        self._clock = clock
        self._fetching = threading.Lock()
        self._keys: Mapping[str, Key] = {}
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        for place in (jwks, issuer if not jwks else ""):
            _check_place(place)

    def find(self, kid: str | None) -> Key:
        """The key with that id; without an id, the only one there is. Raises FarmError: UNAUTHENTICATED, UNAVAILABLE."""
        now = self._clock()
        under_way = False
        if now - self._read_at > _FRESH_SECONDS or self._pick(kid) is None:
            # Nobody waits for another's fetch: a provider that hangs would otherwise hold a thread for each caller.
            if self._fetching.acquire(blocking=False):
                try:
                    self._refresh()
                finally:
                    self._fetching.release()
            else:
                under_way = True
        found = self._pick(kid)
        if self._clock() - self._read_at > _STALE_SECONDS or (found is None and under_way):
            hint = "try again in some seconds" if under_way else ""
            raise FarmError(Code.UNAVAILABLE, "the identity provider's keys can't be had", where=self._jwks or self._issuer, hint=hint)
        if found is None:
            raise FarmError(Code.UNAUTHENTICATED, "the token is signed with a key that the identity provider does not name")
        return found

    def _pick(self, kid: str | None) -> Key | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    def _refresh(self) -> None:
        """One at a time. The pause counts from the end of a fetch: a slow one must not be followed by the next at once."""
        now = self._clock()
        if now - self._tried_at < _BETWEEN_SECONDS:
            return
        try:
            self._keys = _keys(self._document())
            self._read_at = now
        except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
            log.error("cannot get the identity provider's keys from %s: %s", self._jwks or self._issuer, error)
        finally:
            self._tried_at = self._clock()

    def _document(self) -> Any:
        place = self._jwks
        if not place:
            # OpenID Connect Discovery 1.0, 4: the document stands below the issuer and repeats it.
            found = _fetch(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
            if not isinstance(found, dict) or found.get("issuer") != self._issuer or not isinstance(found.get("jwks_uri"), str):
                raise ValueError("the discovery document is another issuer's, or names no keys")
            place = found["jwks_uri"]
            _check_place(place)
        if "://" in place:
            return _fetch(place)
        return json.loads(Path(place).read_bytes())


def _check_place(place: str) -> None:
    """Keys that came over a line that anybody can write on would let anybody in."""
    parts = urllib.parse.urlsplit(place)
    loopback = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if "://" in place and parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise FarmError(Code.INVALID_ARGUMENT, "the identity provider has to be asked over https", where=place)


def _fetch(url: str) -> Any:
    opener = timely.opener(time.monotonic() + _TIMEOUT_SECONDS, _NoRedirect())
    with opener.open(url, timeout=_TIMEOUT_SECONDS) as answer:
        data = answer.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError("larger than any key set")
    return json.loads(data)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could lead from https to anywhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _keys(document: Any) -> Mapping[str, Key]:
    """The keys that may sign tokens, by id. Others in the set (symmetric, for encryption, of unknown kinds) are left out."""
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("no JWK set")
    keys: dict[str, Key] = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        algorithm = _ALGORITHMS.get((str(entry.get("kty")), None if entry.get("kty") == "RSA" else str(entry.get("crv"))))
        if algorithm is None or entry.get("alg", algorithm) != algorithm:
            continue
        try:
            key = jwt.PyJWK(entry, algorithm).key
        except (jwt.PyJWTError, ValueError, KeyError, TypeError) as error:
            log.warning("a key of the identity provider can't be used: %s", error)
            continue
        if algorithm == "RS256" and getattr(key, "key_size", 0) < _LEAST_RSA_BITS:
            log.warning("a key of the identity provider is too short")
            continue
        keys[str(entry.get("kid", ""))] = Key(key=key, algorithm=algorithm)
    return keys
