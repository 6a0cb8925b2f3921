"""deploy/: the compose file, the settings beside it, and the script that makes credentials."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kernfarm.settings import CoordinatorSettings, SignerSettings, WorkerSettings, load
from tests.deploy.composed import FILE, compose, services
from tests.deploy.rendering import ROOT

CONFIG = ROOT / "deploy" / "config"
SCRIPT = ROOT / "deploy" / "credentials.sh"


def test_docker_compose_takes_the_file(tmp_path: Path) -> None:
    assert list(services()) == ["coordinator", "pod", "ray", "signer", "worker"]
    slip = tmp_path / "compose.yaml"
    slip.write_text(FILE.read_text().replace("mem_limit: 64m", "memlimit: 64m"))
    done = compose("config", file=slip)
    assert done.returncode != 0 and "memlimit" in done.stderr


def test_every_container_is_confined() -> None:
    for name, service in services().items():
        assert service["cap_drop"] == ["ALL"] and service["read_only"] and not service.get("privileged"), name
        assert "no-new-privileges:true" in service["security_opt"] and service["mem_limit"], name
        loose = [each for each in service["security_opt"] if "unconfined" in each]
        # What a build step needs for its sandbox, and nobody else.
        assert bool(loose) == (name == "worker"), name
        assert (service["user"] == "0:0") == (name == "worker"), name
        assert "SYS_ADMIN" not in service.get("cap_add", ()), name


def test_no_secret_in_an_environment() -> None:
    for name, service in services().items():
        for variable, value in service.get("environment", {}).items():
            assert not any(word in variable for word in ("TOKEN", "KEY", "PASSWORD")) or str(value).startswith("/run/secrets/"), (
                name,
                variable,
            )


def test_the_signing_key_is_the_signers() -> None:
    mounts = {name: service.get("volumes", []) for name, service in services().items()}
    assert {name for name, found in mounts.items() if any("credentials/signer" in each.get("source", "") for each in found)} == {"signer"}
    users = {name: service["user"] for name, service in services().items()}
    assert list(users.values()).count(users["signer"]) == 1
    (state,) = [each for each in mounts["signer"] if each.get("source") == "state"]
    assert state["target"] == "/var/lib/kernfarm/coordinator" and state["read_only"]
    assert services()["signer"]["network_mode"] == "none"


def test_the_api_is_on_loopback_unless_told_otherwise() -> None:
    assert _published(services()) == {
        ("pod", "127.0.0.1", "7420", 7420),
        ("pod", "127.0.0.1", "9420", 9420),
        ("worker", "127.0.0.1", "9421-9499", 9421),
    }
    done = compose("config", "--format=json", KERNFARM_LISTEN="0.0.0.0")
    # Whoever reaches the metrics may read them, so they stay.
    moved = _published(json.loads(done.stdout)["services"]) - _published(services())
    assert moved == {("pod", "0.0.0.0", "7420", 7420)}


def _published(found: dict[str, dict[str, Any]]) -> set[tuple[str, str, str, int]]:
    """Service, address and ports of the machine, and the container's port."""
    return {
        (name, port["host_ip"], port["published"], port["target"]) for name, service in found.items() for port in service.get("ports", ())
    }


def test_metrics_are_served_where_they_are_published() -> None:
    assert load(CoordinatorSettings, CONFIG / "coordinator.yaml").metrics_listen == "0.0.0.0:9420"
    assert services()["coordinator"]["network_mode"] == "service:pod"
    assert "worker.exporter --config=/run/worker.yaml --listen=0.0.0.0:9421;" in services()["worker"]["command"][2]


def test_a_worker_starts_its_exporter_again_and_becomes_ray(tmp_path: Path) -> None:
    """The command as the container runs it, with programs that only say how they were called."""
    called = f'echo "$0 $*" >>{tmp_path}/said'
    programs = {
        "kernfarm-prepare-worker": called,
        "setpriv": called,  # and ends, as an exporter that dies
        "sleep": "exec /bin/sleep 0.05",
        "ray": f'{called}; for _ in {{1..200}}; do [ "$(grep -c /setpriv {tmp_path}/said)" -gt 1 ] && echo $$ && exit; sleep 1; done',
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    argv = [word.replace("$$", "$") for word in services()["worker"]["command"]]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOSTNAME": "worker-7"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as worker:
        try:
            assert worker.stdout is not None and int(worker.stdout.readline()) == worker.pid
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
    said = [line.removeprefix(f"{tmp_path}/") for line in (tmp_path / "said").read_text().splitlines()]
    assert said[0] == "kernfarm-prepare-worker /etc/kernfarm/worker.yaml /run/worker.yaml worker-7 --refresh-apt"
    exporter = next(line for line in said if line.startswith("setpriv"))
    # Root's rights are gone, and with the group the token and the blobs (deploy/credentials.sh, docker/Dockerfile).
    assert exporter.startswith("setpriv --reuid=10004 --regid=65534 --clear-groups python -m worker.exporter ")


def test_lists_of_packages_are_refreshed_unless_told_otherwise() -> None:
    assert '"$$HOSTNAME" --refresh-apt &&' in services()["worker"]["command"][2]
    done = compose("config", "--format=json", KERNFARM_REFRESH_APT="")
    assert done.returncode == 0 and "kernfarm-prepare-worker" in done.stdout and "--refresh-apt" not in done.stdout


def test_settings_of_the_worker() -> None:
    config = load(WorkerSettings, CONFIG / "worker.yaml")
    assert f'{{"kernfarm_slot":{config.slots}}}' in services()["worker"]["command"][2]


def test_settings_of_the_coordinator() -> None:
    config = load(CoordinatorSettings, CONFIG / "coordinator.yaml")
    signer = load(SignerSettings, CONFIG / "signer.yaml")
    assert str(signer.socket) == config.signer_socket
    assert f"{signer.allowed_uid}:{signer.socket_gid}" == services()["coordinator"]["user"]
    assert signer.blobs_url == config.blobs_url == load(WorkerSettings, CONFIG / "worker.yaml").blobs_url


# --- credentials


def make(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SCRIPT), str(folder), *names], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.geteuid() != 0:
        pytest.skip("the containers' users must own their files: that takes root")
    folder = tmp_path_factory.mktemp("deploy") / "credentials"
    done = make(folder, "farm.example.org", "192.0.2.1", "2001:db8::1")
    assert done.returncode == 0, done.stderr
    return folder


def test_who_can_read_what(credentials: Path) -> None:
    found = {str(path.relative_to(credentials)): (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) for path in credentials.rglob("*")}
    assert found == {
        "ray-token": (10001, 0o440),
        "ca.pem": (0, 0o444),
        "ca-key.pem": (0, 0o400),
        "server.pem": (10001, 0o444),
        "server-key.pem": (10001, 0o440),
        "token": (0, 0o400),
        "tokens.yaml": (10001, 0o440),
        "cosign.pub": (0, 0o444),
        "signer": (10002, 0o700),
        "signer/signer.key": (10002, 0o400),
    }


def test_rays_token_is_the_whole_file(credentials: Path) -> None:
    """Ray takes a line's end for a part of the token, the coordinator does not: they would not understand each other."""
    assert re.fullmatch(r"[0-9a-f]{64}", (credentials / "ray-token").read_text())


def test_made_once(credentials: Path) -> None:
    before = {path: path.read_bytes() for path in credentials.rglob("*") if path.is_file()}
    done = make(credentials)
    assert done.returncode == 0 and done.stderr == ""
    assert {path: path.read_bytes() for path in credentials.rglob("*") if path.is_file()} == before


def test_the_certificate(credentials: Path) -> None:
    words = ("-CAfile", str(credentials / "ca.pem"), "-purpose", "sslserver")
    for name in (
        ["-verify_hostname", "farm.example.org"],
        ["-verify_hostname", "localhost"],
        ["-verify_ip", "192.0.2.1"],
        ["-verify_ip", "2001:db8::1"],
    ):
        subprocess.run(["openssl", "verify", *words, *name, str(credentials / "server.pem")], check=True, capture_output=True)
    done = subprocess.run(
        ["openssl", "verify", *words, "-verify_hostname", "example.org", str(credentials / "server.pem")], capture_output=True, check=False
    )
    assert done.returncode != 0


def test_the_token_is_known_by_its_hash_only(credentials: Path) -> None:
    token = (credentials / "token").read_text().strip()
    (entry,) = yaml.safe_load((credentials / "tokens.yaml").read_text())["tokens"]
    assert entry["sha256"] == hashlib.sha256(token.encode()).hexdigest() and token.startswith("kft_") and len(token) > 44
    assert token not in (credentials / "tokens.yaml").read_text()


def test_a_wrong_name_is_refused(tmp_path: Path, credentials: Path) -> None:
    done = make(tmp_path / "c", "farm,DNS:evil.example.org")
    assert done.returncode == 2 and "farm,DNS:evil.example.org" in done.stderr
    assert not (tmp_path / "c").exists()
