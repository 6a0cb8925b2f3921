"""`python -m worker.exporter --config FILE`: what a worker's machine has and uses, for Prometheus.

A program of its own, beside the worker: it answers while the worker's processes are busy, dead or not there yet. CPU, memory and load
are the machine's; where several workers share a machine or a state folder, each of their exporters tells the same of it.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from kernel.errors import FarmError
from kernfarm import exposition, settings
from kernfarm.settings import WorkerSettings
from worker import leftovers, trees

Family = CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily

# Linux's kinds of CPU time (proc(5), /proc/stat) that don't overlap: guest time is in user time already.
MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


class Machine(Collector):
    """Looks at the machine and the worker's state folder when it is asked. The folder need not exist yet."""

    def __init__(self, config: WorkerSettings) -> None:
        self._config = config

    def describe(self) -> Iterable[Family]:
        return self.collect()

    def collect(self) -> Iterable[Family]:
        yield InfoMetricFamily("kernfarm_worker", "Name of the worker; always 1.", value={"worker": self._config.name})
        yield from self._processor()
        yield from self._memory()
        yield from self._disk()
        yield from self._work()

    def _processor(self) -> Iterable[Family]:
        times = psutil.cpu_times()
        cpu = CounterMetricFamily("kernfarm_worker_cpu_seconds", "CPU time of all processors, by what it went to.", labels=["mode"])
        for mode in MODES:
            cpu.add_metric([mode], getattr(times, mode))
        yield cpu
        yield _gauge("kernfarm_worker_cpus", "Processors of the machine.", psutil.cpu_count() or 0)
        yield _gauge("kernfarm_worker_load1", "Load average of the last minute.", os.getloadavg()[0])

    def _memory(self) -> Iterable[Family]:
        memory = psutil.virtual_memory()
        yield _gauge("kernfarm_worker_memory_size_bytes", "Memory of the machine.", memory.total)
        yield _gauge("kernfarm_worker_memory_available_bytes", "Memory that can be had without swapping.", memory.available)

    def _disk(self) -> Iterable[Family]:
        # The nearest folder that exists is on the file system on which the state folder will be.
        folder = next(each for each in (self._config.state_dir, *self._config.state_dir.absolute().parents) if each.exists())
        usage = os.statvfs(folder)
        yield _gauge("kernfarm_worker_disk_size_bytes", "Size of the file system of state_dir.", usage.f_blocks * usage.f_frsize)
        yield _gauge("kernfarm_worker_disk_free_bytes", "What is free of it, without root's reserve.", usage.f_bavail * usage.f_frsize)
        yield _gauge("kernfarm_worker_disk_free_inodes", "Files that it can still take.", usage.f_favail)
        yield _gauge("kernfarm_worker_disk_inodes", "Files that it can take in all; 0: as many as fit.", usage.f_files)

    def _work(self) -> Iterable[Family]:
        sizes = trees.sizes_of(self._config.state_dir / "trees")
        living, dead = leftovers.count(self._config.state_dir / "scratch")
        yield _gauge("kernfarm_worker_trees", "Unpacked kernel trees in state_dir.", len(sizes))
        yield _gauge("kernfarm_worker_trees_bytes", "Size of these trees, as the limit counts it.", sum(sizes.values()))
        yield _gauge("kernfarm_worker_trees_limit_bytes", "Size above which unused trees are removed.", self._config.tree_cache_bytes)
        yield _gauge("kernfarm_worker_attempts", "Attempts that run in state_dir now.", living)
        yield _gauge("kernfarm_worker_leftovers", "Folders of attempts that were killed; the next attempt removes them.", dead)
        yield _gauge("kernfarm_worker_slots", "Attempts that this worker runs at a time.", self._config.slots)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def run(config: WorkerSettings, listen: str, address_file: str) -> int:
    """Serve until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    registry = exposition.registry_of("worker")
    registry.register(Machine(config))
    served = exposition.serve(registry, listen, job="kernfarm-worker", address_file=address_file)
    logging.getLogger("exporter").info("metrics of %s on %s", config.name, served.address)
    stop.wait()
    served.close()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m worker.exporter", description="Metrics of a kernfarm worker's machine.")
    parser.add_argument("--config", type=Path, required=True, help="the worker's settings, a YAML file (kernfarm.settings.WorkerSettings)")
    parser.add_argument("--listen", default="127.0.0.1:9421", metavar="HOST:PORT", help="port 0 takes a free one (default: %(default)s)")
    parser.add_argument("--address-file", default="", help="where to write the address, as a target file for Prometheus' file_sd_configs")
    words = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return run(settings.load(WorkerSettings, words.config), words.listen, words.address_file)
    except FarmError as error:
        print(f"exporter: {error}", file=sys.stderr)
        return error.problem.handling.exit_code


if __name__ == "__main__":
    sys.exit(main())
