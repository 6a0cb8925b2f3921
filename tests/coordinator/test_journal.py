from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pysqlite3.dbapi2
import pytest
import sqlalchemy as sa

from coordinator import journal as journals
from coordinator.events import Cancelled, Started
from coordinator.journal import Journal
from kernel.errors import Code, FarmError
from kernfarm import process
from tests.postgresql import server

PATH = os.environ["PATH"]


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("pg") / "log") as found:
        yield f"postgresql+psycopg://postgres@127.0.0.1:{found.port}/postgres"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/journal.sqlite"
    address: str = request.getfixturevalue("postgresql")
    engine = sa.create_engine(address)
    with engine.begin() as connection:
        connection.execute(sa.text("drop table if exists journal, blob_owners, alembic_version"))
    engine.dispose()
    return address


def test_what_was_appended_is_there_after_opening_again(url: str) -> None:
    events = [Started(at=1.5), Cancelled(at=2.0, build_id="b")]
    first = Journal(url)
    first.append(events)
    first.append([Started(at=3.0)])
    first.close()
    second = Journal(url)
    assert list(second.read()) == [*events, Started(at=3.0)]
    second.close()


def test_a_second_writer_is_refused(url: str) -> None:
    first = Journal(url)
    with pytest.raises(FarmError) as caught:
        Journal(url)
    assert caught.value.problem.code is Code.CONFLICT
    first.close()
    Journal(url).close()


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/journal.sqlite"
    journal = Journal(url)
    journal.append([Started(at=1.0)])
    with pysqlite3.dbapi2.connect(str(tmp_path / "journal.sqlite")) as connection:
        connection.execute('update journal set payload = \'{"kind_of": "Nonsense"}\'')
    with pytest.raises(FarmError, match="row 1 of the journal"):
        list(journal.read())
    journal.close()


def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/journal.sqlite"
    Journal(url).close()
    with pysqlite3.dbapi2.connect(str(tmp_path / "journal.sqlite")) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(FarmError, match="another version"):
        Journal(url)


def test_an_sqlite_with_the_wal_reset_bug_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_OLDEST_SQLITE", (99, 0, 0))
    with pytest.raises(FarmError, match="WAL-reset"):
        Journal(f"sqlite:///{tmp_path}/journal.sqlite")


WRITER = """
import sys
from coordinator.events import Started
from coordinator.journal import Journal
journal = Journal(sys.argv[1])
number = 0
while True:
    journal.append([Started(at=float(number))])
    print(number, flush=True)
    number += 1
"""


def test_whatever_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/journal.sqlite"
    output = tmp_path / "acknowledged"
    env = {"PATH": PATH, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    writer = process.start((sys.executable, "-c", WRITER, url), env=env, output=output)
    deadline = time.monotonic() + 30
    while len(output.read_text().split()) < 50:
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait(10)
    acknowledged = [int(word) for word in output.read_text().split()]
    journal = Journal(url)
    found = [event.at for event in journal.read()]
    journal.close()
    assert found[: len(acknowledged)] == [float(number) for number in acknowledged]
