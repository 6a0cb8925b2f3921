"""Where a login goes: to the registry, and to the token service that it names; not in plain text past them, and not through a proxy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from kernel.errors import Code, FarmError
from kernfarm import publication
from kernfarm.registry.challenge import Challenge, answer, origin_of
from kernfarm.registry.credentials import Login
from kernfarm.registry.push import Options, push
from kernfarm.registry.reference import Reference
from kernfarm.registry.repository import Repository
from kernfarm.registry.transport import Transport
from tests.fakes import layouts
from tests.fakes.registries import PASSWORD, USER
from tests.fakes.registry_server import Answer, Asked, FakeRegistry
from tests.kernfarm.pushing import QUICK


def test_a_registry_elsewhere_gets_no_plain_http_unless_asked_for() -> None:
    reference = Reference.parse("registry.example:5000/a/b")
    with Transport(reference, logins=lambda _: None) as safe, Transport(reference, plain_http=True, logins=lambda _: None) as plain:
        assert safe.base == "https://registry.example:5000"
        assert plain.base == "http://registry.example:5000"


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        ('Basic realm="x"', Challenge(scheme="basic", realm="x")),
        (
            'Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push"',
            Challenge(scheme="bearer", realm="https://auth.example/token", service="reg", scope="repository:a/b:pull,push"),
        ),
        ("", Challenge(scheme="")),
        ("Negotiate", Challenge(scheme="negotiate")),
        ("Bearer realm", Challenge(scheme="bearer")),
    ],
)
def test_challenges(header: str, challenge: Challenge) -> None:
    assert Challenge.parse(header) == challenge


def test_the_login_goes_to_the_registry_only(tmp_path: Path) -> None:
    """An upload that leads to another host gets no password."""
    with FakeRegistry() as registry, FakeRegistry() as other:

        def lead_away(asked: Asked) -> Answer | None:
            if not asked.headers.get("authorization"):
                return Answer(401, {"WWW-Authenticate": 'Basic realm="x"'})
            if asked.method == "POST":
                other.sessions["1"] = b""
                return Answer(202, {"Location": f"http://{other.address}/v2/team/kernel/blobs/uploads/1"})
            return None

        registry.faults = [lead_away]
        layouts.write(tmp_path, seed="s")
        content = publication.content([publication.read(tmp_path)])
        login = Login(username=USER, password=PASSWORD)
        reference = Reference.parse(f"{registry.address}/team/kernel")
        with Transport(reference, patience=QUICK, logins=lambda _: login) as transport, pytest.raises(FarmError):
            push(Repository(transport), content, Options(), lambda words: None)
        assert any(asked.headers.get("authorization") for asked in registry.asked)
        assert other.asked
        assert not any(asked.headers.get("authorization") for asked in other.asked)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_proxy_sees_nothing_of_a_registry_on_this_machine(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Login, token, push and a read that leads elsewhere on this machine; plain HTTP that a proxy would read, were it asked."""
    with FakeRegistry() as proxy, FakeRegistry() as registry:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://user:password@{proxy.address}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        port = registry.address.rpartition(":")[2]
        realm = f"http://{host}:{port}/token"

        def ask_for_login(asked: Asked) -> Answer | None:
            if asked.path == "/token":
                return Answer(200, {}, b'{"token": "t0ken"}')
            if asked.path == "/v2/team/kernel/away":
                return Answer(307, {"Location": f"http://{host}:{port}/elsewhere"})
            if asked.path == "/elsewhere":
                return Answer(200)
            return None if asked.headers.get("authorization") else Answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}"'})

        registry.faults = [ask_for_login]
        layouts.write(tmp_path, seed="s")
        content = publication.content([publication.read(tmp_path)])
        login = Login(username=USER, password=PASSWORD)
        with Transport(Reference.parse(f"{host}:{port}/team/kernel"), patience=QUICK, logins=lambda _: login) as transport:
            push(Repository(transport), content, Options(), lambda words: None)
            transport.request("GET", transport.url("away"), good=(200,))
        assert {"/token", "/elsewhere"} <= {asked.path for asked in registry.asked}
        assert not any(asked.headers.get("proxy-authorization") for asked in registry.asked)
        assert proxy.asked == []


LOGINS = [Login(username=USER, password=PASSWORD), Login(identity_token="t0ken")]


def ask_for_a_token(network: FakeRegistry, registry: str, realm: str, login: Login | None) -> list[Asked]:
    """Read from a registry without TLS that names a realm. `network` is every host that is asked; returns what asked for tokens."""

    def answer(asked: Asked) -> Answer:
        if asked.path.endswith("/token"):
            return Answer(200, body=json.dumps({"token": "given"}).encode())
        if asked.headers.get("authorization") == "Bearer given":
            return Answer(404)
        return Answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'})

    network.faults = [answer]
    with Transport(Reference.parse(f"{registry}/a/b"), plain_http=True, patience=QUICK, logins=lambda _: login) as transport:
        assert Repository(transport).manifest_digest("tag") is None
    return [asked for asked in network.asked if asked.path.endswith("/token")]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    """Stands for all hosts that are not this machine: it is the proxy."""
    with FakeRegistry() as registry:
        monkeypatch.setenv("http_proxy", f"http://{registry.address}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield registry


@pytest.mark.parametrize("login", LOGINS)
@pytest.mark.parametrize(
    "realm", ["http://tokens.example/token", "http://tokens.example\\\\@registry.example/token", "HTTP://registry.example.evil/token"]
)
@pytest.mark.parametrize("registry", ["registry.example:5000", "127.0.0.1"])
def test_no_login_goes_without_encryption_to_a_host_that_the_user_did_not_name(
    network: FakeRegistry, registry: str, realm: str, login: Login
) -> None:
    address = network.address if registry == "127.0.0.1" else registry
    with pytest.raises(FarmError, match=r"sends logins to http://(tokens\.example|registry\.example\.evil):80, without") as caught:
        ask_for_a_token(network, address, realm, login)
    assert f"http://{address}" in caught.value.problem.message
    assert (caught.value.problem.code, bool(caught.value.problem.hint)) == (Code.PERMISSION_DENIED, True)
    assert all("/v2/" in asked.path for asked in network.asked), "the token service heard of nothing"


@pytest.mark.parametrize("login", LOGINS)
def test_a_login_goes_without_encryption_to_the_registrys_own_host_and_to_this_machine(network: FakeRegistry, login: Login) -> None:
    for realm in ("http://Registry.example:5001/token", f"http://{network.address}/token"):
        network.asked.clear()
        asked = ask_for_a_token(network, "registry.example:5000", realm, login)
        assert len(asked) == 1
        assert asked[0].headers.get("authorization") or b"t0ken" in asked[0].body


def test_without_a_login_there_is_nothing_to_protect_from_a_plain_realm(network: FakeRegistry) -> None:
    (asked,) = ask_for_a_token(network, "registry.example:5000", "http://tokens.example/token", None)
    assert "authorization" not in asked.headers


@pytest.mark.parametrize("login", [*LOGINS, None])
@pytest.mark.parametrize("realm", ["http://registry.example/token", "http://127.0.0.1:1/token"])
def test_a_registry_with_tls_can_t_lead_to_a_realm_without(realm: str, login: Login | None) -> None:
    challenge = Challenge(scheme="bearer", realm=realm)
    with requests.Session() as session, pytest.raises(FarmError, match="without encryption") as caught:
        answer(challenge, login, session, origin="https://registry.example", scope="")
    assert caught.value.problem.code is Code.PERMISSION_DENIED


def test_origins() -> None:
    assert origin_of("https://a/b") == origin_of("https://a:443/c") == "https://a:443"
    assert origin_of("http://a/b") != origin_of("https://a/b")
    assert origin_of("https://a.evil/b") != origin_of("https://a/b")
    assert origin_of("http://a\\@b/") == "http://a:80", "as the request is sent"
    for text in ("a/b", "//a/b", "http:///b", "ftp://a/b", "http://a:99999/"):
        with pytest.raises(FarmError, match="an address that is none"):
            origin_of(text)
