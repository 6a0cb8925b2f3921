"""Execution: runs one step of a build in a sandbox and puts its result into the blob store."""
