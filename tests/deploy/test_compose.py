"""deploy/: the compose file, the settings beside it, and the script that makes credentials."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
from pathlib import Path

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
    (port,) = services()["pod"]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "7420", 7420)
    done = compose("config", "--format=json", KERNFARM_LISTEN="0.0.0.0")
    assert '"host_ip": "0.0.0.0"' in done.stdout


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
