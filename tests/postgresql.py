"""A real PostgreSQL server for tests: on a free port, as an unprivileged user, stopped at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from kernfarm import process
from tests.certificates import Pair


@dataclass(frozen=True, slots=True)
class Server:
    """`port` on 127.0.0.1; `folder` of its Unix socket, where its superuser `postgres` needs no password."""

    port: int
    folder: Path
    programs: Path


@contextlib.contextmanager
def server(output: Path, *, tls: Pair | None = None) -> Iterator[Server]:
    """Start a server that writes its log to `output`. With `tls` a password is asked for on 127.0.0.1; without, everybody is trusted."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert programs, "postgresql is in packages-test.txt"
    home = Path(tempfile.mkdtemp(prefix="kfpg", dir="/tmp"))  # short, because of the socket's path
    try:
        shutil.chown(home, "postgres", "postgres")
        as_user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups") if os.geteuid() == 0 else ()
        env = {"PATH": f"{programs[-1]}:{os.environ['PATH']}", "LC_ALL": "C"}
        tcp = "trust" if tls is None else "scram-sha-256"
        command = (*as_user, "initdb", "-D", str(home / "data"), "--auth-local=trust", f"--auth-host={tcp}", "-E", "UTF8")
        done = process.run(command, env=env, timeout_seconds=120)
        assert done.code == 0, done.output
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = (*as_user, "postgres", "-D", str(home / "data"), "-p", str(port), "-h", "127.0.0.1", "-k", str(home))
        if tls is not None:
            tls.write(home / "server.pem", home / "server-key.pem")
            shutil.chown(home / "server-key.pem", "postgres", "postgres")
            command += ("--ssl=on", f"--ssl_cert_file={home}/server.pem", f"--ssl_key_file={home}/server-key.pem")
        running = process.start(command, env=env, output=output)
        try:
            _until_it_answers(f"postgresql+psycopg://postgres@/postgres?host={home}&port={port}", output)
            yield Server(port, home, programs[-1])
        finally:
            running.interrupt()
            running.terminate()
    finally:
        shutil.rmtree(home)


def _until_it_answers(url: str, output: Path) -> None:
    deadline = time.monotonic() + 30
    engine = sa.create_engine(url)
    while True:
        try:
            engine.connect().close()
            engine.dispose()
            return
        except sa.exc.OperationalError:
            assert time.monotonic() < deadline, output.read_text(errors="replace")
            time.sleep(0.1)
