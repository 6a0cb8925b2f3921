"""`kernfarm verify` on a layout that the real signer has signed: it holds, and each way to tamper with it is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kernel import oci
from kernel.errors import Code, FarmError
from kernel.signing import attach, bundle, cosign, statement
from kernel.signing.dsse import Envelope
from kernel.signing.statement import PROVENANCE, SPDX, Statement, Subject
from kernfarm import publication
from kernfarm import verify as verifier
from kernfarm.cli import main
from kernfarm.verify_key import VerifyKey
from kernfarm.verify_source import LayoutSource
from tests.fakes.built import FakeBuild
from tests.fakes.signed import BUILDER, Layout, fetch, seal, signer, two_builds
from tests.fakes.tampering import KEY, STRANGER, STRANGERS, TAMPERED, change_record, first_layer, flip, other_layer, put_index, sign_index


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("signed")
    build = FakeBuild(home)
    journal = build.play()
    fetch(build, signer(build, KEY).sign(build.build_id), home / "image")
    journal.close()
    return home / "image"


@pytest.fixture
def image(pristine: Path, tmp_path: Path) -> Layout:
    """A copy to tamper with."""
    shutil.copytree(pristine, tmp_path / "image")
    return Layout(tmp_path / "image")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Another image that the same farm has signed."""
    home = tmp_path_factory.mktemp("other")
    build = FakeBuild(home, files={"kernel": b"another kernel"})
    journal = build.play()
    made = fetch(build, signer(build, KEY).sign(build.build_id), home / "image")
    journal.close()
    return made


def check(image: Layout, builder: str = "") -> verifier.Report:
    return verifier.verify(LayoutSource(image.folder), VerifyKey.parse(KEY.public_pem, "key"), builder=builder)


def test_what_the_signer_signed_holds(image: Layout) -> None:
    report = check(image, builder=BUILDER)
    assert report.ok, [each for each in report.checks if not each.ok]
    assert report.builder == BUILDER
    names = [each.name for each in report.checks]
    assert {"signature", "signature bundle", "platform", "manifest", "config", "layer", "provenance tag", "SBOM bundle"} <= set(names)
    assert names.count("signature") == 2, "the index and the manifest of its platform"


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_image_is_refused_by_name(image: Layout, other: Layout, name: str) -> None:
    tamper, wanted, words = TAMPERED[name]
    tamper(image, other)
    report = check(image, builder=BUILDER)
    failed = {each.name: str(each.problem) for each in report.checks if not each.ok}
    assert wanted in failed, failed
    assert words in failed[wanted], failed


def test_the_records_of_several_builds_are_each_held_against_their_own(tmp_path: Path) -> None:
    _, _, image = two_builds(tmp_path, KEY)
    report = check(image)
    assert [each.where for each in report.checks if each.name == "result record"] == ["result-arm64.json", "result-x86_64.json"]
    assert report.ok, [each for each in report.checks if not each.ok]
    own = {name: json.loads((image.folder / name).read_text())["outputs"] for name in ("result-arm64.json", "result-x86_64.json")}
    body = json.loads((image.folder / "result-arm64.json").read_text())
    (image.folder / "result-arm64.json").write_text(json.dumps({**body, "outputs": own["result-x86_64.json"]}))
    failed = [(each.name, each.where) for each in check(image).checks if not each.ok]
    assert failed == [("result record", "result-arm64.json")]


def test_an_image_without_a_record_needs_none(image: Layout) -> None:
    (image.folder / "result.json").unlink()
    assert check(image).ok


@pytest.mark.parametrize(
    ("path", "value"), [(("release",), "6.1.999-linuxkit-rt"), (("inputs", "spec", "flavour"), "dbg"), (("build",), "b")]
)
def test_a_record_that_contradicts_its_provenance_is_not_pushed_either(image: Layout, path: tuple[str, ...], value: str) -> None:
    """Its tags would be those of another kernel; no key is needed to see that."""
    publication.read(image.folder)
    change_record(image, *path, value=value)
    with pytest.raises(FarmError, match="the record") as caught:
        publication.read(image.folder)
    assert caught.value.problem.code is Code.BAD_SIGNATURE


@pytest.mark.parametrize("how", STRANGERS)
def test_a_strangers_image_in_the_layout_is_not_pushed_either(image: Layout, other: Layout, how: str) -> None:
    """It would be at a tag that people follow, and the farm's image beside it."""
    STRANGERS[how](image, other)
    with pytest.raises(FarmError, match="not of this image") as caught:
        publication.read(image.folder)
    assert caught.value.problem.code is Code.BAD_ARCHIVE


@pytest.mark.parametrize(("kind", "check_name"), [(PROVENANCE, "provenance of all"), (SPDX, "SBOM of all")])
def test_an_index_needs_documents_about_each_platform(tmp_path: Path, kind: str, check_name: str) -> None:
    builds, _, image = two_builds(tmp_path, KEY)
    arm64 = builds[1].image.manifest
    kept = [each for each in envelopes(image, kind) if arm64 not in statement.parse(each.payload).digests()]
    assert len(kept) == 1
    image.remove(lambda entry: image.is_referrer(entry, kind))
    image.add(attach.referrer(image.target, kind, bundle.encode(kept[0], KEY.public_der), "2026-01-01T00:00:00Z"))
    image.add(attach.attestations(image.target, [(kind, kept[0])]))
    failed = {each.name: each.problem for each in check(image).checks if each.problem is not None}
    assert "linux/arm64" in failed[check_name].message


def test_documents_of_one_platform_do_not_pass_for_another(tmp_path: Path) -> None:
    """What says it is about both, and describes one."""
    builds, _, image = two_builds(tmp_path, KEY)
    amd64 = next(each for each in envelopes(image, PROVENANCE) if builds[0].image.manifest in statement.parse(each.payload).digests())
    made = statement.parse(amd64.payload)
    both = replace(made, subjects=(*made.subjects, Subject(name="image", digest=builds[1].image.manifest)))
    image.remove(lambda entry: image.is_referrer(entry, PROVENANCE))
    sealed = seal(both, KEY)
    image.add(attach.referrer(image.target, PROVENANCE, bundle.encode(sealed, KEY.public_der), "2026-01-01T00:00:00Z"))
    image.add(attach.attestations(image.target, [(PROVENANCE, sealed)]))
    problems = {each.name: each.problem.message for each in check(image).checks if each.problem is not None}
    assert "the provenance does not name kernel" in problems["subjects"]


def envelopes(image: Layout, kind: str) -> list[Envelope]:
    """The sealed documents of a type about the index, from their bundles."""
    entries = [each for each in image.index["manifests"] if image.is_referrer(each, kind)]
    return [bundle.parse(image.read(image.json(each["digest"])["layers"][0]["digest"])) for each in entries]


def foreign_index(image: Layout, tag: str) -> dict[str, Any]:
    """An entry for an index that nobody signed."""
    data = json.dumps(
        {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": image.json(image.image)["manifests"], "annotations": {}}
    ).encode()
    notes = {"org.opencontainers.image.ref.name": tag}
    return {"mediaType": oci.INDEX, "digest": image.put(data), "size": len(data), "annotations": notes}


@pytest.mark.parametrize("tag", [f"sha256-{'0' * 64}", "6.1.999"])
def test_another_image_in_front_of_the_signed_one_is_refused(image: Layout, tag: str) -> None:
    """It is the first entry that is pushed and unpacked."""
    image.edit(lambda entries: entries.insert(0, foreign_index(image, tag)))
    with pytest.raises(FarmError) as caught:
        LayoutSource(image.folder)
    assert caught.value.problem.code is Code.BAD_ARCHIVE


def test_a_tag_that_leads_to_two_things_is_refused(image: Layout) -> None:
    image.edit(lambda entries: entries.append({**foreign_index(image, cosign.signature_tag(image.image)), "mediaType": oci.MANIFEST}))
    with pytest.raises(FarmError, match="twice"):
        LayoutSource(image.folder)


def test_a_signed_index_that_names_nothing_is_refused(image: Layout) -> None:
    put_index(image, {"schemaVersion": 2, "mediaType": oci.INDEX})
    sign_index(image)
    assert not check(image).ok


def test_what_would_go_along_unsigned_is_named(image: Layout) -> None:
    stray = image.put(b'{"schemaVersion": 2, "mediaType": "' + oci.MANIFEST.encode() + b'", "config": {}, "layers": []}')
    image.edit(lambda entries: entries.append({"mediaType": oci.MANIFEST, "digest": stray, "size": len(image.read(stray))}))
    image.edit(lambda entries: entries.append(foreign_index(image, f"sha256-{'0' * 64}")))
    problem = next(each.problem for each in check(image).checks if each.name == "nothing else")
    assert problem is not None and stray in problem.message


def test_nothing_of_an_unsigned_image_is_unpacked(image: Layout) -> None:
    other_layer(image, image)
    report = check(image)
    assert not any(each.name == "layer" for each in report.checks)
    assert "not looked at" in str(next(each.problem for each in report.checks if each.name == "contents"))


def test_what_strangers_hang_beside_an_image_does_no_harm(image: Layout) -> None:
    """Anybody may add signatures and attestations of their own; two farms may sign one image."""
    sealed = seal(Statement(predicate_type=PROVENANCE, subjects=(Subject(name="x", digest=image.image),), predicate={}), STRANGER)
    image.remove(lambda entry: entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == cosign.referrers_tag(image.image))
    image.add(attach.referrer(image.target, PROVENANCE, bundle.encode(sealed, STRANGER.public_der), "2026-01-01T00:00:00Z"))
    assert check(image).ok


@pytest.mark.parametrize("data", [b"[" * 100_000, b"{}", b'{"manifests": 7}', b'{"manifests": [7]}', b"\xff", b'{"manifests": []}'])
def test_an_index_json_that_is_none_is_said(image: Layout, data: bytes) -> None:
    (image.folder / "index.json").write_bytes(data)
    with pytest.raises(FarmError) as caught:
        LayoutSource(image.folder)
    assert caught.value.problem.code is Code.BAD_ARCHIVE


@pytest.mark.parametrize("data", [b"[" * 100_000, b"7", b'{"layers": 7}', b'{"schemaVersion": 2, "layers": [{"digest": "x"}]}', b"\xff"])
@pytest.mark.parametrize("tag", [cosign.signature_tag, cosign.attestation_tag, cosign.referrers_tag])
def test_attachments_that_are_none_fail_their_check_only(image: Layout, data: bytes, tag: Callable[[str], str]) -> None:
    digest, name = image.put(data), tag(image.image)

    def change(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == name:
                entry |= {"digest": digest, "size": len(data)}

    image.edit(change)
    report = check(image)
    assert not report.ok
    assert any(each.ok for each in report.checks)


def run(image: Path, key: Path, *more: str) -> int:
    return main.main(["verify", str(image), "--key", str(key), *more])


def test_the_command_ends_with_0_only_when_all_holds(image: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "cosign.pub"
    key.write_bytes(KEY.public_pem)
    assert run(image.folder, key, "--builder", BUILDER, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] and said["image"] == image.image and all(each["problem"] is None for each in said["checks"])
    assert run(image.folder, key, "--builder", "urn:other") == 2
    flip(image, first_layer(image), 30)
    assert run(image.folder, key) == 2
    captured = capsys.readouterr()
    assert "FAILED\tlayer\tlinux/amd64 layer 1\t" in captured.out
    assert "damaged" in captured.err


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (None, 2, "cannot read the key"),
        (b"-----BEGIN PRIVATE KEY-----", 2, "private key"),
        (b"nothing", 2, "no public key"),
    ],
)
def test_a_key_that_is_none_is_said(
    image: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, code: int, words: str
) -> None:
    key = tmp_path / "key"
    if content is not None:
        key.write_bytes(content)
    assert run(image.folder, key) == code
    assert words in capsys.readouterr().err


def test_what_is_no_layout_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "cosign.pub"
    key.write_bytes(KEY.public_pem)
    assert run(tmp_path, key) == 2
    assert "no OCI layout" in capsys.readouterr().err
    assert run(tmp_path / "nowhere", key) == 2
