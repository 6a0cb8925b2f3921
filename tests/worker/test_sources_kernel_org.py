"""kernel.org as a source, against real gpg and HTTP: what is signed, by whom, and mirrors that cut, drip or lie."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import lzma
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import zstandard

from kernel.errors import Code, FarmError
from kernel.spec import SourceKind, SourceSpec
from kernfarm import process
from kernfarm.settings import SourceSettings
from tests.fakes import fake_linux
from tests.worker.sourcing import ENV, refused, run
from worker.node import Node
from worker.sources import kernel_org

VERSION = fake_linux.VERSION


@dataclass(frozen=True)
class Signer:
    """A key of our own and its fingerprint."""

    home: Path
    fingerprint: str
    keyring: Path

    def sign(self, data: bytes, to: Path) -> None:
        argv = ("gpg", "--homedir", str(self.home), "--batch", "--yes", "--armor", "--detach-sign", "--output", str(to))
        assert process.run(argv, env=ENV, timeout_seconds=60, input=data).code == 0


def make_signer(home: Path) -> Signer:
    home.mkdir(mode=0o700)
    base = ("gpg", "--homedir", str(home), "--batch")
    words = ("--passphrase", "", "--quick-gen-key", "Test <t@example.org>", "ed25519", "sign")
    made = process.run((*base, *words), env=ENV, timeout_seconds=60)
    assert made.code == 0, made.output
    listed = process.run((*base, "--with-colons", "--fingerprint"), env=ENV, timeout_seconds=60).output.decode()
    fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
    keyring = home / "keyring.asc"
    keyring.write_bytes(process.run((*base, "--armor", "--export"), env=ENV, timeout_seconds=60).output)
    return Signer(home, fingerprint, keyring)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    made = make_signer(tmp_path_factory.mktemp("gpg") / "home")
    yield made
    process.run(("gpgconf", "--homedir", str(made.home), "--kill", "all"), env=ENV, timeout_seconds=20)


FAULTS = ("cut", "cut-chunk", "drip", "drip-headers")


class Mirror(SimpleHTTPRequestHandler):
    """kernel.org's layout from a folder; /broken/ answers 500, the other names below do with the tarball what they say."""

    def do_GET(self) -> None:
        kind, _, path = self.path.removeprefix("/").partition("/")
        if kind == "broken":
            self.send_error(500)
        elif kind in FAULTS and path.endswith(".xz"):
            self._fail(kind, Path(self.translate_path(f"/{path}")).read_bytes())
        else:
            self.path = f"/{path}" if kind in FAULTS else self.path
            super().do_GET()

    def _fail(self, kind: str, data: bytes) -> None:
        self.protocol_version = "HTTP/1.1"
        self.close_connection = True
        self.send_response(200)
        if kind == "cut-chunk":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data[:-1])
            return
        # Cut where the archive is whole: only the length tells that something is missing.
        self.send_header("Content-Length", str(len(data) + 1))
        if kind == "drip-headers":
            self.flush_headers()
        else:
            self.end_headers()
        if kind == "cut":
            self.wfile.write(data)
            return
        with contextlib.suppress(ConnectionError):  # the other end has had enough
            for _ in range(200):
                self.wfile.write(b"x")
                time.sleep(0.05)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, signer: Signer) -> Iterator[tuple[str, Path]]:
    """Its address and the folder with the fake kernel's release."""
    folder = tmp_path / "mirror/v6.x"
    folder.mkdir(parents=True)
    fake_linux.tarball(folder / f"linux-{VERSION}.tar.xz")
    signer.sign(lzma.decompress((folder / f"linux-{VERSION}.tar.xz").read_bytes()), folder / f"linux-{VERSION}.tar.sign")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Mirror, directory=tmp_path / "mirror"))
    server.daemon_threads = False  # so that server_close waits for its connections
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def released(version: str = VERSION) -> SourceSpec:
    return SourceSpec(kind=SourceKind.KERNEL_ORG, ref=version)


def trusting(url: str, signer: Signer, **more: object) -> SourceSettings:
    settings = SourceSettings(kernel_org_url=url, keyring=str(signer.keyring), extra_fingerprints=(signer.fingerprint,))
    return replace(settings, **more)  # type: ignore[arg-type]


def test_a_release_is_verified_and_says_who_signed_it(node: Node, mirror: tuple[str, Path], signer: Signer) -> None:
    url, folder = mirror
    result = run(node, released(), trusting(url, signer))
    assert result.tree.version == VERSION
    assert signer.fingerprint in result.facts.signer
    assert result.facts.url == f"{url}/v6.x/linux-{VERSION}.tar.xz"
    fetched = (folder / f"linux-{VERSION}.tar.xz").read_bytes()
    assert result.facts.sha256 == hashlib.sha256(fetched).hexdigest(), "it has to be found in kernel.org's sha256sums.asc"


def test_what_is_stored_is_the_tar_that_was_verified_and_not_the_file_around_it(
    node: Node, mirror: tuple[str, Path], signer: Signer
) -> None:
    """The file carries bytes beside the archive, which Python ignores and another program may take for the archive."""
    url, folder = mirror
    path = folder / f"linux-{VERSION}.tar.xz"
    verified = lzma.decompress(path.read_bytes())
    clean = run(node, released(), trusting(url, signer))
    path.write_bytes(lzma.compress(verified, preset=1) + gzip.compress(b"another archive"))
    padded = run(node, released(), trusting(url, signer))
    assert zstandard.ZstdDecompressor().decompress(node.blobs.get_bytes(padded.tree.tarball)) == verified
    assert padded.tree == clean.tree, "the same tar has to give the same tree, however it was packed"
    assert padded.facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_of_another_format_under_the_name_of_an_xz_file_is_refused(node: Node, mirror: tuple[str, Path], signer: Signer) -> None:
    url, folder = mirror
    path = folder / f"linux-{VERSION}.tar.xz"
    path.write_bytes(lzma.compress(lzma.decompress(path.read_bytes()), format=lzma.FORMAT_ALONE))
    code, said = refused(node, released(), trusting(url, signer))
    assert code is Code.BAD_ARCHIVE
    assert "xz" in said


@pytest.mark.parametrize("how", ["cut", "cut-chunk"])
def test_a_connection_that_ends_too_early_is_no_whole_file(node: Node, mirror: tuple[str, Path], signer: Signer, how: str) -> None:
    code, said = refused(node, released(), trusting(f"{mirror[0]}/{how}", signer))
    assert code is Code.FETCH_FAILED, said
    assert f"linux-{VERSION}.tar.xz" in said


@pytest.mark.parametrize("how", ["drip", "drip-headers"])
def test_a_mirror_that_drips_is_left_at_the_deadline(node: Node, mirror: tuple[str, Path], signer: Signer, how: str) -> None:
    started = time.monotonic()
    code, said = refused(node, released(), trusting(f"{mirror[0]}/{how}", signer, fetch_timeout_seconds=0.5))
    assert code is Code.FETCH_FAILED
    assert "too slow" in said
    assert time.monotonic() - started < 5


def test_a_cancelled_attempt_leaves_a_mirror_that_drips(node: Node, mirror: tuple[str, Path], signer: Signer) -> None:
    cancel = threading.Event()
    timer = threading.Timer(0.5, cancel.set)
    timer.start()
    started = time.monotonic()
    with pytest.raises(FarmError) as caught:
        run(node, released(), trusting(f"{mirror[0]}/drip", signer), cancel=cancel)
    timer.join()
    assert caught.value.problem.code is Code.CANCELLED
    assert time.monotonic() - started < 5


def test_another_tarball_under_a_good_signature_is_refused(node: Node, mirror: tuple[str, Path], signer: Signer) -> None:
    url, folder = mirror
    fake_linux.tarball(folder / f"linux-{VERSION}.tar.xz", {"Makefile": "evil:\n"})
    code, said = refused(node, released(), trusting(url, signer))
    assert code is Code.BAD_SIGNATURE
    assert f"linux-{VERSION}.tar.xz" in said


def test_a_good_signature_of_a_key_that_is_not_pinned_is_refused(node: Node, mirror: tuple[str, Path], signer: Signer) -> None:
    code, said = refused(node, released(), trusting(mirror[0], signer, extra_fingerprints=()))
    assert code is Code.BAD_SIGNATURE
    assert signer.fingerprint in said


def test_a_signer_that_is_not_in_the_keyring_is_refused(node: Node, mirror: tuple[str, Path], signer: Signer) -> None:
    """With the keys that come with kernfarm: none of them has signed the fake kernel."""
    code, _ = refused(node, released(), trusting(mirror[0], signer, keyring=""))
    assert code is Code.BAD_SIGNATURE


def test_the_keys_that_come_with_kernfarm_are_those_of_the_pinned_signers(node: Node, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    path = Path(kernel_org.__file__).parent.parent / "data/kernel.org.asc"
    argv = ("gpg", "--homedir", str(home), "--batch", "--with-colons", "--show-keys", str(path))
    listed = process.run(argv, env=ENV, timeout_seconds=60).output.decode().splitlines()
    primary = [listed[index + 1].split(":")[9] for index, line in enumerate(listed) if line.startswith("pub:")]
    assert sorted(primary) == sorted(kernel_org.FINGERPRINTS)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": "6.1.7"}, Code.BAD_SOURCE),
        ({"version": "../../etc"}, Code.BAD_SOURCE),
        ({"url": "/broken"}, Code.FETCH_FAILED),
        ({"url": None}, Code.FETCH_FAILED),
        ({"limit": 1000}, Code.BAD_ARCHIVE),
        ({"damage": True}, Code.BAD_ARCHIVE),
        ({"keyring": "/no/such/file"}, Code.BAD_SIGNATURE),
    ],
)
def test_what_can_be_wrong_with_a_release(
    node: Node, mirror: tuple[str, Path], signer: Signer, change: dict[str, object], code: Code
) -> None:
    url, folder = mirror
    if change.get("damage"):
        path = folder / f"linux-{VERSION}.tar.xz"
        path.write_bytes(path.read_bytes()[:-100])
    address = "http://127.0.0.1:1" if "url" in change and change["url"] is None else f"{url}{change.get('url', '')}"
    settings = trusting(address, signer)
    if "limit" in change:
        settings = replace(settings, max_tarball_bytes=1000)
    if "keyring" in change:
        settings = replace(settings, keyring=str(change["keyring"]))
    found, said = refused(node, released(str(change.get("version", VERSION))), settings)
    assert found is code, said
