"""The embedded farm's own credentials: an authority, a server certificate and a token, made once and renewed in time."""

from __future__ import annotations

import ipaddress
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kernel.errors import Code, FarmError
from kernfarm import credentials
from kernfarm.private import read_private, write_private
from kernfarm.tokens import TokenEntry, hash_of, new_token

_AUTHORITY_DAYS = 3650
_SERVER_DAYS = 365
# Renewed at a start, or while the farm runs, this long before the end.
_RENEW_DAYS = 30
# For clocks of clients that are behind ours.
_BACK = timedelta(hours=1)
# Builds of farms from before there were teams are this one's.
TEAM = "default"


class Files:
    """An embedded farm's credentials in its state folder, all but ca.pem readable by their owner only."""

    def __init__(self, state: Path) -> None:
        self.folder = state / credentials.FOLDER
        self.ca = self.folder / "ca.pem"
        self.ca_key = self.folder / "ca-key.pem"
        self.certificate = self.folder / "server.pem"
        self.key = self.folder / "server-key.pem"
        self.token = self.folder / "token"
        self.tokens = self.folder / "tokens.yaml"

    def ensure(self, listen: str, now: datetime | None = None) -> None:
        """Make what is missing, or ends soon, or does not name the address. Raises FarmError(INVALID_ARGUMENT) for a folder that can't
        be used. The token stays the same as long as its file is there, so that a farm's user is not shut out by a restart."""
        now = now or datetime.now(UTC)
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self.folder.chmod(0o700)
            if not _good(self.ca, now) or not self.ca_key.exists():
                self._make_authority(now)
                self.certificate.unlink(missing_ok=True)
            if not _good(self.certificate, now) or not self.key.exists() or not _names(self.certificate, listen):
                self._make_server(listen, now)
            if not self.token.exists() or not self.tokens.exists():
                self._make_token()
        except OSError as error:
            raise FarmError(Code.INVALID_ARGUMENT, f"cannot keep credentials: {error.strerror}", where=str(self.folder)) from error

    def _make_authority(self, now: datetime) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"kernfarm on {socket.gethostname()}"[:64])])
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            _builder(name, name, key.public_key(), now, _AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_private(self.ca_key, _pem(key))
        write_private(self.ca, certificate.public_bytes(Encoding.PEM))

    def _make_server(self, listen: str, now: datetime) -> None:
        authority = x509.load_pem_x509_certificate(self.ca.read_bytes())
        authority_key = load_pem_private_key(read_private(self.ca_key, "the authority's key"), None)
        assert isinstance(authority_key, ec.EllipticCurvePrivateKey)  # we made it
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kernfarm coordinator")]),
                authority.subject,
                key.public_key(),
                now,
                _SERVER_DAYS,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(_general_names(listen)), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        write_private(self.key, _pem(key))
        write_private(self.certificate, certificate.public_bytes(Encoding.PEM))

    def _make_token(self) -> None:
        """The user of this machine is the farm's admin."""
        if self.token.exists():
            token = read_private(self.token, "the token").decode().strip()
        else:
            token = new_token()
            write_private(self.token, token.encode() + b"\n")
        # Lines that somebody has added stay.
        before = b"# Tokens of this farm: add lines that `kernfarm token new` prints.\ntokens:\n"
        if self.tokens.exists():
            before = read_private(self.tokens, "the tokens").rstrip(b"\n") + b"\n"
        entry = TokenEntry(sha256=hash_of(token), team=TEAM, role="admin", name="local")
        write_private(self.tokens, before + entry.line().encode() + b"\n")


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACK)
        .not_valid_after(now + timedelta(days=days))
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _general_names(listen: str) -> list[x509.GeneralName]:
    """Loopback, this machine's name, and the address it listens on."""
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), *(_name(each) for each in ("127.0.0.1", "::1", socket.gethostname()))]
    own = _host(listen)
    return [*names, *([_name(own)] if own and _name(own) not in names else [])]


def _host(listen: str) -> str:
    return "" if listen.startswith("unix:") else listen.rpartition(":")[0].strip("[]")


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _good(path: Path, now: datetime) -> bool:
    """Whether there is a certificate that lasts."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - timedelta(days=_RENEW_DAYS)


def _names(path: Path, listen: str) -> bool:
    """Whether a certificate names the address."""
    own = _host(listen)
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return not own or _name(own) in certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
