"""Authorities and certificates for tests: valid, expired, of the wrong authority."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HOUR = timedelta(hours=1)


class Pair:
    """A certificate and its key, PEM."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate.public_bytes(Encoding.PEM)
        self.key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.serial = certificate.serial_number

    def write(self, certificate: Path, key: Path) -> None:
        """Key first, as certbot and others do: in between the two don't fit."""
        key.touch(mode=0o600)
        key.write_bytes(self.key)
        certificate.write_bytes(self.certificate)


class Authority:
    def __init__(self, name: str = "test authority") -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        made = self._builder(self._name, self._key, timedelta(days=-1), timedelta(days=1))
        self.pem = made.add_extension(x509.BasicConstraints(True, None), True).sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def make(
        self, name: str, *, uris: tuple[str, ...] = (), start: timedelta = -HOUR, end: timedelta = HOUR, host: str = "127.0.0.1"
    ) -> Pair:
        """A certificate for `host`; `start` and `end` from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.IPAddress(ipaddress.ip_address(host)), *(x509.UniformResourceIdentifier(uri) for uri in uris)]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key, start, end).add_extension(x509.SubjectAlternativeName(names), False)
        return Pair(builder.sign(self._key, hashes.SHA256()), key)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, start: timedelta, end: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + start)
            .not_valid_after(now + end)
        )
