"""Sigstore bundles, version 0.3: a DSSE envelope and which key it wants (sigstore/protobuf-specs, sigstore_bundle.proto)."""

from __future__ import annotations

import base64
import hashlib
import json

from kernel.signing import dsse
from kernel.signing.dsse import Envelope

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
CONTENT_ANNOTATION = "dev.sigstore.bundle.content"
PREDICATE_ANNOTATION = "dev.sigstore.bundle.predicateType"


def encode(envelope: Envelope, public_key: bytes) -> bytes:
    """The bundle of an envelope that has one signature. `public_key`: DER (SubjectPublicKeyInfo); its hash is the hint that cosign writes.

    No transparency log entry and no timestamp: verifiers have the key, and need no network."""
    hint = base64.b64encode(hashlib.sha256(public_key).digest()).decode()
    return dsse.to_json(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": hint}},
            "dsseEnvelope": envelope.plain(),
        }
    )


def parse(data: bytes) -> Envelope:
    """The envelope in a bundle. Raises ValueError that says what does not fit."""
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the bundle is no JSON: {error}") from error
    if not isinstance(plain, dict) or plain.get("mediaType") != MEDIA_TYPE:
        raise ValueError(f"no Sigstore bundle of type {MEDIA_TYPE}")
    return dsse.parse(plain.get("dsseEnvelope"))
