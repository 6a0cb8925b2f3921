"""The command line: talks to the farm through kernfarm.client only."""

import os

# gRPC's C core prints lines of its own on stderr, of a handshake that fails say; what went wrong is told by our own message. It reads this
# when it is imported, so the package sets it before any of its modules can. Whoever looks for a fault of gRPC sets another value.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
