"""Indexes over several builds: whose they are, when the signer is asked, what may be downloaded of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from coordinator.api import ANY_TEAM
from coordinator.indexes import Indexes
from coordinator.state import Build, BuildState, new_build
from kernel.errors import Code, FarmError
from kernel.spec import BuildSpec, ConfigSpec, SourceKind, SourceSpec
from kernel.steps import Artifact, Attachment, PrepareResult, SignedIndex
from kernfarm.blobs import BlobStore


def build(
    build_id: str,
    *,
    arch: str = "",
    team: str = "t",
    state: BuildState = BuildState.SUCCEEDED,
    release: str = "6.1.999",
    damaged: bool = False,
) -> Build:
    spec = BuildSpec(
        source=SourceSpec(kind=SourceKind.KERNEL_ORG, ref="6.1.999"),
        arch=arch or f"arch-{build_id}",
        flavour="plain",
        config=ConfigSpec(),
        patches=(),
        toolchain="gcc-12",
        outputs=("kernel",),
        local_version="",
        domain=team,
    )
    made = new_build(build_id, spec, "", team, 1.0, boot=False, sign=True)
    made.state = state
    made.damaged = damaged
    made.steps["prepare"].result = PrepareResult(layer="", inventory="", release=release, compiler="", compiled=1)
    return made


class FakeSigner:
    """Counts what it is asked; its documents are in the store."""

    def __init__(self, blobs: BlobStore) -> None:
        self.blobs = blobs
        self.asked: list[tuple[str, ...]] = []
        self.running = self.most = 0

    def put(self, name: str) -> Artifact:
        return Artifact(name=name, digest=self.blobs.put_bytes(name.encode()), size=len(name))

    async def __call__(self, build_ids: Sequence[str]) -> SignedIndex:
        self.asked.append(tuple(build_ids))
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        index = self.put(f"index of {' '.join(build_ids)}")
        attachment = Attachment(
            tag="t", subject=index.digest, media_type="m", artifact_type="", manifest=self.put("manifest"), blobs=(self.put("layer"),)
        )
        return SignedIndex(index=index, attachments=(attachment,))


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore.open(f"file://{tmp_path}")


async def test_the_same_builds_in_any_order_are_signed_once(blobs: BlobStore) -> None:
    signer = FakeSigner(blobs)
    indexes = Indexes(blobs, signer)
    pairs = [(build("b"), build("a")), (build("a"), build("b"))] * 3
    made = await asyncio.gather(*(indexes.signed(pair) for pair in pairs))
    assert signer.asked == [("a", "b")]
    assert len(set(made)) == 1


async def test_a_team_that_asks_for_many_does_not_keep_the_others_waiting(blobs: BlobStore) -> None:
    signer = FakeSigner(blobs)
    indexes = Indexes(blobs, signer)
    many = [indexes.signed([build("a"), build(f"b{number}")]) for number in range(5)]
    other = indexes.signed([build("x", team="u"), build("y", team="u")])
    await asyncio.gather(*many, other)
    assert signer.asked.index(("x", "y")) == 1
    assert signer.most == 1


async def test_documents_that_the_store_has_lost_are_made_again(blobs: BlobStore) -> None:
    signer = FakeSigner(blobs)
    indexes = Indexes(blobs, signer)
    made = await indexes.signed([build("a"), build("b")])
    blobs.delete(made.attachments[0].blobs[0].digest)
    assert await indexes.signed([build("a"), build("b")]) == made
    assert len(signer.asked) == 2
    assert blobs.has(made.attachments[0].blobs[0].digest)


async def test_its_blobs_are_for_the_builds_team(blobs: BlobStore) -> None:
    indexes = Indexes(blobs, FakeSigner(blobs))
    made = await indexes.signed([build("a"), build("b")])
    for digest in (made.index.digest, made.attachments[0].manifest.digest, made.attachments[0].blobs[0].digest):
        assert indexes.made("t", digest)
        assert indexes.made(ANY_TEAM, digest)
        assert not indexes.made("other", digest)
    assert not indexes.made("t", blobs.put_bytes(b"something else"))


@pytest.mark.parametrize(
    ("builds", "said"),
    [
        ([build("a")], "two to"),
        ([build("a"), build("a")], "two to"),
        ([build(str(number)) for number in range(17)], "two to"),
        ([build("a"), build("b", team="u")], "different teams"),
        ([build("a"), build("b", state=BuildState.RUNNING)], "running"),
        ([build("a"), build("b", state=BuildState.FAILED)], "failed"),
        ([build("a"), build("b", damaged=True)], "lost its image"),
        ([build("a", arch="arm64"), build("b", arch="arm64")], "for one architecture"),
        ([build("a"), build("b", release="6.1.999-dbg")], "different kernels"),
    ],
)
async def test_builds_that_make_no_index_are_refused(blobs: BlobStore, builds: list[Build], said: str) -> None:
    signer = FakeSigner(blobs)
    with pytest.raises(FarmError, match=said) as caught:
        await Indexes(blobs, signer).signed(builds)
    assert caught.value.problem.code is Code.INVALID_ARGUMENT
    assert signer.asked == []


async def test_a_farm_that_does_not_sign_says_so(blobs: BlobStore) -> None:
    with pytest.raises(FarmError, match="signs nothing"):
        await Indexes(blobs, None).signed([build("a"), build("b")])
