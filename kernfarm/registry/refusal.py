"""What a registry's refusal means, for people: the place, its own words, the mend (OCI distribution specification 1.1, "Error codes")."""

from __future__ import annotations

import json

import requests

from kernel.errors import Code, FarmError
from kernfarm.registry.credentials import Login
from kernfarm.registry.reference import Reference

_MOST_BYTES = 64 << 10
_MOST_WORDS = 300


def problem(response: requests.Response, reference: Reference, login: Login | None) -> FarmError:
    """The error for an answer that was not hoped for."""
    codes, words = _said(response)
    said = f" ({words})" if words else ""
    where = reference.name
    match response.status_code:
        case 401 if login is None:
            hint = f"docker login {reference.host}"
            return FarmError(Code.UNAUTHENTICATED, f"the registry wants a login{said}", where=where, hint=hint)
        case 401:
            who = (login and login.username) or "the identity token"
            hint = f"docker login {reference.host}"
            return FarmError(Code.UNAUTHENTICATED, f"the registry refuses the login {who}{said}", where=where, hint=hint)
        case 403:
            who = f"{login.username or 'this login'}" if login else "everybody"
            hint = f"has this login the right to push there? docker login {reference.host} with another"
            return FarmError(Code.PERMISSION_DENIED, f"the registry does not allow {who} to do that{said}", where=where, hint=hint)
        case 404:
            hint = "some registries want a repository to be created before the first push"
            return FarmError(Code.NOT_FOUND, f"the registry does not have that{said}", where=where, hint=hint)
        case 405 | 501:
            hint = "a mirror or a read-only registry takes no pushes"
            message = f"the registry does not support {response.request.method}{said}"
            return FarmError(Code.INVALID_ARGUMENT, message, where=where, hint=hint)
        case 429:
            hint = "push again later; what it has already is not sent twice"
            return FarmError(Code.UNAVAILABLE, f"the registry limits the rate of requests{said}", where=where, hint=hint)
        case 400 if "DIGEST_INVALID" in codes:
            message = f"the registry received other bytes than were sent{said}"
            return FarmError(Code.BAD_DIGEST, message, where=where, hint="something between here and the registry changes data")
        case status if status >= 500:
            return FarmError(Code.UNAVAILABLE, f"the registry fails with {status}{said}", where=where, hint="push again later")
        case status:
            return FarmError(Code.INVALID_ARGUMENT, f"the registry answers {status} to {response.request.method}{said}", where=where)


def unreachable(error: Exception, reference: Reference) -> FarmError:
    """The error for a registry that can't be talked to at all, or broke off."""
    words = " ".join(str(error).split())[:_MOST_WORDS]
    where = reference.name
    if isinstance(error, requests.exceptions.SSLError):
        hint = "REQUESTS_CA_BUNDLE=FILE for an authority of your own; --plain-http for a registry without TLS"
        return FarmError(Code.UNAVAILABLE, f"no protected connection to {reference.address}: {words}", where=where, hint=hint)
    hint = "is the address right, and the registry up? What it has already is not sent twice"
    return FarmError(Code.UNAVAILABLE, f"no answer from {reference.address}: {words}", where=where, hint=hint)


def _said(response: requests.Response) -> tuple[frozenset[str], str]:
    """The registry's own error codes and words, bounded: who answers may be anybody."""
    try:
        data = next(response.iter_content(_MOST_BYTES), b"") if response.request.method != "HEAD" else b""
        found = json.loads(data or b"{}")
        errors = [each for each in found["errors"] if isinstance(each, dict)]
    except (requests.RequestException, ValueError, KeyError, TypeError, RecursionError):
        return frozenset(), ""
    codes = frozenset(str(each.get("code", "")) for each in errors)
    words = "; ".join(": ".join(str(each[key]) for key in ("code", "message") if each.get(key)) for each in errors)
    return codes, words[:_MOST_WORDS]
