"""`git:URL@REF`: exactly one commit, fetched shallow; no hooks, no submodules, no configuration of ours or theirs."""

from __future__ import annotations

import re
import tempfile
import urllib.parse
from pathlib import Path

import zstandard

from kernel.errors import Code, FarmError
from kernfarm import process
from worker.context import Context
from worker.sandbox import HOST_PATH
from worker.sources.fetched import Fetched

_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def fetch(context: Context, text: str) -> Fetched:
    """Raises FarmError: BAD_SOURCE (address, protocol, no such ref), FETCH_FAILED."""
    url, at, ref = text.rpartition("@")
    if not at or _REF.fullmatch(ref) is None or ".." in ref:
        raise FarmError(Code.BAD_SOURCE, f"no git source: {text!r}", where="source", hint="git:https://HOST/REPOSITORY@TAG")
    scheme = urllib.parse.urlsplit(url).scheme
    allowed = context.sources.git_protocols
    if scheme not in allowed:
        raise FarmError(Code.BAD_SOURCE, f"the protocol of {url!r} is not allowed", where="source", hint=f"one of {', '.join(allowed)}")
    repository = context.scratch / "git"
    _git(context, "init", "--quiet", "--bare", str(repository), allowed=allowed)
    wanted = ref if _COMMIT.fullmatch(ref) else f"{ref}:refs/kernfarm/wanted"
    _git(context, "-C", str(repository), "fetch", "--quiet", "--depth=1", "--no-tags", "--", url, wanted, allowed=allowed)
    commit = _git(context, "-C", str(repository), "rev-parse", "--verify", "FETCH_HEAD^{commit}", allowed=allowed).decode().strip()
    if _COMMIT.fullmatch(ref) and commit != ref:
        raise FarmError(Code.BAD_DIGEST, f"asked for commit {ref}, got {commit}", where=url)
    digest = _archive(context, repository, commit)
    return Fetched(tarball=digest, url=f"git:{url}@{ref}", resolved=commit, sha256=digest.removeprefix("sha256:"), signer="")


def _archive(context: Context, repository: Path, commit: str) -> str:
    """The commit's tree as a tarball: `git archive` takes times from the commit, so the same commit gives the same bytes."""
    plain = context.scratch / "tree.tar"
    with plain.open("wb") as sink:
        argv = ("git", "-C", str(repository), "archive", "--format=tar", "--prefix=linux/", commit)
        done = process.run(
            argv, env=_env(context, ()), timeout_seconds=context.sources.fetch_timeout_seconds, stdout=sink, cancel=context.cancel
        )
    if done.code != 0:
        raise FarmError(Code.BAD_SOURCE, "git archive failed: " + done.output.decode(errors="replace")[-200:], where=commit)
    with tempfile.NamedTemporaryFile(dir=context.scratch) as packed, plain.open("rb") as source:
        zstandard.ZstdCompressor(level=6).copy_stream(source, packed)
        packed.flush()
        digest, _ = context.blobs.put_file(Path(packed.name))
    plain.unlink()
    return digest


def _env(context: Context, allowed: tuple[str, ...]) -> dict[str, str]:
    return {
        "PATH": HOST_PATH,
        "LC_ALL": "C",
        "HOME": str(context.scratch),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": ":".join(allowed),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }


def _git(context: Context, *words: str, allowed: tuple[str, ...]) -> bytes:
    argv = ("git", *words)
    timeout = context.sources.fetch_timeout_seconds
    done = process.run(argv, env=_env(context, allowed), timeout_seconds=timeout, on_line=context.log, cancel=context.cancel)
    if done.code == 0:
        return done.output
    said = done.output.decode(errors="replace").strip()
    if "couldn't find remote ref" in said or "not our ref" in said or "not found" in said or "does not exist" in said:
        raise FarmError(Code.BAD_SOURCE, said.splitlines()[-1], where="source", hint="check address and ref with `git ls-remote`")
    raise FarmError(Code.FETCH_FAILED, said.splitlines()[-1] if said else f"git ended with {done.code}", where="source")
