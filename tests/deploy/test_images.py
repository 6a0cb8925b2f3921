"""The images, built by a real Docker daemon, and the farm of the compose file run from them.

Docker Hub is not asked: the base image is a minimal Debian that the test makes itself."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import docker
import pytest

from kernfarm import settings
from kernfarm.settings import CoordinatorSettings
from tests.deploy.composed import FIRST, Composed, create, services
from tests.deploy.rendering import ROOT
from tests.fakes import fake_linux

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1500),
    # The Docker SDK leaves connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

BASE = "kernfarm-test-base:latest"
IMAGES = ("coordinator", "worker")
CONFIG = ROOT / "deploy" / "config"
# Short, because of the socket's path; not on tmpfs, because of overlayfs.
FOLDER = Path("/var/tmp/kernfarm-docker-test")
DEPLOY = FOLDER / "deploy"


def run(*words: str, **more: object) -> None:
    subprocess.run(words, check=True, timeout=900, **more)  # type: ignore[call-overload]


@contextlib.contextmanager
def daemon(folder: Path, *, namespace: str = "") -> Iterator[docker.DockerClient]:
    """A Docker daemon of our own. Without a network namespace it has no network of its own; in one it makes bridges."""
    (folder / "docker.sock").unlink(missing_ok=True)
    words = ["dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"]
    words += [
        "-H",
        f"unix://{folder}/docker.sock",
        "--storage-driver",
        "overlay2",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-masq=false",
    ]
    # Entered by nsenter, which leaves /sys alone: `ip netns exec` would hide the control groups.
    words = ["nsenter", f"--net=/run/netns/{namespace}", *words] if namespace else [*words, "--ip-forward=false", "--bridge=none"]
    with (folder / "log").open("ab") as log, subprocess.Popen(words, stdout=log, stderr=log) as child:
        try:
            yield _connect(folder, child)
        finally:
            child.terminate()
            child.wait(60)


def _connect(folder: Path, child: subprocess.Popen[bytes]) -> docker.DockerClient:
    deadline = time.monotonic() + 60
    while True:
        assert child.poll() is None and time.monotonic() < deadline, (folder / "log").read_text(errors="replace")[-2000:]
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(f"{folder}/docker.sock") == 0:
                return docker.DockerClient(base_url=f"unix://{folder}/docker.sock", timeout=900)
        time.sleep(0.2)


@pytest.fixture(scope="module")
def docker_folder() -> Iterator[Path]:
    """With KEEP in the environment the images stay for the next run."""
    if "KEEP" not in os.environ:
        _remove(FOLDER)
    FOLDER.mkdir(mode=0o711, exist_ok=True)
    yield FOLDER
    if "KEEP" not in os.environ:
        _remove(FOLDER)


def _remove(folder: Path) -> None:
    """A daemon leaves mounts of network namespaces behind."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        if (mount := line.split()[1]).startswith(f"{folder}/"):
            run("umount", mount)
    if folder.exists():
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def built(docker_folder: Path) -> Path:
    """Both images, in the data folder of a daemon that has ended."""
    done = docker_folder / "built"
    if not done.exists():
        _build(docker_folder)
        done.touch()
    return docker_folder


def _build(docker_folder: Path) -> None:
    root = docker_folder / "root.tar"
    # What reaches the package indexes here reaches them in the base image too: sources, certificates, pip's and apt's configuration.
    copies = [f"--customize-hook=copy-in {name} {Path(name).parent}" for name in _configuration()]
    sources = [str(path) for path in (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources")) if path.is_file()]
    run("mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", *copies, "bookworm", str(root), *sources)
    with daemon(docker_folder) as client:
        with root.open("rb") as file:
            client.api.import_image_from_data(file, repository=BASE.partition(":")[0], tag="latest")
        root.unlink()
        for target in IMAGES:
            words = [
                "docker",
                "--host",
                f"unix://{docker_folder}/docker.sock",
                "build",
                "--network=host",
                "--quiet",
                "--build-arg",
                f"BASE={BASE}",
            ]
            words += ["--file", str(ROOT / "docker/Dockerfile"), "--target", target, "--tag", f"kernfarm/{target}:0.1.0", str(ROOT)]
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=900, check=False, env={**os.environ, "DOCKER_BUILDKIT": "0"}
            )
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        client.close()


def _configuration() -> list[str]:
    found = [*Path("/etc/apt/apt.conf.d").glob("99*"), Path("/etc/pip.conf"), Path("/etc/ssl/certs/ca-certificates.crt")]
    return [str(path) for path in found if path.is_file()]


@pytest.fixture(scope="module")
def client(built: Path) -> Iterator[docker.DockerClient]:
    """A daemon with the images, in a network namespace where nothing else is."""
    name = f"kernfarm-docker-{os.getpid()}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        with daemon(built, namespace=name) as found:
            found.namespace = name
            yield found
            for container in found.containers.list(all=True):
                container.remove(force=True)
            found.networks.prune()
            for volume in found.volumes.list():
                volume.remove()
            found.close()
    finally:
        run("ip", "netns", "del", name)


def once(client: docker.DockerClient, image: str, command: list[str], **options: object) -> tuple[int, str]:
    """Run a command in a container as confined as the farm's. Returns exit code and output."""
    confined = {
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": {"/tmp": ""},
    }
    container = create(client, f"kernfarm/{image}:0.1.0", command, **{**confined, **options})  # type: ignore[arg-type]
    try:
        container.start()
        code = container.wait(timeout=120)["StatusCode"]
        return int(code), container.logs().decode(errors="replace")
    finally:
        container.remove(force=True)


def test_coordinator_starts(client: docker.DockerClient) -> None:
    code, output = once(client, "coordinator", ["python", "-m", "coordinator", "--help"])
    assert code == 0 and "--config" in output
    code, output = once(client, "coordinator", ["python", "-m", "coordinator", "--config", "/nowhere.yaml"])
    assert code == 2 and "/nowhere.yaml" in output


def test_coordinator_is_nobody_and_has_no_tools(client: docker.DockerClient) -> None:
    folders = "/var/lib/kernfarm/coordinator /var/lib/kernfarm/blobs/blobs/ff /run/kernfarm"
    script = f"id -u; id -g; stat -c '%u:%g %a' {folders}; command -v pip gcc make git"
    _, output = once(client, "coordinator", ["sh", "-c", script])
    assert output.split("\n") == ["10001", "10000", "10001:10000 2750", "10001:10000 2770", "10002:10000 2750", ""]


def test_images_hold_no_package_index(client: docker.DockerClient) -> None:
    for image in IMAGES:
        history = json.dumps(client.api.history(f"kernfarm/{image}:0.1.0"))
        assert "://" not in history


# --- the sandbox in a container: what docs/howto/deploy.md says it needs

_TRY = ["setpriv", "--reuid=64000", "--regid=64000", "--clear-groups", "--no-new-privs"]
_TRY += ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "--dev", "/dev", "--proc", "/proc", "true"]
_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"]
_PROFILE = ["no-new-privileges:true", "seccomp:unconfined", "apparmor:unconfined"]


@pytest.mark.parametrize(
    ("capabilities", "profile", "says"),
    [
        ([], [], "No permissions to create new namespace"),
        (["SYS_ADMIN"], [], "pivot_root"),
        ([], _PROFILE, "Can't mount proc"),
    ],
    ids=["default profiles", "the capability alone", "masked proc"],
)
def test_the_sandbox_does_not_run_with_less(client: docker.DockerClient, capabilities: list[str], profile: list[str], says: str) -> None:
    more = {"security_opt": profile} if profile else {}
    code, output = once(client, "worker", _TRY, user="0:0", cap_add=_CAPABILITIES + capabilities, **more)
    assert code != 0 and says in output


def test_worker_offers_what_a_build_needs(client: docker.DockerClient) -> None:
    service = services()["worker"]
    script = """
kernfarm-prepare-worker /etc/kernfarm/worker.yaml /run/worker.yaml worker-7
kernfarm doctor --json || true
python - <<'PYTHON'
import dataclasses, json
from worker.facts import facts
from worker.ray_entry import _node
from worker.sandbox import Job
print(json.dumps(dataclasses.asdict(facts(_node()))))
print(_node().sandbox.run(Job(argv=("sh", "-c", "id -u; ls /var /home; cat /proc/1/comm"), env={"PATH": "/usr/bin:/bin"})).output.decode())
PYTHON
"""
    _, output = once(
        client,
        "worker",
        ["sh", "-ec", script],
        user=service["user"],
        cap_add=service["cap_add"],
        security_opt=service["security_opt"],
        environment={"KERNFARM_WORKER_CONFIG": "/run/worker.yaml"},
        tmpfs={"/tmp": "", "/run": "", "/var/lib/apt/lists": "", "/var/cache/apt": "", "/var/lib/kernfarm/worker": ""},
        volumes=[f"{CONFIG}/worker.yaml:/etc/kernfarm/worker.yaml:ro"],
    )
    findings, _ = json.JSONDecoder().raw_decode(output[output.index("[") :])
    # The image installs its environment at build time and needs nothing that makes one.
    assert {each["name"] for each in findings if not each["ok"]} <= {"ensurepip", "disk space"}
    facts = json.loads(next(line for line in output.splitlines() if line.startswith('{"name"')))
    assert (
        facts["name"] == "worker-7"
        and facts["sandbox"] == "bubblewrap"
        and "x86_64" in facts["arches"]
        and facts["ccache"].startswith("4.")
    )
    assert "1000\n" in output and "No such file or directory" in output  # the user inside, and none of the image's data


# --- the whole farm


@pytest.fixture(scope="module")
def farm(client: docker.DockerClient) -> Composed:
    if "access" not in {each.name for each in fields(CoordinatorSettings)} or not hasattr(settings, "SignerSettings"):
        pytest.skip("this coordinator knows no access or signer settings")
    if DEPLOY.exists():
        shutil.rmtree(DEPLOY)
    DEPLOY.mkdir(mode=0o755)
    shutil.copytree(CONFIG, DEPLOY / "config")
    run(str(ROOT / "deploy/credentials.sh"), str(DEPLOY / "credentials"), FIRST)
    composed = Composed(client, DEPLOY)
    composed.up("pod")
    composed.up("ray")
    composed.until_healthy("ray")
    for name in ("signer", "coordinator", "worker"):
        composed.up(name)
    composed.until_healthy("coordinator")
    return composed


def kernfarm(client: docker.DockerClient, farm: Composed, *words: str) -> str:
    """The command line, from the namespace that the farm is in."""
    credentials = DEPLOY / "credentials"
    more = ["--farm", f"{FIRST}:7420", "--ca", str(credentials / "ca.pem"), "--token-file", str(credentials / "token")]
    argv = ["nsenter", f"--net=/run/netns/{client.namespace}", *_KERNFARM]
    done = subprocess.run([*argv, *words, *more], capture_output=True, text=True, timeout=400, check=False, env=_environment())
    assert done.returncode == 0, done.stdout + done.stderr + farm.log("coordinator") + farm.log("signer") + farm.log("worker")
    return done.stdout


_KERNFARM = [sys.executable, "-c", "import sys; from kernfarm.cli.main import main; sys.exit(main())"]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}


def _workers(client: docker.DockerClient, farm: Composed, seconds: float) -> None:
    """Wait until the farm has a worker."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if json.loads(kernfarm(client, farm, "workers", "--json")):
                return
        except (AssertionError, docker.errors.APIError):
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, farm.log("coordinator") + farm.log("worker")
        time.sleep(2)


def test_a_build_in_containers(client: docker.DockerClient, farm: Composed, tmp_path: Path) -> None:
    """From submit to a signed image, with the sandbox, the token, the certificate and the signing key of the compose file."""
    _workers(client, farm, 120)
    source = fake_linux.tarball(tmp_path / "linux-fake.tar")
    (build,) = json.loads(kernfarm(client, farm, "build", "--source", f"file:{source}", "--base", "defconfig", "--no-boot", "--json"))
    assert build["state"] == "succeeded"
    kernfarm(client, farm, "fetch", build["id"], "--to", str(tmp_path / "image"))
    words = [
        "verify",
        str(tmp_path / "image"),
        "--key",
        str(DEPLOY / "credentials/cosign.pub"),
        "--builder",
        "urn:kernfarm:builder:compose",
    ]
    done = subprocess.run([*_KERNFARM, *words], capture_output=True, text=True, timeout=120, check=False, env=_environment())
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_coordinator_cannot_read_the_key(farm: Composed) -> None:
    done = farm.containers["coordinator"].exec_run(["sh", "-c", "find / -xdev -name 'signer.key' 2>/dev/null; ls /etc/kernfarm"])
    assert "signer" not in done.output.decode()


def test_a_killed_head_is_replaced(client: docker.DockerClient, farm: Composed) -> None:
    """Ray's head forgets everything when it dies; the farm comes back by itself."""
    ray = farm.containers["ray"]
    ray.reload()
    os.kill(ray.attrs["State"]["Pid"], signal.SIGKILL)
    time.sleep(2)
    farm.until_healthy("ray")
    _workers(client, farm, 240)
