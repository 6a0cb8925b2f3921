"""Times of documents."""

from __future__ import annotations

import datetime


def rfc3339(seconds: float) -> str:
    """Unix seconds as RFC 3339 in UTC, cut to whole seconds (SPDX allows no fractions)."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
