"""OCI manifests that hang a signature, provenance or SBOM beside an image: at cosign's tags, and as referrers of its digest.

Beside, never inside: a signature in the index would change the digest that it is about, and tools take it for another platform.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kernel import digest as digests
from kernel import oci
from kernel.signing import bundle, cosign, dsse
from kernel.signing.dsse import Envelope
from kernel.steps import Artifact, Attachment

EMPTY = "application/vnd.oci.empty.v1+json"
_ZERO = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is vouched for: a manifest or index, as a descriptor names it."""

    media_type: str
    digest: str
    size: int

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An attachment and the bytes of its manifest, config and layers."""

    attachment: Attachment
    data: tuple[bytes, ...]
    annotations: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    media_type: str
    data: bytes
    annotations: dict[str, str]

    def descriptor(self) -> dict[str, Any]:
        return {
            "mediaType": self.media_type,
            "digest": digests.of_bytes(self.data),
            "size": len(self.data),
            "annotations": self.annotations,
        }


def signature(target: Target, payload: bytes, signature: bytes) -> Made:
    """The signature image at `sha256-HEX.sig`."""
    layer = _Layer(
        media_type=cosign.PAYLOAD,
        data=payload,
        annotations={cosign.SIGNATURE_ANNOTATION: base64.b64encode(signature).decode()},
    )
    return _image(target, cosign.signature_tag(target.digest), [layer])


def attestations(target: Target, envelopes: Sequence[tuple[str, Envelope]]) -> Made:
    """The image at `sha256-HEX.att` with an envelope for each (predicate type, envelope)."""
    layers = [
        _Layer(
            media_type=cosign.ENVELOPE,
            data=dsse.to_json(envelope.plain()),
            annotations={cosign.SIGNATURE_ANNOTATION: "", cosign.PREDICATE_ANNOTATION: kind},
        )
        for kind, envelope in envelopes
    ]
    return _image(target, cosign.attestation_tag(target.digest), layers)


def referrer(target: Target, kind: str, sealed: bytes, created: str) -> Made:
    """A bundle as a referrer. `kind`: its predicate type; `created`: RFC 3339."""
    layer = _Layer(media_type=bundle.MEDIA_TYPE, data=sealed, annotations={})
    annotations = {
        bundle.CONTENT_ANNOTATION: "dsse-envelope",
        bundle.PREDICATE_ANNOTATION: kind,
        "org.opencontainers.image.created": created,
    }
    body = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "artifactType": bundle.MEDIA_TYPE,
        "config": {"mediaType": EMPTY, "digest": digests.of_bytes(b"{}"), "size": 2},
        "layers": [layer.descriptor()],
        "subject": target.descriptor(),
        "annotations": annotations,
    }
    return _made(target, "", bundle.MEDIA_TYPE, oci.MANIFEST, body, (b"{}", sealed), annotations)


def fallback(target: Target, referrers: Sequence[Made]) -> Made:
    """The index of referrers at `sha256-HEX`, for registries without the API (OCI distribution specification 1.1)."""
    entries = [
        {
            "mediaType": made.attachment.media_type,
            "digest": made.attachment.manifest.digest,
            "size": made.attachment.manifest.size,
            "artifactType": made.attachment.artifact_type,
            "annotations": made.annotations,
        }
        for made in referrers
    ]
    body = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries}
    return _made(target, cosign.referrers_tag(target.digest), "", oci.INDEX, body, (), {})


def _image(target: Target, tag: str, layers: Sequence[_Layer]) -> Made:
    """An image in the form in which cosign writes it: with a config, because some registries want one."""
    config = dsse.to_json(
        {
            "architecture": "",
            "config": {},
            "created": _ZERO,
            "history": [{"created": _ZERO} for _ in layers],
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": [digests.of_bytes(layer.data) for layer in layers]},
        }
    )
    body = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "config": {"mediaType": oci.CONFIG, "digest": digests.of_bytes(config), "size": len(config)},
        "layers": [layer.descriptor() for layer in layers],
    }
    return _made(target, tag, "", oci.MANIFEST, body, (config, *(layer.data for layer in layers)), {})


def _made(
    target: Target,
    tag: str,
    artifact_type: str,
    media_type: str,
    body: dict[str, Any],
    blobs: tuple[bytes, ...],
    annotations: dict[str, str],
) -> Made:
    manifest = dsse.to_json(body)
    names = ("config", *(f"layer-{number}" for number, _ in enumerate(blobs[1:], 1)))
    attachment = Attachment(
        tag=tag,
        subject=target.digest,
        media_type=media_type,
        artifact_type=artifact_type,
        manifest=_artifact("manifest", manifest),
        blobs=tuple(_artifact(name, data) for name, data in zip(names, blobs, strict=False)),
    )
    return Made(attachment=attachment, data=(manifest, *blobs), annotations=annotations)


def _artifact(name: str, data: bytes) -> Artifact:
    return Artifact(name=name, digest=digests.of_bytes(data), size=len(data))
