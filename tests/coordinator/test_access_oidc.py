"""Tokens of identity providers: good ones, and each way in which one can be bad."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coordinator.access import jwks
from coordinator.access.callers import Caller, Role
from coordinator.access.jwks import KeySet
from coordinator.access.oidc import Oidc
from kernel.errors import Code, FarmError
from kernfarm.settings import OidcSettings

ISSUER = "https://login.example.org"
KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def jwk(algorithm: str, kid: str, key: Any = None) -> dict[str, Any]:
    made: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk((key or KEYS[algorithm]).public_key(), as_dict=True)
    return {**made, "kid": kid, "use": "sig"}


def write(path: Path, *keys: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"keys": keys}))
    return path


@pytest.fixture
def settings(tmp_path: Path) -> OidcSettings:
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "oct", "alg": "HS256"}
    path = write(tmp_path / "jwks.json", *(jwk(name, name) for name in KEYS), secret, {"kty": "?"}, {**jwk("RS256", "enc"), "use": "enc"})
    return OidcSettings(issuer=ISSUER, audience="kernfarm", jwks=str(path))


def claims(**change: Any) -> dict[str, Any]:
    now = int(time.time())
    good = {"iss": ISSUER, "aud": "kernfarm", "sub": "jo", "exp": now + 600, "iat": now, "team": "kernel", "role": "submitter"}
    return {key: value for key, value in {**good, **change}.items() if value is not None}


def token(algorithm: str = "ES256", kid: str | None = None, **change: Any) -> str:
    return jwt.encode(claims(**change), KEYS[algorithm], algorithm=algorithm, headers={"kid": kid or algorithm})


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(algorithm: str) -> str:
    return f"{part({'alg': algorithm, 'kid': 'ES256'})}.{part(claims())}."


def confused() -> str:
    """The public key, which everybody has, as the secret of an HMAC."""
    secret = KEYS["RS256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    body = f"{part({'alg': 'HS256', 'kid': 'RS256'})}.{part(claims())}"
    return f"{body}.{part(hmac.digest(secret, body.encode(), hashlib.sha256))}"


@pytest.mark.parametrize("algorithm", KEYS)
async def test_a_good_token_is_a_caller(settings: OidcSettings, algorithm: str) -> None:
    assert await Oidc(settings).caller(token(algorithm)) == Caller(team="kernel", name="jo", role=Role.SUBMITTER, proof="oidc")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: token(exp=int(time.time()) - 60), "expired"),
        (lambda: token(nbf=int(time.time()) + 60), "not yet valid"),
        (lambda: token(aud="another"), "[Aa]udience"),
        (lambda: token(iss="https://evil.example.org"), "issuer"),
        (lambda: token(exp=None), "exp"),
        (lambda: token(sub=None), "sub"),
        (lambda: token(aud=None), "aud"),
        (lambda: token(kid="gone"), "does not name"),
        (lambda: token(kid="enc"), "does not name"),
        (lambda: token(kid="oct"), "does not name"),
        (lambda: token("ES256", kid="RS256"), "not accepted"),
        (lambda: jwt.encode(claims(), "secret" * 8, algorithm="HS256", headers={"kid": "oct"}), "does not name"),
        (lambda: unsigned("none"), "not accepted"),
        (lambda: unsigned("ES256"), "not accepted"),
        (lambda: token()[:-4] + "AAAA", "not accepted"),
        (lambda: token() + "x" * 20_000, "too long"),
        (confused, "not accepted"),
        (lambda: "a.b.c", "not accepted"),
        (lambda: "", "not accepted"),
    ],
)
async def test_a_bad_token_is_nobodys(settings: OidcSettings, made: Any, said: str) -> None:
    with pytest.raises(FarmError, match=said) as caught:
        await Oidc(settings).caller(made())
    assert caught.value.problem.code is Code.UNAUTHENTICATED


async def test_clocks_may_differ_a_little(settings: OidcSettings) -> None:
    await Oidc(settings).caller(token(exp=int(time.time()) - 10))


async def test_claims_mean_what_the_settings_say(settings: OidcSettings) -> None:
    mapped = OidcSettings(
        issuer=ISSUER,
        audience="kernfarm",
        jwks=settings.jwks,
        team_claim="groups",
        teams={"/kernel-developers": "kernel"},
        role_claim="groups",
        roles={"/kernel-developers": "reader", "/releases": "admin"},
    )
    found = await Oidc(mapped).caller(token(groups=["/kernel-developers", "/cooks"], team=None, role=None))
    assert (found.team, found.role) == ("kernel", Role.READER)
    found = await Oidc(mapped).caller(token(groups=["/kernel-developers", "/releases"]))
    assert (found.team, found.role) == ("kernel", Role.ADMIN), "the highest role counts"


@pytest.mark.parametrize(
    "change", [{"team": None}, {"role": None}, {"role": "root"}, {"team": ["a", "b"]}, {"team": "release"}, {"team": "*"}, {"team": {}}]
)
async def test_a_token_without_team_or_role_may_nothing(settings: OidcSettings, change: dict[str, Any]) -> None:
    with pytest.raises(FarmError) as caught:
        await Oidc(settings).caller(token(**change))
    assert caught.value.problem.code is Code.PERMISSION_DENIED


def test_settings_that_cannot_be_meant_are_refused(settings: OidcSettings) -> None:
    for bad in (
        OidcSettings(issuer=ISSUER, jwks=settings.jwks),
        OidcSettings(issuer=ISSUER, audience="a", jwks="http://keys.example.org/jwks"),
        OidcSettings(issuer="http://login.example.org", audience="a"),
        OidcSettings(issuer=ISSUER, audience="a", jwks=settings.jwks, roles={"x": "root"}),
    ):
        with pytest.raises(FarmError) as caught:
            Oidc(bad)
        assert caught.value.problem.code is Code.INVALID_ARGUMENT


class Provider:
    """A real HTTP server with a discovery document and keys."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.issuer_said: str | None = None
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                if self.path == "/moved":
                    self.send_response(302)
                    self.send_header("Location", f"{provider.issuer}/keys")
                    self.end_headers()
                    return
                body: Any = {"keys": provider.keys}
                if self.path == "/.well-known/openid-configuration":
                    body = {"issuer": provider.issuer_said or provider.issuer, "jwks_uri": f"{provider.issuer}/keys"}
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: Any) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.stop()


def test_keys_are_found_by_discovery_and_kept(provider: Provider) -> None:
    provider.keys = [jwk("ES256", "1")]
    keys = KeySet(jwks="", issuer=provider.issuer)
    assert keys.find("1").algorithm == "ES256"
    assert keys.find("1") == keys.find(None), "the only key needs no name"
    assert provider.asked == ["/.well-known/openid-configuration", "/keys"]


def test_an_unknown_key_is_asked_for_but_not_for_each_token(provider: Provider) -> None:
    now = [100.0]
    provider.keys = [jwk("ES256", "1")]
    keys = KeySet(jwks=f"{provider.issuer}/keys", issuer=ISSUER, clock=lambda: now[0])
    keys.find("1")
    provider.keys.append(jwk("EdDSA", "2"))
    for _ in range(5):
        with pytest.raises(FarmError):
            keys.find("2")
    assert len(provider.asked) == 1, "within ten seconds nobody is asked again"
    now[0] += 11
    assert keys.find("2").algorithm == "EdDSA"
    assert len(provider.asked) == 2
    with pytest.raises(FarmError, match="does not name"):
        keys.find(None)


def test_a_key_that_was_withdrawn_opens_nothing_for_long(provider: Provider) -> None:
    now = [100.0]
    provider.keys = [jwk("ES256", "1")]
    keys = KeySet(jwks=f"{provider.issuer}/keys", issuer=ISSUER, clock=lambda: now[0])
    keys.find("1")
    provider.keys = []
    now[0] += 601
    with pytest.raises(FarmError, match="does not name"):
        keys.find("1")


def test_a_provider_that_is_away_is_bridged_for_a_while(provider: Provider) -> None:
    now = [100.0]
    provider.keys = [jwk("ES256", "1")]
    keys = KeySet(jwks=f"{provider.issuer}/keys", issuer=ISSUER, clock=lambda: now[0])
    keys.find("1")
    provider.stop()
    now[0] += 1000
    keys.find("1")
    now[0] += 3000
    with pytest.raises(FarmError) as caught:
        keys.find("1")
    assert caught.value.problem.code is Code.UNAVAILABLE


def test_a_discovery_of_another_issuer_is_not_believed(provider: Provider) -> None:
    provider.keys = [jwk("ES256", "1")]
    provider.issuer_said = "https://evil.example.org"
    with pytest.raises(FarmError) as caught:
        KeySet(jwks="", issuer=provider.issuer).find("1")
    assert caught.value.problem.code is Code.UNAVAILABLE


def test_redirects_are_not_followed(provider: Provider) -> None:
    provider.keys = [jwk("ES256", "1")]
    with pytest.raises(FarmError):
        KeySet(jwks=f"{provider.issuer}/moved", issuer=ISSUER).find("1")


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0\xff garbage\r\n\r\n",
        b"HTTP/1.1 fine\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        _HEAD + b"Content-Length: 1000\r\n\r\n" + b'{"keys": [',
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b'100\r\n{"keys": [',
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\nmany\r\n",
        _HEAD + b"\r\n" + b"[" * 100_000,
    ],
)
def test_a_provider_that_answers_garbage_or_breaks_off_is_away(said: bytes) -> None:
    now = [100.0]

    def answer_once() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        keys = KeySet(jwks=f"http://127.0.0.1:{listening.getsockname()[1]}/keys", issuer=ISSUER, clock=lambda: now[0])
        for _ in range(2):
            answering = threading.Thread(target=answer_once)
            answering.start()
            with pytest.raises(FarmError) as caught:
                keys.find("1")
            answering.join(10)
            assert caught.value.problem.code is Code.UNAVAILABLE
            now[0] += 11  # it is asked again


def test_short_keys_are_left_out(tmp_path: Path) -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    path = write(tmp_path / "jwks.json", jwk("RS256", "short", short), jwk("ES256", "1"))
    keys = KeySet(jwks=str(path), issuer=ISSUER)
    keys.find("1")
    with pytest.raises(FarmError, match="does not name"):
        keys.find("short")


async def test_a_provider_that_hangs_holds_up_one_caller_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can send tokens with made-up keys: they must take no threads from the journal, the logs and the blobs."""
    monkeypatch.setattr(jwks, "_TIMEOUT_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:  # the kernel accepts, nobody answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        oidc = Oidc(OidcSettings(issuer=ISSUER, audience="kernfarm", jwks=f"{address}/keys"))
        calls = [asyncio.create_task(oidc.caller(token(kid=f"made-up-{number}"))) for number in range(40)]
        await asyncio.wait_for(asyncio.to_thread(time.monotonic), 1.0)
        done, waiting = await asyncio.wait(calls, timeout=1.0)
        assert (len(done), len(waiting)) == (39, 1)
        refused = await asyncio.gather(*calls, return_exceptions=True)
        assert {error.problem.code for error in refused if isinstance(error, FarmError)} == {Code.UNAVAILABLE}
        assert all(isinstance(error, FarmError) for error in refused)


@pytest.mark.parametrize(
    ("begins", "drips"),
    [
        (b"HTTP/1.1 ", b"2"),
        (b"HTTP/1.1 200 OK\r\nX-Header: ", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n"),
    ],
    ids=["status", "header", "body", "size of a chunk", "trailers"],
)
def test_a_provider_that_drips_is_not_listened_to_for_long(begins: bytes, drips: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes well within the time limit of a read."""
    monkeypatch.setattr(jwks, "_TIMEOUT_SECONDS", 0.5)
    left = threading.Event()

    def drip() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(begins)
            while not left.wait(0.05):
                connection.sendall(drips)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        dripping = threading.Thread(target=drip)
        dripping.start()
        deadline = threading.Timer(20.0, left.set)  # for a fetch that would listen on
        deadline.start()
        try:
            with pytest.raises(FarmError) as caught:
                KeySet(jwks=f"http://127.0.0.1:{listening.getsockname()[1]}/keys", issuer=ISSUER).find("1")
            assert caught.value.problem.code is Code.UNAVAILABLE
            assert not left.is_set(), "it was listened to for 20 seconds"
        finally:
            deadline.cancel()
            left.set()
            dripping.join(10)


def test_the_pause_between_fetches_counts_from_the_end_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [0.0], []

    def slow(url: str) -> Any:
        asked.append(url)
        now[0] += 15.0
        raise TimeoutError("timed out")

    monkeypatch.setattr(jwks, "_fetch", slow)
    keys = KeySet(jwks="https://login.example.org/keys", issuer=ISSUER, clock=lambda: now[0])
    for _ in range(2):
        with pytest.raises(FarmError):
            keys.find("1")
    assert len(asked) == 1
