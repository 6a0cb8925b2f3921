"""Pushing content so that a push that is broken off, at any byte, leaves every tag on content that is complete.

Blobs first, then manifests and indexes by their digests, then what is attached to them, tags last; of those the ones that never change
come before those that people follow. Nothing that the registry has is sent again, so pushing twice sends nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kernel import oci
from kernel.errors import Code, FarmError
from kernfarm.registry import attachments, upload
from kernfarm.registry.content import Blob, Content, TaggedIndex
from kernfarm.registry.repository import Repository

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`replace`: tags may lose a platform, or content that was never to change; `mount_from`: repositories of the same registry in which
    blobs may be already; `chunk_bytes`: how much is sent in one request, at least."""

    replace: bool = False
    mount_from: tuple[str, ...] = ()
    chunk_bytes: int = upload.CHUNK


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push did: bytes of blobs sent, and numbers of blobs and documents stored. All zero when everything was there."""

    bytes_sent: int = 0
    blobs: int = 0
    mounted: int = 0
    documents: int = 0
    tags: int = 0


def push(repository: Repository, content: Content, options: Options, say: Say) -> Pushed:
    """Bring everything to the registry. Raises FarmError: CONFLICT for tags that must not be moved, before anything is sent; others as
    Repository's methods do."""
    stale = _stale_tags(repository, content.tags, options)
    blobs = mounted = size = 0
    for blob in content.blobs:
        match _put_blob(repository, blob, options, say):
            case "sent":
                blobs, size = blobs + 1, size + blob.size
            case "mounted":
                mounted += 1
    documents = 0
    for document in content.manifests:
        if repository.manifest_digest(document.digest, push=True) is None:
            repository.put_manifest(document, document.digest)
            documents += 1
    beside = [each for each in content.attached if not attachments.is_fallback(each)]
    now = attachments.pending(repository, beside)
    for each in beside:
        if attachments.put(repository, each, now.get(each.attachment.tag)):
            documents += 1
            say(f"attached {each.attachment.artifact_type or each.attachment.tag}")
    for tagged in stale:
        repository.put_manifest(tagged.document, tagged.tag)
        say(f"tagged {repository.name}:{tagged.tag}")
    return Pushed(bytes_sent=size, blobs=blobs, mounted=mounted, documents=documents, tags=len(stale))


def _put_blob(repository: Repository, blob: Blob, options: Options, say: Say) -> str:
    """`there`, `mounted` or `sent`. One that the registry has with another size is damaged there, and sent again."""
    found = repository.blob_size(blob.digest, push=True)
    if found in (blob.size, -1):
        return "there"
    title = f"{blob.holds} {blob.digest[:19]} {blob.size / 1e6:.1f} MB"

    def sent(size: int) -> None:
        say(f"{title}: {size / 1e6:.1f} MB sent")

    if upload.upload(repository, blob, mount_from=options.mount_from, chunk_bytes=options.chunk_bytes, sent=sent):
        say(f"{title}: mounted")
        return "mounted"
    stored = repository.blob_size(blob.digest, push=True)
    if stored not in (blob.size, -1):
        message = f"the registry has {blob.digest} with {stored} bytes, {blob.size} were sent"
        raise FarmError(Code.BAD_DIGEST, message, where=repository.name, hint="the registry's storage is damaged")
    return "sent"


def _stale_tags(repository: Repository, tags: Sequence[TaggedIndex], options: Options) -> list[TaggedIndex]:
    """Those that have to be put, in order. Raises FarmError(CONFLICT) before anything was sent."""
    stale = []
    for tagged in tags:
        found = repository.manifest_digest(tagged.tag, push=True)
        if found == tagged.document.digest:
            continue
        stale.append(tagged)
        if found is not None and not options.replace:
            _check_move(repository, tagged, found)
    return stale


def _check_move(repository: Repository, tagged: TaggedIndex, found: str) -> None:
    where = f"{repository.name}:{tagged.tag}"
    if not tagged.moving:
        message = f"the tag names its content, and the registry has other content there: {found} instead of {tagged.document.digest}"
        hint = "the same inputs gave other bytes: compare the two images; --replace overwrites it"
        raise FarmError(Code.CONFLICT, message, where=where, hint=hint)
    lost = _platforms(repository.manifest(found).data) - _platforms(tagged.document.data)
    if lost:
        hint = "name the builds of all architectures in one push; --replace drops what is not named"
        raise FarmError(Code.CONFLICT, f"the tag has {', '.join(sorted(lost))}, which this push would take away", where=where, hint=hint)


def _platforms(data: bytes) -> set[str]:
    """The platforms of an index that anybody may have written; none for what is no index, which nobody can lose platforms of."""
    try:
        body = json.loads(data)
        return {oci.platform_of(each) for each in body["manifests"] if each["platform"]["os"] != "unknown"}
    except (ValueError, KeyError, TypeError, RecursionError):
        return set()
