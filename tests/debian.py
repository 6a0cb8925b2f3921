"""Programs out of Debian packages of any suite, unpacked into a cache folder; nothing is installed.

apt does the work, with sources of its own: it finds the mirror in this machine's configuration, checks Release's signature and all sums.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from kernel.errors import FarmError
from kernfarm import process

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
_UPDATE_SECONDS = 240


def program(package: str, suite: str, path: str) -> Path:
    """The file `path` of a package. Skips the test, saying why, where the package can't be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kernfarm-tests" / suite
    found = cache / package / path
    if not found.exists():
        cache.mkdir(parents=True, exist_ok=True)
        options = _options(cache, suite)
        _run((*options, "download", package), cache)
        archive = max(cache.glob(f"{package}_*.deb"), key=lambda each: each.stat().st_mtime)
        _run(("dpkg-deb", "-x", str(archive), str(cache / package)), cache)
    assert found.exists(), f"{package} of {suite} has no {path}"
    return found


def codename() -> str:
    """This machine's own suite."""
    match = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
    if match is None:
        pytest.skip("this is no Debian: its os-release has no VERSION_CODENAME")
    return match[1]


def _options(cache: Path, suite: str) -> tuple[str, ...]:
    """apt-get with lists and sources of its own, updated."""
    state = cache / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {_mirror()} {suite} main\n")
    settings = {
        "Dir::Etc::SourceList": state / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State": state / "state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": state / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "",
    }
    command = ("apt-get", "-qq", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}")))
    _run((*command, "update"), cache)
    return command


def _mirror() -> str:
    """Where this machine gets its Debian packages from."""
    form = "$(CREATED_BY) $(ORIGIN) $(CODENAME) $(REPO_URI)"
    try:
        done = process.run(("apt-get", "indextargets", "--format", form), env=_ENV, timeout_seconds=60)
    except FarmError as error:
        pytest.skip(f"there is no apt here: {error}")
    own = codename()
    for line in done.output.decode(errors="replace").splitlines():
        kind, origin, name, *address = line.split()
        if (kind, origin, name) == ("Packages", "Debian", own) and address:
            return address[0]
    pytest.skip(f"apt is not configured with a mirror of Debian {own}")


def _run(command: tuple[str, ...], cwd: Path) -> None:
    done = process.run(command, env=_ENV, timeout_seconds=_UPDATE_SECONDS, cwd=cwd)
    if done.code != 0:
        pytest.skip(f"{command[0]} {command[-1]} failed: {done.output.decode(errors='replace').strip()[-300:]}")
