"""The exporter as a program: what it says of a worker's folder, and what it does where there is none."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from kernel.steps import Tree
from kernfarm import process
from kernfarm.blobs import BlobStore
from tests.fakes import fake_linux
from tests.prometheus import ROOT
from worker import leftovers, trees
from worker.sandbox import Bubblewrap
from worker.trees import TreeCache

ENV = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}


@contextmanager
def exporting(home: Path, state_dir: Path) -> Iterator[str]:
    """The address of an exporter for a worker."""
    (home / "worker.yaml").write_text(json.dumps({"name": "worker-7", "state_dir": str(state_dir), "tree_cache_bytes": 12345}))
    targets = home / "targets.json"
    command = [sys.executable, "-m", "worker.exporter", "--config", str(home / "worker.yaml")]
    command += ["--listen", "127.0.0.1:0", "--address-file", str(targets)]
    service = process.start(command, env=ENV, output=home / "log", name="exporter")
    try:
        deadline = time.monotonic() + 30
        while not targets.exists():
            assert service.poll() is None and time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.05)
        yield str(json.loads(targets.read_text())[0]["targets"][0])
    finally:
        assert service.terminate() == 0, (home / "log").read_text()


def scrape(address: str) -> dict[str, float]:
    """Values by name; of those with labels the sum."""
    values: dict[str, float] = {}
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        for family in text_string_to_metric_families(answer.read().decode()):
            for sample in family.samples:
                values[sample.name] = values.get(sample.name, 0.0) + sample.value
    return values


def test_it_tells_trees_attempts_and_the_machine(open_folder: Path, sandbox: Bubblewrap) -> None:
    state = open_folder / "worker"
    scratch = state / "scratch"
    scratch.mkdir(parents=True)
    blobs = BlobStore.open(f"file://{open_folder}/blobs", {})
    cache = TreeCache(state / "trees", blobs, limit_bytes=1 << 30)
    digest, _ = blobs.put_file(fake_linux.tarball(open_folder / "linux.tar"))
    upper, _ = blobs.put_file(fake_linux.tarball(open_folder / "upper.tar", {"new": "x"}))
    with cache.checkout(Tree(tarball=digest, upper=upper, version=""), sandbox):
        pass
    (scratch / "killed").mkdir()
    (scratch / "killed.lock").touch()
    with exporting(open_folder, state) as address, leftovers.own(scratch / "living"):
        values = scrape(address)
        assert values["kernfarm_worker_attempts"] == 1
        assert values["kernfarm_worker_leftovers"] == 1
        assert values["kernfarm_worker_trees"] == 2
        assert values["kernfarm_worker_trees_bytes"] == sum(path.lstat().st_size for path in (state / "trees").glob("*/src/**/*"))
        assert values["kernfarm_worker_trees_limit_bytes"] == 12345
        assert values["kernfarm_worker_cpus"] == psutil.cpu_count()
        assert values["kernfarm_worker_memory_size_bytes"] == psutil.virtual_memory().total
        assert 0 < values["kernfarm_worker_memory_available_bytes"] < values["kernfarm_worker_memory_size_bytes"]
        assert values["kernfarm_worker_disk_size_bytes"] == psutil.disk_usage(str(state)).total
        before = values["kernfarm_worker_cpu_seconds_total"]
        time.sleep(0.3)
        assert scrape(address)["kernfarm_worker_cpu_seconds_total"] > before
    assert (scratch / "killed").exists(), "looking changes nothing"


def test_a_worker_that_was_never_there_has_a_disk_and_nothing_on_it(tmp_path: Path) -> None:
    with exporting(tmp_path, tmp_path / "not/yet") as address:
        values = scrape(address)
    assert values["kernfarm_worker_disk_size_bytes"] > 0
    assert values["kernfarm_worker_trees"] == values["kernfarm_worker_attempts"] == 0
    assert not (tmp_path / "not").exists()


def test_bad_settings_end_it_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "worker.yaml").write_text("slotz: 1\n")
    command = (sys.executable, "-m", "worker.exporter", "--config", str(tmp_path / "worker.yaml"))
    done = process.run(command, env=ENV, timeout_seconds=30)
    assert done.code == 2
    assert b"did you mean 'slots'?" in done.output


def test_trees_of_before_sizes_were_written_down_are_measured(tmp_path: Path) -> None:
    for name in ("new", "old", "half"):
        (tmp_path / name / "src").mkdir(parents=True)
        (tmp_path / name / "src/file").write_bytes(b"x" * 10_000)
    (tmp_path / "new/size").write_text("77")
    for name in ("new", "old"):
        (tmp_path / name / "salt").touch()
    sizes = trees.sizes_of(tmp_path)
    assert sizes[tmp_path / "new"] == 77
    assert sizes[tmp_path / "old"] >= 10_000
    assert set(sizes) == {tmp_path / "new", tmp_path / "old"}
    assert trees.sizes_of(tmp_path / "nowhere") == {}
