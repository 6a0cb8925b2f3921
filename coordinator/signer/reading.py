"""Reading for one question: it ends when nobody waits for the answer any more, and knows whether all of it was proved by its digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kernel.errors import Code, FarmError
from kernfarm.blobs import BlobStore


class Reading:
    """`gone` tells whether the caller has gone: reading images takes minutes, and others wait."""

    def __init__(self, blobs: BlobStore, gone: Callable[[], bool]) -> None:
        self._blobs = blobs
        self._gone = gone
        self._begun = 0

    @property
    def whole(self) -> bool:
        """Whether each blob that was begun was read to its end, where the store checks the digest."""
        return self._begun == 0

    def fetch(self, digest: str) -> Iterator[bytes]:
        """A blob in chunks. Raises FarmError: UNAVAILABLE when the caller has gone, and as BlobStore.stream."""
        self._begun += 1
        chunks = self._blobs.stream(digest)
        while True:
            if self._gone():
                raise FarmError(Code.UNAVAILABLE, "nothing signed: the caller has gone")
            chunk = next(chunks, None)
            if chunk is None:
                break
            yield chunk
        self._begun -= 1
