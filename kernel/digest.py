"""Content digests in the form OCI uses: `sha256:` and 64 lower-case hex digits (OCI image specification, descriptor.md)."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from kernel.codec import canonical

ALGORITHM = "sha256"
_FORM = re.compile(r"sha256:[0-9a-f]{64}")


def of_bytes(data: bytes) -> str:
    """Digest of a byte string."""
    return f"{ALGORITHM}:{hashlib.sha256(data).hexdigest()}"


def of_value(value: Any) -> str:
    """Digest of a domain value: of its canonical JSON."""
    return of_bytes(canonical(value))


def is_digest(text: str) -> bool:
    """Whether `text` is exactly a digest; a substring or an upper-case one is not."""
    return _FORM.fullmatch(text) is not None


def hex_of(digest: str) -> str:
    """The hex part of a digest. Raises ValueError when it is not one, so that a path can be made of it."""
    if not is_digest(digest):
        raise ValueError(f"not a sha256 digest: {digest!r}")
    return digest.removeprefix("sha256:")
