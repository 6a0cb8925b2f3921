"""The source step against real gpg, git, HTTP and apt."""

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

from bench.plain import context_of
from kernel.errors import Code, FarmError
from kernel.spec import NamedBlob, SourceKind, SourceSpec
from kernel.steps import PatchResult, PatchTask, SourceResult, SourceTask, Tree
from kernfarm import process
from kernfarm.settings import SourceSettings, WorkerSettings
from tests.fakes import fake_linux
from worker import trees
from worker.node import Node
from worker.sources import kernel_org
from worker.steps import patch, source

ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
VERSION = fake_linux.VERSION


@pytest.fixture
def node(open_folder: Path) -> Node:
    return Node(WorkerSettings(state_dir=open_folder / "worker", blobs_url=f"file://{open_folder}/blobs", compile_cache=False))


def run(node: Node, spec: SourceSpec, settings: SourceSettings | None = None, cancel: threading.Event | None = None) -> SourceResult:
    with node.scratch("source") as scratch:
        context = context_of(node, scratch, Tree(tarball="", version=""), arch="x86_64", toolchain="gcc-12", jobs=1)
        context = replace(context, sources=settings or SourceSettings(), cancel=cancel or threading.Event())
        return source.run(context, SourceTask(source=spec))


def refused(node: Node, spec: SourceSpec, settings: SourceSettings | None = None) -> tuple[Code, str]:
    with pytest.raises(FarmError) as caught:
        run(node, spec, settings)
    return caught.value.problem.code, str(caught.value)


# kernel.org


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


class Mirror(SimpleHTTPRequestHandler):
    """kernel.org's layout from a folder; /broken/ answers 500, the other names below do with the tarball what they say."""

    def do_GET(self) -> None:
        kind, _, path = self.path.removeprefix("/").partition("/")
        if kind == "broken":
            self.send_error(500)
        elif kind in ("cut", "cut-chunk", "drip") and path.endswith(".xz"):
            self._fail(kind, Path(self.translate_path(f"/{path}")).read_bytes())
        else:
            self.path = f"/{path}" if kind in ("cut", "cut-chunk", "drip") else self.path
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


def test_a_mirror_that_drips_is_left_at_the_deadline(node: Node, mirror: tuple[str, Path], signer: Signer) -> None:
    started = time.monotonic()
    code, said = refused(node, released(), trusting(f"{mirror[0]}/drip", signer, fetch_timeout_seconds=0.5))
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


# git


def git(folder: Path, *words: str) -> str:
    env = {**ENV, "HOME": str(folder), "GIT_COMMITTER_DATE": "1000000000 +0000", "GIT_AUTHOR_DATE": "1000000000 +0000"}
    argv = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(folder), *words)
    done = process.run(argv, env=env, timeout_seconds=60)
    assert done.code == 0, done.output
    return done.output.decode().strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = fake_linux.write(tmp_path / "linux.git")
    git(folder, "init", "--quiet", "--initial-branch=master")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=first")
    git(folder, "tag", "v6.1.999")
    git(folder, "config", "uploadpack.allowReachableSHA1InWant", "true")
    return folder


LOCAL = SourceSettings(git_protocols=("file",))


def from_git(folder: Path, ref: str) -> SourceSpec:
    return SourceSpec(kind=SourceKind.GIT, ref=f"file://{folder}@{ref}")


def test_tag_branch_and_commit_of_one_commit_are_one_tree(node: Node, repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    results = [run(node, from_git(repository, ref), LOCAL) for ref in ("v6.1.999", "master", commit)]
    assert len({result.tree.tarball for result in results}) == 1
    assert {result.facts.resolved for result in results} == {commit}
    assert results[0].tree.version == VERSION


@pytest.mark.parametrize(
    ("ref", "code"), [("v7.0", Code.BAD_SOURCE), ("0" * 40, Code.BAD_SOURCE), ("-x", Code.BAD_SOURCE), ("a..b", Code.BAD_SOURCE)]
)
def test_refs_that_are_not_there(node: Node, repository: Path, ref: str, code: Code) -> None:
    assert refused(node, from_git(repository, ref), LOCAL)[0] is code


@pytest.mark.parametrize("url", ["file:///etc", "git://example.org/x", "http://example.org/x", "ext::sh -c id", "--upload-pack=id"])
def test_protocols_that_are_not_authenticated_are_refused(node: Node, url: str) -> None:
    code, said = refused(node, SourceSpec(kind=SourceKind.GIT, ref=f"{url}@v1"))
    assert code is Code.BAD_SOURCE
    assert "not allowed" in said


def test_hooks_and_attributes_of_a_repository_do_not_run(node: Node, repository: Path, tmp_path: Path) -> None:
    """`git archive` honours export-subst and -ignore of the tree's attributes, which are data, but runs no filter of it."""
    (repository / ".gitattributes").write_text("Makefile filter=evil\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message=second")
    git(repository, "config", "filter.evil.smudge", f"touch {tmp_path}/owned")
    run(node, from_git(repository, "master"), LOCAL)
    assert not (tmp_path / "owned").exists()


# file


def upload(node: Node, path: Path) -> SourceSpec:
    digest, _ = node.blobs.put_file(path)
    return SourceSpec(kind=SourceKind.FILE, ref=path.name, digest=digest)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz", ".tar.zst"])
def test_tarballs_of_every_compression_give_the_same_tree(node: Node, tmp_path: Path, suffix: str) -> None:
    result = run(node, upload(node, fake_linux.tarball(tmp_path / f"linux{suffix}")))
    with node.trees.checkout(result.tree, node.sandbox) as checkout:
        assert trees.read_bytes(checkout.path, "Makefile") == fake_linux.files()["Makefile"]


def test_what_is_no_kernel_is_refused(node: Node, tmp_path: Path) -> None:
    spec = upload(node, fake_linux.tarball(tmp_path / "x.tar", {"Kconfig": None}))
    code, said = refused(node, spec)
    assert code is Code.BAD_SOURCE
    assert "no kernel tree" in said


def test_a_tarball_that_is_not_there_and_one_that_was_damaged(node: Node, tmp_path: Path, open_folder: Path) -> None:
    missing = SourceSpec(kind=SourceKind.FILE, ref="x", digest="sha256:" + "0" * 64)
    assert refused(node, missing)[0] is Code.BLOB_LOST
    spec = upload(node, fake_linux.tarball(tmp_path / "linux.tar"))
    stored = next(path for path in (open_folder / "blobs").rglob("*") if path.name in (spec.digest[7:], spec.digest[9:]))
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    stored.write_bytes(data)
    assert refused(node, spec)[0] in (Code.BLOB_LOST, Code.BAD_DIGEST)


# patches


def patched(node: Node, tmp_path: Path, *texts: str) -> PatchResult:
    named = tuple(NamedBlob(name=f"{number:04}.patch", digest=node.blobs.put_bytes(text.encode())) for number, text in enumerate(texts, 1))
    tree = run(node, upload(node, fake_linux.tarball(tmp_path / "linux.tar"))).tree
    with node.scratch("patch") as scratch:
        context = context_of(node, scratch, tree, arch="x86_64", toolchain="gcc-12", jobs=1)
        return patch.run(context, PatchTask(tree=tree, patches=named))


NEW = "diff --git a/new.txt b/new.txt\nnew file mode 100644\n--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1 @@\n+hello\n"
CHANGE = "--- a/new.txt\n+++ b/new.txt\n@@ -1 +1 @@\n-hello\n+world\n"


def gone(path: str) -> str:
    """A patch that removes a file of the fake kernel."""
    lines = fake_linux.files()[path].decode().splitlines()
    body = "".join(f"-{line}\n" for line in lines)
    return f"diff --git a/{path} b/{path}\ndeleted file mode 100644\n--- a/{path}\n+++ /dev/null\n@@ -1,{len(lines)} +0,0 @@\n{body}"


def test_patches_add_change_and_remove_in_order_and_leave_the_base_alone(node: Node, tmp_path: Path) -> None:
    victim = next(path for path in fake_linux.files() if path.endswith(".c") and fake_linux.files()[path])
    result = patched(node, tmp_path, NEW, CHANGE, gone(victim))
    with node.trees.checkout(result.tree, node.sandbox) as checkout:
        assert trees.read_text(checkout.path, "new.txt") == "world\n"
        assert not (checkout.path / victim).exists()
        newer = (checkout.path / "new.txt").stat().st_mtime
        assert newer > (checkout.path / "Makefile").stat().st_mtime, "make has to see that a patched file is newer"
    with node.trees.checkout(replace(result.tree, upper=""), node.sandbox) as base:
        assert (base.path / victim).exists()
        assert not (base.path / "new.txt").exists()


def test_the_same_patches_give_the_same_layer(node: Node, tmp_path: Path) -> None:
    assert patched(node, tmp_path, NEW, CHANGE).tree == patched(node, tmp_path, NEW, CHANGE).tree


def test_a_patch_that_does_not_apply_names_patch_file_and_hunk(node: Node, tmp_path: Path) -> None:
    with pytest.raises(FarmError) as caught:
        patched(node, tmp_path, NEW, CHANGE, CHANGE)
    assert caught.value.problem.code is Code.BAD_PATCH
    assert caught.value.problem.where == "0003.patch"
    assert "hunk 1" in caught.value.problem.message
    assert "new.txt" in caught.value.problem.message


def test_a_link_in_place_of_a_folder_leads_nobody_out_of_the_tree(node: Node, tmp_path: Path) -> None:
    """Remove all of a folder, put a link there: what marks the removed files must not be written through the link."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    folder = next(path.rpartition("/")[0] for path in fake_linux.files() if path.count("/") == 1 and not path.startswith("scripts"))
    inside = [path for path in fake_linux.files() if path.startswith(f"{folder}/")]
    link = f"diff --git a/{folder} b/{folder}\nnew file mode 120000\n--- /dev/null\n+++ b/{folder}\n@@ -0,0 +1 @@\n+{outside}\n"
    link += "\\ No newline at end of file\n"
    with pytest.raises(FarmError) as caught:
        patched(node, tmp_path, *(gone(path) for path in inside if fake_linux.files()[path]), link)
    assert caught.value.problem.code is Code.BAD_PATCH
    assert list(outside.iterdir()) == []


# debian


def test_a_package_that_is_not_there_and_words_that_are_none(node: Node) -> None:
    assert refused(node, SourceSpec(kind=SourceKind.DEBIAN, ref="9.9"))[0] is Code.BAD_SOURCE
    assert refused(node, SourceSpec(kind=SourceKind.DEBIAN, ref="6.1 -o x"))[0] is Code.BAD_SOURCE
    assert refused(node, SourceSpec(kind=SourceKind.DEBIAN, ref="6.1=0.0-1"))[0] is Code.BAD_SOURCE
