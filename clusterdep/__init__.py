"""clusterdep: the dependency database, and what is worth building next."""

import os

# gRPC's core writes remarks of its own to standard error; what matters reaches us as a status.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
