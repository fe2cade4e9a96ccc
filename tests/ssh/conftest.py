"""What the tests over ssh share: clusters of real sshd hosts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sshd_hosts import Cluster, MakeCluster, NamespaceCluster, PortCluster


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory with a short name, not below one that only root may enter."""
    with tempfile.TemporaryDirectory(prefix="ssh") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def make_cluster(room: Path) -> Iterator[MakeCluster]:
    """Starts clusters, and ends them when the test does."""
    with ExitStack() as stack:

        def make(
            names: str = "h1 h2 h3", kind: type[Cluster] = NamespaceCluster, **more: object
        ) -> Cluster:
            if kind is NamespaceCluster and (why := NamespaceCluster.obstacle()):
                if os.environ.get("CI"):
                    pytest.fail(f"in CI there must be namespaces: {why}")
                pytest.skip(f"no namespaces: {why}")
            cluster = kind(room / "cluster", names.split(), **more)  # type: ignore[arg-type]
            return stack.enter_context(cluster)

        yield make


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> NamespaceCluster:
    """Three hosts with namespaces of their own."""
    cluster = make_cluster()
    assert isinstance(cluster, NamespaceCluster)
    return cluster


@pytest.fixture
def ports(make_cluster: MakeCluster) -> PortCluster:
    """Two hosts on ports of 127.0.0.1."""
    cluster = make_cluster("p1 p2", PortCluster)
    assert isinstance(cluster, PortCluster)
    return cluster
