"""A Docker daemon of the tests' own, and the `docker` program that talks to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Short, because of the socket's path; not on tmpfs, because of overlayfs.
FOLDER = Path("/var/tmp/kernfarm-docker-test")


def run(*words: str, seconds: float = 120, **environment: str) -> str:
    """The standard output of a program that has to succeed. The message of the failure has its last words."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, f"{words[0]}: exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@dataclass(frozen=True, slots=True)
class Engine:
    """A daemon by its address. It publishes ports, and makes bridges, in the network namespace of that name; without one, nowhere."""

    host: str
    namespace: str = ""

    def docker(self, *words: str, seconds: float = 120) -> str:
        """What `docker WORDS` prints."""
        # Today's default builder is a plugin of its own (BuildKit) that Debian 12 does not have; the images need none.
        return run("docker", "--host", self.host, *words, seconds=seconds, DOCKER_BUILDKIT="0")

    def once(self, image: str, command: list[str], *options: str) -> tuple[int, str]:
        """Run a command in a container as confined as the farm's. Returns its exit code, and its output with what went to stderr."""
        confined = ["--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges:true", "--tmpfs=/tmp"]
        words = ["docker", "--host", self.host, "run", "--rm", *confined, *options, f"kernfarm/{image}:0.1.0", *command]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
        return done.returncode, done.stdout

    def inside(self, *words: str) -> list[str]:
        """The command, from where published ports are."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *words]


@contextlib.contextmanager
def daemon(folder: Path, *, namespace: str = "") -> Iterator[Engine]:
    """Start a daemon with its data in `folder`; stop it at the end. Without a namespace it has no network but the machine's."""
    (folder / "docker.sock").unlink(missing_ok=True)
    words = ["dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"]
    words += ["-H", f"unix://{folder}/docker.sock", "--storage-driver", "overlay2"]
    words += ["--iptables=false", "--ip6tables=false", "--ip-masq=false"]
    engine = Engine(f"unix://{folder}/docker.sock", namespace)
    # Entered by nsenter, which leaves /sys alone: `ip netns exec` would hide the control groups.
    words = engine.inside(*words) if namespace else [*words, "--ip-forward=false", "--bridge=none"]
    with (folder / "log").open("ab") as log, subprocess.Popen(words, stdout=log, stderr=log) as child:
        try:
            _until_it_answers(folder, child)
            yield engine
        finally:
            child.terminate()
            child.wait(60)


def _until_it_answers(folder: Path, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert child.poll() is None and time.monotonic() < deadline, (folder / "log").read_text(errors="replace")[-2000:]
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(f"{folder}/docker.sock") == 0:
                return
        time.sleep(0.2)


@contextlib.contextmanager
def network(name: str) -> Iterator[str]:
    """A network namespace where nothing is but loopback."""
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        run("ip", "netns", "del", name)


def remove(folder: Path) -> None:
    """Remove what a daemon leaves: files, and mounts of network namespaces."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        if (mount := line.split()[1]).startswith(f"{folder}/"):
            run("umount", mount)
    if folder.exists():
        shutil.rmtree(folder)
