"""clusterbuild: runs jobs on hosts, keeps what they make, and says how it went."""

import os

# gRPC's own core writes to standard error past every logger, also what is no error at all;
# it reads this when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
