"""`debian:6.1` or `debian:6.1=6.1.192-1`: apt's linux-source package; apt's signature over the archive is the proof."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from kernel.errors import Code, FarmError
from kernfarm import process
from worker import archive
from worker.cgroup import Limits
from worker.context import Context
from worker.sandbox import HOST_PATH, Bind, Job
from worker.sources.fetched import Fetched

_REF = re.compile(r"(\d+\.\d+)(?:=([A-Za-z0-9.+~:-]+))?")
_ENV = {"PATH": HOST_PATH, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def fetch(context: Context, ref: str, timeout_seconds: float) -> Fetched:
    """Download the package with apt, which checks it; take the tarball out of it in the sandbox."""
    match = _REF.fullmatch(ref)
    if match is None:
        raise FarmError(Code.BAD_SOURCE, f"no Debian source: {ref!r}", where="source", hint="debian:6.1 or debian:6.1=6.1.192-1")
    package = f"linux-source-{match[1]}"
    wanted = f"{package}={match[2]}" if match[2] else package
    folder = context.scratch / "apt"
    folder.mkdir()
    folder.chmod(0o755)
    # As root apt would hand the download to a user that can't write here; what it checks is the same.
    argv = ("apt-get", "download", "-o", "APT::Sandbox::User=root", wanted)
    done = process.run(argv, env=_ENV, cwd=folder, timeout_seconds=timeout_seconds, on_line=context.log, cancel=context.cancel)
    found = list(folder.glob("*.deb"))
    if done.code != 0 or len(found) != 1:
        raise _refused(done.output.decode(errors="replace"), wanted)
    deb = found[0]
    deb.chmod(0o644)
    version = _field(deb, "Version")
    tarball = _extract(context, deb, f"usr/src/{package}.tar.xz")
    digest, _ = context.blobs.put_file(tarball)
    with deb.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    origin = _origin(package, version)
    return Fetched(tarball=digest, url=f"debian:{package}={version}", resolved=version, sha256=sha256, signer=f"apt: {origin}")


def _extract(context: Context, deb: Path, member: str) -> Path:
    out = archive.make_folder(context.scratch / "deb", context.sandbox)
    job = Job(
        argv=(
            "bash",
            "-c",
            'set -o pipefail; dpkg-deb --fsys-tarfile /build/deb | tar -x -C /build/to --no-same-owner "./$1"',
            "x",
            member,
        ),
        binds=(Bind(host=deb, inside="/build/deb"), Bind(host=out, inside="/build/to", writable=True)),
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        limits=Limits(memory_bytes=1 << 30),
        timeout_seconds=600,
    )
    outcome = context.sandbox.run(job, on_line=context.log, cancel=context.cancel)
    if outcome.code != 0 or not (out / member).is_file():
        raise FarmError(Code.BAD_ARCHIVE, f"the package holds no {member}", where=deb.name)
    return out / member


def _field(deb: Path, name: str) -> str:
    done = process.run(("dpkg-deb", "--field", str(deb), name), env=_ENV, timeout_seconds=60)
    return done.output.decode(errors="replace").strip()


def _origin(package: str, version: str) -> str:
    """The archive that apt took the package from, in apt's own words."""
    done = process.run(("apt-cache", "policy", package), env=_ENV, timeout_seconds=60)
    lines = [line.strip() for line in done.output.decode(errors="replace").splitlines()]
    start = next((index for index, line in enumerate(lines) if version in line.split() and "Installed" not in line), None)
    for line in lines[start + 1 :] if start is not None else ():
        if words := re.fullmatch(r"\d+ (\S+) (\S+) \S+ Packages", line):
            return words[2]
    return "archive not named"


def _refused(said: str, wanted: str) -> FarmError:
    last = next((line for line in reversed(said.splitlines()) if line.startswith("E:")), "apt-get failed")
    if "Unable to locate package" in said or "was not found" in said:
        return FarmError(Code.BAD_SOURCE, last.removeprefix("E: "), where=f"debian:{wanted}", hint="apt-cache madison linux-source-6.1")
    if "Hash Sum mismatch" in said:
        return FarmError(Code.BAD_DIGEST, last.removeprefix("E: "), where=f"debian:{wanted}", hint="apt-get update on the worker")
    return FarmError(Code.FETCH_FAILED, last.removeprefix("E: "), where=f"debian:{wanted}", hint="apt-get update on the worker")
