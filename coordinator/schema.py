"""The tables of the journal's database."""

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

# Which team has uploaded which blob: a digest alone opens nothing. `at` in unix seconds, of the first upload.
BLOB_OWNERS = sa.Table(
    "blob_owners",
    METADATA,
    sa.Column("team", sa.String(64), primary_key=True),
    sa.Column("digest", sa.String(80), primary_key=True),
    sa.Column("at", sa.Float(), nullable=False),
)
