"""A request as a user writes it: kernfarm.yaml or flags, with paths on this machine; and what of it has to be uploaded."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from kernel.errors import Code, FarmError
from kernel.spec import ConfigSpec, NamedBlob, RequestSpec, SourceKind, SourceSpec

CONFIG_BASES = ("defconfig", "tinyconfig", "allnoconfig")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The words of a request. Paths are relative to the folder of the file that named them, or to the working directory."""

    source: str = ""
    arch: tuple[str, ...] = ("x86_64",)
    flavours: tuple[str, ...] = ("plain",)
    base: str = "defconfig"
    fragments: tuple[Path, ...] = ()
    patches: tuple[Path, ...] = ()
    toolchain: str = "gcc-12"
    outputs: tuple[str, ...] = ("kernel",)
    local_version: str = "-linuxkit"
    boot: bool = True
    folder: Path = Path()


def read_file(path: Path) -> Draft:
    """The draft in a kernfarm.yaml. Raises FarmError naming file and key."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FarmError(Code.MISSING_FILE, f"cannot read the request: {error}", where=str(path)) from error
    except yaml.YAMLError as error:
        raise FarmError(Code.INVALID_ARGUMENT, f"not YAML: {error}", where=str(path)) from error
    if not isinstance(values, dict):
        raise FarmError(Code.INVALID_ARGUMENT, "expected a mapping with `source:`, `arch:`, ...", where=str(path))
    return _from_values(values, path)


def _from_values(values: dict[Any, Any], path: Path) -> Draft:
    known = ("source", "arch", "flavours", "config", "patches", "toolchain", "outputs", "local_version", "boot")
    _refuse_unknown(values, known, str(path))
    config = values.get("config", {})
    if isinstance(config, str):
        config = {"base": config}
    if not isinstance(config, dict):
        raise FarmError(Code.INVALID_ARGUMENT, "expected `{base: ..., fragments: [...]}`", where=f"{path}: config")
    _refuse_unknown(config, ("base", "fragments"), f"{path}: config")
    given: dict[str, Any] = {"folder": path.parent}
    for name in ("source", "toolchain", "local_version"):
        if name in values:
            given[name] = _word(values[name], f"{path}: {name}")
    for name in ("arch", "flavours", "outputs"):
        if name in values:
            given[name] = _words(values[name], f"{path}: {name}")
    if "boot" in values:
        if not isinstance(values["boot"], bool):
            raise FarmError(Code.INVALID_ARGUMENT, f"expected true or false, got {values['boot']!r}", where=f"{path}: boot")
        given["boot"] = values["boot"]
    if "base" in config:
        given["base"] = _word(config["base"], f"{path}: config.base")
    if "fragments" in config:
        given["fragments"] = tuple(Path(word) for word in _words(config["fragments"], f"{path}: config.fragments"))
    if "patches" in values:
        given["patches"] = tuple(Path(word) for word in _words(values["patches"], f"{path}: patches"))
    return Draft(**given)


def _refuse_unknown(values: dict[Any, Any], known: tuple[str, ...], where: str) -> None:
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise FarmError(Code.UNKNOWN_VALUE, f"unknown key {name!r}", where=where, hint=hint)


def _word(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise FarmError(Code.INVALID_ARGUMENT, f"expected a word, got {value!r}", where=where)
    return str(value)


def _words(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, list):
        return tuple(_word(item, where) for item in value)
    return (_word(value, where),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request ready to be sent: the specification, and the local file behind each digest in it."""

    spec: RequestSpec
    uploads: dict[str, Path]


def prepare(draft: Draft) -> Prepared:
    """Check the files a draft names and replace them by their digests. Raises FarmError(MISSING_FILE, INVALID_ARGUMENT)."""
    uploads: dict[str, Path] = {}

    def named(path: Path, what: str) -> NamedBlob:
        full = draft.folder / path
        digest = _digest(full, what)
        uploads[digest] = full
        return NamedBlob(name=path.name, digest=digest)

    source = parse_source(draft.source)
    if source.kind is SourceKind.FILE:
        path, _, expected = source.ref.partition("#")
        blob = named(Path(path), "source tarball")
        if expected and expected != blob.digest:
            raise FarmError(
                Code.BAD_DIGEST,
                f"the tarball is {blob.digest}, not {expected}",
                where=path,
                hint="damaged or replaced: fetch it again",
            )
        source = replace(source, ref=blob.name, digest=blob.digest)
    config = ConfigSpec(base=draft.base)
    if draft.base not in CONFIG_BASES:
        if not (draft.folder / draft.base).is_file():
            _refuse_base(draft.base)
        config = ConfigSpec(base="file", file=named(Path(draft.base), "base config"))
    config = replace(config, fragments=tuple(named(path, "config fragment") for path in draft.fragments))
    spec = RequestSpec(
        source=source,
        arches=draft.arch,
        flavours=draft.flavours,
        config=config,
        patches=tuple(named(path, "patch") for path in _patch_files(draft)),
        toolchain=draft.toolchain,
        outputs=draft.outputs,
        local_version=draft.local_version,
        skip_boot=not draft.boot,
    )
    return Prepared(spec=spec, uploads=uploads)


def parse_source(text: str) -> SourceSpec:
    """`KIND:REF` as SourceSpec; for file: the reference is still a path, with `#sha256:HEX` behind it where its digest is known."""
    kind, colon, ref = text.partition(":")
    kinds = [str(each) for each in SourceKind]
    if not colon or not ref or kind not in kinds:
        near = difflib.get_close_matches(kind, kinds, n=1)
        hint = f"did you mean {near[0]}:{ref or '...'}?" if near else "kernel.org:6.1.192, debian:6.1, git:URL@REF or file:linux.tar.xz"
        raise FarmError(Code.INVALID_ARGUMENT, f"{text!r} names no source", where="source", hint=hint)
    return SourceSpec(kind=SourceKind(kind), ref=ref)


def _refuse_base(base: str) -> None:
    near = difflib.get_close_matches(base, CONFIG_BASES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(CONFIG_BASES)}, or the path of a complete .config"
    raise FarmError(Code.MISSING_FILE, f"no such base config: {base!r} is neither a known name nor a file", where="config.base", hint=hint)


def _patch_files(draft: Draft) -> list[Path]:
    """Files as named; a folder stands for its *.patch files in the order of their names (numeric prefixes give the order)."""
    found: list[Path] = []
    for path in draft.patches:
        full = draft.folder / path
        if full.is_dir():
            inside = sorted(entry.name for entry in full.iterdir() if entry.suffix == ".patch")
            if not inside:
                raise FarmError(Code.MISSING_FILE, "no *.patch file in this folder", where=str(full))
            found += [path / name for name in inside]
        else:
            found.append(path)
    return found


def _digest(path: Path, what: str) -> str:
    sha = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                sha.update(chunk)
    except OSError as error:
        raise FarmError(Code.MISSING_FILE, f"cannot read the {what}: {error.strerror}", where=str(path)) from error
    return f"sha256:{sha.hexdigest()}"


def override(draft: Draft, flags: dict[str, Any]) -> Draft:
    """The draft with the flags that were given (not None) in place of its own words; paths in flags count from the working directory."""
    names = {f.name for f in fields(Draft)}
    given = {name: value for name, value in flags.items() if name in names and value is not None}
    for name in ("fragments", "patches"):
        if name in given:
            given[name] = tuple(path.absolute() for path in given[name])
    return replace(draft, **given)
