"""Where an image to be checked is: an OCI layout on disk, or whatever else can hand out manifests and blobs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from kernel import digest as digests
from kernel import oci
from kernel.errors import Code, FarmError
from kernel.signing import cosign
from kernfarm import records
from kernfarm.contents import DOCUMENT_BYTES
from kernfarm.regular import open_regular, read_regular

_REF = "org.opencontainers.image.ref.name"


class ImageSource(Protocol):
    """All methods raise FarmError: NOT_FOUND for what is not there, BAD_DIGEST for a manifest that is not what its descriptor says. What
    they return is as hostile as the place it came from."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def image(self) -> str:
        """The reference of the image itself: a digest where the place says one, else a tag."""

    def manifest(self, reference: str) -> bytes:
        """A manifest or index by tag or digest; at most DOCUMENT_BYTES."""

    def blob(self, digest: str) -> Iterator[bytes]:
        """A blob, or a manifest by its digest, in chunks."""

    def referrers(self, digest: str) -> Sequence[dict[str, Any]]:
        """Descriptors of the manifests whose subject is `digest`."""

    def strangers(self, known: Collection[str]) -> Sequence[str]:
        """Digests of what would go along with the image but is not of it; a registry has none: what is there beside is not the image's."""

    def records(self) -> Sequence[Path]:
        """Files that say what builds the image is of, and that tags are made of when it is pushed; a registry has none."""


class LayoutSource:
    """An OCI layout as `kernfarm fetch` writes it: the image's index first, then what is attached to it, by tag or by subject."""

    def __init__(self, folder: Path) -> None:
        """Raises FarmError(MISSING_FILE, BAD_ARCHIVE) for what is no layout of one image."""
        self._folder = folder
        body = _load(folder / "index.json")
        entries = body.get("manifests") if isinstance(body, dict) else None
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise FarmError(Code.BAD_ARCHIVE, "index.json lists no manifests", where=str(folder / "index.json"))
        self._entries: list[dict[str, Any]] = entries
        # The first, as for whoever pushes the layout or unpacks it: what was checked has to be what is used.
        images = [each for each in entries if each.get("mediaType") == oci.INDEX and not _tag(each).startswith("sha256-")]
        if len(images) != 1 or images[0] is not entries[0]:
            hint = "kernfarm fetch BUILD --to DIR writes a layout of one image"
            message = f"the layout has {len(images)} images, expected one, as the first entry"
            raise FarmError(Code.BAD_ARCHIVE, message, where=str(folder), hint=hint)
        self._image = _digest(images[0], folder)
        tags = [tag for tag in map(_tag, entries) if tag]
        if twice := sorted(tag for tag in set(tags) if tags.count(tag) > 1):
            raise FarmError(Code.BAD_ARCHIVE, f"the layout has {twice[0]} twice", where=str(folder))

    @property
    def name(self) -> str:
        return str(self._folder)

    @property
    def image(self) -> str:
        return self._image

    def manifest(self, reference: str) -> bytes:
        if digests.is_digest(reference):
            digest = reference
        else:
            named = [each for each in self._entries if _tag(each) == reference]
            if not named:
                raise FarmError(Code.NOT_FOUND, f"the layout has no {reference}", where=self.name)
            digest = _digest(named[0], self._folder)
        data = b"".join(self._chunks(digest, DOCUMENT_BYTES))
        if len(data) > DOCUMENT_BYTES:
            raise FarmError(Code.BAD_ARCHIVE, f"{digest} is too large for a manifest", where=digest)
        if (found := digests.of_bytes(data)) != digest:
            raise FarmError(Code.BAD_DIGEST, f"{digest} is damaged: its content has the digest {found}", where=digest)
        return data

    def blob(self, digest: str) -> Iterator[bytes]:
        return self._chunks(digest, 0)

    def referrers(self, digest: str) -> Sequence[dict[str, Any]]:
        return [entry for entry in self._entries if entry.get("mediaType") == oci.MANIFEST and self._subject(entry) == digest]

    def strangers(self, known: Collection[str]) -> Sequence[str]:
        """Digests of entries that hang beside none of the `known` digests. One with a tag has to be at a tag for them: whatever it refers
        to, it would be pushed to that tag."""
        tags = attachment_tags(known)
        return [str(entry.get("digest")) for entry in self._entries[1:] if not self._is_beside(entry, known, tags)]

    def _is_beside(self, entry: dict[str, Any], known: Collection[str], tags: Mapping[str, str]) -> bool:
        kind, tag, subject = entry.get("mediaType"), _tag(entry), self._subject(entry)
        if tag:
            return tags.get(tag) == kind and (not subject or subject in known)
        return kind == oci.MANIFEST and subject in known

    def _subject(self, entry: dict[str, Any]) -> str:
        """The digest that an entry refers to; "" for none."""
        try:
            body = json.loads(self.manifest(_digest(entry, self._folder)))
        except (FarmError, ValueError, RecursionError):
            return ""  # what can't be read refers to nothing; that it is missing among the referrers is said by the check
        subject = body.get("subject") if isinstance(body, dict) else None
        return str(subject.get("digest", "")) if isinstance(subject, dict) else ""

    def records(self) -> Sequence[Path]:
        """All that pushing could take, whichever it would."""
        return sorted({*records.files(self._folder), *self._folder.glob(records.SEVERAL)})

    def _chunks(self, digest: str, limit: int) -> Iterator[bytes]:
        path = self._folder / "blobs" / "sha256" / digests.hex_of(digest)
        try:
            with open_regular(path) as file:
                total = 0
                while chunk := file.read(1 << 20):
                    total += len(chunk)
                    yield chunk
                    if limit and total > limit:
                        return
        except OSError as error:
            raise FarmError(Code.NOT_FOUND, f"the layout lacks {digest}: {error.strerror}", where=self.name) from error


def attachment_tags(known: Collection[str]) -> dict[str, str]:
    """The tags at which something hangs beside the `known` digests, each with the media type of what is there."""
    kinds = ((cosign.signature_tag, oci.MANIFEST), (cosign.attestation_tag, oci.MANIFEST), (cosign.referrers_tag, oci.INDEX))
    return {tag(digest): kind for digest in known for tag, kind in kinds}


def _load(path: Path) -> Any:
    try:
        return json.loads(read_regular(path, DOCUMENT_BYTES))
    except OSError as error:
        hint = "kernfarm fetch BUILD --to DIR"
        raise FarmError(Code.MISSING_FILE, f"no OCI layout: {error.strerror}", where=str(path), hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise FarmError(Code.BAD_ARCHIVE, f"not JSON: {error}", where=str(path)) from error


def _tag(entry: dict[str, Any]) -> str:
    notes = entry.get("annotations")
    return str(notes.get(_REF, "")) if isinstance(notes, dict) else ""


def _digest(entry: dict[str, Any], folder: Path) -> str:
    digest = entry.get("digest")
    if not isinstance(digest, str) or not digests.is_digest(digest):
        raise FarmError(Code.BAD_ARCHIVE, f"an entry of index.json has no sha256 digest: {str(digest)[:80]!r}", where=str(folder))
    return digest
