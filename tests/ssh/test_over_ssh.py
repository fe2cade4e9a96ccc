"""The main job over real ssh, and everything that happens to hosts and links meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from over_ssh import LARGE, Session
from sshd_hosts import Cluster, MakeCluster, NamespaceCluster, PortCluster

SIZE = int(os.environ.get("TEST_SIZE", "1"))
#: A program at the end of a few chains, or with more time everything.
SOME = () if SIZE > 1 else ("--select", "www/sitegen")

pytestmark = pytest.mark.timeout(300)

MakeSession = Callable[[Cluster], Session]


@pytest.fixture
def make_session(make_cluster: MakeCluster, room: Path) -> Iterator[MakeSession]:
    """Sessions that are closed before their hosts are."""
    with contextlib.ExitStack() as stack:

        def make(cluster: Cluster) -> Session:
            return stack.enter_context(contextlib.closing(Session(cluster, room)))

        yield make


def on_disk(cluster: Cluster, name: str, what: str) -> list[str]:
    """Names in a directory below the base of a host."""
    directory = cluster.path(name, f"{cluster.base(name)}/{what}")
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def assert_each_built_once(session: Session) -> None:
    """Nothing was built twice, nothing failed, and all of it has come back."""
    assert set(session.built().values()) == {1}, session.story()
    assert all(one["outcome"] != "failed" for one in session.attempts()), session.story()
    assert session.packages() == set(session.built()), session.story()


def assert_nothing_is_left(session: Session) -> None:
    """On no host is anything of a job, and here nothing runs."""
    for name in session.cluster.names:
        assert on_disk(session.cluster, name, "jobs") == []
        assert on_disk(session.cluster, name, "slots") == []
        base = session.cluster.base(name)
        left = [p for p in session.cluster.processes(name) if base in p.command]
        assert left == []
    assert session.processes() == []


def test_a_run_on_three_hosts(cluster: NamespaceCluster, make_session: MakeSession) -> None:
    session = make_session(cluster)
    assert session.run(*SOME) == 0, session.story()
    assert_each_built_once(session)
    assert "sitegen-0.5" in session.packages()
    assert len({one["host"] for one in session.attempts()}) > 1
    assert {one["host"] for one in session.attempts()} <= set(cluster.names)
    assert_nothing_is_left(session)

    # The same again: nothing is built, and next to nothing sent.
    before = {name: cluster.traffic(name)[0] for name in cluster.names}
    attempts = session.attempts()
    assert session.run(*SOME) == 0, session.story()
    assert session.attempts() == attempts
    assert all(cluster.traffic(name)[0] - before[name] < LARGE / 10 for name in cluster.names)

    # Something more: the tree is there already, and goes to no host again.
    session.open("large")
    session.open("gated")
    assert session.run("--select", "gates/large gates/gated") == 0, session.story()
    assert_each_built_once(session)
    for name in {one["host"] for one in attempts}:
        assert cluster.traffic(name)[0] - before[name] < LARGE / 2, name


def test_hosts_on_ports(ports: PortCluster, make_session: MakeSession) -> None:
    session = make_session(ports)
    assert session.run("--select", "devel/libvec math/calc") == 0, session.story()
    assert_each_built_once(session)
    assert_nothing_is_left(session)


@pytest.mark.parametrize("phase", ["push", "build", "fetch"])
def test_a_link_is_cut_and_restored(
    phase: str, make_cluster: MakeCluster, make_session: MakeSession
) -> None:
    cluster = make_cluster("h1")
    assert isinstance(cluster, NamespaceCluster)
    session = make_session(cluster)
    session.open("gated")
    session.open("last")
    if phase == "push":
        cluster.slow("h1", rate=LARGE / 15)
    run = session.start("--select", "gates/last")
    if phase == "push":
        session.eventually(lambda: cluster.traffic("h1")[0] > LARGE / 4, "a part is sent")
    else:
        session.waits("large")
    if phase == "fetch":
        cluster.slow("h1", rate=LARGE / 15)
        session.open("large")
        session.eventually(lambda: cluster.traffic("h1")[1] > LARGE / 4, "a part is fetched")
    cluster.cut("h1")
    session.eventually(lambda: session.host("h1").get("state") == "lost", "it is missed")
    assert "large-1.0" not in session.packages()
    assert run.poll() is None
    # What runs there does not mind.
    session.open("large")
    if phase == "build":
        session.eventually(lambda: session.builds_on("h1", "ended"), "it is built out of reach")
    cluster.restore("h1")
    cluster.fast("h1")
    assert session.ends(run) == 0, session.story()
    assert_each_built_once(session)
    assert session.packages() == {"large-1.0", "gated-1.0", "last-1.0"}
    assert sorted(session.builds_on("h1")) == ["gated", "large", "last"]
    assert_nothing_is_left(session)


def test_a_host_without_power_loses_its_job_to_another(
    make_cluster: MakeCluster, make_session: MakeSession, room: Path
) -> None:
    cluster = make_cluster("h1 h2")
    assert isinstance(cluster, NamespaceCluster)
    session = make_session(cluster)
    config = room / "clusterdep.toml"
    config.write_text("lease_seconds = 9\nrenew_seconds = 2\n")
    session.serve("clusterdep", "--config", str(config))
    run = session.start("--select", "gates/gated")
    first = session.waits("gated")
    other = "h2" if first == "h1" else "h1"
    cluster.power_off(first)
    assert session.waits("gated", (other,)) == other
    assert session.host(first)["state"] in ("lost", "probing")
    assert f"host {first} is lost" in session.screen
    # The first comes back with what it had on its disk, of which nothing is of use any more.
    cluster.power_on(first)
    session.eventually(lambda: session.host(first).get("state") == "ready", "it is used again")
    session.eventually(lambda: on_disk(cluster, first, "jobs") == [], "its job is cleaned up")
    session.open("gated")
    assert session.ends(run) == 0, session.story()
    assert_each_built_once(session)
    assert [one["host"] for one in session.attempts() if one["outcome"] == "built"] == [other]
    assert session.builds_on(first, "ended") == []


@pytest.mark.parametrize("victims", [["clusterbuild"], ["run", "clusterbuild", "clusterdep"]])
def test_builds_outlive_who_started_them(
    victims: list[str], make_cluster: MakeCluster, make_session: MakeSession
) -> None:
    cluster = make_cluster("h1")
    session = make_session(cluster)
    run = session.start("--select", "gates/gated")
    session.waits("gated")
    (attempt,) = on_disk(cluster, "h1", "jobs")
    pid_file = cluster.path("h1", f"{cluster.base('h1')}/jobs/{attempt}/pid")
    before = pid_file.read_text()
    old = {name: session.pid(name) for name in victims if name != "run"}
    if "run" in victims:
        run.kill()
    for pid in old.values():
        os.kill(pid, signal.SIGKILL)
    if "run" in victims:
        run.wait()
        run = session.start("--select", "gates/gated")
    session.eventually(
        lambda: session.pid("clusterbuild") not in (0, old["clusterbuild"]), "it is started again"
    )
    session.eventually(lambda: session.job("gated-1.0").get("phase") == "building", "adopted")
    assert pid_file.read_text() == before
    session.open("gated")
    assert session.ends(run) == 0, session.story()
    assert_each_built_once(session)
    assert [one["id"] for one in session.attempts()] == [attempt]
    assert session.builds_on("h1") == ["gated"]
    assert_nothing_is_left(session)


def test_a_host_with_another_key_is_refused(
    make_cluster: MakeCluster, make_session: MakeSession
) -> None:
    cluster = make_cluster("h1 h2")
    session = make_session(cluster)
    cluster.change_host_key("h1")
    run = session.start("--select", "gates/gated")
    assert session.waits("gated") == "h2"
    host = session.eventually(
        lambda: (h := session.host("h1")).get("state") == "refused" and h, "it is refused"
    )
    assert "its host key has changed" in host["reason"]
    assert str(cluster.known_hosts) in host["reason"]
    assert f"host h1 is refused: {host['reason']}" in session.screen
    assert not on_disk(cluster, "h1", ""), "something was put there"
    cluster.trust("h1")
    session.resume()
    session.eventually(lambda: session.host("h1")["state"] == "ready", "it is used again")
    session.open("gated")
    assert session.ends(run) == 0, session.story()
    assert_each_built_once(session)


@pytest.mark.parametrize("when", ["sending", "building"])
def test_a_full_disk_of_a_host_is_nobodys_fault(
    when: str, make_cluster: MakeCluster, make_session: MakeSession
) -> None:
    cluster = make_cluster("h1", disk=256 * 2**20)
    session = make_session(cluster)
    session.open("gated")
    if when == "sending":
        cluster.fill_disk("h1", leave=LARGE // 2)
    run = session.start("--select", "gates/last")
    if when == "building":
        session.waits("large")
        cluster.fill_disk("h1", leave=LARGE // 4)
    session.open("large")
    session.open("last")
    session.eventually(lambda: "host h1 is refused: its disk is full" in session.screen, "said")
    tries = len(session.attempts())
    time.sleep(3)
    assert len(session.attempts()) == tries, "it was tried again and again"
    assert run.poll() is None, session.story()
    cluster.free_disk("h1")
    session.resume()
    assert session.ends(run) == 0, session.story()
    assert_each_built_once(session)
    assert {one["blame"] for one in session.attempts()} <= {"", "host"}


def test_a_full_disk_here_is_nobodys_fault(
    make_cluster: MakeCluster, make_session: MakeSession
) -> None:
    cluster = make_cluster("h1")
    session = make_session(cluster)
    session.state.mkdir(mode=0o700)

    def disk(options: str) -> None:
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(session.state)]
        subprocess.run(cluster.enter(*words), check=True)

    disk("size=64m,mode=700")
    session.open("gated")
    session.open("last")
    run = session.start("--select", "gates/last")
    session.waits("large")
    space = os.statvfs(session.seen)
    disk(f"remount,size={(space.f_blocks - space.f_bfree) * space.f_frsize + LARGE // 4}")
    session.open("large")
    session.eventually(lambda: "host h1 gets no work" in session.screen, "it is said")
    assert "No space left on device" in session.screen
    assert run.poll() is None, session.story()
    disk("remount,size=64m")
    assert session.ends(run) == 0, session.story()
    assert_each_built_once(session)
    assert session.packages() == {"large-1.0", "gated-1.0", "last-1.0"}
    assert "package" not in {one["blame"] for one in session.attempts()}
