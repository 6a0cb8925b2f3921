"""Small kernel images as OCI layouts on disk, as `kernfarm fetch` writes them: real gzip layers, a record, signatures beside."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kernel import oci
from kernel.oci import Document, ImageSpec, Layer
from kernel.steps import Artifact, Attachment
from kernfarm import layout

EMPTY = "application/vnd.oci.empty.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def write(
    folder: Path,
    *,
    seed: str,
    arch: str = "amd64",
    suffix: str = "",
    size: int = 2000,
    signatures: Sequence[str] = (),
    domain: str = "default",
    more: Mapping[str, Any] | None = None,
) -> str:
    """An image whose content follows from `seed`; returns its index's digest. `signatures` are put at cosign's tag and as referrers;
    `more` is in the index besides what has to be."""
    (folder / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    layers = tuple(_layer(folder, seed, arch, name, size) for name in ("kernel", "kernel-dev.tar"))
    spec = ImageSpec(platform=f"linux/{arch}", layers=layers, annotations={"org.opencontainers.image.title": "kernel"})
    index = oci.document(oci.INDEX, {**json.loads(oci.index([spec]).data), **(more or {})})
    for document in (oci.config(spec), oci.manifest(spec), index):
        put(folder, document.data)
    attachments = _attachments(folder, index, signatures) if signatures else ()
    layout.finish(folder, index.digest, reference="docker.io/linuxkit/kernel:6.1.192", attachments=attachments)
    (folder / "result.json").write_text(json.dumps(result(seed, arch, suffix, index.digest, domain)))
    return index.digest


def result(seed: str, arch: str = "amd64", suffix: str = "", index: str = "", domain: str = "default") -> dict[str, Any]:
    """A result record with what tags are made of."""
    spec = {"arch": arch, "flavour": suffix.lstrip("-") or "plain", "domain": domain, "patches": [], "config": {"base": seed}}
    return {
        "build": f"{seed}{suffix}-{arch}",
        "release": f"6.1.192-linuxkit{suffix}",
        "inputs": {"spec": spec, "source": {}, "tree": {"version": "6.1.192", "tarball": "sha256:0", "upper": ""}, "config": seed},
        "toolchain": {"name": "gcc-12", "compiler": "gcc 12.2.0"},
        "outputs": {"images": [{"index": index}]},
    }


def put(folder: Path, data: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    layout.blob_path(folder, digest).write_bytes(data)
    return digest


def _layer(folder: Path, seed: str, arch: str, name: str, size: int) -> Layer:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = size
        tar.addfile(member, io.BytesIO(random.Random(f"{seed} {arch} {name}").randbytes(size)))
    packed = gzip.compress(raw.getvalue(), mtime=0)
    diff_id = f"sha256:{hashlib.sha256(raw.getvalue()).hexdigest()}"
    return Layer(digest=put(folder, packed), size=len(packed), diff_id=diff_id, holds=name)


def _attachments(folder: Path, index: Document, signatures: Sequence[str]) -> tuple[Attachment, ...]:
    """cosign's image at a tag, a referrer for each signature, and the list of referrers as the signer writes it."""
    referrers = [_referrer(folder, index, each) for each in signatures]
    entries = [json.loads(layout.blob_path(folder, each.manifest.digest).read_bytes()) for each in referrers]
    listing = [
        {"mediaType": oci.MANIFEST, "digest": one.manifest.digest, "size": one.manifest.size, "artifactType": body["artifactType"]}
        for one, body in zip(referrers, entries, strict=True)
    ]
    fallback = oci.document(oci.INDEX, {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": listing})
    tag = "sha256-" + index.digest.removeprefix("sha256:")
    put(folder, fallback.data)
    return (
        cosign_image(folder, index, signatures),
        *referrers,
        _attachment(fallback, tag=tag, subject=index.digest, artifact_type=""),
    )


def cosign_image(folder: Path, index: Document, signatures: Sequence[str]) -> Attachment:
    payload = b'{"critical": {}}'
    digest = put(folder, payload)
    config = oci.document(
        oci.CONFIG,
        {"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest] * len(signatures)}, "history": []},
    )
    put(folder, config.data)
    layers = [
        {
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": digest,
            "size": len(payload),
            "annotations": {"dev.cosignproject.cosign/signature": each},
        }
        for each in signatures
    ]
    body = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": config.descriptor(), "layers": layers}
    manifest = oci.document(oci.MANIFEST, body)
    put(folder, manifest.data)
    tag = "sha256-" + index.digest.removeprefix("sha256:") + ".sig"
    return _attachment(manifest, tag=tag, subject=index.digest, artifact_type="")


def referrer_document(subject: Document, words: str) -> Document:
    """A manifest about `subject` whose only layer is `words`."""
    body = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "artifactType": BUNDLE,
        "config": {"mediaType": EMPTY, "digest": f"sha256:{hashlib.sha256(b'{}').hexdigest()}", "size": 2},
        "layers": [{"mediaType": BUNDLE, "digest": f"sha256:{hashlib.sha256(words.encode()).hexdigest()}", "size": len(words)}],
        "subject": subject.descriptor(),
        "annotations": {"words": words},
    }
    return oci.document(oci.MANIFEST, body)


def _referrer(folder: Path, index: Document, words: str) -> Attachment:
    document = referrer_document(index, words)
    for data in (b"{}", words.encode(), document.data):
        put(folder, data)
    return _attachment(document, tag="", subject=index.digest, artifact_type=BUNDLE)


def _attachment(document: Document, *, tag: str, subject: str, artifact_type: str) -> Attachment:
    manifest = Artifact(name="manifest", digest=document.digest, size=len(document.data))
    return Attachment(tag=tag, subject=subject, media_type=document.media_type, artifact_type=artifact_type, manifest=manifest, blobs=())
