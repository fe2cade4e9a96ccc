"""Hosts with real sshd on this machine, for people to play with and for tests.

`make demo-cluster` and `tools/demo-cluster` are the way in for people. As root, each host is a
set of namespaces with a file system of its own (namespaces.py); otherwise, an sshd of the user on
a port of 127.0.0.1 (ports.py), with which fewer things can be done.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from demo_cluster.cluster import Cluster, ClusterError, Process, Unsupported
from demo_cluster.namespaces import NamespaceCluster
from demo_cluster.ports import PortCluster

__all__ = [
    "Cluster",
    "ClusterError",
    "NamespaceCluster",
    "PortCluster",
    "Process",
    "Unsupported",
    "attach",
    "make",
]


def make(directory: Path, names: Sequence[str], slots: int = 1) -> Cluster:
    """A cluster of the best kind that this machine lets us have; to be started."""
    kind = PortCluster if NamespaceCluster.obstacle() else NamespaceCluster
    return kind(directory, names, slots=slots)


def attach(directory: Path) -> Cluster:
    """The cluster that somebody else has started in `directory`. Raises ClusterError."""
    try:
        hosts = tomllib.loads((directory / "hosts.toml").read_text())["host"]
    except FileNotFoundError:
        raise ClusterError(f"no cluster runs in {directory}") from None
    names = [host["name"] for host in hosts]
    kinds: tuple[type[Cluster], ...] = (NamespaceCluster, PortCluster)
    for kind in kinds:
        if (cluster := kind(directory, names)).running():
            return cluster
    raise ClusterError(f"no cluster runs in {directory}")
