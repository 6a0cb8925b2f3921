"""What identifies the compilers of a worker: the contents of every program, library and header that can change their output."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from kernel.errors import Code, FarmError
from kernfarm import compilers, process

SEARCH_PATH = compilers.PATH
_ENV = {"PATH": SEARCH_PATH, "LC_ALL": "C"}
_PROGRAMS = ("cc1", "as", "collect2", "lto1")
_LIBRARY = re.compile(rb"(/[^\s()]+)")
_LIB = Path("/usr/lib")
_SYSTEM_HEADERS = (Path("/usr/include"), Path("/usr/local/include"))


def locate(compiler: str) -> Path:
    """Where a compiler's name leads on the sandbox's PATH. Raises FarmError(MISSING_FILE)."""
    found = shutil.which(compiler, path=SEARCH_PATH)
    if found is None or "/" in compiler:
        raise FarmError(Code.MISSING_FILE, f"no compiler {compiler}", where=compiler, hint=f"apt-get install {compiler} on the worker")
    return Path(found)


def fingerprint(compilers: Iterable[str], headers: Iterable[Path] = _SYSTEM_HEADERS) -> str:
    """Hex digest over drivers, compilers proper, assemblers, their shared libraries and the system's headers.

    Part of the cache's keys: ccache itself looks at the driver only, and with -MMD not at system headers. Takes about a second.
    """
    total = hashlib.sha256()
    for path in sorted(inputs(compilers, headers)):
        with path.open("rb") as file:
            total.update(f"{path}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def inputs(compilers: Iterable[str], headers: Iterable[Path] = _SYSTEM_HEADERS) -> set[Path]:
    """The files that the fingerprint is of, symbolic links resolved."""
    files: set[Path] = set()
    for compiler in compilers:
        driver = locate(compiler)
        for program in (driver, *_subprograms(driver)):
            files |= {program.resolve(), *_libraries(program)}
        files |= _headers(_ask(driver, "-print-file-name=include"))
    for folder in headers:
        files |= _headers(folder)
    return files


def newest_header() -> int:
    """Time (unix seconds, rounded up) of the newest header that host programs may include: objects made from it must be newer."""
    compilers = (
        path for pattern in ("gcc/*/*/include", "gcc-cross/*/*/include", "llvm-*/lib/clang/*/include") for path in _LIB.glob(pattern)
    )
    folders = (*_SYSTEM_HEADERS, *compilers)
    return 1 + int(max((path.stat().st_mtime for folder in folders for path in _headers(folder)), default=0.0))


def _subprograms(driver: Path) -> list[Path]:
    """Programs that the driver runs; names that it does not know come back unchanged."""
    paths = (_ask(driver, f"-print-prog-name={name}") for name in _PROGRAMS)
    found = (path if path.is_absolute() else Path(shutil.which(str(path), path=SEARCH_PATH) or "") for path in paths)
    return [path for path in found if path.is_file()]


def _libraries(program: Path) -> set[Path]:
    """Shared libraries of a trusted program; none for a static one."""
    done = process.run(("ldd", str(program)), env=_ENV, timeout_seconds=30)
    names = _LIBRARY.findall(done.output) if done.code == 0 else []
    return {path.resolve() for name in names if (path := Path(name.decode())).is_file()}


def _headers(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()} if folder.is_dir() else set()


def _ask(driver: Path, question: str) -> Path:
    return Path(process.run((str(driver), question), env=_ENV, timeout_seconds=30).output.decode().strip())
