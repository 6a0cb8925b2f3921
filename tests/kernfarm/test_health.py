from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from kernel.errors import Code, FarmError
from kernfarm.health import check, read_authorities

NAME = "farm.example.org"


@dataclass(frozen=True)
class Served:
    address: str
    authority: bytes
    certificate: bytes
    status: Any


def _certificate(subject: str, key: Any, issuer: str, issuer_key: Any, *, authority: bool) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("authority", authority_key, "authority", authority_key, authority=True).public_bytes(Encoding.PEM)
    certificate = _certificate(NAME, key, "authority", authority_key, authority=False).public_bytes(Encoding.PEM)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    server = grpc.server(ThreadPoolExecutor(2))
    status = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pem, certificate)]))
    server.start()
    yield Served(f"127.0.0.1:{port}", authority, certificate, status)
    server.stop(0).wait()


@pytest.fixture(autouse=True)
def serving(served: Served) -> None:
    served.status.set("", health_pb2.HealthCheckResponse.SERVING)


def test_serving(served: Served) -> None:
    check(served.address, authorities=served.authority, name=NAME)


def test_the_certificate_itself_will_do(served: Served) -> None:
    """A Secret of type kubernetes.io/tls may come without its authority."""
    check(served.address, authorities=served.certificate, name=NAME)


def test_another_name_is_refused(served: Served) -> None:
    with pytest.raises(FarmError) as caught:
        check(served.address, authorities=served.authority, name="other.example.org")
    assert caught.value.problem.code is Code.UNAVAILABLE


def test_another_authority_is_refused(served: Served) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    other = _certificate("authority", key, "authority", key, authority=True).public_bytes(Encoding.PEM)
    with pytest.raises(FarmError) as caught:
        check(served.address, authorities=other, name=NAME)
    assert caught.value.problem.code is Code.UNAVAILABLE


def test_not_serving_is_not_healthy(served: Served) -> None:
    served.status.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    with pytest.raises(FarmError, match="NOT_SERVING"):
        check(served.address, authorities=served.authority, name=NAME)


def test_nobody_there(served: Served) -> None:
    with pytest.raises(FarmError) as caught:
        check("127.0.0.1:1", authorities=served.authority, name=NAME, seconds=3)
    assert caught.value.problem.code is Code.UNAVAILABLE


def test_files_that_are_there_count(tmp_path: Path, served: Served) -> None:
    (tmp_path / "tls.crt").write_bytes(served.certificate)
    assert read_authorities([tmp_path / "ca.crt", tmp_path / "tls.crt"]) == served.certificate
    with pytest.raises(FarmError) as caught:
        read_authorities([tmp_path / "ca.crt"])
    assert caught.value.problem.code is Code.MISSING_FILE and "ca.crt" in str(caught.value)


def test_as_a_probe_runs_it(tmp_path: Path, served: Served) -> None:
    (tmp_path / "ca.crt").write_bytes(served.authority)
    words = [sys.executable, "-m", "kernfarm.health", f"--authority={tmp_path}/ca.crt"]
    good = subprocess.run([*words, f"--name={NAME}", served.address], capture_output=True, text=True, timeout=60, check=False)
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    bad = subprocess.run([*words, "--name=other", served.address], capture_output=True, text=True, timeout=60, check=False)
    assert bad.returncode == 4 and served.address in bad.stderr
