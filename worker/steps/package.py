"""The package step: the files of an image out of prepared and linked layers, and the image itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from kernel import oci, tables
from kernel.errors import Code, FarmError
from kernel.steps import Artifact, Image, PackageResult, PackageTask, Usage
from worker import archive, layers, tarball
from worker.context import Context
from worker.kbuild import Place
from worker.sandbox import Bind
from worker.steps import kernel_dev

_LAYERS = (
    ("kernel", ("kernel", "kernel.tar", "System.map", "kernel_config", "kernel-source-info")),
    ("kernel-dev", ("kernel-dev.tar",)),
    ("kernel-headers", ("kernel-headers.tar",)),
)
# Hundreds of megabytes that only a debugger wants.
_DEBUG_LAYER = ("vmlinux", ("vmlinux",))
_Shape = tuple[tuple[str, tuple[str, ...]], ...]


def run(context: Context, task: PackageTask) -> PackageResult:
    """Deterministic: the same task gives the same digests.

    Raises FarmError: as Place.make, SANDBOX_FAILED for a worker without depmod, INTERNAL when the link step left something out."""
    out = archive.make_folder(context.scratch / "out", context.sandbox)
    layers.unpack(context, task.prepared, out, name="prepared layer")
    layers.unpack(context, task.linked, out, name="linked layer")
    stage = archive.make_folder(context.scratch / "stage", context.sandbox)
    files = context.scratch / "files"
    files.mkdir()
    with context.checkout(task.tree) as source:
        place = Place(context=context, source=source, out=out, arch=task.arch, toolchain=task.toolchain)
        _modules(place, task, stage, files / "kernel.tar")
        _headers(place, stage, files / "kernel-headers.tar")
        kernel_dev.pack(place, task, files / "kernel-dev.tar")
    for name, path in (("kernel", tables.arch(task.arch).image_path), ("System.map", "System.map"), ("kernel_config", ".config")):
        _copy_out(out, path, files / name)
    (files / "kernel-source-info").write_text(source_info(task))
    if task.vmlinux:
        _copy_out(out, "vmlinux", files / "vmlinux")
    shape = (*_LAYERS, _DEBUG_LAYER) if task.vmlinux else _LAYERS
    artifacts = tuple(_store(context, files / name, name) for _, names in shape for name in names)
    return PackageResult(artifacts=artifacts, images=(_image(context, task, files, shape),))


def source_info(task: PackageTask) -> str:
    """kernel-source-info: the first line as LinuxKit has it, then what vouches for it."""
    lines = [
        f"KERNEL_SOURCE={task.facts.url}",
        f"KERNEL_VERSION={task.tree.version}",
        f"KERNEL_RELEASE={task.release}",
        f"SOURCE_SHA256={task.facts.sha256}",
        f"SOURCE_SIGNER={task.facts.signer}",
        f"CONFIG_DIGEST={task.config}",
        *(f"PATCH={patch.digest} {patch.name}" for patch in task.facts.patches),
        f"COMPILER={task.compiler}",
        f"FLAVOUR={task.flavour}",
    ]
    return "".join(f"{_one_line(line)}\n" for line in lines)


def _one_line(text: str) -> str:
    """Names and URLs come from users: none may add a line of its own, or a character that can't be written or seen."""
    escaped = (letter if letter.isprintable() and letter != "\\" else letter.encode("unicode_escape").decode() for letter in text)
    return "".join(escaped)


def _modules(place: Place, task: PackageTask, stage: Path, to: Path) -> None:
    """lib/modules/RELEASE as modules_install leaves it: stripped, depmod run, `build` where kernel-dev.tar will be; and boot/dtb."""
    config = layers.read_config(place.out)
    root = stage / "modules"
    archive.make_folder(root, place.context.sandbox)
    if config.get("MODULES") == "y":
        bind = Bind(host=root, inside="/build/modules", writable=True)
        variables = {"INSTALL_MOD_PATH": "/build/modules", "INSTALL_MOD_STRIP": "1"}
        place.make("modules_install", variables=variables, binds=(bind,), cached=False)
        words = ("/bin/sh", "-c", _FIX_LINKS, "sh", f"/build/modules/lib/modules/{task.release}", task.release)
        outcome = place.run(words, binds=(bind,))
        if outcome.code != 0:
            said = outcome.output.decode(errors="replace").strip()
            message = f"cannot set the links of the modules (exit code {outcome.code}): {said[-500:]}"
            raise FarmError(Code.SANDBOX_FAILED, message, where="package")
        _check_dependencies(root, f"lib/modules/{task.release}/modules.dep")
    if tables.arch(task.arch).device_trees:
        trees = Bind(host=root, inside="/build/modules", writable=True)
        place.make("dtbs_install", variables={"INSTALL_DTBS_PATH": "/build/modules/boot/dtb"}, binds=(trees,), cached=False)
    _write(to, lambda sink: tarball.write(root, sink))


def _check_dependencies(root: Path, path: str) -> None:
    """modules_install only warns when there is no depmod, and an image without this file can't load a module by name."""
    try:
        layers.open_file(root, path).close()
    except OSError as error:
        raise FarmError(
            Code.SANDBOX_FAILED,
            f"modules_install left no modules.dep: {error.strerror}",
            where=path,
            hint="apt-get install kmod on the worker",
        ) from error


# modules_install points both links into the build's own folders; images get `build` only, dangling until kernel-dev.tar is there.
_FIX_LINKS = 'rm -f "$1/build" "$1/source" && ln -s "/usr/src/linux-headers-$2" "$1/build"'


def _headers(place: Place, stage: Path, to: Path) -> None:
    root = archive.make_folder(stage / "headers", place.context.sandbox)
    bind = Bind(host=root, inside="/build/headers", writable=True)
    place.make("headers_install", variables={"INSTALL_HDR_PATH": "/build/headers/usr"}, binds=(bind,), cached=False)
    _write(to, lambda sink: tarball.write(root, sink))


def _write(path: Path, fill: Callable[[IO[bytes]], None]) -> None:
    with path.open("wb") as sink:
        fill(sink)


def _copy_out(out: Path, name: str, to: Path) -> None:
    try:
        source = layers.open_file(out, name)
    except OSError as error:
        raise FarmError(Code.INTERNAL, f"the link step left no {name}", where="package") from error
    # With debug information vmlinux can be larger than memory.
    with source, to.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)


def _store(context: Context, path: Path, name: str) -> Artifact:
    digest, size = context.blobs.put_file(path)
    context.meter.add(Usage(bytes_stored=size))
    return Artifact(name=name, digest=digest, size=size)


def _image(context: Context, task: PackageTask, files: Path, shape: _Shape) -> Image:
    """One image, kernel, dev, headers (and vmlinux) in layers of their own, so that each can be pulled alone."""
    stored = [_layer(context, title, {name: files / name for name in names}) for title, names in shape]
    spec = oci.ImageSpec(
        platform=tables.arch(task.arch).platform,
        layers=tuple(layer for layer, _ in stored),
        labels={"org.opencontainers.image.version": task.release, "org.opencontainers.image.source": task.facts.url},
        annotations={"org.opencontainers.image.title": "kernel", "org.opencontainers.image.version": task.release},
    )
    documents = {"config": oci.config(spec), "manifest": oci.manifest(spec), "index": oci.index([spec])}
    blobs = [artifact for _, artifact in stored]
    for name, document in documents.items():
        context.blobs.put_bytes(document.data)
        blobs.append(Artifact(name=name, digest=document.digest, size=len(document.data)))
    return Image(
        name="kernel",
        index=documents["index"].digest,
        manifest=documents["manifest"].digest,
        platform=spec.platform,
        blobs=tuple(blobs),
    )


def _layer(context: Context, title: str, files: dict[str, Path]) -> tuple[oci.Layer, Artifact]:
    with tempfile.NamedTemporaryFile(dir=context.scratch) as plain, tempfile.NamedTemporaryFile(dir=context.scratch) as packed:
        tarball.write_files(files, plain)
        plain.flush()
        diff_id = f"sha256:{layers.sha256(Path(plain.name))}"
        plain.seek(0)
        tarball.compress(plain, packed)
        packed.flush()
        artifact = _store(context, Path(packed.name), f"layer-{title}")
    return oci.Layer(digest=artifact.digest, size=artifact.size, diff_id=diff_id, holds=title), artifact
