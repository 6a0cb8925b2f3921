"""Generated from proto/kernfarm/v1 by tools/generate.py."""
