"""Refusals that reading everything again would not change. A build can be retried as often as somebody likes, and others wait for the
signer meanwhile."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.signer.reading import Reading
from kernel import digest as digests
from kernel.errors import Code, FarmError, Problem

# A kilobyte each. A signer that is started again has forgotten them, and reads once more.
_KEPT = 1000


class Refusals:
    """By the record of the build: a step that is done again gives another one, and is looked at anew."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Problem] = OrderedDict()

    @contextmanager
    def about(self, record: bytes, reading: Reading) -> Iterator[None]:
        """Around the reading of a build. Raises the FarmError(SIGNING_REFUSED) that there was before. Keeps one that comes out, when
        all that was read is proved; else raises the FarmError(BLOB_LOST) of the store's damage, which another time may be mended."""
        key = digests.of_bytes(record)
        if known := self._known.get(key):
            self._known.move_to_end(key)
            raise FarmError.of(known)
        try:
            yield
        except FarmError as error:
            if error.problem.code is Code.SIGNING_REFUSED:
                reading.prove()
                self._known[key] = error.problem
                if len(self._known) > _KEPT:
                    self._known.popitem(last=False)
            raise
