"""Signatures, provenance and SBOMs beside an image: by subject, and at cosign's tags. Others may have theirs there; none gets lost."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kernel import oci
from kernel.errors import Code, FarmError
from kernel.oci import Document
from kernfarm.registry import upload
from kernfarm.registry.content import Attached, Blob
from kernfarm.registry.repository import Repository, descriptors, fallback_tag

_FALLBACK = re.compile(r"sha256-[0-9a-f]{64}")
# Somebody else may write the fallback index between our reading and writing it; registries offer no better than trying again.
_WRITES = 5
_PAUSE_SECONDS = 0.2


def is_fallback(attached: Attached) -> bool:
    """Whether it is a list of referrers as our side made it. Never pushed: the registry's own list is added to instead."""
    return attached.document.media_type == oci.INDEX and _FALLBACK.fullmatch(attached.attachment.tag) is not None


def put(repository: Repository, attached: Attached, current: str | None) -> bool:
    """Attach it; `current` is the digest at its tag (None: no such tag, or it has none). Its blobs are there. False when nothing was
    to be done. Raises FarmError: CONFLICT for a tag that holds something that can't be added to, and as Repository's methods do."""
    tag = attached.attachment.tag
    if _subject(attached.document):
        changed = _put_referrer(repository, attached.document)
    elif not tag and repository.manifest_digest(attached.document.digest, push=True) is None:
        repository.put_manifest(attached.document, attached.document.digest)
        changed = True
    else:
        changed = False
    return (bool(tag) and _put_tagged(repository, attached.document, tag, current)) or changed


def _put_tagged(repository: Repository, document: Document, tag: str, current: str | None) -> bool:
    if current == document.digest:
        return False
    if current is not None:
        merged = _merge_tagged(repository, document, repository.manifest(current))
        if merged is None:
            return False
        document = merged
    repository.put_manifest(document, tag)
    return True


def _put_referrer(repository: Repository, document: Document) -> bool:
    subject = _subject(document)
    listed, known = repository.referrers(subject)
    is_listed = any(each["digest"] == document.digest for each in listed)
    is_there = repository.manifest_digest(document.digest, push=True) is not None
    if is_there and is_listed:
        return False
    noted = known if is_there and not known else repository.put_manifest(document, document.digest)
    if not noted:
        _add_to_fallback(repository, subject, referrer(document))
    return True


def _add_to_fallback(repository: Repository, subject: str, entry: Mapping[str, Any]) -> None:
    """Read, add, write, and look whether it is still there: another writer may have come between."""
    for number in range(_WRITES):
        before = repository.fallback(subject)
        after = with_entry(before, entry, repository.name)
        if before is not None and after.digest == before.digest:
            return
        repository.put_manifest(after, fallback_tag(subject))
        time.sleep(_PAUSE_SECONDS * number)
        now = repository.fallback(subject)
        if now is not None and any(each["digest"] == entry["digest"] for each in descriptors(now.data, repository.name)):
            return
    message = f"others keep writing the list of what is attached to {subject}"
    raise FarmError(Code.UNAVAILABLE, message, where=f"{repository.name}:{fallback_tag(subject)}", hint="push again")


def with_entry(before: Document | None, entry: Mapping[str, Any], where: str) -> Document:
    """The list of referrers with one more; what is in it stays, byte for byte the same when the entry is there already."""
    if before is None:
        return oci.document(oci.INDEX, {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [entry]})
    entries = descriptors(before.data, where)
    if any(each["digest"] == entry["digest"] for each in entries):
        return before
    return oci.document(oci.INDEX, {**json.loads(before.data), "manifests": [*entries, entry]})


def referrer(document: Document) -> dict[str, Any]:
    """The descriptor of a manifest in a list of referrers, with what the specification takes over from it."""
    body = json.loads(document.data)
    more: dict[str, Any] = {}
    kind = body.get("artifactType") or body.get("config", {}).get("mediaType")
    if kind:
        more["artifactType"] = kind
    if body.get("annotations"):
        more["annotations"] = body["annotations"]
    return document.descriptor(**more)


def _merge_tagged(repository: Repository, ours: Document, theirs: Document) -> Document | None:
    """Their image with our layers added, its config stored; None when it has them all."""
    tag = f"{repository.name}@{theirs.digest}"
    try:
        config = json.loads(b"".join(repository.blob(json.loads(theirs.data)["config"]["digest"])))
        merged = with_layers(json.loads(ours.data), json.loads(theirs.data), config)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FarmError(Code.CONFLICT, "the tag holds no image of signatures that ours could be added to", where=tag) from error
    if merged is None:
        return None
    manifest, config_document = merged
    if repository.blob_size(config_document.digest, push=True) is None:
        _upload_bytes(repository, config_document)
    return manifest


def with_layers(ours: Mapping[str, Any], theirs: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Document, Document] | None:
    """Manifest and config of an image with the layers of both, theirs first, as cosign adds a signature. None when theirs has them all.

    Raises KeyError, TypeError, ValueError for what has another form."""
    missing = [layer for layer in ours["layers"] if not any(_same(layer, each) for each in theirs["layers"])]
    if not missing:
        return None
    if theirs["config"]["mediaType"] != oci.CONFIG:
        raise ValueError(f"a config of type {theirs['config']['mediaType']}")
    rootfs = {**config["rootfs"], "diff_ids": [*config["rootfs"]["diff_ids"], *(layer["digest"] for layer in missing)]}
    history = [*config.get("history", []), *({"created": "0001-01-01T00:00:00Z"} for _ in missing)]
    document = oci.document(oci.CONFIG, {**config, "rootfs": rootfs, "history": history})
    body = {**theirs, "config": {**theirs["config"], "digest": document.digest, "size": len(document.data)}}
    body["layers"] = [*theirs["layers"], *missing]
    return oci.document(oci.MANIFEST, body), document


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Two layers of the same payload with different signatures are two signatures."""
    return bool(one["digest"] == other["digest"] and one.get("annotations", {}) == other.get("annotations", {}))


def _upload_bytes(repository: Repository, document: Document) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(document.data)
        file.flush()
        blob = Blob(digest=document.digest, size=len(document.data), path=Path(file.name), holds="config")
        upload.upload(repository, blob, sent=lambda _: None)


def _subject(document: Document) -> str:
    subject = json.loads(document.data).get("subject")
    return str(subject["digest"]) if isinstance(subject, dict) and "digest" in subject else ""


def pending(repository: Repository, attached: Sequence[Attached]) -> dict[str, str | None]:
    """What is at the tags of attachments now."""
    named = {each.attachment.tag for each in attached if each.attachment.tag}
    return {tag: repository.manifest_digest(tag, push=True) for tag in sorted(named)}
