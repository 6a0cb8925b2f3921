"""DSSE, the envelope around a signed statement (github.com/secure-systems-lab/dsse, envelope.md and protocol.md, version 1)."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

IN_TOTO = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A payload and the signatures over `pae(payload_type, payload)`."""

    payload_type: str
    payload: bytes
    signatures: tuple[bytes, ...]

    @property
    def signed(self) -> bytes:
        """The bytes that the signatures are over."""
        return pae(self.payload_type, self.payload)

    def plain(self) -> dict[str, Any]:
        """Its JSON form. No key id: it is a hint only, and cosign writes none."""
        return {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
            "signatures": [{"sig": base64.b64encode(signature).decode()} for signature in self.signatures],
        }


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: type and payload, each with its length in bytes, so that neither can pass for a part of the other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def parse(plain: Any) -> Envelope:
    """An envelope from its JSON values. Raises ValueError that says what does not fit."""
    if not isinstance(plain, dict):
        raise ValueError("the envelope is no JSON object")
    kind, payload, signatures = plain.get("payloadType"), plain.get("payload"), plain.get("signatures")
    if not isinstance(kind, str) or not isinstance(payload, str) or not isinstance(signatures, list):
        raise ValueError("the envelope lacks payloadType, payload or signatures")
    found = [each.get("sig") if isinstance(each, dict) else None for each in signatures]
    if not found:
        raise ValueError("the envelope has no signature")
    return Envelope(payload_type=kind, payload=decode(payload), signatures=tuple(decode(each) for each in found))


def decode(text: Any) -> bytes:
    """Strict base64. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("not base64: no text")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64: {error}") from error


def to_json(value: Any) -> bytes:
    """Sorted, compact JSON: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
