"""The source step: fetch and verify a tree."""

from __future__ import annotations

import re
from collections.abc import Callable

from kernel.errors import Code, FarmError
from kernel.spec import SourceKind, SourceSpec
from kernel.steps import SourceFacts, SourceResult, SourceTask, Tree
from worker import trees
from worker.context import Context
from worker.sources import debian, git, kernel_org
from worker.sources.fetched import Fetched

_FIELD = re.compile(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)\s*=[ \t]*(\S*)$", re.MULTILINE)


def run(context: Context, task: SourceTask) -> SourceResult:
    """Raises FarmError: FETCH_FAILED, BAD_SOURCE, BAD_DIGEST, BAD_SIGNATURE, BAD_ARCHIVE."""
    fetched = _FETCH[task.source.kind](context, task.source)
    tree = Tree(tarball=fetched.tarball, version="")
    with context.checkout(tree) as source:
        version = kernel_version(source, str(task.source))
    facts = SourceFacts(url=fetched.url, resolved=fetched.resolved, sha256=fetched.sha256, signer=fetched.signer)
    return SourceResult(tree=Tree(tarball=fetched.tarball, version=version), facts=facts)


def kernel_version(source: trees.Checkout, name: str) -> str:
    """The version as the tree's Makefile gives it, read as text: the tree is not trusted yet. Raises FarmError(BAD_SOURCE)."""
    try:
        text = trees.read_text(source.path, "Makefile")
        trees.read_text(source.path, "Kconfig")
    except OSError as error:
        raise FarmError(Code.BAD_SOURCE, "this is no kernel tree: it has no Makefile and Kconfig at its top", where=name) from error
    found = {match[1]: match[2] for match in _FIELD.finditer(text[:4096])}
    if not {"VERSION", "PATCHLEVEL", "SUBLEVEL"} <= found.keys():
        raise FarmError(Code.BAD_SOURCE, "its Makefile names no kernel version", where=name)
    return f"{found['VERSION']}.{found['PATCHLEVEL']}.{found['SUBLEVEL']}{found.get('EXTRAVERSION', '')}"


def _uploaded(context: Context, source: SourceSpec) -> Fetched:
    """A tarball of the user's; its digest names it, so reading it checks it."""
    context.blobs.size(source.digest)
    sha256 = source.digest.removeprefix("sha256:")
    return Fetched(tarball=source.digest, url=f"file:{source.ref}", resolved=source.digest, sha256=sha256, signer="")


_FETCH: dict[SourceKind, Callable[[Context, SourceSpec], Fetched]] = {
    SourceKind.FILE: _uploaded,
    SourceKind.DEBIAN: lambda context, source: debian.fetch(context, source.ref, context.sources.fetch_timeout_seconds),
    SourceKind.KERNEL_ORG: lambda context, source: kernel_org.fetch(context, source.ref),
    SourceKind.GIT: lambda context, source: git.fetch(context, source.ref),
}
