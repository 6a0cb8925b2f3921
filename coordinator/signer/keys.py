"""The signing key: an ECDSA P-256 key in a file that nobody else can read, as PKCS#8 or as cosign writes it."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import nacl.exceptions
import nacl.secret
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from kernel.errors import Code, FarmError
from kernel.signing import dsse

PUBLIC_NAME = "cosign.pub"
_MAX_BYTES = 64 << 10
_COSIGN = re.compile(rb"-----BEGIN ENCRYPTED (SIGSTORE|COSIGN) PRIVATE KEY-----\s(.*?)-----END ENCRYPTED \1 PRIVATE KEY-----", re.DOTALL)
# Those that cosign's library has used (go-securesystemslib/encrypted: legacy, standard, OWASP); others would only cost memory.
_SCRYPT_N = (32768, 65536, 131072)
_SCRYPT_R, _SCRYPT_P = 8, 1


class SigningKey:
    """Signs; the private half does not leave this object."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private

    def sign(self, data: bytes) -> bytes:
        """ECDSA over SHA-256, in DER. Deterministic (RFC 6979): signing a build again after a crash gives the same bytes."""
        return self._private.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))

    @property
    def public_der(self) -> bytes:
        """The public half as SubjectPublicKeyInfo."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._private.public_key().public_bytes(serialization.Encoding.DER, form)

    @property
    def public_pem(self) -> bytes:
        """The public half as cosign.pub."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._private.public_key().public_bytes(serialization.Encoding.PEM, form)


def load(path: Path, password_file: str = "") -> SigningKey:
    """Read the key. Raises FarmError: MISSING_FILE, INVALID_ARGUMENT (readable by others, another user's, no such key, wrong password)."""
    data = secret(path, "key")
    password = secret(Path(password_file), "password").rstrip(b"\r\n") if password_file else None
    try:
        private = _parse(data, password)
    except ValueError as error:
        raise FarmError(Code.INVALID_ARGUMENT, f"the signing key can't be used: {error}", where=str(path)) from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise FarmError(Code.INVALID_ARGUMENT, "the signing key is not ECDSA P-256, cosign's kind", where=str(path))
    return SigningKey(private)


def generate(path: Path, password: bytes | None = None) -> SigningKey:
    """A new key in a new file, mode 0600, with cosign.pub beside it: PKCS#8, or sealed as cosign does when there is a password.

    Raises FarmError: CONFLICT when the file is there, INVALID_ARGUMENT when it can't be written."""
    private = ec.generate_private_key(ec.SECP256R1())
    encoded = private.private_bytes(
        serialization.Encoding.DER if password is not None else serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key = SigningKey(private)
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        _write(fresh, encoded if password is None else _seal(encoded, password), 0o600)
        # A link, not a rename: a key that is there is never replaced. Only whole files get the name.
        os.link(fresh, path)
        _write(path.with_name(PUBLIC_NAME), key.public_pem, 0o644)
    except FileExistsError as error:
        raise FarmError(Code.CONFLICT, "there is a key already", where=str(path), hint="move it away first") from error
    except OSError as error:
        raise FarmError(Code.INVALID_ARGUMENT, f"cannot write the key: {error.strerror}", where=str(path)) from error
    finally:
        fresh.unlink(missing_ok=True)
    return key


def _write(path: Path, data: bytes, mode: int) -> None:
    exclusive = os.O_EXCL if mode == 0o600 else os.O_TRUNC
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | exclusive, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask is
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def secret(path: Path, what: str) -> bytes:
    """A file that only we can read: checked on the open file, so that it can't be swapped in between."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise FarmError(Code.MISSING_FILE, f"cannot read the {what}: {error.strerror}", where=str(path)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FarmError(Code.INVALID_ARGUMENT, f"the {what} is not a regular file", where=str(path))
        if status.st_uid != os.geteuid():
            message = f"the {what} belongs to user {status.st_uid}, not to the signer"
            raise FarmError(Code.INVALID_ARGUMENT, message, where=str(path), hint=f"chown {os.geteuid()} {path}")
        if status.st_mode & 0o077:
            message = f"others can read the {what}: its mode is {stat.S_IMODE(status.st_mode):04o}"
            raise FarmError(Code.INVALID_ARGUMENT, message, where=str(path), hint=f"chmod 0600 {path}")
        return os.read(descriptor, _MAX_BYTES)
    finally:
        os.close(descriptor)


def _parse(data: bytes, password: bytes | None) -> Any:
    sealed = _COSIGN.search(data)
    if sealed is not None:
        if password is None:
            raise ValueError("it is sealed with a password, and the settings name no password_file")
        try:
            box = json.loads(base64.b64decode(sealed[2].translate(None, b"\r\n\t "), validate=True))
        except (ValueError, binascii.Error) as error:
            raise ValueError("it has cosign's frame, but not its content") from error
        return serialization.load_der_private_key(_unseal(box, password), None)
    if b"-----BEGIN PRIVATE KEY-----" in data:
        return serialization.load_pem_private_key(data, None)
    if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in data:
        if password is None:
            raise ValueError("it is encrypted, and the settings name no password_file")
        try:
            return serialization.load_pem_private_key(data, password)
        except ValueError as error:
            raise ValueError("the password is wrong, or the file is damaged") from error
    raise ValueError("neither PKCS#8 in PEM nor a cosign.key")


def _seal(data: bytes, password: bytes) -> bytes:
    """cosign.key: PEM around JSON around a NaCl secretbox whose key scrypt makes of the password (go-securesystemslib/encrypted)."""
    salt, nonce = os.urandom(32), os.urandom(nacl.secret.SecretBox.NONCE_SIZE)
    count = _SCRYPT_N[1]
    box = nacl.secret.SecretBox(_derive(password, salt, count)).encrypt(data, nonce).ciphertext
    body = {
        "kdf": {"name": "scrypt", "params": {"N": count, "r": _SCRYPT_R, "p": _SCRYPT_P}, "salt": base64.b64encode(salt).decode()},
        "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(nonce).decode()},
        "ciphertext": base64.b64encode(box).decode(),
    }
    text = base64.encodebytes(json.dumps(body).encode()).replace(b"\n", b"")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    frame = b"ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
    return b"-----BEGIN " + frame + b"\n".join(lines) + b"\n-----END " + frame


def _unseal(box: Any, password: bytes) -> bytes:
    try:
        kdf, cipher = box["kdf"], box["cipher"]
        params = kdf["params"]
        if kdf["name"] != "scrypt" or cipher["name"] != "nacl/secretbox":
            raise ValueError(f"unknown algorithms {kdf['name']!r}, {cipher['name']!r}")
        if params["N"] not in _SCRYPT_N or params["r"] != _SCRYPT_R or params["p"] != _SCRYPT_P:
            raise ValueError("unexpected parameters of scrypt")
        salt, nonce, sealed = dsse.decode(kdf["salt"]), dsse.decode(cipher["nonce"]), dsse.decode(box["ciphertext"])
        return nacl.secret.SecretBox(_derive(password, salt, params["N"])).decrypt(sealed, nonce)
    except (KeyError, TypeError) as error:
        raise ValueError("it has cosign's frame, but not its content") from error
    except nacl.exceptions.CryptoError as error:
        raise ValueError("the password is wrong, or the file is damaged") from error


def _derive(password: bytes, salt: bytes, count: int) -> bytes:
    return Scrypt(salt=salt, length=nacl.secret.SecretBox.KEY_SIZE, n=count, r=_SCRYPT_R, p=_SCRYPT_P).derive(password)
