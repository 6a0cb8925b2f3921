"""What is refused at submit, with a real blob store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator import admission
from coordinator.fleet import WorkerInfo
from kernel import digest
from kernel.errors import Code, FarmError, Problem
from kernel.spec import ConfigSpec, NamedBlob, RequestSpec, SourceKind, SourceSpec
from kernfarm.blobs import BlobStore

WORKER = WorkerInfo(
    worker_id="w",
    name="worker-1",
    arches=("x86_64",),
    toolchains=("gcc-12",),
    slots=1,
    jobs=1,
    memory_bytes=1 << 30,
    sandbox="bubblewrap",
    cgroup="v2",
    ccache="4",
)
ABSENT = digest.of_bytes(b"never uploaded")
GIT = RequestSpec(source=SourceSpec(kind=SourceKind.GIT, ref="https://example.org/linux.git@v6.1"), arches=("x86_64",))


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore.open(f"file://{tmp_path}/blobs")


def refused(spec: RequestSpec, blobs: BlobStore) -> Problem:
    with pytest.raises(FarmError) as caught:
        admission.check(spec, blobs, [WORKER])
    return caught.value.problem


def file_source(name: str, uploaded: str) -> RequestSpec:
    return replace(GIT, source=SourceSpec(kind=SourceKind.FILE, ref=name, digest=uploaded))


def test_an_uploaded_source_is_fine(blobs: BlobStore) -> None:
    admission.check(file_source("linux 6.1.tar", blobs.put_bytes(b"a tarball")), blobs, [WORKER])


@pytest.mark.parametrize("text", ["garbage", "../../etc/passwd", ABSENT.upper(), ABSENT + "0", ABSENT + "\n"])
def test_a_source_with_a_digest_that_is_none_is_refused(blobs: BlobStore, text: str) -> None:
    problem = refused(file_source("linux.tar", text), blobs)
    assert (problem.code, problem.where) == (Code.INVALID_ARGUMENT, "source")


def test_a_source_that_was_never_uploaded_is_refused(blobs: BlobStore) -> None:
    problem = refused(file_source("linux.tar", ABSENT), blobs)
    assert (problem.code, problem.where) == (Code.MISSING_FILE, "linux.tar")


@pytest.mark.parametrize("name", ["a\nURL: https://evil", "a\x1b[2J", "a\u2028b", "a\x00", "x" * 1001])
@pytest.mark.parametrize("place", ["source", "git", "fragment", "patch", "base"])
def test_names_that_would_write_more_than_a_name_are_refused(blobs: BlobStore, place: str, name: str) -> None:
    file = NamedBlob(name=name, digest=blobs.put_bytes(b""))
    spec = {
        "source": file_source(name, file.digest),
        "git": replace(GIT, source=SourceSpec(kind=SourceKind.GIT, ref=f"https://example.org/{name}@v6.1")),
        "fragment": replace(GIT, config=ConfigSpec(fragments=(file,))),
        "patch": replace(GIT, patches=(file,)),
        "base": replace(GIT, config=ConfigSpec(base="file", file=file)),
    }[place]
    problem = refused(spec, blobs)
    assert problem.code is Code.INVALID_ARGUMENT
    assert problem.where in ("source", "file name")
    assert str(problem).isprintable()


@pytest.mark.parametrize(
    "ref",
    [
        "https://user:s3cret@example.org/linux.git@v6.1",
        "https://s3cret@example.org/linux.git@v6.1",
        "HTTPS://s3cret@example.org/linux.git@v6.1",
        "https:///x:s3cret@example.org/linux.git@v6.1",
        "https://user:s3cret@example.org/linux.git",
        "http://user:p@s3cret@example.org/linux.git@v6.1",
        "ssh://git:s3cret@example.org/linux.git@v6.1",
    ],
)
def test_a_token_in_a_git_address_is_refused_and_not_repeated(blobs: BlobStore, ref: str) -> None:
    problem = refused(replace(GIT, source=SourceSpec(kind=SourceKind.GIT, ref=ref)), blobs)
    assert (problem.code, problem.where) == (Code.INVALID_ARGUMENT, "source")
    assert "s3cret" not in str(problem)
    assert problem.hint


@pytest.mark.parametrize(
    "ref",
    ["https://example.org/linux.git@v6.1", "https://example.org:8443/a@b/linux@v6.1", "ssh://git@example.org/x@v1", "file:///srv/a@v1"],
)
def test_git_addresses_without_a_secret_are_fine(blobs: BlobStore, ref: str) -> None:
    admission.check(replace(GIT, source=SourceSpec(kind=SourceKind.GIT, ref=ref)), blobs, [WORKER])


@pytest.mark.parametrize("text", ["-a+b", "-a~b", "-a b", "-é", "-x\n", "-" * 41])
def test_a_local_version_that_can_be_in_no_tag_is_refused(blobs: BlobStore, text: str) -> None:
    problem = refused(replace(GIT, local_version=text), blobs)
    assert (problem.code, problem.where) == (Code.INVALID_ARGUMENT, "local_version")


@pytest.mark.parametrize("text", ["", "-linuxkit", "_a.b-1"])
def test_other_local_versions_are_fine(blobs: BlobStore, text: str) -> None:
    admission.check(replace(GIT, local_version=text), blobs, [WORKER])
