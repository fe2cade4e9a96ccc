"""Scans of a tree on hosts over real ssh, and what may happen to hosts and daemons meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from over_ssh import Session
from sshd_hosts import Cluster, MakeCluster, NamespaceCluster

pytestmark = pytest.mark.timeout(400)

#: A pattern that nothing matches: the whole tree is scanned, and nothing is built.
NOTHING = ("--select", "nonsuch>=1")
#: Packages whose scan waits until there is a file on the host.
SLOW = tuple(f"slow{n}" for n in range(6))
MAKEFILE = """\
X!=	mkdir -p {gates}; echo {name} >>{gates}/scanned; \\
	while [ ! -e {gates}/go ]; do sleep 0.1; done; echo went
DISTNAME=	{name}-1.0
CATEGORIES=	slow
DISTFILES=	# empty
MAINTAINER=	slow@example.org
COMMENT=	Takes its time
LICENSE=	public-domain
.include "../../mk/bsd.pkg.mk"
"""
FACTS = """
import json, sys, sqlite_utils
d = sqlite_utils.Database(sys.argv[1])
def rows(sql): return [list(map(repr, r)) for r in d.execute(sql, [sys.argv[2]]).fetchall()]
print(json.dumps({
  "records": rows("SELECT package.pkgpath, package.variant, number, pkgname, skip_reason, "
    "fail_reason, duplicate, weight, digest, text FROM record "
    "JOIN package ON package.id = record.package_id JOIN profile ON profile.id = profile_id "
    "WHERE profile.name = ? ORDER BY 1, 2"),
  "pkgpaths": rows("SELECT path, position, error, inputs_digest, files, outdated_at "
    "FROM pkgpath JOIN profile ON profile.id = profile_id WHERE profile.name = ? ORDER BY 1"),
  "scans": rows("SELECT host, outcome, blame, pkgpaths FROM scan_attempt "
    "JOIN profile ON profile.id = profile_id WHERE profile.name = ? ORDER BY granted_at"),
}))
"""

MakeSession = Callable[[Cluster], Session]


@pytest.fixture
def make_session(make_cluster: MakeCluster, room: Path) -> Iterator[MakeSession]:
    """Sessions that are closed before their hosts are."""
    with contextlib.ExitStack() as stack:

        def make(cluster: Cluster) -> Session:
            return stack.enter_context(contextlib.closing(Session(cluster, room)))

        yield make


def add_slow(session: Session) -> None:
    """The tree has a category whose scans wait."""
    tree = session.tree
    lines = ["COMMENT=	Slow", *(f"SUBDIR+=	{name}" for name in SLOW)]
    text = "\n".join([*lines, '.include "../mk/bsd.pkg.subdir.mk"', ""])
    (tree.path / "slow").mkdir()
    (tree.path / "slow/Makefile").write_text(text)
    for name in SLOW:
        directory = tree.path / "slow" / name
        directory.mkdir()
        (directory / "Makefile").write_text(MAKEFILE.format(name=name, gates=tree.gates))
    top = tree.path / "Makefile"
    first = top.read_text().index("SUBDIR")
    top.write_text(f"{top.read_text()[:first]}SUBDIR+=	slow\n{top.read_text()[first:]}")


def facts(session: Session, profile: str = "example") -> dict[str, Any]:
    words = [sys.executable, "-c", FACTS, str(session.state / "clusterdep.db"), profile]
    done = subprocess.run(
        session.cluster.enter(*words), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def scanned_on(session: Session, name: str) -> list[str]:
    """The slow packages whose scan has begun on a host."""
    with contextlib.suppress(OSError):
        return (session.cluster.path(name, session.tree.gates) / "scanned").read_text().split()
    return []


def let_go(session: Session, *hosts: str) -> None:
    for name in hosts or session.cluster.names:
        directory = session.cluster.path(name, session.tree.gates)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "go").touch()


def assert_scanned(session: Session) -> None:
    """Everything was scanned well, and nothing of a scan is left anywhere."""
    found = facts(session)
    assert {path: error for path, _, error, *_ in found["pkgpaths"] if error != "''"} == {}
    assert len(found["pkgpaths"]) == len(found["records"]) or found["records"]
    assert all(outdated == "None" for *_, outdated in found["pkgpaths"]), session.story()
    for name in session.cluster.names:
        jobs = session.cluster.path(name, f"{session.cluster.base(name)}/jobs")
        assert not jobs.exists() or list(jobs.iterdir()) == []


def test_a_scan_on_three_hosts_is_what_the_helper_finds(
    cluster: NamespaceCluster, make_session: MakeSession
) -> None:
    session = make_session(cluster)
    assert session.run(*NOTHING) == 1, session.story()
    assert_scanned(session)
    assert "pkgpaths" in session.screen
    hosts = facts(session)
    assert len({host for host, *_ in hosts["scans"]}) > 1
    assert {outcome for _, outcome, *_ in hosts["scans"]} == {"'done'"}

    assert session.run(*NOTHING, "--profile", "helped", "--scan-on", "here") == 1, session.story()
    helper = facts(session, "helped")
    assert helper["scans"] == []
    assert hosts["records"] == helper["records"]
    assert hosts["pkgpaths"] == helper["pkgpaths"]
    assert len(hosts["records"]) > 30

    # The same again: nothing is scanned. Then one Makefile more: only that one is.
    assert session.run(*NOTHING) == 1, session.story()
    assert facts(session) == hosts
    makefile = session.tree.path / "devel/libvec/Makefile"
    makefile.write_text(f"{makefile.read_text()}\n# changed\n")
    assert session.run(*NOTHING) == 1, session.story()
    again = facts(session)
    assert [paths for *_, paths in again["scans"][len(hosts["scans"]) :]] == [
        "'[\"devel/libvec\"]'"
    ]
    assert again["records"] == hosts["records"]


def test_a_host_without_power_loses_its_scan_to_another(
    make_cluster: MakeCluster, make_session: MakeSession, room: Path
) -> None:
    cluster = make_cluster("h1 h2")
    assert isinstance(cluster, NamespaceCluster)
    session = make_session(cluster)
    add_slow(session)
    config = room / "clusterdep.toml"
    config.write_text("lease_seconds = 9\nrenew_seconds = 2\n")
    session.serve("clusterdep", "--config", str(config))
    run = session.start(*NOTHING)
    session.eventually(lambda: scanned_on(session, "h1"), "h1 scans", 90)
    lost = scanned_on(session, "h1")[-1]
    cluster.power_off("h1")
    let_go(session, "h2")
    session.eventually(lambda: lost in scanned_on(session, "h2"), "h2 scans it", 90)
    assert session.ends(run) == 1, session.story()
    assert_scanned_but(session, "h1")
    assert Counter(outcome for _, outcome, *_ in facts(session)["scans"])["'lapsed'"] == 1


def assert_scanned_but(session: Session, dead: str) -> None:
    """As assert_scanned, but for what lies on a host that has no power."""
    found = facts(session)
    assert all(error == "''" for _, _, error, *_ in found["pkgpaths"]), session.story()
    assert all(outdated == "None" for *_, outdated in found["pkgpaths"])
    assert dead in {host.strip("'") for host, *_ in found["scans"]}


@pytest.mark.parametrize("victim", ["clusterbuild", "clusterdep"])
def test_a_scan_outlives_a_daemon(
    victim: str, make_cluster: MakeCluster, make_session: MakeSession
) -> None:
    cluster = make_cluster("h1")
    session = make_session(cluster)
    add_slow(session)
    run = session.start(*NOTHING)
    session.eventually(lambda: scanned_on(session, "h1"), "it scans", 90)
    (attempt,) = [p.name for p in cluster.path("h1", f"{cluster.base('h1')}/jobs").iterdir()]
    pid_file = cluster.path("h1", f"{cluster.base('h1')}/jobs/{attempt}/pid")
    before, old = pid_file.read_text(), session.pid(victim)
    os.kill(old, signal.SIGKILL)
    session.eventually(lambda: session.pid(victim) not in (0, old), "it is started again")
    session.eventually(lambda: session.host("h1").get("state") == "ready", "it has h1 again")
    assert pid_file.read_text() == before
    let_go(session)
    assert session.ends(run) == 1, session.story()
    assert_scanned(session)
    # Nothing was scanned twice, and nothing was lost.
    assert Counter(scanned_on(session, "h1")).most_common(1)[0][1] == 1
    assert {outcome for _, outcome, *_ in facts(session)["scans"]} == {"'done'"}


def test_a_link_that_breaks_does_not_matter(
    make_cluster: MakeCluster, make_session: MakeSession
) -> None:
    cluster = make_cluster("h1")
    assert isinstance(cluster, NamespaceCluster)
    session = make_session(cluster)
    add_slow(session)
    run = session.start(*NOTHING)
    session.eventually(lambda: scanned_on(session, "h1"), "it scans", 90)
    cluster.cut("h1")
    session.eventually(lambda: session.host("h1").get("state") == "lost", "it is missed")
    let_go(session)
    session.eventually(lambda: len(scanned_on(session, "h1")) > 1, "it goes on")
    cluster.restore("h1")
    assert session.ends(run) == 1, session.story()
    assert_scanned(session)
    assert Counter(scanned_on(session, "h1")).most_common(1)[0][1] == 1
