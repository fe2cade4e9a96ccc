"""Real sshd hosts for tests: clusters of tools/demo_cluster, and waiting for what they show."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))

from demo_cluster import (  # noqa: E402
    Cluster,
    ClusterError,
    NamespaceCluster,
    PortCluster,
    Process,
    Unsupported,
    attach,
)

__all__ = [
    "Cluster",
    "ClusterError",
    "MakeCluster",
    "NamespaceCluster",
    "PortCluster",
    "Process",
    "Unsupported",
    "attach",
    "eventually",
]

#: Starts a cluster: names of its hosts, its kind, and what else that takes.
MakeCluster = Callable[..., Cluster]
Found = TypeVar("Found")


def eventually(
    look: Callable[[], Found], what: str, seconds: float = 30.0, every: float = 0.05
) -> Found:
    """What `look` returns once that is true; fails if it takes too long."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not after {seconds} seconds: {what}"
        time.sleep(every)
    return found
