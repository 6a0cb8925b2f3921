"""The journal's table and its place in the database."""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()

# `seq` is the order in which things happened; `payload` the event as canonical JSON (kernel.codec.tagged).
JOURNAL = sa.Table(
    "journal",
    METADATA,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float(), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("payload", sa.Text(), nullable=False),
)
