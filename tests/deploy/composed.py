"""deploy/compose.yaml as values, and a small stand-in for `docker compose up` on the Docker SDK: Debian 12 has no docker compose.

It knows the keys that our file uses and refuses others, so that nothing in the file is silently left untested."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import docker
import yaml
from docker.models.containers import Container, _create_container_args

from tests.deploy.rendering import ROOT

FILE = ROOT / "deploy" / "compose.yaml"
_KNOWN = {
    *(
        "build",
        "cap_add",
        "cap_drop",
        "command",
        "depends_on",
        "environment",
        "healthcheck",
        "image",
        "init",
        "ipc",
        "logging",
        "mem_limit",
    ),
    *(
        "network_mode",
        "networks",
        "pid",
        "pids_limit",
        "ports",
        "read_only",
        "restart",
        "secrets",
        "security_opt",
        "shm_size",
        "tmpfs",
        "user",
    ),
    "volumes",
}
SUBNET = "172.31.98.0/24"
FIRST = "172.31.98.2"
"""Address of the service that is started first."""
_VARIABLES = {
    "${KERNFARM_VERSION:-0.1.0}": "0.1.0",
    "${KERNFARM_LISTEN:-127.0.0.1}": "0.0.0.0",
    "${KERNFARM_WORKER_MEMORY:-8g}": "4g",
    "$$HOSTNAME": "$HOSTNAME",
}


def services() -> dict[str, dict[str, Any]]:
    """The services by name, variables put in, in the order in which they start."""
    text = FILE.read_text()
    for variable, value in _VARIABLES.items():
        assert variable in text, f"{variable} is gone from {FILE}"
        text = text.replace(variable, value)
    document = yaml.safe_load(text)
    assert "${" not in text
    return dict(document["services"])


def create(client: docker.DockerClient, image: str, command: Any, **options: Any) -> Container:
    """A container, with what the `docker` and `docker compose` programs know and the SDK does not: systempaths=unconfined, which they
    turn into empty lists of masked and read-only paths."""
    asked = options.pop("security_opt", [])
    profile = [each for each in asked if each != "systempaths=unconfined"]
    words = _create_container_args(
        {"image": image, "command": command, "version": client.api.api_version, "security_opt": profile, **options}
    )
    if profile != asked:
        words["host_config"].update(MaskedPaths=[], ReadonlyPaths=[])
    return client.containers.get(client.api.create_container(**words)["Id"])


class Composed:
    """The farm of the compose file. `folder` stands for deploy/: `credentials` and `config` are looked up there."""

    def __init__(self, client: docker.DockerClient, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._secrets: dict[str, Any] = yaml.safe_load(FILE.read_text())["secrets"]
        self.containers: dict[str, Container] = {}
        pool = docker.types.IPAMPool(subnet=SUBNET)
        self._network = client.networks.create("farm", ipam=docker.types.IPAMConfig(pool_configs=[pool]))

    def up(self, name: str, replica: str = "") -> Container:
        """Start one service. Raises what docker raises."""
        service = services()[name]
        assert not set(service) - _KNOWN, f"{name}: the stand-in does not know {set(service) - _KNOWN}"
        mode = service.get("network_mode", "")
        network: dict[str, Any] = {"network_mode": self._of(mode) if mode else "none"}
        container = create(
            self._client,
            service["image"],
            service["command"],
            name=name + replica,
            user=service["user"],
            environment=service.get("environment", {}),
            init=service.get("init", False),
            read_only=service["read_only"],
            cap_drop=service["cap_drop"],
            cap_add=service.get("cap_add"),
            security_opt=service["security_opt"],
            ipc_mode=self._of(service["ipc"]) if "ipc" in service else None,
            pid_mode=self._of(service["pid"]) if "pid" in service else None,
            shm_size=service.get("shm_size"),
            mem_limit=service["mem_limit"],
            pids_limit=service.get("pids_limit"),
            tmpfs=dict(each.partition(":")[::2] for each in service.get("tmpfs", ())),
            volumes=[each for each in self._binds(service) if ":" in each],
            restart_policy={"Name": service["restart"]},
            **network,
        )
        self.containers[name + replica] = container
        if not mode:
            # Compose makes a service's name one of its aliases; others are in a mapping.
            networks = service["networks"]
            more = networks["farm"]["aliases"] if isinstance(networks, dict) else []
            self._client.networks.get("none").disconnect(container)
            self._network.connect(container, aliases=[name, *more])
        container.start()
        return container

    def _of(self, mode: str) -> str:
        other = mode.removeprefix("service:")
        return f"container:{self.containers[other].id}" if other != mode else mode

    def _binds(self, service: dict[str, Any]) -> list[str]:
        found = [each.replace("./", f"{self._folder}/", 1) if each.startswith("./") else each for each in service.get("volumes", ())]
        for name in service.get("secrets", ()):
            found.append(f"{self._secrets[name]['file'].replace('./', f'{self._folder}/', 1)}:/run/secrets/{name}:ro")
        # A folder without a host's side is a volume without a name.
        return [each if ":" in each else f"{name_of(each)}:{each}" for each in found]

    def until_healthy(self, name: str, seconds: float = 120) -> None:
        """Wait until the service's own health check passes."""
        command = services()[name]["healthcheck"]["test"]
        assert command[0] == "CMD"
        deadline = time.monotonic() + seconds
        while True:
            try:
                done = self.containers[name].exec_run(command[1:])
                if done.exit_code == 0:
                    return
                said = done.output.decode()
            except docker.errors.APIError as error:  # it is being started again
                said = str(error)
            assert time.monotonic() < deadline, f"{name}: {said}\n{self.log(name)}"
            time.sleep(1)

    def log(self, name: str) -> str:
        """The last lines of a service's output."""
        return str(self.containers[name].logs(tail=40).decode(errors="replace"))


def name_of(folder: str) -> str:
    """A volume's name for a folder that has none in the file."""
    return folder.strip("/").replace("/", "-")
