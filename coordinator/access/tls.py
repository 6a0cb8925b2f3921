"""TLS of the listener. gRPC asks for the certificate again at each handshake, so a renewed one is used without a restart."""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from kernel.errors import Code, FarmError
from kernfarm.private import read_private
from kernfarm.settings import TlsSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a handshake needs, all PEM: our chain and its key, and the authorities of clients (None: no certificate asked for)."""

    chain: bytes
    key: bytes
    client_ca: bytes | None


def load(settings: TlsSettings, now: float) -> Material:
    """Read and check the files. Raises FarmError: MISSING_FILE, INVALID_ARGUMENT when they don't fit, or are not valid at `now`."""
    if not settings.certificate or not settings.key:
        raise FarmError(Code.INVALID_ARGUMENT, "certificate and key go together", where="access.tls")
    chain = _read(settings.certificate, "the certificate")
    key = read_private(Path(settings.key), "the private key")
    certificate = _certificates(chain, settings.certificate)[0]
    try:
        public = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError) as error:
        hint = "PEM without a passphrase"
        raise FarmError(Code.INVALID_ARGUMENT, "not a private key that can be used", where=settings.key, hint=hint) from error
    if _public(public) != _public(certificate.public_key()):
        raise FarmError(Code.INVALID_ARGUMENT, f"not the key of the certificate {settings.certificate}", where=settings.key)
    if now >= certificate.not_valid_after_utc.timestamp():
        said = f"the certificate has expired: {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        raise FarmError(Code.INVALID_ARGUMENT, said, where=settings.certificate, hint="put a renewed one there")
    if now < certificate.not_valid_before_utc.timestamp():
        said = f"the certificate is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        raise FarmError(Code.INVALID_ARGUMENT, said, where=settings.certificate, hint="is this machine's clock right?")
    client_ca = None
    if settings.client_ca:
        client_ca = _read(settings.client_ca, "the clients' authorities")
        _certificates(client_ca, settings.client_ca)
    return Material(chain=chain, key=key, client_ca=client_ca)


class Rotating:
    """The files' newest usable content. Called by gRPC's own threads, once for each handshake."""

    def __init__(self, settings: TlsSettings, *, clock: Callable[[], float] = time.time) -> None:
        """Raises FarmError, as `load`."""
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._version = self._look()
        self._material = load(settings, clock())

    def credentials(self) -> Any:
        """The grpc.ServerCredentials."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._material), self._fetch, require_client_authentication=self._material.client_ca is not None
        )

    def _fetch(self) -> Any:
        """A new configuration, or None for the one in use. Certificate and key are two files: between the writing of the one and
        the other they don't fit, and the old pair goes on to serve."""
        with self._lock:
            version = self._look()
            if version == self._version:
                return None
            try:
                material = load(self._settings, self._clock())
            except FarmError as error:
                log.error("the new certificate can't be used, the old one stays: %s", error)
                return None
            self._version = version
            if material == self._material:
                return None
            self._material = material
            log.info("a new certificate from %s", self._settings.certificate)
            return _configuration(material)

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        """What changes when a file is replaced; zeros for one that is not there."""
        found = []
        for name in (self._settings.certificate, self._settings.key, self._settings.client_ca):
            try:
                info = Path(name).stat()
                found.append((info.st_ino, info.st_mtime_ns, info.st_size))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)


def server_credentials(listen: str, settings: TlsSettings) -> Any:
    """Credentials for an address. Without TLS only where no line can be listened to: a Unix socket, or loopback (for a proxy in front
    of it; then None). Raises FarmError(INVALID_ARGUMENT) for any other."""
    if settings.certificate or settings.key:
        return Rotating(settings).credentials()
    if settings.client_ca:
        raise FarmError(Code.INVALID_ARGUMENT, "clients' certificates need a certificate of our own", where="access.tls.certificate")
    if listen.startswith("unix:"):
        return grpc.local_server_credentials(grpc.LocalConnectionType.UDS)
    if is_loopback(listen):
        return None
    hint = "set access.tls.certificate and access.tls.key, or listen on 127.0.0.1 or unix:///PATH"
    raise FarmError(Code.INVALID_ARGUMENT, "tokens and builds would cross the network unencrypted", where=f"listen: {listen}", hint=hint)


def is_loopback(listen: str) -> bool:
    """Whether `host:port` can be reached from this machine only."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _configuration(material: Material) -> Any:
    return grpc.ssl_server_certificate_configuration([(material.key, material.chain)], material.client_ca)


def _read(name: str, what: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise FarmError(Code.MISSING_FILE, f"cannot read {what}: {error.strerror}", where=name) from error


def _certificates(data: bytes, where: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise FarmError(Code.INVALID_ARGUMENT, "no PEM certificate in it", where=where) from error


def _public(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
