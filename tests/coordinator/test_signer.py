"""The signer: what it refuses, and the real program over its socket, as a user of its own where tests run as root."""

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
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordinator import signing, views
from coordinator.events import BlobsLost, Cancelled, Event, Launched, Succeeded
from coordinator.signer import server
from kernel.codec import from_plain
from kernel.errors import Code, FarmError, Problem
from kernel.signing import bundle, provenance, statement
from kernel.steps import Artifact, SignResult, StepKind, Usage
from kernfarm import process, verify
from kernfarm.cli import signer as embedded_signer
from kernfarm.process import Service
from kernfarm.settings import SignerSettings, plain
from kernfarm.verify_key import VerifyKey
from kernfarm.verify_source import LayoutSource
from tests.fakes.built import RELEASE, SHA256, FakeBuild
from tests.fakes.signed import BUILDER, fetch, new_key, signer, two_builds
from tests.homes import make_home

KEY = new_key()
UID = embedded_signer.SIGNER_UID if os.geteuid() == 0 else os.geteuid()


def refusal(build: FakeBuild, build_id: str = "") -> Problem:
    with pytest.raises(FarmError) as caught:
        signer(build, KEY).sign(build_id or build.build_id)
    return caught.value.problem


def test_a_finished_build_is_signed_and_verifies(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path)
    build.play().close()
    signed = signer(build, KEY).sign(build.build_id)
    report = verify.verify(LayoutSource(fetch(build, signed, tmp_path / "image").folder), VerifyKey.parse(KEY.public_pem, "key"))
    assert report.ok, [each for each in report.checks if not each.ok]
    assert {each.subject for each in signed.attachments} == {build.image.index, build.image.manifest}


def test_signing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path)
    build.play().close()
    assert signer(build, KEY).sign(build.build_id) == signer(build, KEY).sign(build.build_id)


def test_provenance_says_what_the_journal_says(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path)
    build.play().close()
    made = fetch(build, signer(build, KEY).sign(build.build_id), tmp_path / "image").statement(statement.PROVENANCE)
    definition, details = made.predicate["buildDefinition"], made.predicate["runDetails"]
    assert definition["buildType"] == provenance.BUILD_TYPE
    assert definition["externalParameters"]["source"] == {"kind": "kernel.org", "ref": "6.1.999", "digest": ""}
    assert definition["internalParameters"]["release"] == RELEASE
    assert definition["internalParameters"]["boot"] == "passed"
    assert "domain" not in definition["externalParameters"], "a team's name is not published"
    assert definition["resolvedDependencies"][0]["digest"] == {"sha256": SHA256}
    assert definition["resolvedDependencies"][0]["annotations"]["signer"] == "A" * 40
    assert details["builder"] == {"id": BUILDER}
    assert details["metadata"]["invocationId"] == build.build_id
    assert details["metadata"]["startedOn"] < details["metadata"]["finishedOn"]
    record = json.loads(build.blobs.get_bytes(f"sha256:{details['byproducts'][0]['digest']['sha256']}"))
    assert record["build"] == build.build_id
    assert {subject.name for subject in made.subjects} == {"image kernel", "image kernel linux/amd64", *build.files}


def test_an_index_over_two_architectures_is_signed_and_verifies(tmp_path: Path) -> None:
    builds, made, image = two_builds(tmp_path, KEY)
    report = verify.verify(LayoutSource(image.folder), VerifyKey.parse(KEY.public_pem, "key"), builder=BUILDER, booted=True)
    assert report.ok, [each for each in report.checks if not each.ok]
    assert report.image == made.index.digest
    again = signer(builds[0], KEY).sign_index([build.build_id for build in builds])
    assert again == made


def test_the_records_that_provenance_names_are_for_the_builds_team(tmp_path: Path) -> None:
    """Whoever may have the image may look at how it came about; the index over several builds names the same records."""
    builds, _, image = two_builds(tmp_path, KEY)
    named = set()
    for entry in image.index["manifests"]:
        if image.is_referrer(entry, statement.PROVENANCE):
            sealed = bundle.parse(image.read(image.json(entry["digest"])["layers"][0]["digest"]))
            byproducts = statement.parse(sealed.payload).predicate["runDetails"]["byproducts"]
            named |= {f"sha256:{each['digest']['sha256']}" for each in byproducts}
    assert len(named) == 2
    assert named <= {digest for build in builds for digest in views.results(build.state)}


def test_an_index_is_over_finished_builds_of_one_kernel_only(tmp_path: Path) -> None:
    build, other = FakeBuild(tmp_path, build_id="b-1"), FakeBuild(tmp_path, build_id="b-2", platform="linux/arm64")
    twice = FakeBuild(tmp_path, build_id="b-3")
    for each in (build, twice):
        journal = each.play()
        each.sign(journal, signer(each, KEY).sign(each.build_id))
        journal.close()
    other.play().close()
    for ids, said in (
        (("b-1", "b-2"), "the build is running"),
        (("b-1", "b-9"), "knows no such build"),
        (("b-1", "b-3"), "two images for one platform"),
    ):
        with pytest.raises(FarmError, match=said) as caught:
            signer(build, KEY).sign_index(ids)
        assert caught.value.problem.code is Code.SIGNING_REFUSED


def test_builds_that_make_no_index_are_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    builds, _, _ = two_builds(tmp_path, KEY)
    twin = FakeBuild(tmp_path, build_id="b-3")
    journal = twin.play()
    twin.sign(journal, signer(twin, KEY).sign(twin.build_id))
    journal.close()
    for build in (*builds, twin):
        blob_file(build, build.image.index).unlink(missing_ok=True)
    with pytest.raises(FarmError, match="two images for one platform"):
        signer(twin, KEY).sign_index([builds[0].build_id, twin.build_id])


def test_a_build_without_a_boot_step_is_signed_when_it_is_packaged(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path, boot=False)
    build.play(StepKind.PACKAGE).close()
    image = fetch(build, signer(build, KEY).sign(build.build_id), tmp_path / "image")
    key = VerifyKey.parse(KEY.public_pem, "key")
    assert verify.verify(LayoutSource(image.folder), key).ok
    failed = [each.name for each in verify.verify(LayoutSource(image.folder), key, booted=True).checks if not each.ok]
    assert failed == ["booted"]


@pytest.mark.parametrize(
    ("until", "words"),
    [(StepKind.SOURCE, "package step is"), (StepKind.LINK, "package step is"), (StepKind.PACKAGE, "boot step is")],
)
def test_an_unfinished_or_unbooted_build_is_refused(tmp_path: Path, until: StepKind, words: str) -> None:
    build = FakeBuild(tmp_path)
    build.play(until).close()
    problem = refusal(build)
    assert problem.code is Code.SIGNING_REFUSED
    assert words in problem.message


def test_an_unknown_build_is_refused(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path)
    build.play().close()
    assert refusal(build, "20260101-000000-000000").code is Code.SIGNING_REFUSED


def test_a_cancelled_build_is_refused(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path)
    journal = build.play(StepKind.PACKAGE)
    build.record(journal, Cancelled(at=1_800_000_000.0, build_id=build.build_id))
    journal.close()
    assert "the build is cancelled" in refusal(build).message


def test_the_signer_follows_the_journal_and_notices_another_one(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path)
    journal = build.play(StepKind.PACKAGE)
    one = signer(build, KEY)
    with pytest.raises(FarmError, match="boot step is"):
        one.sign(build.build_id)
    build._step(journal, StepKind.BOOT)
    assert one.sign(build.build_id).attachments
    journal.close()
    for path in tmp_path.glob("journal.sqlite*"):
        path.unlink()
    fresh = FakeBuild(tmp_path, build_id="20270101-000000-abcdef", boot=False)
    fresh.play(StepKind.SOURCE).close()
    with pytest.raises(FarmError, match="no such build"):
        one.sign(build.build_id)


def blob_file(build: FakeBuild, digest: str) -> Path:
    name = digest.removeprefix("sha256:")
    return build.home / "blobs" / "blobs" / name[:2] / name[2:]


@pytest.mark.parametrize("name", ["index", "manifest", "config", "layer-0", "layer-1"])
@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_damaged_blob_is_named_and_nothing_is_signed(tmp_path: Path, name: str, damage: str) -> None:
    """It is the store's loss, and made again: the coordinator hears which one."""
    build = FakeBuild(tmp_path)
    build.play().close()
    digest = next(blob.digest for blob in build.image.blobs if blob.name == name)
    path, data = blob_file(build, digest), blob_file(build, digest).read_bytes()
    before = {each for each in (tmp_path / "blobs").rglob("*") if each.is_file()}
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    problem = refusal(build)
    assert problem.code is Code.BLOB_LOST or (damage == "cut" and problem.code is Code.SIGNING_REFUSED), problem
    assert digest in f"{problem.where} {problem.message}"
    assert not {each for each in (tmp_path / "blobs").rglob("*") if each.is_file()} - before


def lie_about_size(build: FakeBuild) -> None:
    blobs = tuple(replace(blob, size=blob.size + 1) if blob.name == "layer-0" else blob for blob in build.image.blobs)
    repackage(build, blobs=blobs)


def name_another_blob(build: FakeBuild) -> None:
    extra = Artifact(name="layer-9", digest=build.blobs.put_bytes(b"extra"), size=5)
    repackage(build, blobs=(*build.image.blobs, extra))


def name_no_index(build: FakeBuild) -> None:
    repackage(build, blobs=tuple(blob for blob in build.image.blobs if blob.name != "index"))


def repackage(build: FakeBuild, **changes: Any) -> None:
    build.packaged = replace(build.packaged, images=(replace(build.image, **changes),))


def another_artifact(build: FakeBuild) -> None:
    made = Artifact(name="kernel", digest=build.blobs.put_bytes(b"mine"), size=4)
    build.packaged = replace(build.packaged, artifacts=(made, *build.packaged.artifacts[1:]))


def artifact_of_another_size(build: FakeBuild) -> None:
    made = Artifact(name="vmlinux", digest=build.blobs.put_bytes(b"mine"), size=5)
    build.packaged = replace(build.packaged, artifacts=(*build.packaged.artifacts, made))


LIES: dict[str, tuple[Callable[[FakeBuild], None], str]] = {
    "another size": (lie_about_size, "don't agree"),
    "a blob that the index does not lead to": (name_another_blob, "don't agree"),
    "no index": (name_no_index, "does not list the index"),
    "another platform": (lambda build: repackage(build, platform="linux/arm64"), "linux/arm64"),
    "another manifest": (lambda build: repackage(build, manifest=build.image.index), "has no"),
    "another artifact": (another_artifact, "another kernel than the journal"),
    "an artifact of another size": (artifact_of_another_size, "vmlinux has 4 bytes"),
    "no image": (lambda build: setattr(build, "packaged", replace(build.packaged, images=())), "no image"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_package_that_is_not_what_the_journal_says_is_refused(tmp_path: Path, name: str) -> None:
    tell, words = LIES[name]
    build = FakeBuild(tmp_path)
    tell(build)
    build.play().close()
    problem = refusal(build)
    assert problem.code is Code.SIGNING_REFUSED
    assert words in problem.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source_sha256": "0" * 64}, "kernel-source-info says SOURCE_SHA256"),
        ({"source_sha256": "none"}, "no digest of the source"),
        ({"files": {"kernel_config": b"CONFIG_EVIL=y\n"}}, "the image has the config"),
        ({"files": {"kernel-source-info": b"KERNEL_SOURCE=elsewhere\n"}}, "kernel-source-info says"),
    ],
)
def test_an_image_that_is_made_from_something_else_than_the_journal_says_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    build = FakeBuild(tmp_path, **changes)
    build.play().close()
    assert words in refusal(build).message


def test_a_build_whose_blobs_were_lost_is_refused(tmp_path: Path) -> None:
    build = FakeBuild(tmp_path)
    journal = build.play()
    build.record(journal, *finished(build))
    journal.close()
    assert "are gone" in refusal(build).message


def finished(build: FakeBuild) -> list[Event]:
    """The build signed, and then its blobs lost."""
    attempt = f"{build.build_id}/sign/1"
    at = 1_800_000_000.0
    return [
        Launched(at=at, build_id=build.build_id, step="sign", attempt_id=attempt, worker_id="signer", worker_name="signer"),
        Succeeded(at=at, attempt_id=attempt, result=SignResult(attachments=()), usage=Usage()),
        BlobsLost(at=at, build_id=build.build_id, digests=(build.image.index,)),
    ]


# The program.


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

    def answer(builds: tuple[str, ...]) -> dict[str, Any]:
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
