"""A registry that refuses, limits, fails, leads elsewhere or is not there."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
import requests

from kernel.errors import Code, FarmError
from kernfarm.registry import repository, transport
from kernfarm.registry.content import Content
from kernfarm.registry.push import Options, push
from kernfarm.registry.reference import Reference
from kernfarm.registry.repository import Repository
from kernfarm.registry.transport import Transport
from tests.fakes.registry_server import Answer, FakeRegistry, once
from tests.kernfarm.pushing import QUICK, failing, place, send, wanted


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "words"),
    [
        (401, Code.UNAUTHENTICATED, 2, "wants a login"),
        (403, Code.PERMISSION_DENIED, 2, "does not allow"),
        (404, Code.NOT_FOUND, 2, "does not have"),
        (405, Code.INVALID_ARGUMENT, 2, "does not support POST"),
        (413, Code.INVALID_ARGUMENT, 2, "413"),
        (307, Code.INVALID_ARGUMENT, 2, "307"),
        (500, Code.UNAVAILABLE, 4, "fails with 500"),
        (429, Code.UNAVAILABLE, 4, "limits the rate"),
    ],
)
def test_refusals_say_what_where_and_the_mend(
    registry: FakeRegistry, content: Content, status: int, code: Code, exit_code: int, words: str
) -> None:
    body = json.dumps({"errors": [{"code": "NAME_UNKNOWN", "message": "registry's own words"}]}).encode()
    registry.faults = [failing("POST", "/uploads/", Answer(status, body=body))]
    with pytest.raises(FarmError) as caught:
        send(registry, content)
    problem = caught.value.problem
    assert (problem.code, problem.handling.exit_code) == (code, exit_code)
    assert words in problem.message
    assert "registry's own words" in problem.message
    assert problem.where == f"{registry.address}/team/kernel"
    assert registry.tags == {}


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"errors": 7}', b'{"errors": ["x"]}', b"[" * 60_000, b"\xff"])
def test_a_refusal_in_any_words_is_a_refusal(registry: FakeRegistry, content: Content, body: bytes) -> None:
    registry.faults = [failing("POST", "/uploads/", Answer(403, body=body))]
    with pytest.raises(FarmError) as caught:
        send(registry, content)
    assert caught.value.problem.code is Code.PERMISSION_DENIED


def test_nobody_there(content: Content) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    reference = Reference.parse(f"127.0.0.1:{port}/team/kernel")
    with Transport(reference, patience=QUICK, logins=lambda _: None) as closed, pytest.raises(FarmError) as caught:
        push(Repository(closed), content, Options(), lambda words: None)
    assert caught.value.problem.code is Code.UNAVAILABLE
    assert caught.value.problem.handling.exit_code == 4
    assert str(port) in caught.value.problem.message


@pytest.mark.parametrize(("method", "status"), [("HEAD", 429), ("POST", 429), ("PATCH", 429), ("PUT", 429), ("PATCH", 503)])
def test_a_registry_that_puts_us_off_is_waited_for(registry: FakeRegistry, content: Content, method: str, status: int) -> None:
    registry.faults = [once(failing(method, "", Answer(status, {"Retry-After": "1"})))]
    before = time.monotonic()
    send(registry, content)
    assert time.monotonic() - before >= 1
    assert registry.tags == wanted(content)


def test_a_wait_that_is_too_long_is_an_error_at_once(registry: FakeRegistry, content: Content) -> None:
    dates = {"Date": "Tue, 24 Nov 2026 10:00:00 GMT", "Retry-After": "Tue, 24 Nov 2026 11:00:00 GMT"}
    registry.faults = [failing("POST", "", Answer(429, dates))]
    before = time.monotonic()
    with pytest.raises(FarmError, match="limits the rate"):
        send(registry, content)
    assert time.monotonic() - before < 5


@pytest.mark.parametrize(
    ("text", "date", "seconds"),
    [("7", "", 7.0), ("Tue, 24 Nov 2026 10:00:09 GMT", "Tue, 24 Nov 2026 10:00:00 GMT", 9.0), ("soon", "", None), ("-5", "", None)],
)
def test_both_forms_of_retry_after(text: str, date: str, seconds: float | None) -> None:
    response = requests.Response()
    response.headers.update({"Retry-After": text, "Date": date})
    assert transport._retry_after(response) == seconds


@pytest.mark.parametrize("method", ["HEAD", "GET", "POST", "PATCH", "PUT"])
@pytest.mark.parametrize("part", ["blobs", "manifests"])
def test_one_failure_of_any_request_does_not_fail_the_push(registry: FakeRegistry, content: Content, method: str, part: str) -> None:
    registry.faults = [once(failing(method, part, Answer(502)))]
    send(registry, content)
    assert registry.tags == wanted(content)


def test_a_manifest_that_is_too_large_or_not_what_was_asked_for_is_refused(registry: FakeRegistry) -> None:
    registry.faults = [failing("GET", "/manifests/", Answer(200, body=b" " * (repository.DOCUMENT_BYTES + 1)))]
    with pytest.raises(FarmError) as caught:
        place(registry).manifest("6.1")
    assert caught.value.problem.code is Code.BAD_ARCHIVE
    registry.faults = [failing("GET", "/manifests/", Answer(200, body=b"{}"))]
    with pytest.raises(FarmError) as caught:
        place(registry).manifest("sha256:" + "0" * 64)
    assert caught.value.problem.code is Code.BAD_DIGEST
    registry.faults = [failing("GET", "/manifests/", Answer(200, {"Docker-Content-Digest": "sha256:" + "0" * 64}, b"{}"))]
    with pytest.raises(FarmError) as caught:
        place(registry).manifest("6.1")
    assert caught.value.problem.code is Code.BAD_DIGEST


@pytest.mark.parametrize("address", ["http://[::1/", "http://h:abc/t", "gopher://h/"])
def test_addresses_that_are_none_are_refused(registry: FakeRegistry, content: Content, address: str) -> None:
    registry.faults = [lambda asked: Answer(202, {"Location": address}) if asked.method == "POST" else None]
    with pytest.raises(FarmError) as caught:
        send(registry, content)
    assert caught.value.problem.code is Code.UNAVAILABLE
    registry.faults = [lambda asked: Answer(401, {"WWW-Authenticate": f'Bearer realm="{address}",service="x"'})]
    with pytest.raises(FarmError) as caught:
        place(registry).manifest("t")
    assert caught.value.problem.code in (Code.UNAVAILABLE, Code.UNAUTHENTICATED)


@pytest.mark.parametrize("address", ["http://[::1/", "http://h:abc/t"])
def test_a_read_that_leads_nowhere_is_refused(registry: FakeRegistry, address: str) -> None:
    registry.faults = [lambda asked: Answer(307, {"Location": address}) if "/blobs/" in asked.path else None]
    with pytest.raises(FarmError) as caught:
        list(place(registry).blob(f"sha256:{'0' * 64}"))
    assert caught.value.problem.code is Code.UNAVAILABLE


def test_a_read_that_leads_elsewhere_takes_no_login_along(registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login u password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with FakeRegistry() as other:
        elsewhere = f"http://localhost:{other.address.rpartition(':')[2]}/x"
        registry.faults = [lambda asked: Answer(307, {"Location": elsewhere}) if "/blobs/" in asked.path else None]
        with pytest.raises(FarmError):
            list(place(registry).blob(f"sha256:{'0' * 64}"))
        assert other.asked
        assert all("authorization" not in {name.lower() for name in asked.headers} for asked in other.asked)
