"""An image in a registry, to be read and checked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from kernel.errors import Code, FarmError
from kernfarm.registry.reference import Reference
from kernfarm.registry.repository import Repository
from kernfarm.registry.transport import Patience, Transport


class RegistrySource:
    """Manifests, blobs and referrers of one image. Every manifest has the digest that was asked for; a blob's is checked at its end.

    All methods raise FarmError: NOT_FOUND, BAD_DIGEST, and what Transport's methods raise."""

    def __init__(self, reference: Reference, *, plain_http: bool = False, patience: Patience | None = None) -> None:
        self._reference = reference
        self._repository = Repository(Transport(reference, plain_http=plain_http, patience=patience))

    def __enter__(self) -> RegistrySource:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections."""
        self._repository.transport.close()

    @property
    def name(self) -> str:
        return str(self._reference)

    @property
    def image(self) -> str:
        """The reference of the image itself: its digest where one was given, else the tag."""
        return self._reference.digest or self._reference.tag or "latest"

    def manifest(self, reference: str) -> bytes:
        """A manifest or index by tag or digest."""
        return self._repository.manifest(reference).data

    def blob(self, digest: str) -> Iterator[bytes]:
        """A blob, or a manifest by its digest, in chunks: use nothing of it before the end is reached."""
        try:
            yield from self._repository.blob(digest)
        except FarmError as error:
            if error.problem.code is not Code.NOT_FOUND:
                raise
            yield self._repository.manifest(digest).data

    def strangers(self, known: Collection[str]) -> Sequence[str]:
        """None: a repository holds many images, and each is taken by its digest."""
        return ()

    def records(self) -> Sequence[Path]:
        """None: its tags are chosen already."""
        return ()

    def referrers(self, digest: str) -> Sequence[dict[str, Any]]:
        """Descriptors of the manifests whose subject is `digest`: of the registry's own list, else of the fallback tag's."""
        found, _ = self._repository.referrers(digest)
        return found
