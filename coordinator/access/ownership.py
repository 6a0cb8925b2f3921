"""Which team has uploaded which blob: a table beside the journal. Methods block."""

from __future__ import annotations

import sqlalchemy as sa

from coordinator.schema import BLOB_OWNERS
from kernel.errors import Code, FarmError


class Ownership:
    """Knowing a digest is no right to the content: digests stand in logs, records and image labels."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def add(self, team: str, digest: str, at: float) -> None:
        """The team has proven that it has the content. Safe to repeat. Raises FarmError(UNAVAILABLE)."""
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(BLOB_OWNERS).values(team=team, digest=digest, at=at))
        except sa.exc.IntegrityError:
            return  # it had already
        except sa.exc.DBAPIError as error:
            raise _unavailable(error) from error

    def owns(self, team: str, digest: str) -> bool:
        """Whether the team has uploaded it. Raises FarmError(UNAVAILABLE)."""
        query = sa.select(sa.literal(1)).where(BLOB_OWNERS.c.team == team, BLOB_OWNERS.c.digest == digest)
        try:
            with self._engine.connect() as connection:
                return connection.execute(query).first() is not None
        except sa.exc.DBAPIError as error:
            raise _unavailable(error) from error


def _unavailable(error: Exception) -> FarmError:
    return FarmError(Code.UNAVAILABLE, f"the table of uploads can't be used: {str(error).splitlines()[0]}")
