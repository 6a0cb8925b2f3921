"""An OCI image as a value; its documents as bytes. Pure: the same value gives the same digests.

Sources: OCI image specification 1.1 (config.md, manifest.md, image-index.md, annotations.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kernel import digest as digests
from kernel.steps import Attachment

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CREATED = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A compressed layer: digest and size (bytes) as stored, `diff_id` of the tar inside, and what it holds, for the history."""

    digest: str
    size: int
    diff_id: str
    holds: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """An image for one platform (`linux/amd64`). No entrypoint, no command: nothing in it is to be run as a container."""

    platform: str
    layers: tuple[Layer, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A JSON document of an image."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        return digests.of_bytes(self.data)

    def descriptor(self, **more: Any) -> dict[str, Any]:
        """How other documents refer to this one."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data), **more}


def config(image: ImageSpec) -> Document:
    """The image's configuration."""
    system, _, machine = image.platform.partition("/")
    body = {
        "created": _CREATED,
        "architecture": machine,
        "os": system,
        "config": {"Labels": dict(sorted(image.labels.items()))} if image.labels else {},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in image.layers]},
        "history": [{"created": _CREATED, "created_by": "kernfarm", "comment": layer.holds} for layer in image.layers],
    }
    return document(CONFIG, body)


def manifest(image: ImageSpec) -> Document:
    """The image's manifest."""
    body: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config(image).descriptor(),
        "layers": [{"mediaType": LAYER, "digest": layer.digest, "size": layer.size} for layer in image.layers],
    }
    if image.annotations:
        body["annotations"] = dict(sorted(image.annotations.items()))
    return document(MANIFEST, body)


def index(images: Sequence[ImageSpec]) -> Document:
    """The index over images of different platforms. Each descriptor has its platform: LinuxKit crashes on one without."""
    entries = []
    for image in images:
        system, _, machine = image.platform.partition("/")
        entries.append(manifest(image).descriptor(platform={"architecture": machine, "os": system}))
    return index_of(entries)


def index_of(entries: Sequence[Mapping[str, Any]]) -> Document:
    """The index over manifests' descriptors, in the order of their platforms. Raises ValueError for two of one platform."""
    platforms = [platform_of(entry) for entry in entries]
    if len(set(platforms)) != len(platforms):
        raise ValueError("two images for one platform")
    body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": sorted(entries, key=platform_of)}
    return document(INDEX, body)


def platform_of(entry: Mapping[str, Any]) -> str:
    """`linux/amd64`, of a descriptor in an index."""
    return f"{entry['platform']['os']}/{entry['platform']['architecture']}"


def layout(top: Document, *, reference: str, attachments: Sequence[Attachment] = ()) -> dict[str, bytes]:
    """The files of an OCI layout besides its blobs. `reference` (docker.io/org/kernel:tag) is written in both forms that tools look
    for: LinuxKit's cache reads ref.name, its `cache import` containerd's image name. The image comes first, then what is attached to it."""
    annotations = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference}
    entries = [top.descriptor(annotations=annotations), *(_attached(each) for each in attachments)]
    body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    return {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(body)}


def _attached(attachment: Attachment) -> dict[str, Any]:
    manifest = attachment.manifest
    entry: dict[str, Any] = {"mediaType": attachment.media_type, "digest": manifest.digest, "size": manifest.size}
    if attachment.artifact_type:
        entry["artifactType"] = attachment.artifact_type
    if attachment.tag:
        entry["annotations"] = {"org.opencontainers.image.ref.name": attachment.tag}
    return entry


def document(media_type: str, body: Mapping[str, Any]) -> Document:
    """A document as this project writes all of them: the same value gives the same bytes."""
    return Document(media_type=media_type, data=_json(body))


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
