"""Real cosign, old and new, against a real registry that has no referrers API: what the signer makes is what cosign looks for."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from coordinator.signer import keys
from kernel import oci
from kernel.signing import attach, cosign, dsse
from kernfarm import process
from kernfarm.cli import main
from kernfarm.layout import blob_path
from tests import debian
from tests.fakes.built import FakeBuild
from tests.fakes.signed import BUILDER, REFERENCE, Layout, fetch, new_key, signer, two_builds

pytestmark = pytest.mark.e2e

# cosign 2.5 looks for tags, cosign 3 for bundles among the referrers.
SUITES = ("trixie", "sid")
REPOSITORY = "linuxkit/kernel"


@dataclass(frozen=True)
class Published:
    """An image in a registry. `address`: host:port/repository."""

    address: str
    layout: Layout
    key: Path

    @property
    def index(self) -> str:
        return f"{self.address}@{self.layout.image}"

    @property
    def manifest(self) -> str:
        return f"{self.address}@{self.layout.platform_manifest()}"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a registry of the test's own."""
    program = debian.program("docker-registry", debian.codename(), "usr/bin/docker-registry")
    home = tmp_path_factory.mktemp("registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = {"version": "0.1", "storage": {"filesystem": {"rootdirectory": str(home / "data")}}, "http": {"addr": address}}
    (home / "config.yml").write_text(json.dumps(config))
    service = process.start((str(program), "serve", str(home / "config.yml")), env={"PATH": os.environ["PATH"]}, output=home / "log")
    deadline = time.monotonic() + 30
    while True:
        try:
            requests.get(f"http://{address}/v2/", timeout=5)
            break
        except requests.ConnectionError:
            assert service.poll() is None and time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.05)
    yield address
    service.terminate()


@pytest.fixture(scope="module")
def both(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """One index over the builds of two architectures."""
    home = tmp_path_factory.mktemp("both")
    key = keys.generate(home / "signer.key")
    _, _, image = two_builds(home, key)
    push(image, registry, "linuxkit/both", "6.1.999")
    return Published(address=f"{registry}/linuxkit/both", layout=image, key=home / "cosign.pub")


@pytest.fixture(scope="module")
def published(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Published:
    home = tmp_path_factory.mktemp("published")
    key = keys.generate(home / "signer.key")
    build = FakeBuild(home)
    journal = build.play()
    image = fetch(build, signer(build, key).sign(build.build_id), home / "image")
    journal.close()
    push(image, registry, REPOSITORY, "6.1.999")
    return Published(address=f"{registry}/{REPOSITORY}", layout=image, key=home / "cosign.pub")


def push(image: Layout, registry: str, repository: str, tag: str) -> None:
    """Everything of a layout: blobs, then manifests by digest, then what has a tag."""
    base = f"http://{registry}/v2/{repository}"
    for path in (image.folder / "blobs" / "sha256").iterdir():
        upload = requests.post(f"{base}/blobs/uploads/", timeout=30)
        done = requests.put(upload.headers["Location"], params={"digest": f"sha256:{path.name}"}, data=path.read_bytes(), timeout=30)
        assert done.status_code == 201, done.text
    inside = image.json(image.image)["manifests"]
    entries: list[dict[str, Any]] = sorted(image.index["manifests"][1:], key=lambda each: each["mediaType"] == oci.INDEX)
    for entry in (*inside, image.index["manifests"][0] | {"annotations": {"org.opencontainers.image.ref.name": tag}}, *entries):
        name = entry.get("annotations", {}).get("org.opencontainers.image.ref.name") or entry["digest"]
        headers = {"Content-Type": entry["mediaType"]}
        data = blob_path(image.folder, entry["digest"]).read_bytes()
        done = requests.put(f"{base}/manifests/{name}", data=data, headers=headers, timeout=30)
        assert done.status_code == 201, (name, done.text)


def run(suite: str, home: Path, *words: str, password: str = "") -> process.Completed:
    program = debian.program("cosign", suite, "usr/bin/cosign")
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "COSIGN_PASSWORD": password}
    return process.run((str(program), *words), env=env, timeout_seconds=60, cwd=home)


def verify(suite: str, home: Path, verb: str, key: Path, *words: str) -> process.Completed:
    return run(suite, home, verb, "--key", str(key), "--insecure-ignore-tlog=true", "--allow-http-registry=true", *words)


@pytest.mark.parametrize("suite", SUITES)
def test_cosign_verifies_index_and_manifest(suite: str, published: Published, tmp_path: Path) -> None:
    for reference in (f"{published.address}:6.1.999", published.index, published.manifest):
        done = verify(suite, tmp_path, "verify", published.key, reference)
        assert done.code == 0, done.output.decode()
        assert reference.rpartition("@")[2].encode() in done.output or ":6.1.999" in reference


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("kind", ["slsaprovenance1", "spdxjson"])
def test_cosign_verifies_the_documents(suite: str, kind: str, published: Published, tmp_path: Path) -> None:
    done = verify(suite, tmp_path, "verify-attestation", published.key, "--type", kind, published.index)
    assert done.code == 0, done.output.decode()


@pytest.mark.parametrize("suite", SUITES)
def test_cosign_verifies_one_index_over_two_architectures(suite: str, both: Published, tmp_path: Path) -> None:
    assert len(both.layout.json(both.layout.image)["manifests"]) == 2
    for reference in (f"{both.address}:6.1.999", both.manifest):
        done = verify(suite, tmp_path, "verify", both.key, reference)
        assert done.code == 0, done.output.decode()
    for kind in ("slsaprovenance1", "spdxjson"):
        done = verify(suite, tmp_path, "verify-attestation", both.key, "--type", kind, both.index)
        assert done.code == 0, done.output.decode()


def test_kernfarm_verifies_what_is_in_the_registry(both: Published, published: Published, capsys: pytest.CaptureFixture[str]) -> None:
    for image in (both, published):
        for reference in (f"{image.address}:6.1.999", image.index):
            assert main.main(["verify", reference, "--key", str(image.key), "--builder", BUILDER]) == 0, capsys.readouterr().out
    assert main.main(["verify", published.index, "--key", str(both.key)]) == 2
    assert "signed with another key" in capsys.readouterr().err
    assert main.main(["verify", f"{published.address}:none", "--key", str(both.key)]) == 2


def test_the_new_cosign_needs_nothing_but_the_referrers(published: Published, registry: str, tmp_path: Path) -> None:
    """Without the tags of older versions."""
    copy = trimmed(published.layout, tmp_path / "image", lambda tag: not tag.endswith((".sig", ".att")))
    push(copy, registry, "referrers/only", "t")
    assert verify("sid", tmp_path, "verify", published.key, f"{registry}/referrers/only:t").code == 0
    assert verify("trixie", tmp_path, "verify", published.key, f"{registry}/referrers/only:t").code != 0


def test_the_old_cosign_needs_nothing_but_the_tags(published: Published, registry: str, tmp_path: Path) -> None:
    copy = trimmed(published.layout, tmp_path / "image", lambda tag: tag.endswith((".sig", ".att")))
    push(copy, registry, "tags/only", "t")
    assert verify("trixie", tmp_path, "verify", published.key, f"{registry}/tags/only:t").code == 0


def trimmed(image: Layout, to: Path, keep: Any) -> Layout:
    """A copy with the attachments whose tag ("" for referrers) is kept."""
    to.mkdir()
    (to / "blobs").symlink_to(image.folder / "blobs")
    copy = Layout(to)
    body = image.index
    tags = [each.get("annotations", {}).get("org.opencontainers.image.ref.name", "") for each in body["manifests"]]
    body["manifests"] = [each for each, tag in zip(body["manifests"], tags, strict=True) if not tag.startswith("sha256-") or keep(tag)]
    if not keep(""):
        body["manifests"] = [each for each in body["manifests"] if "artifactType" not in each]
    (to / "index.json").write_text(json.dumps(body))
    return copy


@pytest.mark.parametrize("suite", SUITES)
def test_cosign_refuses_another_key(suite: str, published: Published, tmp_path: Path) -> None:
    key = tmp_path / "other.pub"
    key.write_bytes(new_key().public_pem)
    for verb, *more in (("verify",), ("verify-attestation", "--type", "slsaprovenance1")):
        assert verify(suite, tmp_path, verb, key, *more, published.index).code != 0


@pytest.mark.parametrize("suite", SUITES)
def test_cosign_refuses_another_image_under_its_signature(suite: str, published: Published, registry: str, tmp_path: Path) -> None:
    """The signatures of one image beside another."""
    build = FakeBuild(tmp_path, files={"kernel": b"evil"})
    build.play().close()
    other = fetch(build, signer(build, new_key()).sign(build.build_id), tmp_path / "image")
    layer = published.layout.json(published.layout.tagged(cosign.signature_tag(published.layout.image)))["layers"][0]
    signature = dsse.decode(layer["annotations"][cosign.SIGNATURE_ANNOTATION])
    other.add(attach.signature(other.target, published.layout.read(layer["digest"]), signature))
    push(other, registry, f"evil/{suite}", "t")
    assert verify(suite, tmp_path, "verify", published.key, f"{registry}/evil/{suite}:t").code != 0


@pytest.mark.parametrize("suite", SUITES)
def test_keys_go_both_ways(suite: str, tmp_path: Path) -> None:
    done = run(suite, tmp_path, "generate-key-pair", password="secret")
    assert done.code == 0, done.output
    password = tmp_path / "password"
    password.write_text("secret")
    password.chmod(0o600)
    (tmp_path / "cosign.key").chmod(0o600)
    theirs = keys.load(tmp_path / "cosign.key", str(password))
    assert theirs.public_pem.strip() == (tmp_path / "cosign.pub").read_bytes().strip()
    (tmp_path / "ours").mkdir()
    ours = keys.generate(tmp_path / "ours" / "cosign.key", b"secret")
    done = run(suite, tmp_path, "public-key", "--key", str(tmp_path / "ours" / "cosign.key"), password="secret")
    assert done.code == 0, done.output
    assert ours.public_pem.strip() in done.output


def test_the_payload_names_the_repository_that_policies_compare(published: Published) -> None:
    layer = published.layout.json(published.layout.tagged(cosign.signature_tag(published.layout.image)))["layers"][0]
    body = json.loads(published.layout.read(layer["digest"]))
    assert body["critical"]["identity"]["docker-reference"] == REFERENCE
