"""`guard.py DIRECTORY NAME...`: ends the hosts of a PortCluster when its owner is gone."""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo_cluster.ports import PortCluster


def main(directory: str, *names: str) -> None:
    """Waits for the lock that the owner holds as long as it lives."""
    cluster = PortCluster(Path(directory), names)
    with cluster.lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cluster.kill_all()


if __name__ == "__main__":
    main(*sys.argv[1:])
