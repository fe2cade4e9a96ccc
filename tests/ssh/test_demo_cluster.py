"""`tools/demo-cluster`, as people use it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from sshd_hosts import ROOT, ClusterError, attach, eventually

pytestmark = pytest.mark.timeout(200)

TOOL = str(ROOT / "tools/demo-cluster")


def tool(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOL, "--directory", str(directory), *words],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_it_builds_and_can_be_played_with(room: Path) -> None:
    with (room / "screen").open("wb") as screen:
        demo = subprocess.Popen(
            [TOOL, "--directory", str(room / "demo"), "up", "--select", "devel/libvec"],
            stdin=subprocess.DEVNULL, stdout=screen, stderr=screen, start_new_session=True,
        )  # fmt: skip
    said = (room / "screen").read_text
    try:
        eventually(lambda: "Nothing is left to do" in said() or demo.poll() is not None, "it", 90)
        assert "libvec-1.4 built" in said(), said()
        assert "demo-cluster ssh h3" in said()
        done = tool(room / "demo", "ssh", "h2", "echo", "one  two")
        assert (done.returncode, done.stdout) == (0, "one  two\n"), done.stderr
        assert "sshd" in tool(room / "demo", "ps", "h2").stdout
        other = tool(room / "demo", "up")
        assert other.returncode == os.EX_UNAVAILABLE and "already" in other.stderr
        assert tool(room / "demo", "restart-sshd", "h2").returncode == 0
        wrong = tool(room / "demo", "kill", "h7")
        assert wrong.returncode == os.EX_UNAVAILABLE
        assert wrong.stderr == "demo-cluster: there is no host h7; there are h1, h2, h3\n"
        hosts = subprocess.run(
            [ROOT / ".venv/bin/clusterbuild", "hosts", "--state", str(room / "demo/state")],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert [line.split()[0] for line in hosts.stdout.splitlines()] == ["h1", "h2", "h3"]
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does
        assert demo.wait(60) == 0, said()
    finally:
        if demo.poll() is None:
            demo.kill()
    with pytest.raises(ClusterError, match="no cluster runs"):
        attach(room / "demo/cluster")
    assert (room / "demo/state/packages/example/All/libvec-1.4.tgz").exists()


def test_without_a_cluster_it_says_so(room: Path) -> None:
    done = tool(room / "none", "cut", "h1")
    assert done.returncode == os.EX_UNAVAILABLE
    assert done.stderr.startswith("demo-cluster: no cluster runs in")
