"""A real Prometheus for tests, on a free port, ended with them; and Debian's promtool."""

from __future__ import annotations

import json
import socket
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from kernfarm import process

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "helm/kernfarm/rules/kernfarm.yaml"
DASHBOARD = ROOT / "helm/kernfarm/dashboards/farm-overview.json"
_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


def promtool(*words: str, input: bytes | None = None) -> process.Completed:
    """Debian's promtool; package prometheus."""
    return process.run(("/usr/bin/promtool", *words), env=_ENV, timeout_seconds=60, input=input)


class Prometheus:
    """Scrapes every second what the target files in `targets` name, and evaluates the chart's alert rules."""

    def __init__(self, home: Path, targets: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "farm", "file_sd_configs": [{"files": [f"{targets}/*.json"], "refresh_interval": "1s"}]}],
        }
        path = home / "prometheus.yaml"
        path.write_text(yaml.safe_dump(config))
        command = ["/usr/bin/prometheus", f"--config.file={path}", f"--storage.tsdb.path={home}/data"]
        command += [f"--web.listen-address={self.address}", "--log.level=warn"]
        self.log = home / "prometheus.log"
        self._service = process.start(command, env=_ENV, output=self.log, cwd=home, name="prometheus")

    def stop(self) -> None:
        self._service.terminate()

    def ask(self, path: str, **words: str) -> Any:
        """The `data` of an answer of its HTTP API."""
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(words)}", timeout=20) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series of an instant query."""
        return [(row["metric"], float(row["value"][1])) for row in self.ask("query", query=expression)["result"]]

    def value(self, expression: str) -> float:
        """The value of a query with one series; NaN when there is none."""
        found = self.query(expression)
        assert len(found) < 2, found
        return found[0][1] if found else float("nan")

    def until(self, check: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if check():
                    return
            except OSError:
                assert self._service.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"{what}; {self.log.read_text()}"
            time.sleep(0.1)
