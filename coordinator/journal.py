"""The append-only journal: what it has taken survives a kill and a power cut. SQLite, or any database SQLAlchemy knows by URL."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pysqlite3.dbapi2
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from coordinator.events import EVENTS, Event
from coordinator.schema import JOURNAL
from kernel.codec import CodecError, from_tagged, tagged
from kernel.errors import Code, FarmError

# The first SQLite without the WAL-reset bug, which can lose committed transactions.
_OLDEST_SQLITE = (3, 51, 3)
_POSTGRESQL_LOCK = 0x6B65726E  # "kern", the number of our advisory lock


class Journal:
    """One writer at a time. All methods block; `append` returns only after the commit."""

    def __init__(self, url: str) -> None:
        """Open, lock and migrate. Raises FarmError: CONFLICT (another coordinator has it), UNAVAILABLE, INTERNAL (too old or too new)."""
        self._url = sa.make_url(url)
        self._lock: IO[str] | sa.Connection | None = None
        self._engine = _sqlite(self._url) if self._url.get_backend_name() == "sqlite" else sa.create_engine(self._url)
        try:
            self._acquire()
            self._migrate()
        except sa.exc.DBAPIError as error:
            self.close()
            raise self._unavailable(error) from error
        except FarmError:
            self.close()
            raise

    def append(self, events: Sequence[Event]) -> None:
        """Store events, all or none, in one commit. Raises FarmError(UNAVAILABLE)."""
        rows = [{"at": event.at, "kind": type(event).__name__, "payload": json.dumps(tagged(event), sort_keys=True)} for event in events]
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(JOURNAL), rows)
        except sa.exc.DBAPIError as error:
            raise self._unavailable(error) from error

    def read(self) -> Iterator[Event]:
        """Every event, in order. Raises FarmError(INTERNAL) naming the row that can't be read."""
        with self._engine.connect() as connection:
            for row in connection.execute(sa.select(JOURNAL).order_by(JOURNAL.c.seq)):
                try:
                    event: Event = from_tagged(EVENTS, json.loads(row.payload))
                except (CodecError, ValueError) as error:
                    raise FarmError(Code.INTERNAL, f"row {row.seq} of the journal can't be read: {error}", where=self.name) from error
                yield event

    @property
    def engine(self) -> sa.Engine:
        """The database, for the tables beside the journal's; it is migrated, and ours alone."""
        return self._engine

    def close(self) -> None:
        """Give up the lock and all connections."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self._engine.dispose()

    @property
    def name(self) -> str:
        """The address without its password."""
        return self._url.render_as_string(hide_password=True)

    def _acquire(self) -> None:
        taken = FarmError(Code.CONFLICT, "another coordinator is writing to this journal", where=self.name, hint="stop it first")
        if self._url.get_backend_name() == "sqlite":
            lock = Path(f"{self._url.database}.lock").open("w")  # noqa: SIM115 - held until close()
            self._lock = lock
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise taken from error
            return
        connection = self._engine.connect()
        self._lock = connection
        if not connection.execute(sa.select(sa.func.pg_try_advisory_lock(_POSTGRESQL_LOCK))).scalar():
            raise taken
        connection.commit()

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", "coordinator:migrations")
        with self._engine.begin() as connection:
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                hint = "run the kernfarm that wrote it, or a newer one"
                raise FarmError(
                    Code.INTERNAL, f"the journal was written by another version: {error}", where=self.name, hint=hint
                ) from error

    def _unavailable(self, error: Exception) -> FarmError:
        return FarmError(Code.UNAVAILABLE, f"the journal's database fails: {str(error).splitlines()[0]}", where=self.name)


def _sqlite(url: sa.URL) -> sa.Engine:
    if pysqlite3.dbapi2.sqlite_version_info < _OLDEST_SQLITE:
        found = pysqlite3.dbapi2.sqlite_version
        raise FarmError(Code.INTERNAL, f"SQLite {found} can lose commits (WAL-reset bug)", hint="pip install 'pysqlite3>=0.6.1'")
    engine = sa.create_engine(url, module=pysqlite3.dbapi2)

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
            connection.execute(f"PRAGMA {pragma}")

    return engine
