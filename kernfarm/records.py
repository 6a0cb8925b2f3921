"""Result records beside an OCI layout, as `kernfarm fetch` writes them. Pushing makes tags of them, so verifying holds them against the
signed provenance; both take them from here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel import digest as digests
from kernel.errors import Code, FarmError
from kernfarm import tags
from kernfarm.regular import read_regular

ONE, SEVERAL = "result.json", "result-*.json"
# The farm's answer that it is made of has at most 8 MiB, and is written with indentation.
_MOST_BYTES = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What tags are made of. `name` is the file's; `inputs` the digest of what the build was made from, as tags.inputs_digest has it;
    `index` the digest of the build's own index."""

    name: str
    build: str
    release: str
    version: str
    inputs: str
    index: str


def of_arch(arch: str) -> str:
    """The name of one of several builds' records."""
    return SEVERAL.replace("*", arch)


def files(folder: Path) -> tuple[Path, ...]:
    """`result.json` of one build, else `result-ARCH.json` of several; or none."""
    one = folder / ONE
    return (one,) if one.exists() else tuple(sorted(folder.glob(SEVERAL)))


def read(path: Path) -> Record:
    """Raises FarmError: MISSING_FILE, BAD_ARCHIVE for what is no record of a build with an image."""
    try:
        data = read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise FarmError(Code.MISSING_FILE, f"cannot read the build's record: {error.strerror}", where=str(path)) from error
    try:
        return _record(path.name, json.loads(data))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError) as error:
        hint = "fetch the build again"
        raise FarmError(Code.BAD_ARCHIVE, f"no record of a build with an image: {error!r}", where=str(path), hint=hint) from error


def _record(name: str, body: Any) -> Record:
    build, release, version = body["build"], body["release"], body["inputs"]["tree"]["version"]
    if not all(isinstance(each, str) and each for each in (build, release, version)):
        raise ValueError("build, release and version are no text")
    # The first image, as fetch takes it.
    index = body["outputs"]["images"][0]["index"]
    digests.hex_of(index)
    return Record(name=name, build=build, release=release, version=version, inputs=tags.inputs_digest(body), index=index)
