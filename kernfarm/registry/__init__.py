"""OCI registries: push, and read with every digest checked (OCI distribution specification 1.1)."""
