"""For all tests."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes on a machine that builds kernels at the same time says nothing about the code.
settings.register_profile("kernfarm", deadline=None)
settings.load_profile("kernfarm")
