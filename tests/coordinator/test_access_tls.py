"""TLS and mTLS with real certificates and connections: rotation while it serves, and each certificate that must not do."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from coordinator import __main__ as program
from coordinator.access import tls
from kernel.errors import Code, FarmError
from kernfarm.client import FarmClient
from kernfarm.credentials import Credentials
from kernfarm.settings import AccessSettings, CoordinatorSettings, OidcSettings, TlsSettings
from tests.certificates import Authority, Pair
from tests.fakes.api import FakeFarm
from tests.served import Served, Tokens, serving

AUTHORITY = Authority()
OTHER = Authority("somebody else's authority")
PAST = {"start": timedelta(hours=-2), "end": timedelta(hours=-1)}
FUTURE = {"start": timedelta(hours=1), "end": timedelta(hours=2)}
CI = "spiffe://example.org/ci"


def files(home: Path, pair: Pair, *, mutual: bool = False) -> TlsSettings:
    pair.write(home / "server.pem", home / "key.pem")
    (home / "clients.pem").write_bytes(AUTHORITY.pem)
    client_ca = str(home / "clients.pem") if mutual else ""
    return TlsSettings(certificate=str(home / "server.pem"), key=str(home / "key.pem"), client_ca=client_ca)


def secure(home: Path, pair: Pair) -> Any:
    settings = AccessSettings(tls=files(home, pair), recheck_seconds=0.2)
    return serving(home, FakeFarm(), listen="127.0.0.1:0", settings=settings, ca=AUTHORITY.pem)


def mutual(home: Path, certificates: dict[str, str] | None) -> Any:
    settings = AccessSettings(tls=files(home, AUTHORITY.make("server"), mutual=True), certificates=certificates, recheck_seconds=0.2)
    return serving(home, FakeFarm(), listen="127.0.0.1:0", settings=settings, ca=AUTHORITY.pem)


async def problem(client: FarmClient, call: Callable[[FarmClient], Awaitable[Any]] = FarmClient.workers) -> FarmError:
    async with client:
        with pytest.raises(FarmError) as caught:
            await asyncio.wait_for(call(client), 10)
    return caught.value


async def watched(client: FarmClient) -> list[Any]:
    return [each async for each in client.watch("build-1")]


async def serial(served: Served) -> int:
    """Of the certificate that a new connection is shown."""
    host, _, port = served.address.rpartition(":")
    pem = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


async def test_a_farm_with_tls_serves_who_trusts_its_authority(tmp_path: Path) -> None:
    async with secure(tmp_path, AUTHORITY.make("server")) as served:
        async with served.client() as client:
            assert await client.workers() == []
        for ca in (OTHER.pem, None):
            caught = await problem(FarmClient(served.address, Credentials(ca=ca, token=served.token)))
            assert caught.problem.code is Code.UNAUTHENTICATED
            assert "certificate is not accepted" in caught.problem.message
            assert "--ca" in caught.problem.hint


async def test_a_watch_does_not_wait_for_a_farm_that_is_not_trusted(tmp_path: Path) -> None:
    async with secure(tmp_path, AUTHORITY.make("server")) as served:
        caught = await problem(FarmClient(served.address, Credentials(ca=OTHER.pem, token=served.token)), watched)
    assert caught.problem.code is Code.UNAUTHENTICATED


async def test_a_certificate_for_another_host_is_not_accepted(tmp_path: Path) -> None:
    async with secure(tmp_path, AUTHORITY.make("server", host="192.0.2.1")) as served:
        caught = await problem(served.client())
    assert caught.problem.code is Code.UNAUTHENTICATED
    assert "another host" in caught.problem.message


async def test_an_expired_certificate_of_the_farm_is_not_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "load", unchecked)
    async with secure(tmp_path, AUTHORITY.make("server", **PAST)) as served:
        caught = await problem(served.client())
    assert caught.problem.code is Code.UNAUTHENTICATED
    assert "expired" in caught.problem.message
    assert "renew" in caught.problem.hint


def unchecked(settings: TlsSettings, now: float) -> tls.Material:
    """As a farm that was started while the certificate was good."""
    return tls.Material(chain=Path(settings.certificate).read_bytes(), key=Path(settings.key).read_bytes(), client_ca=None)


async def test_certificates_are_changed_while_the_farm_serves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = AUTHORITY.make("server"), AUTHORITY.make("server")
    async with secure(tmp_path, first) as served, served.client() as old:
        await old.workers()
        assert await serial(served) == first.serial
        (tmp_path / "key.pem").write_bytes(second.key)
        with caplog.at_level(logging.ERROR):
            assert await serial(served) == first.serial, "half of a new pair changes nothing"
        assert "not the key of the certificate" in caplog.text
        (tmp_path / "server.pem").write_bytes(second.certificate)
        assert await serial(served) == second.serial
        await old.workers()
        async with served.client() as new:
            await new.workers()
        AUTHORITY.make("server", **PAST).write(tmp_path / "server.pem", tmp_path / "key.pem")
        assert await serial(served) == second.serial, "an expired one is not taken"
        (tmp_path / "server.pem").unlink()
        assert await serial(served) == second.serial
        third = AUTHORITY.make("server")
        third.write(tmp_path / "server.pem", tmp_path / "key.pem")
        assert await serial(served) == third.serial


async def test_a_client_is_known_by_its_certificate(tmp_path: Path) -> None:
    async with mutual(tmp_path, {CI: "kernel/reader", "CN=jo": "kernel/submitter"}) as served:

        def client(pair: Pair | None, token: str = "") -> FarmClient:
            shown = Credentials(ca=AUTHORITY.pem, certificate=pair and pair.certificate, key=pair and pair.key, token=token)
            return FarmClient(served.address, shown)

        for pair in (AUTHORITY.make("whoever", uris=(CI,)), AUTHORITY.make("jo")):
            async with client(pair) as good:
                await good.workers()
        caught = await problem(client(AUTHORITY.make("whoever", uris=(CI,))), lambda each: each.cancel("build-1"))
        assert caught.problem.code is Code.PERMISSION_DENIED
        async with client(AUTHORITY.make("jo")) as good:
            await good.cancel("build-1")
        assert served.audit()[-1]["proof"] == "certificate"
        async with client(AUTHORITY.make("nobody"), served.token) as good:
            await good.cancel("build-1")
        assert served.audit()[-1]["proof"] == "token", "the token is the more particular of the two"
        caught = await problem(client(AUTHORITY.make("jo"), "kft_wrong"))
        assert caught.problem.code is Code.UNAUTHENTICATED, "a bad token is not made good by a certificate"
        for unknown in (AUTHORITY.make("nobody"), AUTHORITY.make("jo", uris=(CI,))):
            assert (await problem(client(unknown))).problem.code is Code.PERMISSION_DENIED
        for bad in (None, OTHER.make("jo"), AUTHORITY.make("jo", **PAST), AUTHORITY.make("jo", **FUTURE)):
            caught = await problem(client(bad, served.token))
            assert caught.problem.code is Code.UNAVAILABLE, "the farm does not even talk to them"
            assert "--cert" in caught.problem.hint


async def test_a_watch_ends_with_the_clients_certificate(tmp_path: Path) -> None:
    async with mutual(tmp_path, {"CN=jo": "kernel/reader"}) as served:
        pair = AUTHORITY.make("jo", end=timedelta(seconds=2))
        client = FarmClient(served.address, Credentials(ca=AUTHORITY.pem, certificate=pair.certificate, key=pair.key))
        caught = await problem(client, watched)
    assert caught.problem.code is Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("spoil", "said", "where"),
    [
        (lambda home: (home / "key.pem").unlink(), "cannot read the private key", "key.pem"),
        (lambda home: (home / "server.pem").unlink(), "cannot read the certificate", "server.pem"),
        (lambda home: (home / "clients.pem").unlink(), "cannot read the clients' authorities", "clients.pem"),
        (lambda home: (home / "key.pem").chmod(0o644), "others can get at the private key", "key.pem"),
        (lambda home: (home / "key.pem").write_bytes(AUTHORITY.make("x").key), "not the key of the certificate", "key.pem"),
        (lambda home: (home / "key.pem").write_bytes(b"?"), "not a private key", "key.pem"),
        (lambda home: (home / "server.pem").write_bytes(b"?"), "no PEM certificate", "server.pem"),
        (lambda home: (home / "clients.pem").write_bytes(b"?"), "no PEM certificate", "clients.pem"),
        (lambda home: AUTHORITY.make("x", **PAST).write(home / "server.pem", home / "key.pem"), "has expired", "server.pem"),
        (lambda home: AUTHORITY.make("x", **FUTURE).write(home / "server.pem", home / "key.pem"), "not valid before", "server.pem"),
    ],
)
def test_files_that_cannot_do_are_refused_with_their_name(tmp_path: Path, spoil: Any, said: str, where: str) -> None:
    settings = files(tmp_path, AUTHORITY.make("server"), mutual=True)
    spoil(tmp_path)
    with pytest.raises(FarmError, match=said) as caught:
        tls.server_credentials("0.0.0.0:7420", settings)
    assert caught.value.problem.where == str(tmp_path / where)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "farm.example.org:0"])
async def test_a_farm_without_tls_stays_on_its_machine(tmp_path: Path, listen: str) -> None:
    access = AccessSettings(tokens_file=str(Tokens(tmp_path / "tokens").path))
    with pytest.raises(FarmError, match="unencrypted") as caught:
        await program.run(CoordinatorSettings(state_dir=tmp_path / "state", listen=listen, access=access))
    assert "access.tls.certificate" in caught.value.problem.hint


@pytest.mark.parametrize(
    ("access", "said"),
    [
        (AccessSettings(), "no way to tell callers apart"),
        (AccessSettings(certificates={CI: "kernel/reader"}), "not asked for"),
        (AccessSettings(tokens_file="/does/not/exist"), "cannot read the tokens"),
        (AccessSettings(oidc=OidcSettings(issuer="https://example.org")), "without an audience"),
        (AccessSettings(tls=TlsSettings(client_ca="x"), certificates={CI: "kernel/root"}), "no role"),
        (AccessSettings(tls=TlsSettings(client_ca="x"), certificates={"jo": "kernel/reader"}), "no name of a certificate"),
        (AccessSettings(tls=TlsSettings(client_ca="x"), certificates={CI: "kernel/reader"}), "need a certificate of our own"),
        (AccessSettings(tls=TlsSettings(certificate="x"), tokens_file="TOKENS"), "certificate and key go together"),
    ],
)
async def test_a_farm_that_could_not_know_its_callers_does_not_start(tmp_path: Path, access: AccessSettings, said: str) -> None:
    tokens = Tokens(tmp_path / "tokens")
    if access.tokens_file == "TOKENS":
        access = AccessSettings(tls=access.tls, tokens_file=str(tokens.path))
    with pytest.raises(FarmError, match=said):
        await program.run(CoordinatorSettings(state_dir=tmp_path / "state", listen="127.0.0.1:0", access=access))


def test_loopback_is_told_from_the_rest() -> None:
    near = ["127.0.0.1:1", "127.0.0.9:1", "[::1]:1", "localhost:1"]
    far = ["0.0.0.0:1", "[::]:1", ":1", "10.0.0.1:1", "localhost.example.org:1", "127.0.0.1.example.org:1"]
    assert [tls.is_loopback(each) for each in near + far] == [True] * len(near) + [False] * len(far)


async def test_the_client_speaks_to_no_plain_line(tmp_path: Path) -> None:
    async with serving(tmp_path, FakeFarm(), listen="127.0.0.1:0") as served:
        caught = await problem(served.client())
    assert caught.problem.code in (Code.UNAUTHENTICATED, Code.UNAVAILABLE)
    assert served.token not in str(caught)
