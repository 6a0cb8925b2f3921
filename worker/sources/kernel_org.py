"""`kernel.org:VERSION`: the release tarball, signed with OpenPGP over the uncompressed tar; only pinned keys count.

What is kept is the very tar that was verified, compressed anew: a file that one program reads as this archive and another as that
one could be verified as the first and unpacked as the second.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import tempfile
import time
from importlib import resources
from pathlib import Path

import zstandard

from kernel.errors import Code, FarmError
from kernfarm import process
from worker.context import Context
from worker.sandbox import HOST_PATH
from worker.sources.download import copy, download
from worker.sources.fetched import Fetched

# https://www.kernel.org/signature.html: developers that sign releases. The archive's own automatic signer is not among them:
# it vouches for what the mirrors hold, not for what the kernel's maintainers made. Their keys are in data/kernel.org.asc.
FINGERPRINTS = {
    "647F28654894E3BD457199BE38DBBDC86092693E": "Greg Kroah-Hartman",
    "ABAF11C65A2970B130ABE3C479BE3E4300411886": "Linus Torvalds",
}
_VERSION = re.compile(r"(\d+)\.\d+(?:\.\d+)?(?:-rc\d+)?")
# Linux 6.1 in seconds, and about a third larger than what kernel.org's own xz -9 takes minutes for.
_LEVEL = 3


def fetch(context: Context, version: str) -> Fetched:
    """Raises FarmError: BAD_SOURCE (no such version), FETCH_FAILED, BAD_ARCHIVE, BAD_SIGNATURE, CANCELLED."""
    match = _VERSION.fullmatch(version)
    if match is None:
        raise FarmError(Code.BAD_SOURCE, f"no kernel version: {version!r}", where="source", hint="kernel.org:6.1.192")
    settings = context.sources
    folder = f"{settings.kernel_org_url.rstrip('/')}/v{match[1]}.x"
    url = f"{folder}/linux-{version}.tar.xz"
    compressed, signature = context.scratch / "linux.tar.xz", context.scratch / "linux.tar.sign"
    deadline = time.monotonic() + settings.fetch_timeout_seconds
    download(context, url, compressed, limit=settings.max_tarball_bytes, deadline=deadline)
    download(context, f"{folder}/linux-{version}.tar.sign", signature, limit=1 << 20, deadline=deadline)
    with compressed.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # what kernel.org's sha256sums.asc lists
    with tempfile.NamedTemporaryFile(dir=context.scratch) as plain:
        try:
            with lzma.open(compressed, format=lzma.FORMAT_XZ) as packed:
                copy(context, packed.read, Path(plain.name), limit=16 * settings.max_tarball_bytes, url=url)
        except (lzma.LZMAError, EOFError) as error:
            raise FarmError(Code.BAD_ARCHIVE, f"not a whole xz file: {error}", where=url) from error
        signer = _verify(context, Path(plain.name), signature, url)
        digest = _store(context, Path(plain.name))
    return Fetched(tarball=digest, url=url, resolved=version, sha256=sha256, signer=signer)


def _store(context: Context, plain: Path) -> str:
    """The tar in the blob store. With threads, whose number does not matter, the same tar gives the same bytes on every machine."""
    with tempfile.NamedTemporaryFile(dir=context.scratch) as packed, plain.open("rb") as source:
        compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=-1)
        compressor.copy_stream(source, packed, size=plain.stat().st_size)
        packed.flush()
        digest, _ = context.blobs.put_file(Path(packed.name))
    return digest


def _verify(context: Context, data: Path, signature: Path, url: str) -> str:
    """Who signed it. Only gpgv's own word about a pinned fingerprint counts, read from its status lines."""
    keyring = _keyring(context)
    argv = ("gpgv", "--keyring", str(keyring), "--status-fd", "1", str(signature), str(data))
    env = {"PATH": HOST_PATH, "LC_ALL": "C", "GNUPGHOME": str(context.scratch)}
    done = process.run(argv, env=env, timeout_seconds=600, on_line=context.log, cancel=context.cancel)
    pinned = {**FINGERPRINTS, **dict.fromkeys(context.sources.extra_fingerprints, "a signer of this site")}
    for words in (line.split() for line in done.output.decode(errors="replace").splitlines()):
        if words[:2] == ["[GNUPG:]", "VALIDSIG"] and done.code == 0:
            for fingerprint in (words[2], words[-1]):  # the signing key, or the primary key it belongs to
                if fingerprint in pinned:
                    return f"{pinned[fingerprint]} ({fingerprint})"
            raise FarmError(Code.BAD_SIGNATURE, f"signed by {words[-1]}, which is not pinned", where=url, hint="sources.extra_fingerprints")
    raise FarmError(
        Code.BAD_SIGNATURE, "the signature over the tarball does not hold", where=url, hint="the mirror may be broken or hostile"
    )


def _keyring(context: Context) -> Path:
    """The site's keyring or ours, in the binary form that gpgv reads. Raises FarmError(BAD_SIGNATURE) when it is none."""
    given = context.sources.keyring
    try:
        data = Path(given).read_bytes() if given else (resources.files("worker") / "data" / "kernel.org.asc").read_bytes()
    except OSError as error:
        raise FarmError(Code.BAD_SIGNATURE, f"cannot read the keyring: {error.strerror}", where=f"sources.keyring: {given}") from error
    binary = context.scratch / "keyring.pgp"
    if not data.startswith(b"-----BEGIN PGP"):
        binary.write_bytes(data)
        return binary
    env = {"PATH": HOST_PATH, "LC_ALL": "C", "GNUPGHOME": str(context.scratch)}
    done = process.run(("gpg", "--batch", "--output", str(binary), "--dearmor"), env=env, timeout_seconds=60, input=data)
    if done.code != 0:
        raise FarmError(Code.BAD_SIGNATURE, "the keyring is damaged", where=f"sources.keyring: {given}")
    return binary
