"""Loading into a real Docker engine: Debian's dockerd with folders of its own."""

from __future__ import annotations

import contextlib
import gc
import gzip
import io
import json
import os
import shutil
import tarfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import docker
import pytest

from kernel import oci
from kernel.errors import Code, FarmError
from kernfarm import engine, layout, process, publication
from kernfarm.publication import StoredImage
from kernfarm.registry.push import Options, push
from kernfarm.registry.reference import Reference
from kernfarm.registry.repository import Repository
from kernfarm.registry.transport import Transport
from tests.fakes import layouts
from tests.fakes.registries import real
from tests.homes import make_home


@dataclass(frozen=True)
class Daemon:
    client: docker.DockerClient
    address: str


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """dockerd without networks. Not in pytest's folder: the path of its socket would be too long."""
    if os.geteuid() != 0:
        pytest.skip("dockerd needs root")
    home = make_home("kf-docker-")
    words = ["dockerd", "--data-root", f"{home}/data", "--exec-root", f"{home}/exec", "--pidfile", f"{home}/pid"]
    words += ["-H", f"unix://{home}/docker.sock", "--storage-driver", "overlay2", "--bridge=none"]
    words += ["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
    service = process.start(words, env={"PATH": os.environ["PATH"]}, output=home / "log")
    try:
        deadline = time.monotonic() + 60
        while "API listen on" not in (home / "log").read_text():
            assert service.poll() is None and time.monotonic() < deadline, (home / "log").read_text()[-2000:]
            time.sleep(0.05)
        with contextlib.closing(docker.DockerClient(base_url=f"unix://{home}/docker.sock")) as client:
            yield Daemon(client=client, address=f"unix://{home}/docker.sock")
    finally:
        service.terminate()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def host(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> docker.DockerClient:
    """DOCKER_HOST leads to it."""
    monkeypatch.setenv("DOCKER_HOST", daemon.address)
    return daemon.client


def stored(folder: Path, seed: str, arch: str = "amd64", suffix: str = "") -> StoredImage:
    layouts.write(folder, seed=seed, arch=arch, suffix=suffix)
    return publication.read(folder)


@contextlib.contextmanager
def sockets_left_open() -> Iterator[None]:
    """The SDK forgets its sockets when it can't connect, or when a load fails; they are collected here, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def native(client: docker.DockerClient) -> str:
    return str(client.version()["Arch"])


def test_the_image_for_the_engines_platform_is_there_under_its_names(host: docker.DockerClient, tmp_path: Path) -> None:
    arch = native(host)
    other = "arm64" if arch == "amd64" else "amd64"
    names = [Reference.parse("linuxkit/kernel:6.1.192"), Reference.parse("registry.example:5000/a/kernel:x")]
    pairs = [(stored(tmp_path / each, "s", each), names) for each in (other, arch)]
    (loaded,) = engine.load(pairs)
    assert loaded.platform == f"linux/{arch}"
    assert loaded.names == ("linuxkit/kernel:6.1.192", "registry.example:5000/a/kernel:x")
    config = json.loads(pairs[1][0].manifests[0].data)["config"]["digest"]
    assert loaded.image == config == host.images.get("linuxkit/kernel:6.1.192").id
    # The file comes out as it went in.
    container = host.containers.create("linuxkit/kernel:6.1.192", command=["none"])
    try:
        chunks, _ = container.get_archive("/kernel")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            assert tar.getmember("kernel").size == 2000
    finally:
        container.remove()


def test_loading_twice_changes_nothing_and_flavours_get_their_own_names(host: docker.DockerClient, tmp_path: Path) -> None:
    arch = native(host)
    images = [(stored(tmp_path / name, name, arch), [Reference.parse(f"acme/kernel:{name}")]) for name in ("plain", "dbg")]
    first = engine.load(images)
    assert engine.load(images) == first
    assert len({each.image for each in first}) == 2


def test_no_image_for_its_platform_is_said(host: docker.DockerClient, tmp_path: Path) -> None:
    with pytest.raises(FarmError, match="linux/riscv64") as caught:
        engine.load([(stored(tmp_path, "s", "riscv64"), [Reference.parse("a/b:c")])])
    assert caught.value.problem.code is Code.NOT_FOUND


def test_a_layer_that_is_not_what_the_config_says_is_refused(host: docker.DockerClient, tmp_path: Path) -> None:
    """The engine computes the digests of what is in the layers; ours are over what is stored. Layers that it has
    already it does not look at."""
    image = stored(tmp_path, "not seen before", native(host))
    manifest = json.loads(image.manifests[0].data)
    config = json.loads(layout.blob_path(tmp_path, manifest["config"]["digest"]).read_bytes())
    config["rootfs"]["diff_ids"].reverse()
    other = oci.document(oci.CONFIG, config)
    layouts.put(tmp_path, other.data)
    image = replace(image, manifests=(oci.document(oci.MANIFEST, {**manifest, "config": other.descriptor()}),))
    with sockets_left_open(), pytest.raises(FarmError, match="the engine refuses the image") as caught:
        engine.load([(image, [Reference.parse("a/damaged:c")])])
    assert caught.value.problem.code is Code.INVALID_ARGUMENT
    with pytest.raises(docker.errors.ImageNotFound):
        host.images.get("a/damaged:c")


@pytest.mark.parametrize("part", ["config", "layer"])
def test_a_file_that_was_swapped_after_it_was_checked_is_not_loaded(host: docker.DockerClient, tmp_path: Path, part: str) -> None:
    """An engine would take a config with the same layers in it, and a layer with something after its end."""
    image = stored(tmp_path, f"swapped {part}", native(host))
    manifest = json.loads(image.manifests[0].data)
    swapped = manifest["config"] if part == "config" else manifest["layers"][1]
    path = layout.blob_path(tmp_path, swapped["digest"])
    path.write_bytes(path.read_bytes() + (b" " if part == "config" else gzip.compress(b"more")))
    with sockets_left_open(), pytest.raises(FarmError, match=f"{swapped['digest']} is damaged") as caught:
        engine.load([(image, [Reference.parse("a/swapped:c")])])
    assert caught.value.problem.code is Code.BAD_DIGEST
    with pytest.raises(docker.errors.ImageNotFound):
        host.images.get("a/swapped:c")


def test_what_is_added_to_a_file_while_it_is_sent_stays_out_of_the_tar(tmp_path: Path) -> None:
    image = stored(tmp_path, "s")
    manifest = json.loads(image.manifests[0].data)
    whole = b"".join(engine.archive(image.folder, manifest, ["a:b"]))
    pieces = engine.archive(image.folder, manifest, ["a:b"])
    sent = b""
    while b"/layer.tar" not in sent:
        sent += next(pieces)
    with layout.blob_path(tmp_path, manifest["layers"][0]["digest"]).open("ab") as file:
        file.write(b"more" * 100_000)
    assert sent + b"".join(pieces) == whole


def test_an_engine_that_has_something_else_under_the_name_is_noticed(host: docker.DockerClient, tmp_path: Path) -> None:
    image = stored(tmp_path, "s", native(host))
    engine.load([(image, [Reference.parse("a/b:c")])])
    attributes = host.images.get("a/b:c").attrs
    config = json.loads(image.manifests[0].data)["config"]["digest"]
    layers = attributes["RootFS"]["Layers"]
    engine._check(host, "a/b:c", attributes, config, layers)
    for wrong_config, wrong_layers in ((config, layers[:1]), ("sha256:" + "0" * 64, layers)):
        with pytest.raises(FarmError) as caught:
            engine._check(host, "a/b:c", attributes, wrong_config, wrong_layers)
        assert caught.value.problem.code is Code.BAD_DIGEST


@pytest.mark.parametrize("address", ["unix:///nonexistent/docker.sock", "tcp://127.0.0.1:1", "nonsense://"])
def test_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    with sockets_left_open(), pytest.raises(FarmError) as caught:
        engine.load([(stored(tmp_path, "s"), [Reference.parse("a/b:c")])])
    assert caught.value.problem.code is Code.UNAVAILABLE
    assert "DOCKER_HOST" in caught.value.problem.hint


@pytest.mark.parametrize(
    ("text", "name"),
    [("kernel:1", "kernel:1"), ("linuxkit/kernel", "linuxkit/kernel:latest"), ("localhost:5000/a:b", "localhost:5000/a:b")],
)
def test_names_as_engines_write_them(text: str, name: str) -> None:
    assert engine.familiar(Reference.parse(text)) == name
    assert Reference.parse(engine.familiar(Reference.parse(text))).repository == Reference.parse(text).repository


def test_the_archive_is_a_tar_whatever_the_sizes(tmp_path: Path) -> None:
    for size in (0, 1, 511, 512, 513, 2000):
        layouts.write(tmp_path / str(size), seed="s", size=size)
        image = publication.read(tmp_path / str(size))
        manifest = json.loads(image.manifests[0].data)
        data = b"".join(engine.archive(image.folder, manifest, ["a:b"]))
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            listing = tar.extractfile("manifest.json")
            assert listing is not None
            (row,) = json.load(listing)
            assert row["RepoTags"] == ["a:b"]
            for entry, name in zip([manifest["config"], *manifest["layers"]], [row["Config"], *row["Layers"]], strict=True):
                assert tar.getmember(name).size == entry["size"]


def test_an_engine_pulls_what_was_pushed(host: docker.DockerClient, tmp_path: Path) -> None:
    """A client that is not ours reads the index over architectures, and gets the image that a load gives."""
    arch = native(host)
    images = [stored(tmp_path / each, "pulled", each) for each in ("amd64", "arm64")]
    (image,) = [each for each in images if each.platforms == (f"linux/{arch}",)]
    with real(tmp_path / "registry") as registry:
        reference = Reference.parse(f"{registry.address}/team/kernel")
        with Transport(reference, logins=lambda _: None) as transport:
            push(Repository(transport), publication.content(images), Options(), lambda words: None)
        pulled = host.images.pull(reference.name, tag="6.1.192")
    assert pulled.id == json.loads(image.manifests[0].data)["config"]["digest"]
