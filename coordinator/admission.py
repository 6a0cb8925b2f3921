"""What is refused at submit, before any work: unknown words, bad fragments and patches, work that no worker can do."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator import scheduler
from coordinator.fleet import WorkerInfo
from kernel import digest as digests
from kernel import kconfig, patch, tables
from kernel.errors import Code, FarmError
from kernel.spec import NamedBlob, RequestSpec, SourceKind
from kernfarm.blobs import BlobStore

_BASES = ("defconfig", "tinyconfig", "allnoconfig", "file")
_MAX_FRAGMENT = 4 << 20
_MAX_PATCH = 64 << 20
_LOCAL_VERSION = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_+~")


def check(spec: RequestSpec, blobs: BlobStore, workers: Sequence[WorkerInfo]) -> None:
    """Raises FarmError naming the thing, the place and the mend. Reads the uploaded fragments and patches: blocks."""
    _words(spec)
    fragments = [kconfig.parse(_text(blobs, blob, "fragment", _MAX_FRAGMENT), blob.name) for blob in spec.config.fragments]
    kconfig.refuse_unsafe(kconfig.merge(fragments))
    if spec.config.base not in _BASES:
        raise tables.unknown("base config", spec.config.base, _BASES[:-1])
    if (spec.config.base == "file") != (spec.config.file is not None):
        raise FarmError(Code.INVALID_ARGUMENT, "base `file` and an uploaded file go together", where="config")
    if spec.config.file is not None:
        kconfig.refuse_unsafe(kconfig.parse(_text(blobs, spec.config.file, "base config", _MAX_FRAGMENT), spec.config.file.name))
    for blob in spec.patches:
        patch.parse(_text(blobs, blob, "patch", _MAX_PATCH), blob.name)
    for arch in spec.arches:
        if problem := scheduler.refuse(workers, arch, spec.toolchain):
            raise FarmError.of(problem)


def _words(spec: RequestSpec) -> None:
    for name, words in (("arch", spec.arches), ("flavour", spec.flavours), ("output", spec.outputs)):
        if not words:
            raise FarmError(Code.INVALID_ARGUMENT, f"the request names no {name}", where=name)
        if len(set(words)) != len(words):
            raise FarmError(Code.INVALID_ARGUMENT, f"the request names a {name} twice", where=name)
    toolchain = tables.toolchain(spec.toolchain)
    for arch in spec.arches:
        tables.arch(arch)
        if arch not in toolchain.prefix:
            raise FarmError(Code.UNKNOWN_VALUE, f"{spec.toolchain} does not make {arch}", where="toolchain")
    for flavour in spec.flavours:
        tables.flavour(flavour)
    for output in spec.outputs:
        tables.output(output)
    if not set(spec.local_version) <= _LOCAL_VERSION or len(spec.local_version) > 40:
        raise FarmError(Code.INVALID_ARGUMENT, f"no local version: {spec.local_version!r}", where="local_version", hint="-linuxkit")
    if (spec.source.kind is SourceKind.FILE) != bool(spec.source.digest) or not spec.source.ref:
        raise FarmError(Code.INVALID_ARGUMENT, "a file: source has to be uploaded, others must not be", where="source")


def _text(blobs: BlobStore, blob: NamedBlob, what: str, limit: int) -> str:
    if not digests.is_digest(blob.digest) or not blobs.has(blob.digest):
        raise FarmError(Code.MISSING_FILE, f"the {what} was not uploaded", where=blob.name)
    try:
        return blobs.get_bytes(blob.digest, limit=limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FarmError(Code.INVALID_ARGUMENT, f"the {what} is not text", where=blob.name) from error
