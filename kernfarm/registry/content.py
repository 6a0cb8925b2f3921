"""What is to be in a repository after a push, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kernel.oci import Document
from kernel.steps import Attachment


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Content of a layout: `size` in bytes, `holds` for people."""

    digest: str
    size: int
    path: Path
    holds: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """A manifest beside an image, with its own documents: `config` is the image configuration's bytes where it is one."""

    attachment: Attachment
    document: Document


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedIndex:
    """A tag and what it will name. `moving`: it may name something else today; one that is not never changes its content."""

    tag: str
    document: Document
    moving: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Everything, in the order it has to arrive: blobs, then manifests and indexes by digest, then what is attached, then tags."""

    blobs: tuple[Blob, ...]
    manifests: tuple[Document, ...]
    attached: tuple[Attached, ...]
    tags: tuple[TaggedIndex, ...]
