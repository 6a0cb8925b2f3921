"""Clients known by their certificate (mTLS). gRPC has verified it against the authorities; here it becomes a caller."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography import x509

from coordinator.access.callers import Caller, caller
from kernel.errors import Code, FarmError


class Certificates:
    """`mapping`: URI names or subjects (RFC 4514, as `openssl x509 -nameopt RFC2253` prints them) to TEAM/ROLE."""

    def __init__(self, mapping: Mapping[str, str]) -> None:
        """Raises FarmError(INVALID_ARGUMENT) naming the entry."""
        self._callers: dict[str, Caller] = {}
        for name, meaning in mapping.items():
            where = f"access.certificates: {name}"
            team, _, role = meaning.partition("/")
            self._callers[name if "://" in name else _subject(name, where)] = caller(
                team=team, name=name, role=role, proof="certificate", where=where
            )

    def caller(self, pem: bytes, now: float) -> Caller:
        """Whose certificate it is. Raises FarmError: UNAUTHENTICATED (expired since the connection was made), PERMISSION_DENIED."""
        certificate = x509.load_pem_x509_certificate(pem)
        if now >= certificate.not_valid_after_utc.timestamp():
            raise FarmError(Code.UNAUTHENTICATED, "the client's certificate has expired", hint="connect again with a new one")
        names = [certificate.subject.rfc4514_string()]
        try:
            alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names += alternative.get_values_for_type(x509.UniformResourceIdentifier)
        except x509.ExtensionNotFound:
            pass
        found = {self._callers[name] for name in names if name in self._callers}
        if len({(each.team, each.role) for each in found}) != 1:
            said = "names no caller of this farm" if not found else "names several callers"
            raise FarmError(Code.PERMISSION_DENIED, f"the client's certificate {said}", where=", ".join(names)[:200])
        return min(found, key=lambda each: each.name)


def _subject(name: str, where: str) -> str:
    try:
        return x509.Name.from_rfc4514_string(name).rfc4514_string()
    except ValueError as error:
        hint = "a URI such as spiffe://example.org/ci, or a subject such as CN=ci,O=Example"
        raise FarmError(Code.INVALID_ARGUMENT, f"no name of a certificate: {name!r}", where=where, hint=hint) from error
