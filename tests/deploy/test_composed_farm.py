"""`docker compose up` with the project's own file: a farm in containers that builds, signs, and outlives the loss of a part."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.composed import FILE, Composed
from tests.deploy.engine import FOLDER, Engine, run
from tests.deploy.rendering import ROOT
from tests.fakes import fake_linux

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

DEPLOY = FOLDER / "deploy"
_KERNFARM = [sys.executable, "-c", "import sys; from kernfarm.cli.main import main; sys.exit(main())"]
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}


@pytest.fixture(scope="module")
def farm(engine: Engine) -> Iterator[Composed]:
    """As docs/howto/deploy.md starts it, with two workers; but for the images, which are there."""
    if DEPLOY.exists():
        shutil.rmtree(DEPLOY)
    DEPLOY.mkdir(mode=0o755)
    shutil.copy(FILE, DEPLOY / FILE.name)
    shutil.copytree(FILE.parent / "config", DEPLOY / "config")
    composed = Composed(engine, DEPLOY)
    run(str(ROOT / "deploy/credentials.sh"), str(DEPLOY / "credentials"), "farm.example.org")
    composed.compose("up", "--detach", "--no-build", "--scale=worker=2", seconds=300)
    yield composed
    composed.compose("down", "--volumes", "--timeout=5")


def kernfarm(farm: Composed, *words: str) -> str:
    """The command line, as it is called on the farm's machine."""
    more = ["--farm", "localhost:7420", "--ca", f"{DEPLOY}/credentials/ca.pem", "--token-file", f"{DEPLOY}/credentials/token"]
    argv = farm.engine.inside(*_KERNFARM, *words, *more)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=400, check=False, env=_ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr + farm.logs()
    return done.stdout


def _until_there_are_workers(farm: Composed, count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if len(json.loads(kernfarm(farm, "workers", "--json"))) == count:
                return
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, farm.logs()
        time.sleep(2)


def test_a_build_in_containers(farm: Composed, tmp_path: Path) -> None:
    """From submit to a signed image, with the sandbox, the token, the certificate and the signing key of the compose file."""
    farm.until_healthy("coordinator", 180)
    _until_there_are_workers(farm, 2, 120)
    source = fake_linux.tarball(tmp_path / "linux-fake.tar")
    (build,) = json.loads(kernfarm(farm, "build", "--source", f"file:{source}", "--base", "defconfig", "--no-boot", "--json"))
    assert build["state"] == "succeeded"
    kernfarm(farm, "fetch", build["id"], "--to", str(tmp_path / "image"))
    trusted = ["--key", f"{DEPLOY}/credentials/cosign.pub", "--builder", "urn:kernfarm:builder:compose"]
    run(*_KERNFARM, "verify", str(tmp_path / "image"), *trusted, PYTHONPATH=str(ROOT), HOME="/nonexistent")


def test_the_api_is_on_loopback_only(farm: Composed) -> None:
    listening = run(*farm.engine.inside("ss", "-Hltn", "sport = :7420"))
    assert [line.split()[3] for line in listening.splitlines()] == ["127.0.0.1:7420"]


def test_metrics_are_on_loopback_only(farm: Composed) -> None:
    """Of the coordinator, and of two workers on ports that follow each other."""
    listening = run(*farm.engine.inside("ss", "-Hltn", "sport >= :9420 and sport <= :9499"))
    assert sorted(line.split()[3] for line in listening.splitlines()) == [f"127.0.0.1:{port}" for port in (9420, 9421, 9422)]
    script = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"
    for port, component in ((9420, "coordinator"), (9421, "worker"), (9422, "worker")):
        said = run(*farm.engine.inside(sys.executable, "-c", script, f"http://127.0.0.1:{port}/metrics"))
        assert f'kernfarm_build_info{{component="{component}"' in said


def test_the_exporter_cannot_read_the_token(farm: Composed) -> None:
    user = ["setpriv", "--reuid=10004", "--regid=65534", "--clear-groups"]
    said = farm.in_container("worker", *user, "sh", "-c", "id -u; cat /run/secrets/ray-token 2>&1; ls /var/lib/kernfarm/blobs 2>&1; true")
    assert said.startswith("10004\n") and said.count("Permission denied") == 2


def test_the_coordinator_cannot_read_the_key(farm: Composed) -> None:
    said = farm.in_container("coordinator", "sh", "-c", "find / -xdev -name 'signer.key' 2>/dev/null; ls /etc/kernfarm")
    assert "coordinator.yaml" in said and "signer" not in said
    # Nor does it share process numbers with the program that has it.
    said = farm.in_container("coordinator", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "coordinator.yaml" in said and "coordinator.signer" not in said


def test_up_again_changes_nothing(farm: Composed) -> None:
    before = farm.compose("ps", "--quiet", "--no-trunc")
    farm.compose("up", "--detach", "--no-build", "--scale=worker=2")
    assert sorted(farm.compose("ps", "--quiet", "--no-trunc").split()) == sorted(before.split()) and len(before.split()) == 6


def test_a_killed_head_is_replaced(farm: Composed) -> None:
    """Ray's head forgets everything when it dies; the farm comes back by itself."""
    os.kill(farm.process("ray"), signal.SIGKILL)
    time.sleep(2)
    farm.until_healthy("ray", 120)
    _until_there_are_workers(farm, 2, 240)
