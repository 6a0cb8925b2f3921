"""`kernfarm verify` on a layout that the real signer has signed: it holds, and each way to tamper with it is refused by name."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.signer.keys import SigningKey
from kernel import digest as digests
from kernel import oci
from kernel.errors import Code, FarmError
from kernel.signing import attach, bundle, cosign, dsse, statement
from kernel.signing.dsse import Envelope
from kernel.signing.statement import PROVENANCE, SPDX, Statement, Subject
from kernfarm import verify as verifier
from kernfarm.cli import main
from kernfarm.verify_key import VerifyKey
from kernfarm.verify_source import LayoutSource
from tests.fakes.built import FakeBuild, layer
from tests.fakes.signed import BUILDER, REFERENCE, Layout, fetch, new_key, seal, signer, two_builds, with_predicate

KEY = new_key()
STRANGER = new_key()


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


# Each takes an image and the other signed image; behind it what the report has to name: a check, and words of its problem.
Tamper = Callable[[Layout, Layout], None]


def flip(image: Layout, digest: str, at: int = -1) -> None:
    data = bytearray(image.read(digest))
    data[at] ^= 1
    image.path(digest).write_bytes(bytes(data))


def rebuild(image: Layout, change: Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], None]) -> None:
    """Change index, manifest and config, and make all digests fit again: only a signature can tell."""
    index = image.json(image.image)
    manifest = image.json(index["manifests"][0]["digest"])
    config = image.json(manifest["config"]["digest"])
    change(index, manifest, config)
    data = json.dumps(config).encode()
    manifest["config"] |= {"digest": image.put(data), "size": len(data)}
    data = json.dumps(manifest).encode()
    index["manifests"][0] |= {"digest": image.put(data), "size": len(data)}
    put_index(image, index)


def put_index(image: Layout, index: dict[str, Any]) -> None:
    data = json.dumps(index).encode()
    digest = image.put(data)
    image.edit(lambda entries: entries[0].update({"digest": digest, "size": len(data)}))


def sign_index(image: Layout) -> None:
    """The farm's own signature over whatever index there is: what is wrong inside has to be noticed by itself."""
    target = image.target
    payload = cosign.payload(target.digest, REFERENCE)
    image.add(attach.signature(target, payload, KEY.sign(payload)))
    sealed = seal(statement.signature_of(Subject(name="kernel", digest=target.digest)), KEY)
    image.add(attach.referrer(target, statement.COSIGN_SIGNATURE, bundle.encode(sealed, KEY.public_der), "2026-01-01T00:00:00Z"))


def other_layer(image: Layout, _: Layout) -> None:
    packed, made = layer({"kernel": b"a kernel of mine"})

    def change(_: dict[str, Any], manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["layers"][0] |= {"digest": image.put(packed), "size": made.size}
        config["rootfs"]["diff_ids"][0] = made.diff_id

    rebuild(image, change)


def wrong_diff_id(image: Layout, _: Layout) -> None:
    rebuild(image, lambda index, manifest, config: config["rootfs"]["diff_ids"].__setitem__(0, digests.of_bytes(b"")))
    sign_index(image)


def other_platform(image: Layout, _: Layout) -> None:
    rebuild(image, lambda index, manifest, config: index["manifests"][0]["platform"].update(architecture="arm64"))
    sign_index(image)


def no_platform(image: Layout, _: Layout) -> None:
    rebuild(image, lambda index, manifest, config: index["manifests"][0].pop("platform"))
    sign_index(image)


def twice_one_platform(image: Layout, _: Layout) -> None:
    rebuild(image, lambda index, manifest, config: index["manifests"].append(dict(index["manifests"][0])))
    sign_index(image)


def wrong_size(image: Layout, _: Layout) -> None:
    rebuild(image, lambda index, manifest, config: manifest["layers"][0].update(size=manifest["layers"][0]["size"] + 1))
    sign_index(image)


def not_a_tar(image: Layout, _: Layout) -> None:
    data = gzip.compress(b"no tar" * 1000)

    def change(_: dict[str, Any], manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["layers"][0] |= {"digest": image.put(data), "size": len(data)}

    rebuild(image, change)
    sign_index(image)


def first_layer(image: Layout) -> str:
    return str(image.json(image.platform_manifest())["layers"][0]["digest"])


def other_signature(image: Layout, other: Layout) -> None:
    """The farm's signature of another image, at this one's tag."""
    donor = other.json(other.tagged(cosign.signature_tag(other.image)))["layers"][0]
    payload = other.read(donor["digest"])
    signature = dsse.decode(donor["annotations"][cosign.SIGNATURE_ANNOTATION])
    image.add(attach.signature(image.target, payload, signature))


def strange_signature(image: Layout, _: Layout) -> None:
    payload = cosign.payload(image.image, REFERENCE)
    image.add(attach.signature(image.target, payload, STRANGER.sign(payload)))


def changed_payload(image: Layout, _: Layout) -> None:
    layer = image.json(image.tagged(cosign.signature_tag(image.image)))["layers"][0]
    signature = dsse.decode(layer["annotations"][cosign.SIGNATURE_ANNOTATION])
    image.add(attach.signature(image.target, cosign.payload(image.image, "docker.io/evil/kernel"), signature))


def payload_of_another_kind(image: Layout, _: Layout) -> None:
    """Signed with the key, but not as an image's signature: a key must not be an oracle."""
    payload = dsse.to_json({"critical": {"type": "something else", "image": {"docker-manifest-digest": image.image}}})
    image.add(attach.signature(image.target, payload, KEY.sign(payload)))


def without(kind: str) -> Tamper:
    return lambda image, _: image.replace(kind, None, KEY)


def resealed(kind: str, key: SigningKey) -> Tamper:
    return lambda image, _: image.restate(kind, key, lambda made: made)


def of_another(kind: str) -> Tamper:
    return lambda image, other: image.replace(kind, other.envelope(kind), KEY)


def changed_document(kind: str) -> Tamper:
    def tamper(image: Layout, _: Layout) -> None:
        sealed = image.envelope(kind)
        image.replace(kind, replace(sealed, payload=sealed.payload.replace(b"6.1.999", b"6.1.998")), KEY)

    return tamper


def other_type_of_payload(image: Layout, _: Layout) -> None:
    """Signed with the key under another type of payload."""
    image.replace(PROVENANCE, seal(image.statement(PROVENANCE), KEY, "text/plain"), KEY)


def stated(kind: str, change: Callable[[dict[str, Any]], None]) -> Tamper:
    return lambda image, _: image.restate(kind, KEY, lambda made: with_predicate(made, change))


def subjects(change: Callable[[tuple[Subject, ...]], tuple[Subject, ...]]) -> Tamper:
    return lambda image, _: image.restate(PROVENANCE, KEY, lambda made: replace(made, subjects=change(made.subjects)))


def dependency(name: str) -> Callable[[dict[str, Any]], None]:
    def change(predicate: dict[str, Any]) -> None:
        found = [each for each in predicate["buildDefinition"]["resolvedDependencies"] if each["name"] == name]
        found[0]["digest"]["sha256"] = "0" * 64

    return change


def other_sum(document: dict[str, Any]) -> None:
    for each in document["files"][0]["checksums"]:
        each["checksumValue"] = "0" * len(each["checksumValue"])


def no_bundles(image: Layout, _: Layout) -> None:
    image.remove(lambda entry: entry.get("artifactType") == bundle.MEDIA_TYPE)


def no_tag(tag: Callable[[str], str]) -> Tamper:
    return lambda image, _: image.remove(
        lambda entry: entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag(image.image)
    )


def bundle_of_another_version(image: Layout, _: Layout) -> None:
    image.remove(lambda entry: image.is_referrer(entry, PROVENANCE))
    sealed = bundle.encode(image_envelope(image), KEY.public_der).replace(b"v0.3+json", b"v9.9+json")
    image.add(attach.referrer(image.target, PROVENANCE, sealed, "2026-01-01T00:00:00Z"))


def image_envelope(image: Layout) -> Envelope:
    manifest = image.json(image.tagged(cosign.attestation_tag(image.image)))
    return dsse.parse(json.loads(image.read(manifest["layers"][0]["digest"])))


def hidden_referrer(image: Layout, _: Layout) -> None:
    """An index of referrers that leaves the provenance out: what a registry without the API would show."""
    image.add(attach.fallback(image.target, []))


def renamed(found: tuple[Subject, ...]) -> tuple[Subject, ...]:
    """kernel and System.map with each other's digest."""
    swap = {"kernel": "System.map", "System.map": "kernel"}
    return tuple(replace(each, name=swap.get(each.name, each.name)) if index > 1 else each for index, each in enumerate(found))


TAMPERED: dict[str, tuple[Tamper, str, str]] = {
    "index changed": (lambda image, _: flip(image, image.image), "index digest", "damaged"),
    "index of another image": (
        lambda image, other: put_index(image, other.json(other.image)),
        "signature",
        "is not signed",
    ),
    "manifest changed": (lambda image, _: flip(image, image.platform_manifest()), "manifest", "damaged"),
    "manifest cut": (
        lambda image, _: image.path(image.platform_manifest()).write_bytes(image.read(image.platform_manifest())[:-5]),
        "manifest",
        "damaged",
    ),
    "config changed": (lambda image, _: flip(image, image.json(image.platform_manifest())["config"]["digest"], 3), "config", "damaged"),
    "layer changed": (lambda image, _: flip(image, first_layer(image), 30), "layer", "damaged"),
    "layer cut": (lambda image, _: image.path(first_layer(image)).write_bytes(image.read(first_layer(image))[:100]), "layer", "damaged"),
    "layer longer": (
        lambda image, _: image.path(first_layer(image)).write_bytes(image.read(first_layer(image)) + b"more"),
        "layer",
        "longer than",
    ),
    "layer gone": (lambda image, _: image.path(first_layer(image)).unlink(), "layer", "lacks"),
    "another layer, all digests fitting": (other_layer, "signature", "is not signed"),
    "another tar than the config says": (wrong_diff_id, "layer", "the config says"),
    "another size than the manifest says": (wrong_size, "layer", "bytes"),
    "a layer that is no tar": (not_a_tar, "layer", "no gzip-compressed tar"),
    "another platform than the config's": (other_platform, "config", "linux/arm64"),
    "no platform": (no_platform, "platform", "no platform"),
    "one platform twice": (twice_one_platform, "platform", "two images"),
    "unsigned": (no_tag(cosign.signature_tag), "signature", "is not signed"),
    "no bundles": (no_bundles, "signature bundle", "there is no signature"),
    "signed with another key": (strange_signature, "signature", "another key"),
    "signature of another image": (other_signature, "signature", "of another image"),
    "signature of another text": (changed_payload, "signature", "another key, or was changed"),
    "signature of another kind": (payload_of_another_kind, "signature", "something else"),
    "bundle of another image": (of_another(statement.COSIGN_SIGNATURE), "signature bundle", "about another image"),
    "no provenance": (without(PROVENANCE), "provenance bundle", "there is no provenance"),
    "no provenance at the tag": (no_tag(cosign.attestation_tag), "provenance tag", "there is no sha256-"),
    "provenance of another key": (resealed(PROVENANCE, STRANGER), "provenance bundle", "another key"),
    "provenance of another image": (of_another(PROVENANCE), "provenance tag", "about another image"),
    "provenance changed": (changed_document(PROVENANCE), "provenance bundle", "was changed"),
    "provenance under another type": (other_type_of_payload, "provenance tag", "another key, or was changed"),
    "a bundle of another version": (bundle_of_another_version, "provenance bundle", "no Sigstore bundle"),
    "another builder": (
        stated(PROVENANCE, lambda body: body["runDetails"]["builder"].update(id="urn:somebody-else")),
        "builder",
        "urn:somebody-else",
    ),
    "no builder": (stated(PROVENANCE, lambda body: body["runDetails"].pop("builder")), "builder", "no builder"),
    "another source": (stated(PROVENANCE, dependency("source")), "source", "SOURCE_SHA256"),
    "another patch": (stated(PROVENANCE, dependency("patch")), "source", "PATCH"),
    "another config": (stated(PROVENANCE, dependency("config")), "kernel config", "the provenance"),
    "a subject that is not there": (
        subjects(lambda found: (*found, Subject(name="vmlinux", digest=digests.of_bytes(b"x")))),
        "subjects",
        "not in the image",
    ),
    "a file that is no subject": (subjects(lambda found: found[:-1]), "subjects", "does not name"),
    "files that swapped names": (subjects(renamed), "subjects", "the image has"),
    "no SBOM": (without(SPDX), "SBOM bundle", "there is no SBOM"),
    "SBOM of another key": (resealed(SPDX, STRANGER), "SBOM tag", "another key"),
    "SBOM of another image": (of_another(SPDX), "SBOM bundle", "about another image"),
    "SBOM with another sum": (stated(SPDX, other_sum), "SBOM files", "not in the image"),
    "SBOM that leaves a file out": (stated(SPDX, lambda body: body["files"].pop()), "SBOM files", "does not list"),
    "referrers hidden": (hidden_referrer, "referrers", "does not list"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_image_is_refused_by_name(image: Layout, other: Layout, name: str) -> None:
    tamper, wanted, words = TAMPERED[name]
    tamper(image, other)
    report = check(image, builder=BUILDER)
    failed = {each.name: str(each.problem) for each in report.checks if not each.ok}
    assert wanted in failed, failed
    assert words in failed[wanted], failed


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
