"""Metrics over HTTP, in threads of their own: a slow or hostile reader costs the program's work nothing."""

from __future__ import annotations

import importlib.metadata
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from wsgiref.simple_server import WSGIServer

import prometheus_client
from prometheus_client import CollectorRegistry, Info, ProcessCollector

from kernel.errors import Code, FarmError


@dataclass(frozen=True, slots=True)
class Exposition:
    """A listener that serves one registry. `address` is host:port, with the port that was taken."""

    address: str
    _server: WSGIServer
    _thread: threading.Thread

    def close(self) -> None:
        """Stop listening; requests that are being answered are not waited for."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def registry_of(component: str) -> CollectorRegistry:
    """A registry with what every program of the farm tells: its version, and its own CPU, memory and file descriptors."""
    # When a series began is told by the process's start time; as series of their own these would be a third of all.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
    registry = CollectorRegistry(auto_describe=True)
    info = Info("kernfarm_build", "Version of this program; always 1.", registry=registry)
    info.info({"component": component, "version": _version()})
    ProcessCollector(registry=registry)
    return registry


def serve(registry: CollectorRegistry, listen: str, *, job: str, address_file: str = "") -> Exposition:
    """Serve `registry` on host:port (port 0: a free one) and write `address_file`, if given, as a target file for Prometheus'
    file_sd_configs. Raises FarmError: INVALID_ARGUMENT (no such address), UNAVAILABLE (it can't be listened on)."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise FarmError(Code.INVALID_ARGUMENT, f"no address to serve metrics on: {listen!r}", where="metrics", hint="host:port")
    try:
        server, thread = prometheus_client.start_http_server(int(port), host.strip("[]"), registry)
    except (OSError, OverflowError) as error:
        raise FarmError(Code.UNAVAILABLE, f"cannot serve metrics: {error}", where=listen, hint="is another program there?") from error
    address = f"{host}:{server.server_port}"
    if address_file:
        path = Path(address_file)
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(json.dumps([{"targets": [address], "labels": {"job": job}}]) + "\n")
        fresh.replace(path)
    return Exposition(address, server, thread)


def _version() -> str:
    """The installed distribution's; a bare source tree has none."""
    try:
        return importlib.metadata.version("kernfarm")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
