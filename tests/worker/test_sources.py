"""The source step against real git and apt, and with uploaded tarballs; kernel.org has a module of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel.errors import Code
from kernel.spec import SourceKind, SourceSpec
from kernfarm import process
from kernfarm.settings import SourceSettings
from tests.fakes import fake_linux
from tests.worker.sourcing import ENV, refused, run, upload
from worker import trees
from worker.node import Node

VERSION = fake_linux.VERSION


# git


def git(folder: Path, *words: str) -> str:
    env = {**ENV, "HOME": str(folder), "GIT_COMMITTER_DATE": "1000000000 +0000", "GIT_AUTHOR_DATE": "1000000000 +0000"}
    argv = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(folder), *words)
    done = process.run(argv, env=env, timeout_seconds=60)
    assert done.code == 0, done.output
    return done.output.decode().strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = fake_linux.write(tmp_path / "linux.git")
    git(folder, "init", "--quiet", "--initial-branch=master")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=first")
    git(folder, "tag", "v6.1.999")
    git(folder, "config", "uploadpack.allowReachableSHA1InWant", "true")
    return folder


LOCAL = SourceSettings(git_protocols=("file",))


def from_git(folder: Path, ref: str) -> SourceSpec:
    return SourceSpec(kind=SourceKind.GIT, ref=f"file://{folder}@{ref}")


def test_tag_branch_and_commit_of_one_commit_are_one_tree(node: Node, repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    results = [run(node, from_git(repository, ref), LOCAL) for ref in ("v6.1.999", "master", commit)]
    assert len({result.tree.tarball for result in results}) == 1
    assert {result.facts.resolved for result in results} == {commit}
    assert results[0].tree.version == VERSION


@pytest.mark.parametrize(
    ("ref", "code"), [("v7.0", Code.BAD_SOURCE), ("0" * 40, Code.BAD_SOURCE), ("-x", Code.BAD_SOURCE), ("a..b", Code.BAD_SOURCE)]
)
def test_refs_that_are_not_there(node: Node, repository: Path, ref: str, code: Code) -> None:
    assert refused(node, from_git(repository, ref), LOCAL)[0] is code


@pytest.mark.parametrize("url", ["file:///etc", "git://example.org/x", "http://example.org/x", "ext::sh -c id", "--upload-pack=id"])
def test_protocols_that_are_not_authenticated_are_refused(node: Node, url: str) -> None:
    code, said = refused(node, SourceSpec(kind=SourceKind.GIT, ref=f"{url}@v1"))
    assert code is Code.BAD_SOURCE
    assert "not allowed" in said


def test_hooks_and_attributes_of_a_repository_do_not_run(node: Node, repository: Path, tmp_path: Path) -> None:
    """`git archive` honours export-subst and -ignore of the tree's attributes, which are data, but runs no filter of it."""
    (repository / ".gitattributes").write_text("Makefile filter=evil\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message=second")
    git(repository, "config", "filter.evil.smudge", f"touch {tmp_path}/owned")
    run(node, from_git(repository, "master"), LOCAL)
    assert not (tmp_path / "owned").exists()


# file


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz", ".tar.zst"])
def test_tarballs_of_every_compression_give_the_same_tree(node: Node, tmp_path: Path, suffix: str) -> None:
    result = run(node, upload(node, fake_linux.tarball(tmp_path / f"linux{suffix}")))
    with node.trees.checkout(result.tree, node.sandbox) as checkout:
        assert trees.read_bytes(checkout.path, "Makefile") == fake_linux.files()["Makefile"]


def test_what_is_no_kernel_is_refused(node: Node, tmp_path: Path) -> None:
    spec = upload(node, fake_linux.tarball(tmp_path / "x.tar", {"Kconfig": None}))
    code, said = refused(node, spec)
    assert code is Code.BAD_SOURCE
    assert "no kernel tree" in said


def test_a_tarball_that_is_not_there_and_one_that_was_damaged(node: Node, tmp_path: Path, open_folder: Path) -> None:
    missing = SourceSpec(kind=SourceKind.FILE, ref="x", digest="sha256:" + "0" * 64)
    assert refused(node, missing)[0] is Code.BLOB_LOST
    spec = upload(node, fake_linux.tarball(tmp_path / "linux.tar"))
    stored = next(path for path in (open_folder / "blobs").rglob("*") if path.name in (spec.digest[7:], spec.digest[9:]))
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    stored.write_bytes(data)
    assert refused(node, spec)[0] in (Code.BLOB_LOST, Code.BAD_DIGEST)


# debian


def test_a_package_that_is_not_there_and_words_that_are_none(node: Node) -> None:
    assert refused(node, SourceSpec(kind=SourceKind.DEBIAN, ref="9.9"))[0] is Code.BAD_SOURCE
    assert refused(node, SourceSpec(kind=SourceKind.DEBIAN, ref="6.1 -o x"))[0] is Code.BAD_SOURCE
    assert refused(node, SourceSpec(kind=SourceKind.DEBIAN, ref="6.1=0.0-1"))[0] is Code.BAD_SOURCE
