"""The farm's images, built from docker/Dockerfile by a real daemon.

Docker Hub is not asked: the base image is a minimal Debian that mmdebstrap makes, with what Debian's own slim image leaves out left out."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.deploy.engine import Engine, daemon, run
from tests.deploy.rendering import ROOT

IMAGES = ("coordinator", "worker")
BASE = "kernfarm-test-base:latest"
DOCKERFILE = ROOT / "docker" / "Dockerfile"
_SECONDS = 900
# As in debian:12-slim: no documentation, no translations, and no fsync for each file of a package.
_SLIM = ("force-unsafe-io", *(f"path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")))


def build(folder: Path) -> None:
    """Leave both images in the data folder of a daemon in `folder`. Takes minutes of two processors."""
    root = folder / "root.tar"
    _base(root)
    with daemon(folder) as engine:
        engine.docker("import", str(root), BASE, seconds=_SECONDS)
        root.unlink()
        _stages(engine, "system")
        # The two long ones at a time. The daemon's own builder goes through a file from the top; it finds both done afterwards.
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda names: _stages(engine, *names), [("system", "tools"), ("system", "libraries", "package")]))
        for target in IMAGES:
            _build(engine, "--file", str(DOCKERFILE), "--target", target, "--tag", f"kernfarm/{target}:0.1.0")


def _base(root: Path) -> None:
    # What reaches the package indexes here reaches them in the base image too: sources, certificates, pip's and apt's configuration.
    found = [*Path("/etc/apt/apt.conf.d").glob("99*"), Path("/etc/pip.conf"), Path("/etc/ssl/certs/ca-certificates.crt")]
    copies = [f"--customize-hook=copy-in {name} {name.parent}" for name in found if name.is_file()]
    sources = [str(path) for path in (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources")) if path.is_file()]
    words = ["--quiet", "--variant=minbase", "--include=ca-certificates", *(f"--dpkgopt={each}" for each in _SLIM)]
    run("mmdebstrap", *words, '--aptopt=Acquire::Languages "none"', *copies, "bookworm", str(root), *sources, seconds=_SECONDS)


def _stages(engine: Engine, *names: str) -> None:
    """Build these stages of the Dockerfile, and no others."""
    head, *stages = re.split(r"^(?=FROM )", DOCKERFILE.read_text(), flags=re.MULTILINE)
    found = {stage.split()[3]: stage for stage in stages}
    file = Path(engine.host.removeprefix("unix://")).parent / f"Dockerfile.{names[-1]}"
    file.write_text(head + "".join(found[name] for name in names))
    _build(engine, "--file", str(file))


def _build(engine: Engine, *words: str) -> None:
    engine.docker("build", "--network=host", "--quiet", f"--build-arg=BASE={BASE}", *words, str(ROOT), seconds=_SECONDS)
