"""`python -m coordinator --config FILE`: the coordinator as a program."""

from __future__ import annotations

import argparse
import asyncio
import functools
import logging
import os
import signal
import sys
import time
from pathlib import Path

from prometheus_client import CollectorRegistry

from coordinator import service, signing
from coordinator.access.audit import Audit
from coordinator.access.gate import Gate
from coordinator.access.ownership import Ownership
from coordinator.access.tls import server_credentials
from coordinator.farm import Farm
from coordinator.fleet import Fleet
from coordinator.fleet_signing import SigningFleet
from coordinator.journal import Journal
from coordinator.metrics.gauges import Gauges, on_loop
from coordinator.metrics.observed import Metrics
from kernel.errors import Code, FarmError
from kernfarm import exposition, settings
from kernfarm.blobs import BlobStore
from kernfarm.exposition import Exposition
from kernfarm.settings import CoordinatorSettings


async def run(config: CoordinatorSettings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code."""
    config.state_dir.mkdir(parents=True, exist_ok=True)
    audit = Audit(Path(config.access.audit_file or config.state_dir / "audit.jsonl"), clock=time.time)
    gate = Gate(config.access, audit)  # before the fleet: whoever can't be told apart is not let in later either
    server_credentials(config.listen, config.access.tls)
    journal = Journal(config.journal_url or f"sqlite:///{config.state_dir}/journal.sqlite")
    index_signer = functools.partial(signing.sign_index, Path(config.signer_socket)) if config.signer_socket else None
    fleet = _ray(config)
    if config.signer_socket:
        fleet = SigningFleet(fleet, functools.partial(signing.sign, Path(config.signer_socket)))
    blobs = BlobStore.open(config.blobs_url, config.blobs_options)
    registry = exposition.registry_of("coordinator")
    metrics = Metrics(registry)
    farm = Farm(config, journal=journal, fleet=fleet, blobs=blobs, clock=time.time, observer=metrics, sign_index=index_signer)
    registry.register(Gauges(on_loop(asyncio.get_running_loop(), farm.census), metrics.committing_seconds))
    scraped = _serve_metrics(config, registry)  # before the fleet: an address that is taken is said at once
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await farm.start()
    # Callers are let in once the state is whole.
    server, address = await service.serve(
        farm,
        listen=config.listen,
        access=config.access,
        guard=gate,
        ownership=Ownership(journal.engine),
        max_upload_bytes=config.max_upload_bytes,
        observe=metrics.called,
    )
    if config.address_file:
        path = Path(config.address_file)
        path.with_suffix(".new").write_text(address + "\n")
        path.with_suffix(".new").replace(path)
    logging.getLogger("coordinator").info("serving on %s", address)
    waits = [asyncio.create_task(stop.wait()), asyncio.create_task(farm.failed.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    await server.stop(grace=2)
    if scraped is not None:
        await asyncio.to_thread(scraped.close)
    await farm.stop()
    return 1 if farm.failed.is_set() else 0


def _serve_metrics(config: CoordinatorSettings, registry: CollectorRegistry) -> Exposition | None:
    if not config.metrics_listen:
        return None
    scraped = exposition.serve(registry, config.metrics_listen, job="kernfarm-coordinator", address_file=config.metrics_address_file)
    logging.getLogger("coordinator").info("metrics on %s", scraped.address)
    return scraped


def _ray(config: CoordinatorSettings) -> Fleet:
    """Ray reads its settings from the environment only, and when it is loaded: set later they are not seen, and no token is sent."""
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=_token(config), RAY_USAGE_STATS_ENABLED="0")
    from coordinator.fleet_ray import RayFleet

    return RayFleet(address=config.ray_address, node_ip=config.ray_node_ip)


def _token(config: CoordinatorSettings) -> str:
    path = Path(config.ray_token_file)
    try:
        return path.read_text().strip()
    except OSError as error:
        raise FarmError(Code.MISSING_FILE, f"cannot read Ray's token: {error.strerror}", where=str(path)) from error


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m coordinator", description="The coordinator of a kernfarm.")
    parser.add_argument("--config", type=Path, required=True, help="settings, a YAML file (kernfarm.settings.CoordinatorSettings)")
    words = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return asyncio.run(run(settings.load(CoordinatorSettings, words.config)))
    except FarmError as error:
        print(f"coordinator: {error}", file=sys.stderr)
        return error.problem.handling.exit_code


if __name__ == "__main__":
    sys.exit(main())
