"""Folders for farms of tests."""

from __future__ import annotations

import tempfile
from pathlib import Path


def make_home(prefix: str = "kf-test-") -> Path:
    """Not pytest's folder: build steps run as another user, who can't enter that."""
    home = Path(tempfile.mkdtemp(prefix=prefix, dir="/var/tmp"))
    home.chmod(0o755)
    return home
