"""deploy/compose.yaml as the real Docker Compose reads it, and the farm that it brings up.

Debian 12 has no Docker Compose of today's kind (2.x). It comes out of Debian 13's package, unpacked into a cache folder."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import debian
from tests.deploy.engine import Engine
from tests.deploy.rendering import ROOT

FILE = ROOT / "deploy" / "compose.yaml"


def compose(*words: str, file: Path = FILE, seconds: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Docker Compose on a file. Nothing of this machine's environment fills the file's variables: their defaults are tested."""
    program = debian.program("docker-compose", "trixie", "usr/libexec/docker/cli-plugins/docker-compose")
    argv = [str(program), "--file", str(file), *words]
    kept = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment}
    return subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False, env=kept)


@functools.cache
def services() -> dict[str, dict[str, Any]]:
    """The services by name, as Compose understands them: anchors, defaults and short forms written out."""
    done = compose("config", "--format=json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["services"])


@dataclass(frozen=True, slots=True)
class Composed:
    """The farm of a folder like deploy/, on an engine that has the images."""

    engine: Engine
    folder: Path

    def compose(self, *words: str, seconds: float = 120) -> str:
        """What `docker compose WORDS` prints; it has to succeed."""
        # All on one small machine: a worker that took what it may by default would end the others. And there is no mirror to reach.
        environment = {"DOCKER_HOST": self.engine.host, "KERNFARM_WORKER_MEMORY": "4g", "KERNFARM_REFRESH_APT": ""}
        done = compose(*words, file=self.folder / "compose.yaml", seconds=seconds, **environment)
        assert done.returncode == 0, f"docker compose {words[0]}: {done.stdout[-2000:]}{done.stderr[-3000:]}{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        """The last lines of each service's output."""
        environment = {"DOCKER_HOST": self.engine.host}
        return compose("logs", "--tail=30", "--no-color", file=self.folder / "compose.yaml", **environment).stdout

    def in_container(self, service: str, *command: str) -> str:
        """What a command in a service's first container prints; it has to succeed."""
        return self.compose("exec", "-T", service, *command)

    def process(self, service: str) -> int:
        """The service's first process, as the machine numbers it."""
        return int(self.engine.docker("inspect", "--format={{.State.Pid}}", f"kernfarm-{service}-1"))

    def until_healthy(self, service: str, seconds: float) -> None:
        """Wait until the service's own health check passes."""
        deadline = time.monotonic() + seconds
        while self.engine.docker("inspect", "--format={{.State.Health.Status}}", f"kernfarm-{service}-1").strip() != "healthy":
            assert time.monotonic() < deadline, f"{service} is not healthy after {seconds} s\n{self.logs()}"
            time.sleep(1)
