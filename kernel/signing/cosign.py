"""cosign's first format: a "simple signing" payload as the layer of an image that hangs at the tag `sha256-HEX.sig`.

Sources: sigstore/cosign specs/SIGNATURE_SPEC.md and specs/ATTESTATION_SPEC.md.
"""

from __future__ import annotations

import json

from kernel import digest as digests
from kernel.signing import dsse

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
PREDICATE_ANNOTATION = "predicateType"
_KIND = "cosign container image signature"


def payload(digest: str, reference: str) -> bytes:
    """What is signed: that `digest` is an image known as `reference` (a repository, without tag)."""
    return dsse.to_json(
        {
            "critical": {"identity": {"docker-reference": reference}, "image": {"docker-manifest-digest": digest}, "type": _KIND},
            "optional": None,
        }
    )


def signed_digest(data: bytes) -> str:
    """The digest that a payload is about. Raises ValueError for what is no such payload."""
    try:
        critical = json.loads(data)["critical"]
        kind, digest = critical["type"], critical["image"]["docker-manifest-digest"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no simple-signing payload: {type(error).__name__} {error}") from error
    if kind != _KIND or not isinstance(digest, str) or not digests.is_digest(digest):
        raise ValueError(f"no cosign signature of an image: type {str(kind)[:80]!r}")
    return digest


def signature_tag(digest: str) -> str:
    """Where cosign looks for the signature of a digest."""
    return f"sha256-{digests.hex_of(digest)}.sig"


def attestation_tag(digest: str) -> str:
    """Where cosign before 3 looks for attestations of a digest."""
    return f"sha256-{digests.hex_of(digest)}.att"


def referrers_tag(digest: str) -> str:
    """Where clients look for referrers when a registry has no API for them (OCI distribution specification 1.1)."""
    return f"sha256-{digests.hex_of(digest)}"
