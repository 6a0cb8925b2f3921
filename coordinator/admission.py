"""What is refused at submit, before any work: unknown words, bad fragments and patches, work that no worker can do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from coordinator import scheduler
from coordinator.fleet import WorkerInfo
from kernel import digest as digests
from kernel import kconfig, patch, tables
from kernel.errors import Code, FarmError
from kernel.spec import ConfigSpec, NamedBlob, OwnFlavour, RequestSpec, SourceKind, SourceSpec, expand
from kernfarm.blobs import BlobStore

_BASES = ("defconfig", "tinyconfig", "allnoconfig", "file")
_MAX_FRAGMENT = 4 << 20
_MAX_PATCH = 64 << 20
_LONGEST_NAME = 1000
# The kernel's release is at most 64 characters (include/linux/utsname.h), of which its version needs up to 24.
_LONGEST_SUFFIX = 40
# It becomes a part of the image's tag: no other characters are allowed there (OCI distribution specification).
_LOCAL_VERSION = re.compile(r"[A-Za-z0-9._-]{0,40}")
_FLAVOUR = re.compile(r"[a-z][a-z0-9-]{0,31}")
_SUFFIX = re.compile(r"-[A-Za-z0-9._-]{1,39}")
# Scheme and authority as curl takes them, which git fetches with: any number of slashes in between.
_AUTHORITY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):[/\\]*([^/\\?#]*)")


def check(spec: RequestSpec, blobs: BlobStore, workers: Sequence[WorkerInfo]) -> None:
    """Raises FarmError naming the thing, the place and the mend. Reads the uploaded fragments and patches: blocks."""
    _words(spec)
    _names(spec)
    _source(spec.source, blobs)
    for build in expand(spec, domain=""):
        _fragments(build.config, blobs)
    if spec.config.base not in _BASES:
        raise tables.unknown("base config", spec.config.base, _BASES[:-1])
    if (spec.config.base == "file") != (spec.config.file is not None):
        raise FarmError(Code.INVALID_ARGUMENT, "base `file` and an uploaded file go together", where="config")
    if spec.config.file is not None:
        kconfig.refuse_unsafe(kconfig.parse(_text(blobs, spec.config.file, "base config", _MAX_FRAGMENT), spec.config.file.name))
    for blob in (*spec.patches, *(blob for own in spec.own_flavours for blob in own.patches)):
        patch.parse(_text(blobs, blob, "patch", _MAX_PATCH), blob.name)
    for arch in spec.arches:
        if problem := scheduler.refuse(workers, arch, spec.toolchain, boot=not spec.skip_boot):
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
        if arch not in toolchain.targets:
            raise FarmError(Code.UNKNOWN_VALUE, f"{spec.toolchain} does not make {arch}", where="toolchain")
    for own in spec.own_flavours:
        _own_flavour(own, spec)
    defined = {own.name for own in spec.own_flavours}
    for flavour in spec.flavours:
        if flavour not in defined:
            tables.flavour(flavour)
    for build in expand(spec, domain=""):
        if len(name := build.local_version + tables.flavour(build.base_flavour).suffix) > _LONGEST_SUFFIX:
            hint = f"at most {_LONGEST_SUFFIX} characters with the flavour's suffix"
            raise FarmError(Code.INVALID_ARGUMENT, f"the kernel's name would end with {name!r}", where="local_version", hint=hint)
    for config in spec.arch_configs:
        if config.arch not in spec.arches:
            hint = f"it builds {', '.join(spec.arches)}"
            raise FarmError(
                Code.INVALID_ARGUMENT, f"a configuration for {config.arch[:80]!r}, which is not built", where="config", hint=hint
            )
    for output in spec.outputs:
        tables.output(output)
    if _LOCAL_VERSION.fullmatch(spec.local_version) is None:
        hint = "at most 40 letters, digits and ._-, such as -linuxkit"
        raise FarmError(Code.INVALID_ARGUMENT, f"no local version: {spec.local_version[:80]!r}", where="local_version", hint=hint)


def _own_flavour(own: OwnFlavour, spec: RequestSpec) -> None:
    """A user's flavour must be told apart from the farm's and from others, in names and in tags."""
    where = f"flavour {own.name[:80]!r}"
    if _FLAVOUR.fullmatch(own.name) is None or own.name in tables.names("flavour"):
        hint = f"lower-case letters, digits and -, at most 32, and none of the farm's: {', '.join(tables.names('flavour'))}"
        raise FarmError(Code.INVALID_ARGUMENT, "no name for a flavour of your own", where=where, hint=hint)
    if own.name not in spec.flavours:
        raise FarmError(Code.INVALID_ARGUMENT, "defined, but not built", where=where, hint="name it in `flavours`")
    tables.flavour(own.extends)
    others = [each.suffix for each in spec.own_flavours if each is not own] + [
        tables.flavour(name).suffix for name in tables.names("flavour")
    ]
    if _SUFFIX.fullmatch(own.suffix) is None or own.suffix in others:
        hint = "a dash, then letters, digits and ._-, such as -foo"
        raise FarmError(Code.INVALID_ARGUMENT, f"the suffix {own.suffix[:80]!r} is none, or taken", where=where, hint=hint)


def _fragments(config: ConfigSpec, blobs: BlobStore) -> None:
    parsed = [kconfig.parse(_text(blobs, blob, "fragment", _MAX_FRAGMENT), blob.name) for blob in config.fragments]
    kconfig.refuse_unsafe(kconfig.merge(parsed))
    for blob in config.base_fragments:
        kconfig.refuse_unsafe(kconfig.parse(_text(blobs, blob, "fragment", _MAX_FRAGMENT), blob.name))


def _names(spec: RequestSpec) -> None:
    """Names and references end up in messages, labels and kernel-source-info, where a line break would begin another entry."""
    builds = expand(spec, domain="")
    files = [file for build in builds for file in (*build.config.fragments, *build.config.base_fragments, *build.patches)]
    files += [spec.config.file] if spec.config.file is not None else []
    for where, text in (("source", spec.source.ref), *(("file name", file.name) for file in files)):
        if len(text) > _LONGEST_NAME:
            raise FarmError(Code.INVALID_ARGUMENT, f"longer than {_LONGEST_NAME} characters: {text[:80]!r}...", where=where)
        if not text.isprintable():
            raise FarmError(Code.INVALID_ARGUMENT, f"holds characters that can't be printed: {text[:80]!r}", where=where)


def _source(source: SourceSpec, blobs: BlobStore) -> None:
    if (source.kind is SourceKind.FILE) != bool(source.digest) or not source.ref:
        raise FarmError(Code.INVALID_ARGUMENT, "a file: source has to be uploaded, others must not be", where="source")
    if source.kind is SourceKind.FILE:
        if not digests.is_digest(source.digest):
            raise FarmError(Code.INVALID_ARGUMENT, f"no digest: {source.digest[:80]!r}", where="source", hint="sha256:64 hex digits")
        if not blobs.has(source.digest):
            raise FarmError(Code.MISSING_FILE, "the source tarball was not uploaded", where=source.ref)
    if source.kind is SourceKind.GIT and _has_secret(source.ref):
        # The message does not repeat it: messages are logged and kept.
        raise FarmError(
            Code.INVALID_ARGUMENT,
            "the git address holds a user or a token, which everybody who gets the image could read in its labels",
            where="source",
            hint="leave out what stands before @ in the host; let the workers reach a mirror that asks for no password",
        )


def _has_secret(ref: str) -> bool:
    """Whether `URL@REF` names a user in front of the host; ssh can't do without one, but without a password."""
    match = _AUTHORITY.match(ref)
    if match is None or match[1].lower() == "file":
        return False
    user, at, _ = match[2].rpartition("@")
    return bool(at) and (match[1].lower() not in ("ssh", "git+ssh", "ssh+git") or ":" in user)


def _text(blobs: BlobStore, blob: NamedBlob, what: str, limit: int) -> str:
    if not digests.is_digest(blob.digest) or not blobs.has(blob.digest):
        raise FarmError(Code.MISSING_FILE, f"the {what} was not uploaded", where=blob.name)
    try:
        return blobs.get_bytes(blob.digest, limit=limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FarmError(Code.INVALID_ARGUMENT, f"the {what} is not text", where=blob.name) from error
