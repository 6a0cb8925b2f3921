"""OCI image layouts on disk: written from blobs, read back with every digest checked (OCI image specification, image-layout.md)."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kernel import oci
from kernel.errors import Code, FarmError
from kernel.steps import Attachment
from kernfarm.contents import DOCUMENT_BYTES
from kernfarm.regular import open_blob, open_regular, read_blob

_FILES = ("kernel", "kernel.tar", "System.map", "kernel_config", "kernel-source-info", "kernel-dev.tar", "kernel-headers.tar", "vmlinux")


def blob_path(folder: Path, digest: str) -> Path:
    """Where a layout keeps a blob."""
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")


def finish(folder: Path, index: str, *, reference: str, attachments: Sequence[Attachment] = ()) -> None:
    """Write the documents of a layout whose blobs are there. Last, so that a layout broken off is none."""
    data = blob_path(folder, index).read_bytes()
    top = oci.Document(media_type=oci.INDEX, data=data)
    for name, content in oci.layout(top, reference=reference, attachments=attachments).items():
        (folder / name).write_bytes(content)


def unite(folder: Path, indexes: Sequence[str]) -> str:
    """Write one index over the images of several indexes whose blobs are there; its digest. `finish` makes it the layout's.

    Raises FarmError: INVALID_ARGUMENT for two images of one platform, as extract."""
    entries = [entry for digest in indexes for entry in json.loads(_read(folder, digest))["manifests"]]
    try:
        top = oci.index_of(entries)
    except ValueError as error:
        raise FarmError(Code.INVALID_ARGUMENT, str(error), where=str(folder), hint="fetch each into a folder of its own") from error
    blob_path(folder, top.digest).write_bytes(top.data)
    return top.digest


def extract(folder: Path, platform: str, to: Path) -> list[str]:
    """The files of the image for a platform, into a folder; all digests checked. Raises FarmError(BAD_DIGEST, MISSING_FILE)."""
    try:
        with open_regular(folder / "index.json") as file:
            index = json.load(file)
    except (OSError, ValueError) as error:
        raise FarmError(Code.MISSING_FILE, f"no OCI layout: {error}", where=str(folder)) from error
    top = json.loads(_read(folder, index["manifests"][0]["digest"]))
    system, _, machine = platform.partition("/")
    wanted = {"architecture": machine, "os": system}
    found = [entry for entry in top["manifests"] if entry.get("platform") == wanted]
    if not found:
        raise FarmError(Code.MISSING_FILE, f"the image has nothing for {platform}", where=str(folder))
    manifest: dict[str, Any] = json.loads(_read(folder, found[0]["digest"]))
    names: list[str] = []
    for layer in manifest["layers"]:
        path = blob_path(folder, layer["digest"])
        with open_blob(path, layer["digest"], layer["size"]) as packed, tarfile.open(fileobj=packed, mode="r:gz") as tar:
            for member in tar:
                # Only our own names, only regular files: nothing else can land anywhere.
                if member.name in _FILES and member.isreg():
                    source = tar.extractfile(member)
                    assert source is not None
                    with (to / member.name).open("wb") as sink:
                        while chunk := source.read(1 << 20):
                            sink.write(chunk)
                    names.append(member.name)
    return names


def _read(folder: Path, digest: str) -> bytes:
    return read_blob(blob_path(folder, digest), digest, DOCUMENT_BYTES)
