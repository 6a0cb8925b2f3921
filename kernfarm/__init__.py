"""The public face of the farm: client library, command line, wire format and shared settings."""
