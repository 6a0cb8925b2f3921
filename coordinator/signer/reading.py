"""Reading for one question: it ends when nobody waits for the answer any more, and knows what of it was proved by its digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kernel.errors import Code, FarmError
from kernfarm.blobs import BlobStore


class Reading:
    """`gone` tells whether the caller has gone: reading images takes minutes, and others wait."""

    def __init__(self, blobs: BlobStore, gone: Callable[[], bool]) -> None:
        self._blobs = blobs
        self._gone = gone
        # Digests of blobs that were begun, and whether one was read to its end, where the store checks it.
        self._proved: dict[str, bool] = {}

    def prove(self) -> None:
        """Read to its end, once, each blob that was only begun: what makes somebody stop may be the store's damage. Raises FarmError as
        `fetch`, BLOB_LOST for a blob that is not what it is called."""
        for digest in [digest for digest, proved in self._proved.items() if not proved]:
            for _ in self.fetch(digest):
                pass

    def fetch(self, digest: str) -> Iterator[bytes]:
        """A blob in chunks. Raises FarmError: UNAVAILABLE when the caller has gone, and as BlobStore.stream."""
        self._proved.setdefault(digest, False)
        chunks = self._blobs.stream(digest)
        while True:
            if self._gone():
                raise FarmError(Code.UNAVAILABLE, "nothing signed: the caller has gone")
            chunk = next(chunks, None)
            if chunk is None:
                break
            yield chunk
        self._proved[digest] = True
