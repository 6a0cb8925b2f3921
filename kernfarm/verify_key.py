"""The public key that an image is checked with: cosign's cosign.pub, an ECDSA P-256 key in PEM."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Signature, SSlibKey  # type: ignore[attr-defined]  # public, but not in its __all__

from kernel.errors import Code, FarmError

_MAX_BYTES = 64 << 10


class VerifyKey:
    """Says whether a signature is this key's."""

    def __init__(self, public: ec.EllipticCurvePublicKey) -> None:
        self._key = SSlibKey.from_crypto(public)

    @classmethod
    def read(cls, path: Path) -> VerifyKey:
        """Raises FarmError: MISSING_FILE, INVALID_ARGUMENT for what is no such key."""
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES)
        except OSError as error:
            raise FarmError(Code.MISSING_FILE, f"cannot read the key: {error.strerror}", where=str(path)) from error
        return cls.parse(data, str(path))

    @classmethod
    def parse(cls, data: bytes, where: str) -> VerifyKey:
        """A key from its PEM. Raises FarmError(INVALID_ARGUMENT)."""
        if b"PRIVATE KEY" in data:
            hint = "--key cosign.pub; and keep the private key where only the signer can read it"
            raise FarmError(Code.INVALID_ARGUMENT, "this is a private key; checking wants the public one", where=where, hint=hint)
        try:
            public = serialization.load_pem_public_key(data)
        except ValueError as error:
            raise FarmError(Code.INVALID_ARGUMENT, "no public key in PEM", where=where, hint="--key cosign.pub") from error
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
            raise FarmError(Code.INVALID_ARGUMENT, "the key is not ECDSA P-256, which kernfarm signs with", where=where)
        return cls(public)

    def signed(self, signature: bytes, data: bytes) -> bool:
        """Whether `signature` (DER) is this key's over `data`."""
        try:
            self._key.verify_signature(Signature(self._key.keyid, signature.hex()), data)
        except UnverifiedSignatureError:
            return False
        return True
