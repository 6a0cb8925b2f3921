"""What every kind of source gives back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A tarball in the blob store, and where it came from. `signer` says whose word vouches for it ("" for nobody's)."""

    tarball: str
    url: str
    resolved: str
    sha256: str
    signer: str
