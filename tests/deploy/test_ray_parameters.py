"""The chart's parameters of Ray nodes and their probes, against a real Ray in a network namespace where its fixed ports are free."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.rendering import containers, documents, of_kind, pod_templates

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]

# What the kubelet does for `grpc: {port: N}`: a plaintext health check, without a token.
_PROBE = """
import sys, time, grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
deadline = time.monotonic() + 60
while True:
    try:
        with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        break
    except grpc.RpcError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.5)
"""
_OPEN = """
import socket, sys, time
deadline = time.monotonic() + 90
for port in map(int, sys.argv[1:]):
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kfray", dir="/tmp", ignore_cleanup_errors=True) as name:  # short, because of sockets
        yield Path(name)


def test_a_head_starts_with_the_charts_parameters_and_its_probe_passes(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a network namespace takes root")
    found = documents("minimal")
    (cluster,) = of_kind(found, "RayCluster")
    parameters = cluster["spec"]["headGroupSpec"]["rayStartParams"]
    head = containers(pod_templates(found)["head"])["ray-head"]
    probe = head["readinessProbe"]["grpc"]["port"]
    assert head["livenessProbe"]["grpc"]["port"] == probe
    # As KubeRay does it: --NAME=VALUE, pasted into a line of a shell.
    line = " ".join(f"--{name}={value}" for name, value in parameters.items())
    script = f"""
set -e
ip link set lo up
ray start --head --block --node-ip-address=127.0.0.1 --temp-dir={folder}/ray {line} >{folder}/log 2>&1 &
ray=$!
trap 'kill $ray; wait $ray || true' EXIT
"$1" -c "$2" {probe}
"$1" -c "$3" {parameters["node-manager-port"]} {parameters["object-manager-port"]}
"""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    words = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "bash", "-c", script, "x", sys.executable, _PROBE, _OPEN]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False, env=environment)
    log = (folder / "log").read_text(errors="replace") if (folder / "log").exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log[-3000:]
