"""What the signer reads, and how often: a refusal that stays true is remembered, and nobody is read for who has gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from coordinator.events import Event, Failed, Launched, Retried
from coordinator.journal_reader import JournalReader
from coordinator.signer.evidence import Evidence
from coordinator.signer.work import Signer
from kernel import oci
from kernel.errors import Code, FarmError, Problem
from kernel.steps import Artifact, StepKind, Usage
from kernfarm import contents, layers
from kernfarm.blobs import BlobStore
from tests.fakes.built import FakeBuild
from tests.fakes.lies import LIES, repackage
from tests.fakes.signed import BUILDER, REFERENCE, new_key, two_builds

KEY = new_key()


class CountingStore(BlobStore):
    """A build's own store; `read` has the digests that were streamed."""

    def __init__(self, build: FakeBuild) -> None:
        super().__init__(build.blobs._store, name=build.blobs.name, folder=build.blobs._folder)
        self.read: list[str] = []

    def stream(self, digest: str, *, offset: int = 0) -> Iterator[bytes]:
        self.read.append(digest)
        return super().stream(digest, offset=offset)


def counting(build: FakeBuild) -> tuple[Signer, CountingStore]:
    store = CountingStore(build)
    return Signer(KEY, Evidence(JournalReader(build.journal_url)), store, builder_id=BUILDER, reference=REFERENCE), store


def said_by(one: Signer, build: FakeBuild) -> Problem:
    with pytest.raises(FarmError) as caught:
        one.sign(build.build_id)
    return caught.value.problem


def retried(build: FakeBuild, number: int) -> list[Event]:
    """The signer's no in the journal, and somebody who tries again."""
    attempt, at = f"{build.build_id}/sign/{number}", 1_800_000_000.0 + number
    launched = Launched(at=at, build_id=build.build_id, step="sign", attempt_id=attempt, worker_id="signer", worker_name="signer")
    no = Problem(code=Code.SIGNING_REFUSED, message="no")
    return [
        launched,
        Failed(at=at, attempt_id=attempt, problem=no, usage=Usage()),
        Retried(at=at, build_id=build.build_id),
        replace(launched, attempt_id=f"{attempt}b"),
    ]


@pytest.mark.parametrize("name", ["another platform", "another artifact", "a blob that the index does not lead to"])
def test_a_refused_build_that_is_retried_is_not_read_again(tmp_path: Path, name: str) -> None:
    build = FakeBuild(tmp_path)
    LIES[name][0](build)
    read_once(build)


@pytest.mark.parametrize(
    ("module", "bound", "most", "words"), [(contents, "_MOST_BYTES", 5000, "unpacks to more"), (layers, "_MOST_FILES", 3, "members")]
)
def test_a_layer_that_is_refused_for_its_cost_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, bound: str, most: int, words: str
) -> None:
    monkeypatch.setattr(module, bound, most)
    assert words in read_once(FakeBuild(tmp_path)).message


@pytest.mark.parametrize("part", ["config", "layer"])
def test_a_blob_that_is_said_to_be_smaller_is_not_read_again(tmp_path: Path, part: str) -> None:
    """Reading stops where the descriptor does, so it is proved apart that the blob is what it is called."""
    build = FakeBuild(tmp_path)
    manifest = json.loads(build.blobs.get_bytes(build.image.manifest))
    understated = manifest["config"] if part == "config" else manifest["layers"][0]
    understated["size"] -= 1
    document = oci.document(oci.MANIFEST, manifest)
    (entry,) = json.loads(build.blobs.get_bytes(build.image.index))["manifests"]
    index = oci.index_of([{**entry, **document.descriptor()}])
    made = [Artifact(name=each.media_type, digest=build.blobs.put_bytes(each.data), size=len(each.data)) for each in (document, index)]
    repackage(build, index=index.digest, manifest=document.digest, blobs=(*build.image.blobs, *made))
    assert f"longer than the {understated['size']} bytes" in read_once(build).message


def read_once(build: FakeBuild) -> Problem:
    """What the signer says, twice, of a build that it reads the first time only."""
    journal = build.play()
    one, store = counting(build)
    first = said_by(one, build)
    assert store.read
    store.read.clear()
    build.record(journal, *retried(build, 1))
    journal.close()
    assert said_by(one, build) == first
    assert store.read == []
    return first


def test_a_refusal_does_not_outlive_its_reason(tmp_path: Path) -> None:
    """Blobs that the store has damaged or lost may be there again, and a step that is done again may make something else."""
    build = FakeBuild(tmp_path)
    build.play().close()
    one, _ = counting(build)
    layer = next(blob for blob in build.image.blobs if blob.name == "layer-0")
    data = build.blob_file(layer.digest).read_bytes()
    build.blob_file(layer.digest).write_bytes(data + b"more")
    assert said_by(one, build).code is Code.BLOB_LOST
    assert said_by(one, build).code is Code.BLOB_LOST
    build.blob_file(layer.digest).write_bytes(data)
    assert one.sign(build.build_id).attachments


def test_an_unfinished_build_that_was_refused_is_signed_when_it_is_finished(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path)
    journal = build.play(StepKind.PACKAGE)
    one, _ = counting(build)
    assert said_by(one, build).code is Code.SIGNING_REFUSED
    build._step(journal, StepKind.BOOT)
    journal.close()
    assert one.sign(build.build_id).attachments


@pytest.mark.parametrize("index", [False, True])
def test_reading_ends_when_the_caller_has_gone(tmp_path: Path, index: bool) -> None:
    builds, _, _ = two_builds(tmp_path, KEY)
    one, store = counting(builds[0])
    before = {each for each in (tmp_path / "blobs").rglob("*") if each.is_file()}
    asked: list[None] = []

    def gone() -> bool:
        """After the first chunk."""
        asked.append(None)
        return len(asked) > 1

    ids = [each.build_id for each in builds]
    with pytest.raises(FarmError, match="caller has gone") as caught:
        if index:
            one.sign_index(ids, gone)
        else:
            one.sign(ids[0], gone)
    assert caught.value.problem.code is Code.UNAVAILABLE
    # The index, and one manifest: of that no second chunk was asked for.
    assert len(store.read) == 2
    assert {each for each in (tmp_path / "blobs").rglob("*") if each.is_file()} == before
    assert one.sign(ids[0]).attachments, "it is no refusal"
