"""The signer's duty, in this process: what it signs, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coordinator import views
from coordinator.events import BlobsLost, Cancelled, Event, Launched, Succeeded
from kernel.errors import Code, FarmError, Problem
from kernel.signing import bundle, provenance, statement
from kernel.steps import SignResult, StepKind, Usage
from kernfarm import verify
from kernfarm.verify_key import VerifyKey
from kernfarm.verify_source import LayoutSource
from tests.fakes.built import RELEASE, SHA256, FakeBuild
from tests.fakes.lies import LIES
from tests.fakes.signed import BUILDER, fetch, new_key, signer, two_builds

KEY = new_key()


def refusal(build: FakeBuild, build_id: str = "") -> Problem:
    with pytest.raises(FarmError) as caught:
        signer(build, KEY).sign(build_id or build.build_id)
    return caught.value.problem


def test_a_finished_build_is_signed_and_verifies(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path)
    build.play().close()
    signed = signer(build, KEY).sign(build.build_id)
    report = verify.verify(LayoutSource(fetch(build, signed, tmp_path / "image").folder), VerifyKey.parse(KEY.public_pem, "key"))
    assert report.ok, [each for each in report.checks if not each.ok]
    assert {each.subject for each in signed.attachments} == {build.image.index, build.image.manifest}


def test_signing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path)
    build.play().close()
    assert signer(build, KEY).sign(build.build_id) == signer(build, KEY).sign(build.build_id)


def test_provenance_says_what_the_journal_says(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path)
    build.play().close()
    made = fetch(build, signer(build, KEY).sign(build.build_id), tmp_path / "image").statement(statement.PROVENANCE)
    definition, details = made.predicate["buildDefinition"], made.predicate["runDetails"]
    assert definition["buildType"] == provenance.BUILD_TYPE
    assert definition["externalParameters"]["source"] == {"kind": "kernel.org", "ref": "6.1.999", "digest": ""}
    assert definition["internalParameters"]["release"] == RELEASE
    assert definition["internalParameters"]["boot"] == "passed"
    assert "domain" not in definition["externalParameters"], "a team's name is not published"
    assert definition["resolvedDependencies"][0]["digest"] == {"sha256": SHA256}
    assert definition["resolvedDependencies"][0]["annotations"]["signer"] == "A" * 40
    assert details["builder"] == {"id": BUILDER}
    assert details["metadata"]["invocationId"] == build.build_id
    assert details["metadata"]["startedOn"] < details["metadata"]["finishedOn"]
    record = json.loads(build.blobs.get_bytes(f"sha256:{details['byproducts'][0]['digest']['sha256']}"))
    assert record["build"] == build.build_id
    assert {subject.name for subject in made.subjects} == {"image kernel", "image kernel linux/amd64", *build.files}


def test_an_index_over_two_architectures_is_signed_and_verifies(tmp_path: Path) -> None:
    builds, made, image = two_builds(tmp_path, KEY)
    report = verify.verify(LayoutSource(image.folder), VerifyKey.parse(KEY.public_pem, "key"), builder=BUILDER, booted=True)
    assert report.ok, [each for each in report.checks if not each.ok]
    assert report.image == made.index.digest
    again = signer(builds[0], KEY).sign_index([build.build_id for build in builds])
    assert again == made


def test_the_records_that_provenance_names_are_for_the_builds_team(tmp_path: Path) -> None:
    """Whoever may have the image may look at how it came about; the index over several builds names the same records."""
    builds, _, image = two_builds(tmp_path, KEY)
    named = set()
    for entry in image.index["manifests"]:
        if image.is_referrer(entry, statement.PROVENANCE):
            sealed = bundle.parse(image.read(image.json(entry["digest"])["layers"][0]["digest"]))
            byproducts = statement.parse(sealed.payload).predicate["runDetails"]["byproducts"]
            named |= {f"sha256:{each['digest']['sha256']}" for each in byproducts}
    assert len(named) == 2
    assert named <= {digest for build in builds for digest in views.results(build.state)}


def test_an_index_is_over_finished_builds_of_one_kernel_only(tmp_path: Path) -> None:
    build, other = FakeBuild(tmp_path, build_id="b-1"), FakeBuild(tmp_path, build_id="b-2", platform="linux/arm64")
    twice = FakeBuild(tmp_path, build_id="b-3")
    for each in (build, twice):
        journal = each.play()
        each.sign(journal, signer(each, KEY).sign(each.build_id))
        journal.close()
    other.play().close()
    for ids, said in (
        (("b-1", "b-2"), "the build is running"),
        (("b-1", "b-9"), "knows no such build"),
        (("b-1", "b-3"), "two images for one platform"),
    ):
        with pytest.raises(FarmError, match=said) as caught:
            signer(build, KEY).sign_index(ids)
        assert caught.value.problem.code is Code.SIGNING_REFUSED


def test_builds_that_make_no_index_are_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    builds, _, _ = two_builds(tmp_path, KEY)
    twin = FakeBuild(tmp_path, build_id="b-3")
    journal = twin.play()
    twin.sign(journal, signer(twin, KEY).sign(twin.build_id))
    journal.close()
    for build in (*builds, twin):
        build.blob_file(build.image.index).unlink(missing_ok=True)
    with pytest.raises(FarmError, match="two images for one platform"):
        signer(twin, KEY).sign_index([builds[0].build_id, twin.build_id])


def test_a_build_without_a_boot_step_is_signed_when_it_is_packaged(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path, boot=False)
    build.play(StepKind.PACKAGE).close()
    image = fetch(build, signer(build, KEY).sign(build.build_id), tmp_path / "image")
    key = VerifyKey.parse(KEY.public_pem, "key")
    assert verify.verify(LayoutSource(image.folder), key).ok
    failed = [each.name for each in verify.verify(LayoutSource(image.folder), key, booted=True).checks if not each.ok]
    assert failed == ["booted"]


@pytest.mark.parametrize(
    ("until", "words"),
    [(StepKind.SOURCE, "package step is"), (StepKind.LINK, "package step is"), (StepKind.PACKAGE, "boot step is")],
)
def test_an_unfinished_or_unbooted_build_is_refused(tmp_path: Path, until: StepKind, words: str) -> None:
    build = FakeBuild(tmp_path)
    build.play(until).close()
    problem = refusal(build)
    assert problem.code is Code.SIGNING_REFUSED
    assert words in problem.message


def test_an_unknown_build_is_refused(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path)
    build.play().close()
    assert refusal(build, "20260101-000000-000000").code is Code.SIGNING_REFUSED


def test_a_cancelled_build_is_refused(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path)
    journal = build.play(StepKind.PACKAGE)
    build.record(journal, Cancelled(at=1_800_000_000.0, build_id=build.build_id))
    journal.close()
    assert "the build is cancelled" in refusal(build).message


def test_the_signer_follows_the_journal_and_notices_another_one(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path)
    journal = build.play(StepKind.PACKAGE)
    one = signer(build, KEY)
    with pytest.raises(FarmError, match="boot step is"):
        one.sign(build.build_id)
    build._step(journal, StepKind.BOOT)
    assert one.sign(build.build_id).attachments
    journal.close()
    for path in tmp_path.glob("journal.sqlite*"):
        path.unlink()
    fresh = FakeBuild(tmp_path, build_id="20270101-000000-abcdef", boot=False)
    fresh.play(StepKind.SOURCE).close()
    with pytest.raises(FarmError, match="no such build"):
        one.sign(build.build_id)


@pytest.mark.parametrize("name", ["index", "manifest", "config", "layer-0", "layer-1"])
@pytest.mark.parametrize("damage", ["changed", "cut", "longer", "gone"])
def test_a_damaged_blob_is_named_and_nothing_is_signed(tmp_path: Path, name: str, damage: str) -> None:
    """It is the store's loss, and made again: the coordinator hears which one."""
    build = FakeBuild(tmp_path)
    build.play().close()
    digest = next(blob.digest for blob in build.image.blobs if blob.name == name)
    path, data = build.blob_file(digest), build.blob_file(digest).read_bytes()
    before = {each for each in (tmp_path / "blobs").rglob("*") if each.is_file()}
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": data[:-1], "longer": data + b"\n", "changed": bytes([data[0] ^ 1]) + data[1:]}[damage])
    problem = refusal(build)
    assert problem.code is Code.BLOB_LOST, problem
    assert digest in f"{problem.where} {problem.message}"
    assert not {each for each in (tmp_path / "blobs").rglob("*") if each.is_file()} - before


@pytest.mark.parametrize("name", LIES)
def test_a_package_that_is_not_what_the_journal_says_is_refused(tmp_path: Path, name: str) -> None:
    tell, words = LIES[name]
    build = FakeBuild(tmp_path)
    tell(build)
    build.play().close()
    problem = refusal(build)
    assert problem.code is Code.SIGNING_REFUSED
    assert words in problem.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source_sha256": "0" * 64}, "kernel-source-info says SOURCE_SHA256"),
        ({"source_sha256": "none"}, "no digest of the source"),
        ({"files": {"kernel_config": b"CONFIG_EVIL=y\n"}}, "the image has the config"),
        ({"files": {"kernel-source-info": b"KERNEL_SOURCE=elsewhere\n"}}, "kernel-source-info says"),
    ],
)
def test_an_image_that_is_made_from_something_else_than_the_journal_says_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    build = FakeBuild(tmp_path, **changes)
    build.play().close()
    assert words in refusal(build).message


def test_a_build_whose_blobs_were_lost_is_refused(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path)
    journal = build.play()
    build.record(journal, *finished(build))
    journal.close()
    assert "are gone" in refusal(build).message


def finished(build: FakeBuild) -> list[Event]:
    """The build signed, and then its blobs lost."""
    attempt = f"{build.build_id}/sign/1"
    at = 1_800_000_000.0
    return [
        Launched(at=at, build_id=build.build_id, step="sign", attempt_id=attempt, worker_id="signer", worker_name="signer"),
        Succeeded(at=at, attempt_id=attempt, result=SignResult(attachments=()), usage=Usage()),
        BlobsLost(at=at, build_id=build.build_id, digests=(build.image.index,)),
    ]
