"""`kernfarm up`: a whole farm on this machine. Ray's head, workers and the coordinator are programs of their own, ended with us."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel.errors import Code, FarmError
from kernfarm import credentials, process
from kernfarm.cli import signer
from kernfarm.cli.authority import Files
from kernfarm.cli.claim import Claim
from kernfarm.client import FarmClient
from kernfarm.credentials import Credentials
from kernfarm.private import private_folder, write_private
from kernfarm.process import Service
from kernfarm.settings import AccessSettings, CoordinatorSettings, TlsSettings, WorkerSettings, plain

log = logging.getLogger(__name__)

# A raylet on a machine under load may need more than a minute.
_START_SECONDS = 120.0
_RESTART_SECONDS = 2.0
# The signer's user reads the journal: what the farm's programs write must not hang on the umask of whoever started them.
_UMASK = 0o022
# How often a running farm looks whether its certificate has to be renewed.
_RENEW_SECONDS = 86_400.0
# What `ray start` says once its node is registered.
_STARTED = "Ray runtime started."
# Only control messages go through Ray's object store; the smallest it accepts.
_OBJECT_STORE_BYTES = 80_000_000
# Two farms on one machine must not meet: by default Ray's agents and its Client server (which can't be left out) have fixed ports.
_NO_FIXED_PORTS = ("--dashboard-agent-listen-port=0",)
# A dead node is noticed in about two seconds instead of fourteen.
_SYSTEM_CONFIG = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to start. `worker_overrides` and `coordinator_overrides` replace single settings; `pin`: each worker keeps to one processor."""

    state: Path
    workers: int
    jobs: int
    listen: str
    pin: bool = False
    worker_overrides: dict[str, Any] = field(default_factory=dict)
    coordinator_overrides: dict[str, Any] = field(default_factory=dict)


class EmbeddedFarm:
    """A farm's programs. `start` returns once it serves; `supervise` starts again what dies until told to stop."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._token = secrets.token_hex(32)
        self._port = _free_port()
        self._claim = Claim(plan.state)
        self._files = Files(plan.state)
        self._told = threading.Event()
        self.services: dict[str, Service] = {}
        self._commands: dict[str, tuple[list[str], dict[str, str]]] = {}
        self.address = ""

    def start(self, stop: threading.Event | None = None) -> None:
        """Raises FarmError: CONFLICT when a farm runs in the state folder already, UNAVAILABLE when a program does not come up, with
        the place of its log, CANCELLED when `stop` is set before all serve. What was started then is ended by `stop()`."""
        plan = self._plan
        self._claim.take()
        self._told = stop or self._told
        self._files.ensure(plan.listen)
        private_folder(self.log_of("").parent)
        self._forget_targets()  # those of a farm that was killed, which may have had more workers
        token_file = plan.state / "ray-token"
        write_private(token_file, self._token.encode())
        ray = str(Path(sys.executable).with_name("ray"))
        head = [ray, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={self._port}", "--num-cpus=0"]
        head += ["--include-dashboard=false", f"--temp-dir={self._claim.ray_folder}", f"--object-store-memory={_OBJECT_STORE_BYTES}"]
        head += [f"--ray-client-server-port={_free_port()}", *_NO_FIXED_PORTS]
        head += [f"--system-config={json.dumps(_SYSTEM_CONFIG)}"]
        self._begin("ray-head", head, self._environment())
        self._await("ray-head", lambda: _listens(self._port))
        for index in range(1, plan.workers + 1):
            # One after the other: raylets that start at the same moment on one address can miss each other and time out.
            name = f"worker-{index}"
            self.log_of(name).unlink(missing_ok=True)
            self._begin_worker(ray, index, name)
            self._await(name, lambda name=name: _STARTED in self.log_of(name).read_text(errors="replace"))
            self._begin_exporter(name)
        self._begin_coordinator(token_file, self._begin_signer())
        self._await("coordinator", lambda: self._address_file.exists() and bool(self._address_file.read_text().strip()))
        self.address = self._address_file.read_text().strip()
        self._await("coordinator", lambda: asyncio.run(self._workers_there()) >= plan.workers)
        for index in range(1, plan.workers + 1):
            self._await(f"exporter-{index}", self._targets(f"worker-{index}").exists)

    @property
    def credentials(self) -> Credentials:
        """What a client of this farm shows and trusts."""
        return credentials.read(credentials.embedded(self._plan.state))

    @property
    def environment(self) -> dict[str, str]:
        """The same for the command line, with the address."""
        places = credentials.embedded(self._plan.state)
        return {"KERNFARM": self.address, "KERNFARM_CA": str(places.ca), "KERNFARM_TOKEN_FILE": str(places.token_file)}

    async def _workers_there(self) -> int:
        async with FarmClient(self.address, self.credentials) as client:
            return len(await client.workers())

    @property
    def _address_file(self) -> Path:
        return self._plan.state / "address"

    def _begin_worker(self, ray: str, index: int, name: str) -> None:
        plan = self._plan
        settings = WorkerSettings(
            name=name, state_dir=plan.state / "worker/state", blobs_url=f"file://{plan.state.absolute()}/blobs", jobs=plan.jobs
        )
        path = plan.state / f"{name}.yaml"
        words = {**plain(settings), **plan.worker_overrides}
        write_private(path, json.dumps(words, indent=2).encode())
        # Workers let everybody into their folder, since build steps may run as another user. Here others have no business in it.
        private_folder(settings.state_dir.parent, group=words["sandbox_uid"] if os.geteuid() == 0 else None)
        command = [ray, "start", "--block", f"--address=127.0.0.1:{self._port}", "--node-ip-address=127.0.0.1", "--num-cpus=1"]
        command += [f'--resources={{"kernfarm_slot":{settings.slots}}}', f"--object-store-memory={_OBJECT_STORE_BYTES}", *_NO_FIXED_PORTS]
        if plan.pin:
            processors = sorted(os.sched_getaffinity(0))
            command = ["taskset", "--cpu-list", str(processors[(index - 1) % len(processors)]), *command]
        self._begin(name, command, {**self._environment(), "KERNFARM_WORKER_CONFIG": str(path)})

    def _begin_signer(self) -> Path:
        """Returns the socket where it listens."""
        environment = self._without_ray()
        program = signer.prepare(self._plan.state.absolute(), environment)
        self._begin("signer", list(program.command), environment)
        self._await("signer", program.socket.is_socket)
        return program.socket

    def _targets(self, name: str) -> Path:
        """Where a program writes the address of its metrics; Prometheus finds all of them by file_sd_configs."""
        folder = self._plan.state / "metrics"
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.json"

    def _forget_targets(self) -> None:
        for path in (self._plan.state / "metrics").glob("*.json"):
            path.unlink()

    def _without_ray(self) -> dict[str, str]:
        """For programs that have no business with Ray, or read its token from their own settings."""
        return {key: value for key, value in self._environment().items() if not key.startswith("RAY_")}

    def _begin_exporter(self, worker: str) -> None:
        targets = self._targets(worker)
        command = [sys.executable, "-m", "worker.exporter", "--config", str(self._plan.state / f"{worker}.yaml")]
        command += ["--listen", "127.0.0.1:0", "--address-file", str(targets)]
        self._begin(worker.replace("worker", "exporter"), command, self._without_ray())

    def _begin_coordinator(self, token_file: Path, signer_socket: Path) -> None:
        plan = self._plan
        self._address_file.unlink(missing_ok=True)
        settings = CoordinatorSettings(
            listen=plan.listen,
            access=AccessSettings(
                tls=TlsSettings(certificate=str(self._files.certificate), key=str(self._files.key)), tokens_file=str(self._files.tokens)
            ),
            address_file=str(self._address_file),
            state_dir=plan.state / "coordinator",
            blobs_url=f"file://{plan.state.absolute()}/blobs",
            ray_address=f"127.0.0.1:{self._port}",
            ray_node_ip="127.0.0.1",
            ray_token_file=str(token_file),
            signer_socket=str(signer_socket),
            metrics_listen="127.0.0.1:0",
            metrics_address_file=str(self._targets("coordinator")),
        )
        path = plan.state / "coordinator.yaml"
        write_private(path, json.dumps({**plain(settings), **plan.coordinator_overrides}, indent=2).encode())
        self._begin("coordinator", [sys.executable, "-m", "coordinator", "--config", str(path)], self._without_ray())

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "HOME": str(self._plan.state),
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "GRPC_ENABLE_FORK_SUPPORT": "0",
            "LC_ALL": "C.UTF-8",
        }

    def _begin(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self._commands[name] = (command, environment)
        self.services[name] = process.start(command, env=environment, output=self.log_of(name), name=name, umask=_UMASK)

    def log_of(self, name: str) -> Path:
        """Where a program's output goes."""
        return self._plan.state / "logs" / f"{name}.log"

    def _await(self, name: str, ready: Any) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            if self._told.is_set():
                raise FarmError(Code.CANCELLED, f"told to stop before {name} was up", where=str(self._plan.state))
            code = self.services[name].poll()
            if code is not None or time.monotonic() > deadline:
                tail = self.log_of(name).read_text(errors="replace").strip().splitlines()[-1:]
                said = f"ended with {code}" if code is not None else "did not come up in time"
                raise FarmError(Code.UNAVAILABLE, f"{name} {said}: {' '.join(tail)}", where=str(self.log_of(name)))
            self._told.wait(0.05)

    def supervise(self, stop: threading.Event) -> None:
        """Start again what dies, until `stop`. Ray's head is the exception: without it the others have nothing to talk to."""
        looked = time.monotonic()
        while not stop.wait(0.5):
            if time.monotonic() - looked > _RENEW_SECONDS:
                looked = time.monotonic()
                self._renew()
            for name, service in self.services.items():
                if service.poll() is None:
                    continue
                if name == "ray-head":
                    raise FarmError(Code.UNAVAILABLE, "Ray's head has died", where=str(self.log_of(name)))
                service.kill()
                if stop.wait(_RESTART_SECONDS):
                    return
                self.restart(name)

    def _renew(self) -> None:
        """The coordinator takes a new certificate without a restart. There is a month for it, so a failure can wait for the next day."""
        try:
            self._files.ensure(self._plan.listen)
        except FarmError as error:
            log.error("the farm's certificate can't be renewed: %s", error)

    def restart(self, name: str) -> None:
        """Start a program again as it was started before."""
        command, environment = self._commands[name]
        self.services[name] = process.start(command, env=environment, output=self.log_of(name), name=name, umask=_UMASK)

    def stop(self) -> None:
        """End all programs, coordinator first, and remove Ray's temporary folder. Touches nothing in a folder that is another farm's."""
        if not self._claim.held:
            return
        for name in ("coordinator", "signer", *[each for each in self.services if each.startswith(("worker", "exporter"))]):
            if name in self.services:
                self.services[name].terminate()
        if "ray-head" in self.services:
            # Its table of nodes waits ten seconds for nodes that have gone; nothing in it outlives the farm.
            self.services["ray-head"].terminate(grace_seconds=1.0)
        self._address_file.unlink(missing_ok=True)
        self._forget_targets()
        self._claim.release()


def run(plan: Plan, said: Any) -> int:
    """Start, say where it listens, supervise until Ctrl-C or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    farm = EmbeddedFarm(plan)
    try:
        farm.start(stop)
        said(farm.address)
        farm.supervise(stop)
    except FarmError as error:
        if error.problem.code is not Code.CANCELLED:  # told to stop while it started: as good an end as later
            raise
    finally:
        farm.stop()
    return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
