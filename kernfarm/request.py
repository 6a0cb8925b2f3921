"""A request as a user writes it: kernfarm.yaml or flags, with paths on this machine; and what of it has to be uploaded."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from kernel import tables
from kernel.errors import Code, FarmError
from kernel.spec import ArchConfig, ConfigSpec, NamedBlob, OwnFlavour, RequestSpec, SourceKind, SourceSpec
from kernfarm import series

CONFIG_BASES = ("defconfig", "tinyconfig", "allnoconfig")
SERIES = "series"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnDraft:
    """A flavour of the user's own; paths as in Draft."""

    name: str
    suffix: str
    extends: str
    fragments: tuple[Path, ...]
    patches: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The words of a request. `base` may be "series": defconfig, configuration and patches of `series`, or of the source's.
    Paths are relative to the folder of the file that named them, or to the working directory."""

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
    series: str = ""
    arch_fragments: tuple[tuple[str, tuple[Path, ...]], ...] = ()
    own_flavours: tuple[OwnDraft, ...] = ()
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
    known = ("source", "arch", "flavours", "config", "patches", "toolchain", "outputs", "local_version", "boot", "series")
    _refuse_unknown(values, known, str(path))
    config = values.get("config", {})
    if isinstance(config, str):
        config = {"base": config}
    if not isinstance(config, dict):
        raise FarmError(Code.INVALID_ARGUMENT, "expected `{base: ..., fragments: [...]}`", where=f"{path}: config")
    arches = tables.names("arch")
    _refuse_unknown(config, ("base", "fragments", *arches), f"{path}: config")
    given: dict[str, Any] = {"folder": path.parent}
    for name in ("source", "toolchain", "local_version", "series"):
        if name in values:
            given[name] = _word(values[name], f"{path}: {name}")
    for name in ("arch", "outputs"):
        if name in values:
            given[name] = _words(values[name], f"{path}: {name}")
    if "flavours" in values:
        given["flavours"], given["own_flavours"] = _flavours(values["flavours"], f"{path}: flavours")
    here = [(arch, _words(config[arch], f"{path}: config.{arch}")) for arch in arches if arch in config]
    given["arch_fragments"] = tuple((arch, _paths(words)) for arch, words in here)
    if "boot" in values:
        if not isinstance(values["boot"], bool):
            raise FarmError(Code.INVALID_ARGUMENT, f"expected true or false, got {values['boot']!r}", where=f"{path}: boot")
        given["boot"] = values["boot"]
    if "base" in config:
        given["base"] = _word(config["base"], f"{path}: config.base")
    if "fragments" in config:
        given["fragments"] = _paths(_words(config["fragments"], f"{path}: config.fragments"))
    if "patches" in values:
        given["patches"] = _paths(_words(values["patches"], f"{path}: patches"))
    return Draft(**given)


def _flavours(value: Any, where: str) -> tuple[tuple[str, ...], tuple[OwnDraft, ...]]:
    """Names in order, and the definitions among them: `{name: foo, suffix: -foo, extends: dbg, fragments: [...], patches: [...]}`."""
    entries = value if isinstance(value, list) else [value]
    names: list[str] = []
    own: list[OwnDraft] = []
    for entry in entries:
        if not isinstance(entry, dict):
            names.append(_word(entry, where))
            continue
        _refuse_unknown(entry, ("name", "suffix", "extends", "fragments", "patches"), where)
        if "name" not in entry:
            raise FarmError(Code.INVALID_ARGUMENT, "a flavour without a name", where=where, hint="{name: foo, fragments: [foo.config]}")
        name = _word(entry["name"], where)
        names.append(name)
        own.append(
            OwnDraft(
                name=name,
                suffix=_word(entry.get("suffix", f"-{name}"), where),
                extends=_word(entry.get("extends", "plain"), where),
                fragments=_paths(_words(entry.get("fragments", []), where)),
                patches=_paths(_words(entry.get("patches", []), where)),
            )
        )
    return tuple(names), tuple(own)


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


def _paths(words: Iterable[str]) -> tuple[Path, ...]:
    return tuple(Path(word) for word in words)


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
    arch_configs = [ArchConfig(arch=arch, fragments=_each(named, paths, "config fragment")) for arch, paths in draft.arch_fragments]
    patches: tuple[NamedBlob, ...] = ()
    if draft.base == SERIES:
        chosen = series.load(draft.series or series.of_source(source))
        config = ConfigSpec(base="defconfig", base_fragments=_each(named, [chosen.config], "series config"))
        here = [(arch, path) for arch, path in chosen.arch_configs.items() if arch in draft.arch]
        arch_configs += [ArchConfig(arch=arch, base_fragments=_each(named, [path], "series config")) for arch, path in sorted(here)]
        patches = _each(named, chosen.patches, "patch")
    elif draft.base not in CONFIG_BASES:
        if not (draft.folder / draft.base).is_file():
            _refuse_base(draft.base)
        config = ConfigSpec(base="file", file=named(Path(draft.base), "base config"))
    config = replace(config, fragments=_each(named, draft.fragments, "config fragment"))
    own = [
        OwnFlavour(
            name=each.name,
            suffix=each.suffix,
            extends=each.extends,
            fragments=_each(named, each.fragments, "config fragment"),
            patches=_each(named, _patch_files(draft.folder, each.patches), "patch"),
        )
        for each in draft.own_flavours
    ]
    spec = RequestSpec(
        source=source,
        arches=draft.arch,
        flavours=draft.flavours,
        config=config,
        patches=(*patches, *_each(named, _patch_files(draft.folder, draft.patches), "patch")),
        toolchain=draft.toolchain,
        outputs=draft.outputs,
        local_version=draft.local_version,
        skip_boot=not draft.boot,
        arch_configs=tuple(arch_configs),
        own_flavours=tuple(own),
    )
    return Prepared(spec=spec, uploads=uploads)


def _each(named: Callable[[Path, str], NamedBlob], paths: Iterable[Path], what: str) -> tuple[NamedBlob, ...]:
    return tuple(named(path, what) for path in paths)


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
    near = difflib.get_close_matches(base, (*CONFIG_BASES, SERIES), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join((*CONFIG_BASES, SERIES))}, or the path of a complete .config"
    raise FarmError(Code.MISSING_FILE, f"no such base config: {base!r} is neither a known name nor a file", where="config.base", hint=hint)


def _patch_files(folder: Path, paths: Iterable[Path]) -> list[Path]:
    """Files as named; a folder stands for its *.patch files in the order of their names (numeric prefixes give the order)."""
    found: list[Path] = []
    for path in paths:
        full = folder / path
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
