"""What can be asked of one repository in a registry: blobs, manifests, referrers. What it answers is checked, never believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import requests

from kernel import digest as digests
from kernel import oci
from kernel.errors import Code, FarmError
from kernel.oci import Document
from kernfarm.registry.challenge import origin_of
from kernfarm.registry.transport import Transport

# The specification asks registries to take manifests of 4 MiB; larger ones are refused before they are read.
DOCUMENT_BYTES = 4 << 20
_CHUNK = 1 << 20
_DIGEST = "Docker-Content-Digest"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_ACCEPT = {"Accept": ", ".join((oci.INDEX, oci.MANIFEST, _DOCKER_LIST, _DOCKER_MANIFEST))}
# Of a size in bytes.
_MOST_DIGITS = 20
# A registry may give referrers in pages; this many are more than any image has.
_MOST_PAGES = 100
# What registries without referrers answer: 404 by the specification, others in practice.
_NO_REFERRERS = (400, 404, 405, 501)


class Repository:
    """All methods raise FarmError as Transport's do, and BAD_DIGEST for content that is not what was asked for."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.name = transport.reference.name

    def blob_size(self, digest: str, *, push: bool = False) -> int | None:
        """The size in bytes that the registry has it with; None when it lacks it. -1 where it does not say."""
        response = self.transport.request("HEAD", self.transport.url(f"blobs/{digest}"), good=(200, 404), push=push)
        if response.status_code == 404:
            return None
        self._check(response, digest)
        said = response.headers.get("Content-Length", "")
        return int(said) if said.isascii() and said.isdigit() and len(said) < _MOST_DIGITS else -1

    def blob(self, digest: str) -> Iterator[bytes]:
        """A blob in chunks. The digest is checked when the end is reached: use nothing of it before that."""
        response = self.transport.request("GET", self.transport.url(f"blobs/{digest}"), good=(200,), stream=True)
        sha = hashlib.sha256()
        with response:
            try:
                for chunk in response.iter_content(_CHUNK):
                    sha.update(chunk)
                    yield chunk
            except requests.RequestException as error:
                raise FarmError(Code.UNAVAILABLE, f"the registry broke off in the middle of {digest}", where=self.name) from error
        if f"sha256:{sha.hexdigest()}" != digest:
            raise self._wrong(digest, f"sha256:{sha.hexdigest()}")

    def manifest_digest(self, reference: str, *, push: bool = False) -> str | None:
        """The digest of what is at a tag or digest; None for nothing."""
        response = self.transport.request("HEAD", self._manifest(reference), good=(200, 404), headers=_ACCEPT, push=push)
        if response.status_code == 404:
            return None
        found = response.headers.get(_DIGEST, "")
        if not digests.is_digest(found):  # a header that registries should send, but need not
            return self.manifest(reference).digest
        if digests.is_digest(reference) and found != reference:
            raise self._wrong(reference, found)
        return found

    def manifest(self, reference: str) -> Document:
        """A manifest or index by tag or digest. Raises FarmError(NOT_FOUND) for none."""
        response = self.transport.request("GET", self._manifest(reference), good=(200, 404), headers=_ACCEPT, stream=True)
        with response:
            if response.status_code == 404:
                raise FarmError(Code.NOT_FOUND, f"the registry has no {reference}", where=self.name)
            document = Document(media_type=response.headers.get("Content-Type", "").partition(";")[0], data=self._bounded(response))
        expected = reference if digests.is_digest(reference) else response.headers.get(_DIGEST, document.digest)
        if document.digest != expected:
            raise self._wrong(expected, document.digest)
        return document

    def put_manifest(self, document: Document, reference: str) -> bool:
        """Store a manifest or index under a tag or its digest. Says whether the registry took note of its subject itself."""
        headers = {"Content-Type": document.media_type}
        response = self.transport.request("PUT", self._manifest(reference), good=(200, 201), headers=headers, body=document.data, push=True)
        self._check(response, document.digest)
        return bool(response.headers.get("OCI-Subject"))

    def referrers(self, digest: str) -> tuple[Sequence[dict[str, Any]], bool]:
        """Descriptors of the manifests whose subject is `digest`, and whether the registry knows them by itself; else they come from
        the index at the fallback tag."""
        found: list[dict[str, Any]] = []
        url = self.transport.url(f"referrers/{digest}")
        for _ in range(_MOST_PAGES):
            response = self.transport.request("GET", url, good=(200, *_NO_REFERRERS), headers={"Accept": oci.INDEX}, stream=True)
            with response:
                known = response.status_code == 200 and response.headers.get("Content-Type", "").partition(";")[0] == oci.INDEX
                if not known:
                    break
                found += descriptors(self._bounded(response), self.name)
            if not (following := response.links.get("next", {}).get("url")):
                return found, True
            url = self.transport.joined(response, following)
            if origin_of(url) != origin_of(self.transport.base):
                raise FarmError(Code.PERMISSION_DENIED, "the registry's list of referrers leads elsewhere", where=origin_of(url))
        if found:
            raise FarmError(Code.UNAVAILABLE, "the registry's list of referrers has no end", where=self.name)
        fallback = self.fallback(digest)
        return (descriptors(fallback.data, self.name) if fallback else []), False

    def fallback(self, digest: str) -> Document | None:
        """The index that stands in for the referrers of a digest, where the registry has none of its own; None for none."""
        try:
            return self.manifest(fallback_tag(digest))
        except FarmError as error:
            if error.problem.code is Code.NOT_FOUND:
                return None
            raise

    def _manifest(self, reference: str) -> str:
        return self.transport.url(f"manifests/{reference}")

    def _bounded(self, response: requests.Response) -> bytes:
        data = b""
        try:
            for chunk in response.iter_content(_CHUNK):
                data += chunk
                if len(data) > DOCUMENT_BYTES:
                    raise FarmError(Code.BAD_ARCHIVE, f"a manifest of more than {DOCUMENT_BYTES} bytes", where=self.name)
        except requests.RequestException as error:
            raise FarmError(Code.UNAVAILABLE, "the registry broke off in the middle of a manifest", where=self.name) from error
        return data

    def _check(self, response: requests.Response, digest: str) -> None:
        found = response.headers.get(_DIGEST, digest)
        if found != digest:
            raise self._wrong(digest, found)

    def _wrong(self, digest: str, found: str) -> FarmError:
        hint = "the registry's storage is damaged, or something between here and there changes data"
        return FarmError(Code.BAD_DIGEST, f"the registry has {found} where {digest} should be", where=self.name, hint=hint)


def fallback_tag(digest: str) -> str:
    """Where the referrers of a digest are listed in registries without the API ("Referrers Tag Schema")."""
    return f"sha256-{digests.hex_of(digest)}"


def descriptors(data: bytes, where: str) -> list[dict[str, Any]]:
    """The entries of an index that somebody else wrote. Raises FarmError(BAD_ARCHIVE) for what is none."""
    try:
        entries = json.loads(data)["manifests"]
        good = isinstance(entries, list) and all(isinstance(each, dict) and digests.is_digest(str(each["digest"])) for each in entries)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FarmError(Code.BAD_ARCHIVE, f"not an index: {error}", where=where) from error
    if not good:
        raise FarmError(Code.BAD_ARCHIVE, "an index with entries that are no descriptors", where=where)
    return list(entries)
