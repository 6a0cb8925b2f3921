"""Logins against the real docker-registry: passwords, tokens, TLS; read from docker's own configuration and helpers."""

from __future__ import annotations

import base64
import datetime
import json
import os
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kernel.errors import Code, FarmError
from kernfarm import publication
from kernfarm.registry import credentials
from kernfarm.registry.credentials import Login
from kernfarm.registry.push import Options, Pushed, push
from kernfarm.registry.reference import Reference
from kernfarm.registry.repository import Repository
from kernfarm.registry.transport import Transport
from tests.fakes import layouts
from tests.fakes.registries import HTPASSWD, PASSWORD, USER, real
from tests.fakes.registry_server import Answer, Asked, FakeRegistry
from tests.kernfarm.pushing import QUICK


@pytest.fixture
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """docker's configuration file; nothing is in it yet."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker/config.json"


def write_login(config: Path, host: str, user: str = USER, password: str = PASSWORD) -> None:
    config.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}}}))


def helper(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def push_to(address: str, folder: Path, name: str = "team/kernel", seed: str = "s") -> Pushed:
    layouts.write(folder / seed, seed=seed)
    content = publication.content([publication.read(folder / seed)])
    with Transport(Reference.parse(f"{address}/{name}"), patience=QUICK) as transport:
        return push(Repository(transport), content, Options(), lambda words: None)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "htpasswd").write_text(HTPASSWD)
    with real(folder, auth={"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}) as registry:
        yield registry.address


def test_the_users_login_is_used(guarded: str, docker_config: Path, tmp_path: Path) -> None:
    write_login(docker_config, guarded)
    assert push_to(guarded, tmp_path).tags == 4
    assert push_to(guarded, tmp_path) == Pushed()


def test_a_helpers_login_is_used(guarded: str, docker_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = json.dumps({"ServerURL": guarded, "Username": USER, "Secret": PASSWORD})
    helper(tmp_path, monkeypatch, "test", f'test "$1" = get && test "$(cat)" = {guarded} && echo \'{answer}\'')
    docker_config.write_text(json.dumps({"credHelpers": {guarded: "test"}}))
    assert push_to(guarded, tmp_path, seed="helped").tags == 4


def test_a_login_from_netrc_is_never_taken(guarded: str, docker_config: Path, tmp_path: Path) -> None:
    """`requests` would."""
    (tmp_path / "home").mkdir()
    netrc = tmp_path / "home/.netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    netrc.chmod(0o600)
    with pytest.raises(FarmError, match="wants a login"):
        push_to(guarded, tmp_path)


def test_no_login_and_a_wrong_one_are_told_apart_without_the_password(guarded: str, docker_config: Path, tmp_path: Path) -> None:
    with pytest.raises(FarmError, match="wants a login") as caught:
        push_to(guarded, tmp_path)
    assert caught.value.problem.hint == f"docker login {guarded}"
    write_login(docker_config, guarded, password="wrong secret")
    with pytest.raises(FarmError, match="refuses the login kernel") as caught:
        push_to(guarded, tmp_path)
    assert caught.value.problem.code is Code.UNAUTHENTICATED
    assert caught.value.problem.handling.exit_code == 2
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(credentials.find(guarded))


def test_what_docker_login_writes_is_understood(docker_config: Path) -> None:
    assert credentials.find("ghcr.io") is None
    write_login(docker_config, "https://index.docker.io/v1/")
    assert credentials.find("docker.io") == Login(username=USER, password=PASSWORD)
    assert credentials.find("ghcr.io") is None
    docker_config.write_text(json.dumps({"auths": {"ghcr.io": {"identitytoken": "t0ken"}}}))
    assert credentials.find("ghcr.io") == Login(identity_token="t0ken")
    for harmless in ({}, {"auths": {}}, {"auths": {"ghcr.io": {}}}, {"psFormat": "x", "HttpHeaders": {"a": "b"}}):
        docker_config.write_text(json.dumps(harmless))
        assert credentials.find("ghcr.io") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"auths": {"ghcr.io": 7}}', '{"auths": {"ghcr.io": {"auth": "%%%"}}}', '{"auths": [1]}'])
def test_a_configuration_that_can_t_be_read_is_said(docker_config: Path, text: str) -> None:
    docker_config.write_text(text)
    with pytest.raises(FarmError) as caught:
        credentials.find("ghcr.io")
    assert caught.value.problem.code is Code.INVALID_ARGUMENT
    assert caught.value.problem.where == str(docker_config)


def test_helpers_that_have_nothing_fail_or_are_missing(docker_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker_config.write_text(json.dumps({"credsStore": "test"}))
    with pytest.raises(FarmError, match="docker-credential-test"):
        credentials.find("ghcr.io")
    helper(tmp_path, monkeypatch, "test", "echo 'credentials not found in native keychain'; exit 1")
    assert credentials.find("ghcr.io") is None
    helper(tmp_path, monkeypatch, "test", "echo 'the keychain is locked'; exit 1")
    with pytest.raises(FarmError, match="keychain is locked"):
        credentials.find("ghcr.io")


class TokenServer:
    """Gives tokens that a docker-registry with its certificate accepts; to `kernel` for pull and push, to others for pull only."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, dict[str, str], str]] = []
        key, certificate = self_signed("tokens")
        self._key = key
        self._chain = [base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()]
        (folder / "tokens.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
                self._answer(query, self.headers.get("Authorization", ""))

            def do_POST(self) -> None:
                form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                self._answer(form, f"token {form.get('refresh_token', '')}")

            def _answer(self, values: dict[str, str], authorization: str) -> None:
                status, body = server.answer(self.command, values, authorization)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.realm = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, values: dict[str, str], authorization: str) -> tuple[int, bytes]:
        self.asked.append((method, values, authorization))
        known = ("Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(), "token t0ken")
        if authorization and authorization not in known:
            return 401, b"{}"
        _, name, actions = values["scope"].split(":")
        allowed = actions.split(",") if authorization in known else ["pull"]
        now = int(datetime.datetime.now(datetime.UTC).timestamp())
        claims = {"iss": "tests", "sub": "", "aud": values["service"], "iat": now, "nbf": now - 60, "exp": now + 300, "jti": "x"}
        claims["access"] = [{"type": "repository", "name": name, "actions": allowed}]
        token = jwt.encode(claims, self._key, algorithm="ES256", headers={"x5c": self._chain})
        return 200, json.dumps({"token": token}).encode()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, TokenServer]]:
    folder = tmp_path_factory.mktemp("tokens")
    server = TokenServer(folder)
    auth = {"token": {"realm": server.realm, "service": "reg", "issuer": "tests", "rootcertbundle": str(folder / "tokens.pem")}}
    with real(folder, auth=auth) as registry:
        yield registry.address, server
    server.close()


def test_tokens_are_fetched_with_password_or_identity_token(tokens: tuple[str, TokenServer], docker_config: Path, tmp_path: Path) -> None:
    address, server = tokens
    write_login(docker_config, address)
    assert push_to(address, tmp_path).tags == 4
    scopes = [values["scope"].rpartition(":") for _, values, _ in server.asked]
    assert {name for name, _, _ in scopes} == {"repository:team/kernel"}
    # The registry names them in any order.
    assert {frozenset(actions.split(",")) for _, _, actions in scopes} <= {frozenset({"pull", "push"}), frozenset({"pull"})}
    assert len(server.asked) <= 2, "a token is used for more than one request"
    docker_config.write_text(json.dumps({"auths": {address: {"identitytoken": "t0ken"}}}))
    server.asked.clear()
    assert push_to(address, tmp_path, seed="other", name="team/other").tags == 4
    assert {method for method, _, _ in server.asked} == {"POST"}


def test_a_token_that_runs_out_in_the_middle_is_fetched_anew(tmp_path: Path) -> None:
    given: list[str] = []
    uses: dict[str, int] = {}
    with FakeRegistry() as registry:

        def guard(asked: Asked) -> Answer | None:
            if asked.path == "/token":
                given.append(f"token-{len(given)}")
                return Answer(200, body=json.dumps({"access_token": given[-1]}).encode())
            token = asked.headers.get("authorization", "").removeprefix("Bearer ")
            uses[token] = uses.get(token, 0) + 1
            if token not in given or uses[token] > 5:
                return Answer(401, {"WWW-Authenticate": f'Bearer realm="http://{registry.address}/token",service="x"'})
            return None

        registry.faults = [guard]
        layouts.write(tmp_path, seed="s")
        content = publication.content([publication.read(tmp_path)])
        reference = Reference.parse(f"{registry.address}/team/kernel")
        with Transport(reference, patience=QUICK, logins=lambda _: None) as transport:
            assert push(Repository(transport), content, Options(), lambda words: None).tags == 4
        assert len(given) > 2
        assert "Authorization" not in str([asked.headers for asked in registry.asked if asked.path == "/token"])


def test_a_token_that_may_not_push_is_a_refusal(tokens: tuple[str, TokenServer], docker_config: Path, tmp_path: Path) -> None:
    address, _ = tokens
    with pytest.raises(FarmError) as caught:
        push_to(address, tmp_path, seed="denied")
    assert caught.value.problem.code in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)
    write_login(docker_config, address, password="wrong")
    with pytest.raises(FarmError, match="token server refuses the login kernel") as caught:
        push_to(address, tmp_path)
    assert caught.value.problem.code is Code.UNAUTHENTICATED


def self_signed(name: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    return key, builder.sign(key, hashes.SHA256())


def test_tls_is_found_on_this_machine_and_its_certificate_checked(
    docker_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = self_signed("localhost")
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(secret)
    tls: dict[str, Any] = {"tls": {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}}
    with real(tmp_path / "registry", http=tls) as registry:
        address = registry.address.replace("127.0.0.1", "localhost")
        with pytest.raises(FarmError, match="no protected connection") as caught:
            push_to(address, tmp_path)
        assert "REQUESTS_CA_BUNDLE" in caught.value.problem.hint
        assert registry.writes() == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "cert.pem"))
        assert push_to(address, tmp_path).tags == 4
