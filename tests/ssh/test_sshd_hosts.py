"""The hosts that other tests use, by plain ssh: each thing that can be done to one is seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sshd_hosts import (
    ROOT,
    Cluster,
    ClusterError,
    MakeCluster,
    NamespaceCluster,
    PortCluster,
    Unsupported,
    attach,
    eventually,
)

pytestmark = pytest.mark.timeout(120)


def said(cluster: Cluster, name: str, command: str) -> str:
    """What a command of sh prints on a host, which has to succeed."""
    done = cluster.ssh(name, "sh", "-c", command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def answers(cluster: Cluster, name: str, seconds: float = 2.0) -> bool:
    """Whether ssh gets through in that time."""
    try:
        return cluster.ssh(name, "true", timeout=seconds).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def sleeper(cluster: Cluster, name: str, seconds: int) -> subprocess.Popen[str]:
    """A connection that lasts, seen to have begun."""
    connection = subprocess.Popen(
        cluster.ssh_command(name, "sh", "-c", f"echo begun; sleep {seconds}; echo over"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert connection.stdout is not None
    assert connection.stdout.readline() == "begun\n"
    return connection


def commands(cluster: Cluster, name: str) -> list[str]:
    return [process.command for process in cluster.processes(name)]


def test_hosts_are_machines_of_their_own(cluster: NamespaceCluster) -> None:
    for name in cluster.names:
        assert said(cluster, name, "hostname; id -u") == f"{name}\n0"
        assert said(cluster, name, f"echo {name} >/usr/mine; echo {name} >/etc/mine; cat /etc/mine")
    assert said(cluster, "h1", "cat /usr/mine /etc/mine") == "h1\nh1"
    assert not Path("/usr/mine").exists() and not Path("/etc/mine").exists()
    # Nothing of ours is to be seen, let alone to be written to.
    for ours in (ROOT, cluster.directory, Path(__file__)):
        assert cluster.ssh("h1", "test", "-e", str(ours)).returncode == 1
    assert said(cluster, "h1", "ls -A /tmp /root /home") == "/home:\n\n/root:\n.ssh\n\n/tmp:"
    boots = {said(cluster, name, "cat /proc/sys/kernel/random/boot_id") for name in cluster.names}
    assert len(boots) == 3
    assert said(cluster, "h1", "ps -A | grep -c '[s]leep'") == "1"  # its own; no other's
    assert said(cluster, "h1", "echo x >/dev/null; head -c 3 /dev/zero | wc -c") == "3"
    assert said(cluster, "h1", "unshare --mount --pid --fork echo well") == "well"
    assert answers(cluster, "h1")
    inner = cluster.ssh("h1", "ssh", "-o", "BatchMode=yes", "10.77.0.1", "true")
    assert inner.returncode == 255, "a host can reach us"
    config = subprocess.run(["ip", "address"], capture_output=True, text=True, check=True).stdout
    assert "10.77." not in config
    assert str(cluster.directory) not in Path("/proc/self/mounts").read_text()


def test_processes_are_listed_with_both_their_pids(cluster: NamespaceCluster) -> None:
    inner = int(said(cluster, "h2", "setsid sleep 1234 </dev/null >/dev/null 2>&1 & echo $!"))
    found = [p for p in cluster.processes("h2") if p.command == "sleep 1234"]
    assert [p.inner for p in found] == [inner]
    assert Path(f"/proc/{found[0].pid}/cmdline").read_bytes() == b"sleep\x001234\x00"
    said(cluster, "h2", "unshare --pid --fork setsid sleep 77 </dev/null >/dev/null 2>&1 &")
    eventually(lambda: "sleep 77" in commands(cluster, "h2"), "in a namespace of its own")
    assert "sleep 77" not in commands(cluster, "h1")
    # What loses its parent does not stay as a zombie.
    said(cluster, "h2", "(sleep 0.1 &) ; true")
    eventually(lambda: said(cluster, "h2", "ps -A -o stat= | grep -c Z; true") == "0", "collected")


def test_a_cut_link_is_silent_and_can_be_restored(cluster: NamespaceCluster) -> None:
    connection = sleeper(cluster, "h1", 2)
    cluster.cut("h1")
    assert not answers(cluster, "h1")
    assert answers(cluster, "h2")
    time.sleep(1.0)
    assert connection.poll() is None, "it was told"
    done = subprocess.run(cluster.inside("h1", "hostname"), capture_output=True, check=True)
    assert done.stdout == b"h1\n"
    cluster.restore("h1")
    out, err = connection.communicate(timeout=60)
    assert (out, connection.returncode) == ("over\n", 0), err
    assert answers(cluster, "h1", 20)


def test_killed_hosts_reset_connections_and_come_back(cluster: NamespaceCluster) -> None:
    boot = said(cluster, "h1", "echo kept >/var/kept; cat /proc/sys/kernel/random/boot_id")
    said(cluster, "h1", "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo >/run/lost")
    connection = sleeper(cluster, "h1", 100)
    cluster.kill("h1")
    connection.communicate(timeout=5)
    assert connection.returncode == 255
    assert not cluster.is_on("h1") and not answers(cluster, "h1", 10)
    with pytest.raises(ClusterError, match="host h1 is off"):
        cluster.processes("h1")
    cluster.power_on("h1")
    assert said(cluster, "h1", "cat /var/kept; ls -A /run | grep lost; true") == "kept"
    assert said(cluster, "h1", "cat /proc/sys/kernel/random/boot_id") != boot
    assert "sleep 1000" not in commands(cluster, "h1")


def test_a_host_without_power_says_nothing(cluster: NamespaceCluster) -> None:
    connection = sleeper(cluster, "h1", 100)
    (cluster.disk("h1") / "root/var/written").write_text("before")
    cluster.power_off("h1")
    assert not cluster.is_on("h1")
    assert not answers(cluster, "h1")
    assert connection.poll() is None, "it was told"
    connection.kill()
    connection.communicate()
    cluster.power_on("h1")
    assert said(cluster, "h1", "cat /var/written") == "before"


def test_links_can_be_slow(cluster: NamespaceCluster) -> None:
    def seconds(command: str) -> float:
        begun = time.monotonic()
        said(cluster, "h1", command)
        return time.monotonic() - begun

    quick = seconds("true")
    connection = sleeper(cluster, "h1", 4)
    cluster.slow("h1", latency=0.1)
    assert seconds("true") > quick + 1.0  # a dozen round trips at 0.2 s
    cluster.slow("h1", rate=50_000)
    assert 1.5 < seconds("head -c 100000 /dev/zero") < 20
    cluster.cut("h1")
    assert not answers(cluster, "h1", 1)
    cluster.restore("h1")
    cluster.fast("h1")
    to, came = cluster.traffic("h1")
    assert seconds("head -c 1000000 /dev/zero") < 5
    assert cluster.traffic("h1")[1] - came > 1_000_000 > cluster.traffic("h1")[0] - to
    assert connection.communicate(timeout=30)[0] == "over\n"


def test_disks_can_be_full(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("h1 h2", disk=64 * 2**20)
    said(cluster, "h1", "head -c 1000000 /dev/zero >/var/tmp/some")
    cluster.fill_disk("h1", leave=100_000)
    done = cluster.ssh("h1", "sh", "-c", "head -c 1000000 /dev/zero >/var/tmp/more")
    assert done.returncode != 0 and "No space left on device" in done.stderr
    cluster.fill_disk("h1")
    done = cluster.ssh("h1", "sh", "-c", "rm -f /var/tmp/more; echo x >/usr/y && echo z >/etc/z")
    assert done.returncode == 0, "what was removed has made room"
    said(cluster, "h2", "head -c 1000000 /dev/zero >/var/tmp/more")
    cluster.free_disk("h1")
    said(cluster, "h1", "head -c 10000000 /dev/zero >/var/tmp/more")


def test_sshd_can_be_restarted(cluster: NamespaceCluster) -> None:
    connection = sleeper(cluster, "h1", 100)
    said(cluster, "h1", "setsid sleep 1000 </dev/null >/dev/null 2>&1 &")
    cluster.restart_sshd("h1")
    connection.communicate(timeout=5)
    assert connection.returncode == 255
    assert answers(cluster, "h1")
    assert "sleep 1000" in commands(cluster, "h1")


def test_another_host_key_is_refused(cluster: NamespaceCluster) -> None:
    cluster.change_host_key("h1")
    done = cluster.ssh("h1", "true")
    assert done.returncode == 255 and "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr
    assert answers(cluster, "h2")
    cluster.trust("h1")
    assert answers(cluster, "h1")


def test_hosts_can_have_another_user(make_cluster: MakeCluster) -> None:
    cluster = make_cluster("h1", user="builder")
    assert said(cluster, "h1", "id -un; cd; pwd; touch here") == "builder\n/home/builder"
    assert cluster.ssh("h1", "touch", "/etc/there").returncode == 1


def test_others_may_use_a_cluster(cluster: NamespaceCluster) -> None:
    other = attach(cluster.directory)
    assert other.names == cluster.names
    other.cut("h1")
    assert not answers(cluster, "h1")
    other.restore("h1")
    other.power_off("h3")
    other.power_on("h3")
    assert answers(cluster, "h3")
    with pytest.raises(ClusterError, match="already"):
        other.start()
    with pytest.raises(ClusterError, match="no host h9"):
        other.kill("h9")
    for problem in (lambda: other.power_on("h1"), lambda: attach(cluster.directory / "h1")):
        with pytest.raises(ClusterError):
            problem()


OWNER = """
import os, signal, sys
sys.path[:0] = sys.argv[1].split(":")
from pathlib import Path
import demo_cluster
cluster = getattr(demo_cluster, sys.argv[2])(Path(sys.argv[3]), ["h1", "h2"])
cluster.start()
cluster.ssh("h1", "sh", "-c", f"cd; setsid sh -c ': {cluster.base('h1')}; sleep 4321' "
    "</dev/null >/dev/null 2>&1 &")
found = []
while not found:
    found = [p.pid for p in cluster.processes("h1") if p.command == "sleep 4321"]
found += [p.pid for p in cluster.processes("h1") if "[listener]" in p.command]
print(*found, flush=True)
signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("kind", [NamespaceCluster, PortCluster])
def test_nothing_is_left_when_the_owner_dies(
    kind: type[Cluster], number: signal.Signals, room: Path
) -> None:
    words = [sys.executable, "-c", OWNER, str(ROOT / "tools"), kind.__name__, str(room / "c")]
    owner = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        pids = [int(word) for word in owner.stdout.readline().split()]
    assert len(pids) == 2 and all(map(alive, pids))
    owner.send_signal(number)
    owner.wait()
    eventually(lambda: not any(map(alive, pids)), "all processes of the host have ended")
    eventually(lambda: not kind(room / "c", ["h1"]).running(), "the cluster is gone")
    with kind(room / "c", ["h1"]) as again:
        assert answers(again, "h1")
    assert not (room / "c").exists()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_nothing_is_left_when_a_start_fails(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = NamespaceCluster(room / "c", ["h1", "h2"])
    started: list[str] = []

    def power_on(name: str) -> None:
        started.append(name)
        NamespaceCluster.power_on(cluster, name)
        if name == "h2":
            raise ClusterError("it does not work")

    monkeypatch.setattr(cluster, "power_on", power_on)
    with pytest.raises(ClusterError, match="it does not work"), cluster:
        pass
    assert started == ["h1", "h2"]
    assert not cluster.running() and not (room / "c").exists()


def test_a_directory_of_others_is_left_alone(room: Path) -> None:
    (room / "mine").write_text("important")
    with pytest.raises(ClusterError, match="not empty"):
        NamespaceCluster(room, ["h1"]).start()
    assert (room / "mine").read_text() == "important"


def test_hosts_on_ports(ports: PortCluster) -> None:
    assert said(ports, "p1", "echo well") == "well"
    base = ports.base("p1")
    said(ports, "p1", f"mkdir -p {base}; cd {base}; echo kept >kept; setsid sh -c "
         f"': {base}; sleep 999; :' </dev/null >/dev/null 2>&1 &")  # fmt: skip
    eventually(lambda: "sleep 999" in commands(ports, "p1"), "it runs")
    assert "sleep 999" not in commands(ports, "p2")
    connection = sleeper(ports, "p1", 100)
    ports.restart_sshd("p1")
    connection.communicate(timeout=5)
    assert connection.returncode == 255
    assert "sleep 999" in commands(ports, "p1")
    ports.kill("p1")
    assert not ports.processes("p1") and not answers(ports, "p1") and answers(ports, "p2")
    ports.power_on("p1")
    assert said(ports, "p1", f"cat {base}/kept") == "kept"
    ports.change_host_key("p1")
    assert not answers(ports, "p1")
    ports.trust("p1")
    assert answers(ports, "p1")
    for deed in (ports.cut, ports.restore, ports.slow, ports.fast, ports.fill_disk):
        with pytest.raises(Unsupported, match="no way to"):
            deed("p1")
