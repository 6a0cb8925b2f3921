"""The signer as a program: over its socket, as a user of its own where tests run as root."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator import signing
from coordinator.signer import server
from kernel.codec import from_plain
from kernel.errors import Code, FarmError, Problem
from kernel.steps import SignResult
from kernfarm import process, verify
from kernfarm.cli import signer as embedded_signer
from kernfarm.process import Service
from kernfarm.settings import SignerSettings, plain
from kernfarm.verify_key import VerifyKey
from kernfarm.verify_source import LayoutSource
from tests.fakes.built import FakeBuild
from tests.fakes.signed import BUILDER, fetch
from tests.homes import make_home

UID = embedded_signer.SIGNER_UID if os.geteuid() == 0 else os.geteuid()


@pytest.fixture
def home() -> Iterator[Path]:
    folder = make_home()
    yield folder
    shutil.rmtree(folder)


ENV = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), "LC_ALL": "C.UTF-8"}
AS_USER = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups") if os.geteuid() == 0 else ()


def settings(home: Path, **changes: Any) -> SignerSettings:
    folder = home / "signer"
    if not folder.exists():
        folder.mkdir()
        os.chown(folder, UID, UID)
        made = process.run(
            (*AS_USER, sys.executable, "-m", "coordinator.signer", "--generate-key", str(folder / "signer.key")),
            env=ENV,
            timeout_seconds=60,
        )
        assert made.code == 0, made.output
    values = {
        "socket": folder / "socket",
        "allowed_uid": os.geteuid(),
        "key_file": folder / "signer.key",
        "journal_url": f"sqlite:///{home}/journal.sqlite",
        "blobs_url": f"file://{home}/blobs",
        "builder_id": BUILDER,
    }
    return SignerSettings(**{**values, **changes})


@contextlib.contextmanager
def running(home: Path, config: SignerSettings) -> Iterator[Service]:
    path = home / "signer.yaml"
    path.write_text(json.dumps(plain(config)))
    path.chmod(0o644)
    service = process.start((*AS_USER, sys.executable, "-m", "coordinator.signer", "--config", str(path)), env=ENV, output=home / "log")
    deadline = time.monotonic() + 30
    while not config.socket.exists():
        assert service.poll() is None and time.monotonic() < deadline, (home / "log").read_text()
        time.sleep(0.02)
    try:
        yield service
    finally:
        service.terminate()


def built(home: Path) -> FakeBuild:
    """A build whose store is shared with the signer's user, as an embedded farm shares it."""
    if os.geteuid() == 0:
        (home / "blobs").mkdir(mode=0o700)
        embedded_signer.share_blobs(home / "blobs", UID)
    return FakeBuild(home)


def test_the_program_signs_as_its_own_user_while_the_coordinator_writes(home: Path) -> None:
    before = os.umask(0o022)
    build = built(home)
    journal = build.play()  # stays open: the coordinator is there while its signer reads
    os.umask(before)
    config = settings(home)
    with running(home, config) as service:
        signed = asyncio.run(signing.sign(config.socket, build.build_id))
        assert asyncio.run(signing.sign(config.socket, build.build_id)) == signed
        with pytest.raises(FarmError, match="no such build") as caught:
            asyncio.run(signing.sign(config.socket, "another"))
        assert caught.value.problem.code is Code.SIGNING_REFUSED
        assert service.poll() is None
        assert (config.socket.stat().st_uid, config.socket.stat().st_mode & 0o777) == (UID, 0o600)
    journal.close()
    assert not config.socket.exists(), "a signer that was told to end leaves no socket"
    key = VerifyKey.read(config.key_file.with_name("cosign.pub"))
    assert verify.verify(LayoutSource(fetch(build, signed, home / "image").folder), key, builder=BUILDER).ok
    assert (config.key_file.stat().st_uid, config.key_file.stat().st_mode & 0o777) == (UID, 0o600)


STARTER = """
import os, sys, time
from pathlib import Path
from kernfarm import process
service = process.start(sys.argv[2:], env=dict(os.environ), output=Path(sys.argv[1]))
print(service.pid, flush=True)
time.sleep(60)
"""


def test_the_signer_of_a_farm_that_is_killed_ends_too(home: Path) -> None:
    """Its user is another than the farm's: what ties the farm's other programs to it does not hold for this one."""
    config = settings(home)
    path = home / "signer.yaml"
    path.write_text(json.dumps(plain(config)))
    path.chmod(0o644)
    built(home)
    command = (*AS_USER, sys.executable, "-m", "coordinator.signer", "--end-with-parent", "--config", str(path))
    starter = process.start((sys.executable, "-c", STARTER, str(home / "log"), *command), env=ENV, output=home / "pid")
    deadline = time.monotonic() + 20
    while not config.socket.exists():
        assert time.monotonic() < deadline, (home / "log").read_text()
        time.sleep(0.02)
    pid = int((home / "pid").read_text())
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait(10)
    try:
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the signer lives on"
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not config.socket.exists()


def ask(path: Path, data: bytes) -> Problem:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                answer += chunk
    return from_plain(Problem, json.loads(answer[4:])["problem"])


def message(value: Any) -> bytes:
    data = json.dumps(value).encode()
    return len(data).to_bytes(4, "big") + data


def test_only_a_builds_id_from_the_coordinators_user_is_taken(home: Path) -> None:
    build = built(home)
    build.play().close()
    config = settings(home)
    with running(home, config):
        many = [f"b-{number}" for number in range(17)]
        wrong: list[Any] = [{"builds": each} for each in (7, "b", [], [7], [""], ["x" * 300], ["b", "b"], many)]
        for value in ({}, *wrong, {"build_id": "b"}, {"builds": ["b"], "digest": "d"}, [1], "x"):
            assert ask(config.socket, message(value)).code is Code.INVALID_ARGUMENT
        assert ask(config.socket, (1 << 31).to_bytes(4, "big")).code is Code.INVALID_ARGUMENT
        assert ask(config.socket, b"\0\0\0\4[[[[").code is Code.INVALID_ARGUMENT
    with running(home, settings(home, allowed_uid=12345)):
        problem = ask(config.socket, message({"builds": [build.build_id]}))
        assert problem.code is Code.SIGNING_REFUSED
        assert "may not ask" in problem.message


async def test_a_question_whose_caller_has_gone_is_not_answered(tmp_path: Path) -> None:
    """It waits its turn; who asked may have given up by then, and reading images takes minutes."""
    asked: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def answer(builds: tuple[str, ...], gone: Callable[[], bool]) -> dict[str, Any]:
        asked.append(builds[0])
        begun.set()
        assert go_on.wait(30)
        return {"attachments": []}

    path = tmp_path / "socket"
    serving = await server.serve(path, answer, allowed_uid=os.geteuid())
    try:
        first = asyncio.create_task(signing.sign(path, "first"))
        assert await asyncio.to_thread(begun.wait, 30)
        gone = asyncio.create_task(signing.sign(path, "gone"))
        await asyncio.sleep(0.2)
        last = asyncio.create_task(signing.sign(path, "last"))
        await asyncio.sleep(0.2)
        gone.cancel()
        await asyncio.sleep(0.2)
        go_on.set()
        assert await first == await last == SignResult(attachments=())
    finally:
        go_on.set()
        serving.close()
    assert asked == ["first", "last"]


async def test_a_question_that_is_being_answered_ends_when_its_caller_goes(tmp_path: Path) -> None:
    begun = threading.Event()
    noticed: list[bool] = []

    def answer(builds: tuple[str, ...], gone: Callable[[], bool]) -> dict[str, Any]:
        if builds == ("long",):
            assert not gone()
            begun.set()
            deadline = time.monotonic() + 10
            while not gone() and time.monotonic() < deadline:
                time.sleep(0.02)
            noticed.append(gone())
            raise FarmError(Code.UNAVAILABLE, "the caller has gone")
        return {"attachments": []}

    path = tmp_path / "socket"
    serving = await server.serve(path, answer, allowed_uid=os.geteuid())
    try:
        long = asyncio.create_task(signing.sign(path, "long"))
        assert await asyncio.to_thread(begun.wait, 30)
        long.cancel()
        assert await asyncio.wait_for(signing.sign(path, "next"), 5) == SignResult(attachments=())
    finally:
        serving.close()
    assert noticed == [True]


def test_a_signer_that_is_down_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(FarmError) as caught:
        asyncio.run(signing.sign(tmp_path / "socket", "b"))
    assert caught.value.problem.code is Code.UNAVAILABLE


def test_a_signer_that_dies_over_its_answer_is_unavailable(tmp_path: Path) -> None:
    async def go() -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.close()

        async with await asyncio.start_unix_server(hang_up, tmp_path / "socket"):
            await signing.sign(tmp_path / "socket", "b")

    with pytest.raises(FarmError) as caught:
        asyncio.run(go())
    assert caught.value.problem.code is Code.UNAVAILABLE


def test_a_key_that_others_can_read_keeps_the_signer_from_starting(home: Path) -> None:
    config = settings(home)
    config.key_file.chmod(0o644)
    path = home / "signer.yaml"
    path.write_text(json.dumps(plain(config)))
    done = process.run((*AS_USER, sys.executable, "-m", "coordinator.signer", "--config", str(path)), env=ENV, timeout_seconds=60)
    assert done.code == 2
    assert b"others can read the key" in done.output
    assert b"chmod 0600" in done.output
