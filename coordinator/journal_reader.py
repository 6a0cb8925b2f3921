"""The journal for those who only read it: no lock, no migration, no write, while the coordinator goes on writing."""

from __future__ import annotations

import json
import urllib.parse

import pysqlite3.dbapi2
import sqlalchemy as sa

from coordinator.events import EVENTS, Event
from coordinator.schema import JOURNAL
from kernel.codec import CodecError, from_tagged
from kernel.errors import Code, FarmError


class JournalReader:
    """Opens the database for each question and leaves nothing open in between. All methods block."""

    def __init__(self, url: str) -> None:
        self._url = sa.make_url(url)
        self._engine = _sqlite(self._url) if self._url.get_backend_name() == "sqlite" else _server(self._url)

    @property
    def name(self) -> str:
        """The address without its password."""
        return self._url.render_as_string(hide_password=True)

    def after(self, seq: int) -> list[tuple[int, Event]]:
        """Committed events behind number `seq`, with their numbers, in order. Raises FarmError: UNAVAILABLE, INTERNAL (an event of
        another version), CONFLICT when the event `seq` itself is not there: then this is another journal."""
        try:
            with self._engine.connect() as connection:
                if seq and connection.execute(sa.select(JOURNAL.c.seq).where(JOURNAL.c.seq == seq)).first() is None:
                    raise FarmError(Code.CONFLICT, "the journal was replaced by another one", where=self.name)
                query = sa.select(JOURNAL.c.seq, JOURNAL.c.payload).where(JOURNAL.c.seq > seq).order_by(JOURNAL.c.seq)
                return [(row.seq, self._event(row.seq, row.payload)) for row in connection.execute(query)]
        except (sa.exc.DBAPIError, OSError) as error:
            hint = "the reader's user needs to read the database and to enter its folder"
            raise FarmError(
                Code.UNAVAILABLE, f"the journal can't be read: {str(error).splitlines()[0]}", where=self.name, hint=hint
            ) from error

    def _event(self, seq: int, payload: str) -> Event:
        try:
            event: Event = from_tagged(EVENTS, json.loads(payload))
        except (CodecError, ValueError) as error:
            raise FarmError(Code.INTERNAL, f"row {seq} of the journal can't be read: {error}", where=self.name) from error
        return event


def _sqlite(url: sa.URL) -> sa.Engine:
    """mode=ro: SQLite then reads a WAL database without writing to any of its files, as long as its writer has it open."""
    address = f"file:{urllib.parse.quote(url.database or '')}?mode=ro"

    def connect() -> pysqlite3.dbapi2.Connection:
        return pysqlite3.dbapi2.connect(address, uri=True, timeout=10, check_same_thread=False)

    return sa.create_engine("sqlite://", creator=connect, module=pysqlite3.dbapi2, poolclass=sa.NullPool)


def _server(url: sa.URL) -> sa.Engine:
    return sa.create_engine(url, poolclass=sa.NullPool, execution_options={"postgresql_readonly": True})
