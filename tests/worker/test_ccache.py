"""The real ccache and gcc in the real sandbox, behind a session."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import Code, FarmError
from kernfarm.blobs import BlobStore
from worker import cgroup
from worker.ccache import CompileCache, Session, find_binary, shadow_salt
from worker.sandbox import HOST_PATH, Bind, Bubblewrap, Job, Outcome

COMPILE = "gcc-12 -Wp,-MMD,out/.{0}.d -O2 -g -I src -c -o out/{0}.o src/{0}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Folders that the sandbox's user can reach: src and out as inside, the store, and a sandbox."""

    path: Path
    sandbox: Bubblewrap

    @property
    def store(self) -> BlobStore:
        return BlobStore.open(f"file://{self.path}/blobs")

    def cache(self) -> CompileCache:
        return CompileCache(lambda domain: self.store.keyed(f"ccache/{domain}"), find_binary())

    @contextlib.contextmanager
    def session(self, domain: str = "team", salt: str = "") -> Iterator[Session]:
        folder = self.path / f"cache-{uuid.uuid4().hex}"
        with self.cache().session(domain, folder, compilers=("gcc-12", "gcc"), salt=salt) as session:
            yield session

    def run(self, session: Session, command: str) -> Outcome:
        binds = (
            Bind(host=self.path / "src", inside="/build/src"),
            Bind(host=self.path / "out", inside="/build/out", writable=True),
            *session.binds,
        )
        env = {"PATH": f"{session.path_prefix}:{HOST_PATH}", "LC_ALL": "C", **session.env}
        return self.sandbox.run(Job(argv=("sh", "-c", command), binds=binds, env=env, cwd="/build", timeout_seconds=60))

    def compile(self, session: Session, source: str = "a.c") -> bytes:
        outcome = self.run(session, COMPILE.format(source))
        assert outcome.code == 0, outcome.output.decode()
        return (self.path / "out" / f"{source}.o").read_bytes()

    def write(self, name: str, text: str) -> None:
        (self.path / "src" / name).write_text(text)


@pytest.fixture
def room() -> Iterator[Room]:
    path = Path(tempfile.mkdtemp(prefix="room-"))
    path.chmod(0o711)
    sandbox = Bubblewrap(uid=64000, cgroups=cgroup.detect())
    for name in ("src", "out"):
        (path / name).mkdir()
    shutil.chown(path / "out", sandbox.uid, sandbox.uid)
    room = Room(path=path, sandbox=sandbox)
    room.write("a.h", "#define A 1\n")
    room.write("a.c", '#include "a.h"\nint f(int x) { return x * A; }\n')
    yield room
    shutil.rmtree(path)


def test_the_second_compile_is_a_hit_with_the_same_bytes(room: Room) -> None:
    with room.session() as session:
        cold = room.compile(session)
        first = session.stats()
    dependencies = (room.path / "out/.a.c.d").read_bytes()
    for path in (room.path / "out").iterdir():
        path.unlink()
    with room.session() as session:
        hot = room.compile(session)
        second = session.stats()
    assert (first.hits, first.misses, first.errors) == (0, 1, 0)
    assert (second.hits, second.misses, second.errors) == (1, 0, 0)
    assert 0 < second.saved_seconds < 10
    assert second.bytes_fetched == first.bytes_stored > 0
    assert hot == cold == room.compile(Session())
    assert (room.path / "out/.a.c.d").read_bytes() == dependencies


@pytest.mark.parametrize(("name", "text"), [("a.h", "#define A 2\n"), ("a.c", "int f(int x) { return x; }\n")])
def test_a_change_is_a_miss(room: Room, name: str, text: str) -> None:
    with room.session() as session:
        before = room.compile(session)
        room.write(name, text)
        assert room.compile(session) != before
        assert (session.stats().hits, session.stats().misses) == (0, 2)


def test_domains_and_salts_are_apart(room: Room) -> None:
    for domain, salt in (("team", ""), ("release", ""), ("team", "another tree")):
        with room.session(domain, salt) as session:
            room.compile(session)
            assert (session.stats().hits, session.stats().misses) == (0, 1)


def test_embedded_files_are_never_stale(room: Room) -> None:
    room.write("b.c", '__asm__(".incbin \\"src/data\\"");\n')
    room.write("c.S", '#define EMBED .incbin\nEMBED "src/data"\n')
    room.write("d.S", '.include "src/data"\n')
    for text in ("one = 1\n", "two = 2\n"):
        room.write("data", text)
        with room.session() as session:
            for source in ("b.c", "c.S", "d.S"):
                assert room.compile(session, source) == room.compile(Session(), source)


def test_date_and_time_are_never_stale(room: Room) -> None:
    room.write("b.c", "const char *when = __TIME__;\n")
    with room.session() as session:
        first = room.compile(session, "b.c")
        room.run(session, "sleep 1.1")
        assert room.compile(session, "b.c") != first


def test_only_compiles_with_dependencies_are_looked_up(room: Room) -> None:
    with room.session() as session:
        for command in ("gcc -c -x c /dev/null -o out/x.o", "gcc -E src/a.c", "gcc-12 --version", "gcc -O2 -c src/a.c -o out/y.o"):
            assert room.run(session, command).code == 0
        assert session.stats() == Session().stats()


def test_a_failing_compile_fails_as_without_a_cache(room: Room) -> None:
    room.write("b.c", "int f(void) { return nothing; }\n")
    with room.session() as session:
        cached = room.run(session, COMPILE.format("b.c"))
        assert session.stats().errors == 0
    plain = room.run(Session(), COMPILE.format("b.c"))
    assert (cached.code, cached.output) == (plain.code, plain.output)
    assert plain.code == 1


def _remove(blobs: Path) -> None:
    shutil.rmtree(blobs)
    blobs.write_text("no folder")


def _damage(blobs: Path) -> None:
    for path in (blobs / "ccache").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-3] + b"xyz")


@pytest.mark.parametrize("harm", [_remove, _damage])
def test_a_store_that_breaks_in_the_middle_costs_only_the_hits(room: Room, harm: Callable[[Path], None]) -> None:
    with room.session() as session:
        good = room.compile(session)
        harm(room.path / "blobs")
        assert room.compile(session) == good
        assert session.stats().hits == 0


def test_a_gateway_that_is_gone_costs_only_the_hits(room: Room) -> None:
    with room.session() as session:
        good = room.compile(session)
    assert room.compile(session) == good


def test_the_sandbox_cannot_change_what_it_is_given(room: Room) -> None:
    with room.session() as session:
        for path in ("bin/gcc-12", "ccache", "new"):
            assert room.run(session, f"echo x > /build/ccache/{path}").code != 0


def test_without_a_binary_there_is_no_cache(room: Room) -> None:
    cache = CompileCache(lambda domain: room.store.keyed(domain), None)
    with cache.session("team", room.path / "none", compilers=("gcc-12",)) as session:
        assert session == Session()
    assert not (room.path / "none").exists()


@pytest.mark.parametrize("domain", ["", "../x", "a/b", "A", "x" * 64, "a\n"])
def test_domains_have_plain_names(room: Room, domain: str) -> None:
    with pytest.raises(FarmError) as caught, room.session(domain):
        pass
    assert caught.value.problem.code is Code.INVALID_ARGUMENT


def test_an_unknown_compiler_is_named(room: Room) -> None:
    with pytest.raises(FarmError) as caught, room.cache().session("team", room.path / "x", compilers=("gcc-99",)):
        pass
    assert caught.value.problem.where == "gcc-99"


@given(st.sets(st.sampled_from(["a/x.h", "b/x.h", "c/y.h", "d/z.h", "e/z.h"])), st.sampled_from(["n/x.h", "n/y.h", "n/new.h"]))
def test_the_salt_changes_exactly_when_a_header_could_hide_another(headers: set[str], added: str) -> None:
    names = [path.split("/")[1] for path in headers]
    before, after = shadow_salt(headers), shadow_salt({*headers, added})
    assert (before != after) == (added.split("/")[1] in names)
