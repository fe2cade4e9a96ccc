"""Neutral ground that both daemons and other people's programs may import."""

import os

# gRPC says on standard error whatever a peer did wrong; what matters is said by us.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
