"""From OCI layouts as `kernfarm fetch` writes them to what is to be in a repository: manifests, the index over architectures, tags."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel import digest as digests
from kernel import oci
from kernel.errors import Code, FarmError
from kernel.oci import Document
from kernel.signing import cosign, statement
from kernel.steps import Artifact, Attachment
from kernfarm import claims, layout, records, tags, verify_attached
from kernfarm.records import Record
from kernfarm.registry.content import Attached, Blob, Content, TaggedIndex
from kernfarm.regular import open_blob, read_blob, read_regular
from kernfarm.verify_source import LayoutSource

_REF = "org.opencontainers.image.ref.name"
# As registries limit them: a manifest has a few kilobytes.
_DOCUMENT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one build gave: its own index, the descriptors in it, and the build's record."""

    index: Document
    entries: tuple[dict[str, Any], ...]
    record: Record | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """The image of one layout, digests checked. `index` is over all `parts`, the builds for the different architectures."""

    folder: Path
    index: Document
    parts: tuple[Part, ...]
    manifests: tuple[Document, ...]
    blobs: tuple[Blob, ...]
    attached: tuple[Attached, ...]

    @property
    def platforms(self) -> tuple[str, ...]:
        """Of the manifests, in their order."""
        return tuple(oci.platform_of(entry) for entry in json.loads(self.index.data)["manifests"])


def read(folder: Path) -> StoredImage:
    """Raises FarmError: MISSING_FILE for what is no layout or lacks a blob, BAD_DIGEST for a damaged one, BAD_ARCHIVE for other forms."""
    top = _json(folder / "index.json", _bytes(folder / "index.json"))
    try:
        return _read(folder, top)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        hint = "kernfarm fetch BUILD --to DIR writes one"
        raise FarmError(Code.BAD_ARCHIVE, f"no OCI layout of one image: {error!r}", where=str(folder), hint=hint) from error


def _read(folder: Path, top: Mapping[str, Any]) -> StoredImage:
    first, *beside = top["manifests"]
    if first["mediaType"] != oci.INDEX:
        raise ValueError(f"its first entry is a {first['mediaType']}, not an index")
    index = _document(folder, first)
    entries = tuple(json.loads(index.data)["manifests"])
    manifests = tuple(_document(folder, entry) for entry in entries)
    for entry in entries:
        oci.platform_of(entry)
    attached = tuple(_attached(folder, entry) for entry in beside)
    verify_attached.check_nothing_else(LayoutSource(folder), index.data)
    blobs = {blob.digest: blob for document in manifests for blob in _blobs(folder, document)}
    blobs |= {blob.digest: blob for each in attached for blob in _blobs(folder, each.document)}
    return StoredImage(
        folder=folder,
        index=index,
        parts=_parts(folder, index),
        manifests=manifests,
        blobs=tuple(blobs.values()),
        attached=attached,
    )


def _attached(folder: Path, entry: Mapping[str, Any]) -> Attached:
    document = _document(folder, entry)
    subject = json.loads(document.data).get("subject") or {}
    attachment = Attachment(
        tag=entry.get("annotations", {}).get(_REF, ""),
        subject=subject.get("digest", ""),
        media_type=document.media_type,
        artifact_type=entry.get("artifactType", ""),
        manifest=Artifact(name="manifest", digest=document.digest, size=len(document.data)),
        blobs=tuple(Artifact(name=blob.holds, digest=blob.digest, size=blob.size) for blob in _blobs(folder, document)),
    )
    return Attached(attachment=attachment, document=document)


def _blobs(folder: Path, document: Document) -> Iterator[Blob]:
    """Config and layers of a manifest; an index has none of its own."""
    if document.media_type != oci.MANIFEST:
        return
    body = json.loads(document.data)
    for name, descriptor in [("config", body["config"]), *((f"layer {number}", each) for number, each in enumerate(body["layers"], 1))]:
        digest, size = descriptor["digest"], descriptor["size"]
        path = _path(folder, digest)
        open_blob(path, digest, size).close()
        yield Blob(digest=digest, size=size, path=path, holds=name)


def _document(folder: Path, descriptor: Mapping[str, Any]) -> Document:
    digest = descriptor["digest"]
    path = _path(folder, digest)
    data = read_blob(path, digest, _DOCUMENT_BYTES)
    _check_size(path, digest, len(data), descriptor["size"])
    return Document(media_type=descriptor["mediaType"], data=data)


def _path(folder: Path, digest: str) -> Path:
    """Where a digest that somebody wrote leads to. Raises ValueError for what is none."""
    return layout.blob_path(folder, f"{digests.ALGORITHM}:{digests.hex_of(digest)}")


def _check_size(path: Path, digest: str, found: int, size: int) -> None:
    if found != size:
        raise FarmError(Code.BAD_ARCHIVE, f"{digest} has {found} bytes, its descriptor says {size}", where=str(path))


def _bytes(path: Path) -> bytes:
    try:
        return read_regular(path, _DOCUMENT_BYTES)
    except OSError as error:
        raise FarmError(Code.MISSING_FILE, f"no OCI layout: {error.strerror}", where=str(path)) from error


def _json(path: Path, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FarmError(Code.BAD_ARCHIVE, f"not JSON: {error}", where=str(path)) from error
    if not isinstance(found, dict):
        raise FarmError(Code.BAD_ARCHIVE, "not a JSON object", where=str(path))
    return found


def _parts(folder: Path, index: Document) -> tuple[Part, ...]:
    """The builds whose records are beside the image. Together they are the image."""
    entries = tuple(json.loads(index.data)["manifests"])
    beside = records.files(folder)
    if not beside:
        return (Part(index=index, entries=entries, record=None),)
    whole = {entry["digest"] for entry in entries}
    source = LayoutSource(folder)
    claimed = verify_attached.claimed(verify_attached.bundles(source, source.image), statement.PROVENANCE)
    built = [records.read(path) for path in beside]
    for record in built if claimed else ():
        # One that contradicts the provenance beside it would choose wrong tags. Whether that is signed only a key can tell: see verify.
        claims.check_record(record, claimed)
    parts = tuple(_part(folder, record, whole) for record in built)
    if {entry["digest"] for part in parts for entry in part.entries} != whole:
        message = f"{', '.join(path.name for path in beside)} are not of all of the image {index.digest}"
        raise FarmError(Code.BAD_ARCHIVE, message, where=str(folder), hint="fetch the builds again")
    return parts


def _part(folder: Path, record: Record, whole: set[str]) -> Part:
    path = layout.blob_path(folder, record.index)
    if path.exists():
        index = Document(media_type=oci.INDEX, data=read_blob(path, record.index, _DOCUMENT_BYTES))
        entries = tuple(json.loads(index.data)["manifests"])
        if {entry["digest"] for entry in entries} <= whole:
            return Part(index=index, entries=entries, record=record)
    raise FarmError(Code.BAD_ARCHIVE, "the record is of another image", where=str(folder / record.name), hint="fetch the build again")


def content(images: Sequence[StoredImage], *, tag: str = "") -> Content:
    """What to push. Without `tag` the tags that LinuxKit's users know, for each flavour over all its architectures; with it just that one.

    Raises FarmError(INVALID_ARGUMENT, CONFLICT) for images that don't belong together, or without a record to make tags of."""
    parts = [(image.folder, part) for image in images for part in image.parts]
    indexes: list[Document] = [part.index for _, part in parts]
    tagged: list[TaggedIndex] = []
    for name, group in ({tag: parts} if tag else _groups(parts)).items():
        over_all = _over_all(name, group)
        indexes.append(over_all)
        if tag:
            tagged.append(TaggedIndex(tag=tags.check(tag), document=over_all, moving=True))
        else:
            tagged += _tagged(group, over_all)
    manifests = [document for image in images for document in image.manifests] + indexes
    blobs = {blob.digest: blob for image in images for blob in image.blobs}
    attached = {(each.attachment.tag, each.document.digest): each for image in images for each in image.attached}
    return Content(
        blobs=tuple(blobs.values()),
        manifests=tuple({document.digest: document for document in manifests}.values()),
        attached=tuple(attached.values()),
        # What never changes first, what people follow last; of those the index after the architectures.
        tags=tuple(sorted(tagged, key=lambda each: each.moving)),
    )


def unsigned(content: Content) -> list[str]:
    """Tags of documents that have no signature, where something else has one: an index that was put together without the farm."""
    signed = {each.attachment.tag for each in content.attached}
    return [each.tag for each in content.tags if signed and cosign.signature_tag(each.document.digest) not in signed]


def plain_tag(image: StoredImage) -> str:
    """The tag that people follow: version and flavours. Raises FarmError for an image without a record, and what no tag can hold."""
    (name,) = _groups([(image.folder, part) for part in image.parts])
    return tags.check(name)


_Placed = tuple[Path, Part]


def _groups(parts: Sequence[_Placed]) -> dict[str, list[_Placed]]:
    """Builds of one version and flavour: the architectures of one index."""
    groups: dict[str, list[_Placed]] = {}
    for folder, part in parts:
        if part.record is None:
            hint = "give the reference a tag: REPOSITORY:TAG"
            raise FarmError(Code.INVALID_ARGUMENT, "there is no result.json to make tags of", where=str(folder), hint=hint)
        release, version = part.record.release, part.record.version
        groups.setdefault(version + tags.suffix(release, version), []).append((folder, part))
    return groups


def _over_all(name: str, group: Sequence[_Placed]) -> Document:
    if len(group) == 1:
        return group[0][1].index
    seen: dict[str, Path] = {}
    for folder, part in group:
        for platform in map(oci.platform_of, part.entries):
            if platform in seen:
                message = f"two images of {name} for {platform}: {seen[platform]} and {folder}"
                raise FarmError(Code.CONFLICT, message, where=name, hint="push them one by one, each with a tag of its own")
            seen[platform] = folder
    return oci.index_of([entry for _, part in group for entry in part.entries])


def _tagged(group: Sequence[_Placed], over_all: Document) -> Iterator[TaggedIndex]:
    """For each architecture its build's own index, since that is what the signatures are about."""
    per_arch = {}
    for _, part in group:
        for entry in part.entries:
            per_arch[entry["platform"]["architecture"]] = part.index if len(part.entries) == 1 else oci.index_of([entry])
    built = [part.record for _, part in group if part.record is not None]  # _groups lets no other in
    hashed = tags.content_hash([record.inputs for record in built])
    names = tags.tags(release=built[0].release, version=built[0].version, content=hashed, arches=list(per_arch))
    for arch, document in per_arch.items():
        for tag in names.arch[arch]:
            yield TaggedIndex(tag=tag, document=document, moving=tag in names.moving)
    for tag in names.index:
        yield TaggedIndex(tag=tag, document=over_all, moving=tag in names.moving)
