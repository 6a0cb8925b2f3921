"""`python -m kernfarm.health HOST:PORT`: gRPC's health check over TLS. For probes of containers: Kubernetes' own knows no TLS."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kernel.errors import Code, FarmError

_SECONDS = 5.0


def check(address: str, *, authorities: bytes, name: str = "", seconds: float = _SECONDS) -> None:
    """Ask whether the server serves. `authorities`: PEM, also the server's own certificate will do; `name`: what its certificate has to
    say, where that is not the host of `address`. Raises FarmError(UNAVAILABLE) with the reason when it does not serve."""
    options = [("grpc.ssl_target_name_override", name)] if name else []
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(authorities), options=options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=seconds)
        except grpc.RpcError as error:
            raise FarmError(Code.UNAVAILABLE, f"no answer: {error.details()}", where=address) from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        said = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise FarmError(Code.UNAVAILABLE, f"it answers, but it is {said}", where=address)


def read_authorities(paths: list[Path]) -> bytes:
    """Those of the files that are there, as one PEM. Raises FarmError(MISSING_FILE) when none is: then nothing could be checked."""
    found = [path.read_bytes() for path in paths if path.is_file()]
    if not found:
        raise FarmError(Code.MISSING_FILE, "no certificate to check the server's by", where=", ".join(map(str, paths)))
    return b"\n".join(found)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m kernfarm.health", description="Whether a coordinator serves.")
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument(
        "--authority", type=Path, action="append", required=True, metavar="FILE", help="PEM; repeat it: those that are there count"
    )
    parser.add_argument("--name", default="", help="the name in the server's certificate, where it is not HOST")
    words = parser.parse_args()
    try:
        check(words.address, authorities=read_authorities(words.authority), name=words.name)
    except FarmError as error:
        print(f"health: {error}", file=sys.stderr)
        return error.problem.handling.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
