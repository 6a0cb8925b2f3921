"""Loading an image into a Docker engine, through the docker SDK: the engine that DOCKER_HOST or the default socket leads to.

Engines take no OCI layouts before version 25; all take what `docker save` writes, with layers compressed as they are
(github.com/moby/moby, image/tarexport/load.go). It is made while it is sent.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import docker
import requests
from docker import errors

from kernel import digest as digests
from kernel.errors import Code, FarmError
from kernfarm import layout
from kernfarm.contents import DOCUMENT_BYTES
from kernfarm.publication import StoredImage
from kernfarm.registry.reference import DOCKER_HUB, Reference
from kernfarm.regular import open_blob, read_blob

_CHUNK = 1 << 20
# The engine answers when it has unpacked the last layer.
_SECONDS = 600
_LABEL_OF_CONTAINERD = "io.containerd.snapshotter.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What the engine has now: `image` is its own id, `names` as given."""

    platform: str
    image: str
    names: tuple[str, ...]


def load(images: Sequence[tuple[StoredImage, Sequence[Reference]]]) -> tuple[Loaded, ...]:
    """Load those images that are for the engine's own platform, tagged with the references beside them, and look what arrived.

    Raises FarmError: UNAVAILABLE for no engine, NOT_FOUND when none is for its platform, BAD_DIGEST when it has something else then,
    INVALID_ARGUMENT for what it refuses."""
    try:
        client = docker.from_env(timeout=_SECONDS)
    except errors.DockerException as error:
        raise _no_engine(error) from error
    try:
        version = client.version()
        platform = f"{version['Os']}/{version['Arch']}"
        chosen = [(image, names) for image, names in images if platform in image.platforms]
        if not chosen:
            known = sorted({each for image, _ in images for each in image.platforms})
            message = f"the engine runs {platform}, the images are for {', '.join(known)}"
            raise FarmError(Code.NOT_FOUND, message, where=client.api.base_url, hint=f"build with the architecture of {platform} too")
        return tuple(_load(client, image, platform, names) for image, names in chosen)
    except (errors.ImageLoadError, errors.ImageNotFound) as error:
        raise FarmError(Code.INVALID_ARGUMENT, f"the engine refuses the image: {error}", where=client.api.base_url) from error
    except (errors.DockerException, requests.RequestException) as error:
        raise _no_engine(error) from error
    finally:
        client.close()


def _load(client: docker.DockerClient, image: StoredImage, platform: str, references: Sequence[Reference]) -> Loaded:
    manifest = json.loads(image.manifests[image.platforms.index(platform)].data)
    names = [familiar(each) for each in references]
    config = json.loads(_config(image.folder, manifest))
    # The SDK's types want bytes; the library sends whatever `requests` takes, so nothing has to be held or written down.
    client.images.load(cast(Any, archive(image.folder, manifest, names)))
    found = [client.images.get(name) for name in names]
    for name, each in zip(names, found, strict=True):
        _check(client, name, each.attrs, manifest["config"]["digest"], config["rootfs"]["diff_ids"])
    return Loaded(platform=platform, image=str(found[0].id), names=tuple(names))


def _check(client: docker.DockerClient, name: str, attributes: Mapping[str, Any], config: str, diff_ids: Sequence[str]) -> None:
    """That the engine has these layers, and (where ids are digests of configurations) this image under the name."""
    found = attributes["RootFS"].get("Layers", [])
    if found != list(diff_ids):
        raise FarmError(Code.BAD_DIGEST, f"the engine has layers {found}, expected {list(diff_ids)}", where=name)
    if attributes["Id"] != config and not _in_containerd(client):
        raise FarmError(Code.BAD_DIGEST, f"the engine has image {attributes['Id']}, expected {config}", where=name)


def _in_containerd(client: docker.DockerClient) -> bool:
    """Whether images are kept in containerd's store, where an id is the digest of a manifest that the engine made."""
    return any(_LABEL_OF_CONTAINERD in str(value) for row in client.info().get("DriverStatus") or [] for value in row)


def familiar(reference: Reference) -> str:
    """A reference as engines write it: without the host of Docker Hub and without its `library`."""
    name = reference.name
    if reference.host == DOCKER_HUB:
        name = reference.repository.removeprefix("library/")
    return f"{name}:{reference.tag or 'latest'}"


def archive(folder: Path, manifest: Mapping[str, Any], names: Sequence[str]) -> Iterator[bytes]:
    """The tar that `docker save` would write of an image, in pieces. Its listing comes last: what is broken off before is no image.

    Raises FarmError: MISSING_FILE, BAD_DIGEST for a file of the layout that is not what the manifest says."""
    config = f"{digests.hex_of(manifest['config']['digest'])}.json"
    layers = [f"{digests.hex_of(layer['digest'])}/layer.tar" for layer in manifest["layers"]]
    data = _config(folder, manifest)
    yield from _member(config, io.BytesIO(data), len(data))
    for name, layer in dict(zip(layers, manifest["layers"], strict=True)).items():
        with open_blob(layout.blob_path(folder, layer["digest"]), layer["digest"], layer["size"]) as file:
            yield from _member(name, file, layer["size"])
    listing = json.dumps([{"Config": config, "RepoTags": list(names), "Layers": layers}]).encode()
    yield from _member("manifest.json", io.BytesIO(listing), len(listing))
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _config(folder: Path, manifest: Mapping[str, Any]) -> bytes:
    """Read whole: that it is the one of the manifest an engine need not notice. What is in the layers it holds against the config."""
    digest = manifest["config"]["digest"]
    return read_blob(layout.blob_path(folder, digest), digest, DOCUMENT_BYTES)


def _member(name: str, file: IO[bytes], size: int) -> Iterator[bytes]:
    """Never more than `size` bytes: what somebody adds to an open file would be members of the tar."""
    member = tarfile.TarInfo(name)
    member.size = size
    # A layer may be larger than the 8 GB that USTAR can say.
    yield member.tobuf(tarfile.PAX_FORMAT)
    left = size
    while chunk := file.read(min(left, _CHUNK)):
        left -= len(chunk)
        yield chunk
    yield b"\0" * (-size % tarfile.BLOCKSIZE)


def _no_engine(error: Exception) -> FarmError:
    words = " ".join(str(error).split())[:300]
    return FarmError(Code.UNAVAILABLE, f"no answer from a Docker engine: {words}", where="docker", hint="is it running? see DOCKER_HOST")
