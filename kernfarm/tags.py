"""The tags of kernel images, in LinuxKit's vocabulary. Pure.

V version, F D what the flavours add (`-foo`, `-rt`, `-dbg`), H hash of everything that can change the output, A `amd64` or `arm64`:
`V F D-H-A` and `V F D-A` name one architecture, `V F D-H` and `V F D` the index over all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kernel import digest as digests
from kernel.errors import Code, FarmError

# OCI distribution specification 1.1, "Pulling manifests".
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LOCAL_VERSION = "-linuxkit"
# As long as the git hashes that LinuxKit's own tags end in.
_HASH_LENGTH = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """`index` are the tags of the index over all architectures, `arch` those of each one by OCI's name. Those with a hash come first, and
    never change their content; the others, in `moving`, follow the newest build."""

    index: tuple[str, ...]
    arch: dict[str, tuple[str, ...]]
    moving: frozenset[str]


def tags(*, release: str, version: str, content: str, arches: Sequence[str]) -> Tags:
    """The tags of the builds of one flavour. `content` as content_hash gives it; `arches` in OCI's words.

    Raises FarmError(INVALID_ARGUMENT) for what no tag can hold."""
    plain = check(version + suffix(release, version))
    hashed = check(f"{plain}-{content}")
    per_arch: dict[str, tuple[str, ...]] = {arch: (check(f"{hashed}-{arch}"), check(f"{plain}-{arch}")) for arch in arches}
    return Tags(index=(hashed, plain), arch=per_arch, moving=frozenset({plain, *(f"{plain}-{arch}" for arch in arches)}))


def suffix(release: str, version: str) -> str:
    """F and D: what `uname -r` has behind the version, without `-linuxkit`; another local version stays, since it names another kernel."""
    if not release.startswith(version):
        raise FarmError(Code.INVALID_ARGUMENT, f"the release does not begin with the source's version {version!r}", where=release)
    return release.removeprefix(version).removeprefix(_LOCAL_VERSION)


def content_hash(inputs: Sequence[str]) -> str:
    """H of builds that are published together, from the inputs_digest of each, in any order."""
    return digests.hex_of(digests.of_value(sorted(inputs)))[:_HASH_LENGTH]


def inputs_digest(record: Mapping[str, Any]) -> str:
    """Digest of everything that can change the output of a build: of `inputs` and `toolchain` in its result record.

    Whose the build was is left out: it changes no byte. Numbers are taken by value, since a record that came as JSON has 1.0 for 1."""
    return digests.of_value(_inputs(record))


def _inputs(record: Mapping[str, Any]) -> dict[str, Any]:
    inputs = dict(record["inputs"])
    inputs["spec"] = {key: value for key, value in inputs["spec"].items() if key != "domain"}
    return {"inputs": _by_value(inputs), "toolchain": _by_value(record["toolchain"])}


def _by_value(plain: Any) -> Any:
    if isinstance(plain, Mapping):
        return {str(key): _by_value(value) for key, value in plain.items()}
    if isinstance(plain, (list, tuple)):
        return [_by_value(value) for value in plain]
    if isinstance(plain, float) and plain.is_integer():
        return int(plain)
    return plain


def is_tag(text: str) -> bool:
    """Whether a registry accepts this as a tag."""
    return _TAG.fullmatch(text) is not None


def check(tag: str) -> str:
    """The tag itself. Raises FarmError(INVALID_ARGUMENT) when a registry would refuse it."""
    if not is_tag(tag):
        hint = "a tag has at most 128 letters, digits, '_', '.', '-', and begins with none of '.-'; see --local-version"
        raise FarmError(Code.INVALID_ARGUMENT, "no registry accepts this as a tag", where=tag, hint=hint)
    return tag


def repository(org: str, name: str = "kernel") -> str:
    """Where an organization's images are: `linuxkit` is docker.io/linuxkit, `ghcr.io/acme` itself."""
    first = org.split("/")[0]
    has_host = "." in first or ":" in first or first == "localhost"
    return f"{org}/{name}" if has_host else f"docker.io/{org}/{name}"
