"""`kernel.org:VERSION`: the release tarball, signed with OpenPGP over the uncompressed tar; only pinned keys count."""

from __future__ import annotations

import lzma
import re
import tempfile
import urllib.error
import urllib.request
from importlib import resources
from pathlib import Path

from kernel.errors import Code, FarmError
from kernfarm import process
from worker.context import Context
from worker.sandbox import HOST_PATH
from worker.sources.fetched import Fetched

# https://www.kernel.org/signature.html: developers that sign releases. The archive's own automatic signer is not among them:
# it vouches for what the mirrors hold, not for what the kernel's maintainers made. Their keys are in data/kernel.org.asc.
FINGERPRINTS = {
    "647F28654894E3BD457199BE38DBBDC86092693E": "Greg Kroah-Hartman",
    "ABAF11C65A2970B130ABE3C479BE3E4300411886": "Linus Torvalds",
}
_VERSION = re.compile(r"(\d+)\.\d+(?:\.\d+)?(?:-rc\d+)?")
_CHUNK = 1 << 20


def fetch(context: Context, version: str) -> Fetched:
    """Raises FarmError: BAD_SOURCE (no such version), FETCH_FAILED, BAD_ARCHIVE, BAD_SIGNATURE."""
    match = _VERSION.fullmatch(version)
    if match is None:
        raise FarmError(Code.BAD_SOURCE, f"no kernel version: {version!r}", where="source", hint="kernel.org:6.1.192")
    settings = context.sources
    folder = f"{settings.kernel_org_url.rstrip('/')}/v{match[1]}.x"
    url = f"{folder}/linux-{version}.tar.xz"
    compressed, signature = context.scratch / "linux.tar.xz", context.scratch / "linux.tar.sign"
    _download(context, url, compressed, settings.max_tarball_bytes)
    _download(context, f"{folder}/linux-{version}.tar.sign", signature, 1 << 20)
    with tempfile.NamedTemporaryFile(dir=context.scratch) as plain:
        try:
            with lzma.open(compressed) as packed:
                _copy_bounded(packed, Path(plain.name), 16 * settings.max_tarball_bytes, url)
        except (lzma.LZMAError, EOFError) as error:
            raise FarmError(Code.BAD_ARCHIVE, f"not a whole xz file: {error}", where=url) from error
        signer = _verify(context, Path(plain.name), signature, url)
    digest, _ = context.blobs.put_file(compressed)
    return Fetched(tarball=digest, url=url, resolved=version, sha256=digest.removeprefix("sha256:"), signer=signer)


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


def _download(context: Context, url: str, to: Path, limit: int) -> None:
    context.log(f"fetching {url}\n".encode())
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            _copy_bounded(answer, to, limit, url)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (403, 404, 410):
            raise FarmError(
                Code.BAD_SOURCE, f"there is no such file ({error.code})", where=url, hint="see kernel.org for versions"
            ) from error
        raise FarmError(Code.FETCH_FAILED, f"the server answered {error.code}", where=url) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise FarmError(Code.FETCH_FAILED, f"cannot fetch: {error}", where=url) from error


def _copy_bounded(source: object, to: Path, limit: int, url: str) -> None:
    size = 0
    with to.open("wb") as file:
        while chunk := source.read(_CHUNK):  # type: ignore[attr-defined]  # any binary stream
            size += len(chunk)
            if size > limit:
                raise FarmError(Code.BAD_ARCHIVE, f"larger than {limit} bytes", where=url)
            file.write(chunk)
