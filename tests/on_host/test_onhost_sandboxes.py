"""The sandboxes `overlay` and `chroot`: what a build does in them is seen by nobody, and goes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from onhost_fakes import (
    SHELLS,
    FakeTree,
    MakeHost,
    OnHost,
    as_user,
    executable,
    facts,
    running,
    until,
)
from small_system import small_system

from clusterbuild.core.blame import Blame, judge
from clusterbuild.core.result import Evidence, JobResult, Outcome

NOBODY = "65534"
KINDS = ("overlay", "chroot")
#: A name that no host has.
NAME = f"onhost-{os.getpid()}"
#: Seconds that nobody else sleeps, by which a process is found.
NAP = str(70_000_000 + os.getpid())
#: Becomes root of a namespace in which mounts are nobody else's.
APART = ["/usr/bin/unshare", "--mount", "--propagation", "private"]
APART += [] if os.geteuid() == 0 else ["--map-root-user"]


@pytest.fixture(params=SHELLS)
def host(request: pytest.FixtureRequest, make_host: MakeHost) -> OnHost:
    """A host in each of the shells, with tools that are seen in another root, too."""
    return make_host(request.param)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def values(host: OnHost, kind: str, user: str = "", **more: str) -> dict[str, str]:
    """What a job file needs for a kind of sandbox."""
    if kind == "overlay":
        return {"SANDBOX": kind, **more}
    name = host.shell.parent.name.removeprefix("sh-")
    root = host.base.parent / "system"
    if not root.exists():
        small_system(root, name)
        if user and os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{user}:{user}", str(root)], check=True)
    path = f"{host.base.parent}/prefix/bin:{host.base.parent}/prefix/sbin:/usr/bin:/bin"
    return {"SANDBOX": kind, "BASE_DIR": str(root), "SEARCH_PATH": path, **more}


def told(host: OnHost, attempt: str) -> str:
    """All logs, for when something is not as it should be."""
    logs = sorted((host.directory(attempt) / "log").glob("*.log"))
    return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')}" for log in logs)


def cleaned(host: OnHost, *attempts: str) -> None:
    """Cleans them: nothing is left of them."""
    for attempt in attempts:
        host.run("clean", attempt)
        assert not host.directory(attempt).exists()
    assert host.holders() == []
    assert str(host.base) not in Path("/proc/self/mounts").read_text()


# --- what is written


def test_nothing_a_build_writes_is_left(host: OnHost, tree: FakeTree, kind: str) -> None:
    distdir = tree.root / "distfiles"
    distdir.mkdir()
    everywhere = ["/etc", "/var/tmp", "/tmp", str(tree.root), str(distdir), str(host.base)]
    if os.geteuid() == 0:
        everywhere += ["/usr/share", "/"]
    write = " && ".join(f"echo x > {directory}/{NAME}" for directory in everywhere)
    change = (
        f"echo .info changed >> {tree.root}/mk/fake.mk && cat {tree.root}/mk/fake.mk >/dev/null"
    )
    daemon = f"(setsid sleep {NAP} &) && sleep 0.2"
    tree.package("liba", DO_BUILD=f"{write} && {change} && {daemon} && echo y > file")
    text = host.job("a", tree, "test/liba", **values(host, kind, DISTDIR=str(distdir)))
    result = host.build("a", text)
    assert (result["OUTCOME"], result["SANDBOX"]) == ("built", kind), told(host, "a")
    assert (host.directory("a") / "out/liba-1.0.tgz").exists()
    assert running(NAP) == []
    for directory in everywhere:
        assert not Path(directory, NAME).exists(), directory
    assert "changed" not in (tree.root / "mk/fake.mk").read_text()
    if kind == "chroot":
        assert not list((host.base.parent / "system").glob(f"**/{NAME}"))
    assert not any(tree.prefix.glob("*"))
    # The next job starts afresh.
    tree.package(
        "libb",
        DO_BUILD=f"ls {' '.join(f'{directory}/{NAME}' for directory in everywhere)}"
        " 2>/dev/null && exit 1; echo y > file",
    )
    more = values(host, kind, DISTDIR=str(distdir))
    assert host.build("b", host.job("b", tree, "test/libb", **more))["OUTCOME"] == "built"
    cleaned(host, "a", "b")


def test_it_sees_what_it_needs(any_host: OnHost, tree: FakeTree, kind: str) -> None:
    tree.package("liba")
    made = any_host.build("lib", any_host.job("lib", tree, "test/liba", **values(any_host, kind)))
    assert made["OUTCOME"] == "built", told(any_host, "lib")
    see = (
        f"cat {tree.prefix}/share/liba-1.0 > file; echo x > /dev/null; test -c /dev/zero; "
        "test -r /proc/self/stat; test -d /sys/kernel; ls /proc | grep -c '^[0-9]' > procs; "
        "test `cat procs` -lt 40; head -c 3 /dev/urandom | wc -c; test ! -w /proc/sys/kernel/panic"
    ).replace("; ", " && ")
    tree.package("prog", requires=["liba-1.0"], DO_BUILD=see)
    package = any_host.directory("lib") / "out" / "liba-1.0.tgz"
    text = any_host.job("p", tree, "test/prog", any_host.require(package), **values(any_host, kind))
    result = any_host.build("p", text)
    assert result["OUTCOME"] == "built", told(any_host, "p")
    cleaned(any_host, "lib", "p")


def test_other_disks_are_seen_and_not_written_to(make_host: MakeHost, tree: FakeTree) -> None:
    host = make_host("dash")
    disk = host.base / "disk"
    disk.mkdir()
    tree.package("liba", DO_BUILD=f"cat {disk}/there > file; cat file; echo x > {disk}/new")
    job = host.base.parent / "job"
    job.write_text(host.job("o", tree, "test/liba", SANDBOX="overlay"))
    done = subprocess.run(
        [*APART, "sh", "-c", f"""
            mount -t tmpfs -o size=1m none {disk} && echo whole > {disk}/there || exit 1
            {" ".join(host.command("supervisor", "start", "o"))} <{job} || exit 2
            while ! [ -e {host.directory("o")}/result ]; do sleep 0.1; done
            ls {disk}
        """],
        env=host.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "there\n", "")
    assert host.result("o")["OUTCOME"] == "built", told(host, "o")
    assert host.log("o", "build") == "whole\n"


def test_what_cannot_be_changed_is_removed(any_host: OnHost, tree: FakeTree, kind: str) -> None:
    lock = "mkdir -p locked/deep && echo x > locked/deep/file && mkdir -p /etc/locked/deep"
    lock += " && { chattr +i locked/deep/file; chattr +a locked; chmod 0 locked/deep locked"
    lock += "; chmod 0 /etc/locked/deep /etc/locked; echo y > file; }"
    tree.package("liba", DO_BUILD=lock)
    any_host.build("l", any_host.job("l", tree, "test/liba", **values(any_host, kind)))
    assert any_host.log("l", "clean"), "make clean has complained"
    assert (any_host.directory("l") / "work/test/liba/work/locked").exists()
    cleaned(any_host, "l")


def test_a_full_layer_is_the_hosts_fault(any_host: OnHost, tree: FakeTree, kind: str) -> None:
    tree.package("liba", DO_BUILD="echo begun; dd if=/dev/zero of=/etc/big bs=64k count=999")
    more = values(any_host, kind, LAYER_SIZE="4000000")
    result = any_host.build("f", any_host.job("f", tree, "test/liba", **more))
    assert (result["OUTCOME"], result["STAGE"]) == ("failed", "build"), told(any_host, "f")
    evidence = frozenset(map(Evidence, result["EVIDENCE"].split()))
    assert Evidence.NO_SPACE in evidence
    assert judge(JobResult("f", Outcome.FAILED, "build", evidence=evidence)).blame is Blame.HOST
    cleaned(any_host, "f")


# --- the network


@pytest.fixture
def greeter() -> Iterator[int]:
    """A server on this host that greets whoever connects; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"hello\n")

        thread = threading.Thread(target=greet)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_full_layer_is_seen_where_nobody_says_so(any_host: OnHost, tree: FakeTree) -> None:
    tree.package(
        "liba", DO_BUILD="dd if=/dev/zero of=/etc/big bs=64k count=999 2>/dev/null; exit 1"
    )
    text = any_host.job("f", tree, "test/liba", SANDBOX="overlay", LAYER_SIZE="4000000")
    assert "no-space" in any_host.build("f", text)["EVIDENCE"].split()


def test_what_a_killed_probe_left_is_removed(any_host: OnHost) -> None:
    (any_host.base / ".probe.999999999/layer/0").mkdir(parents=True)
    any_host.run("probe")
    assert not list(any_host.base.glob(".probe.*"))


@pytest.mark.parametrize("user", ["", NOBODY])
def test_only_fetching_has_a_network(
    make_host: MakeHost, tree: FakeTree, kind: str, user: str, greeter: int
) -> None:
    host = make_host("dash", before=as_user(user) if user else ())
    own(host, user)
    connect = f"busybox nc -w 3 127.0.0.1 {greeter} </dev/null"
    inside = (
        "(busybox nc -l -p 7003 -w 9 </etc/passwd & ) ; for i in 1 2 3 4 5 6 7 8 9; do sleep 0.2"
    )
    inside += "; busybox nc -w 3 127.0.0.1 7003 </dev/null > got || :; test ! -s got || break; done"
    cut = f"if {connect}; then exit 1; fi; {inside}; grep -c root: got; id -u; cp got file"
    tree.package("liba", DO_CHECKSUM=connect, DO_BUILD=cut)
    result = host.build("n", host.job("n", tree, "test/liba", **values(host, kind)))
    assert result["OUTCOME"] == "built", told(host, "n")
    assert host.log("n", "checksum") == "hello\n"
    me = user if user and os.geteuid() == 0 else str(os.geteuid())
    assert host.log("n", "build").split()[-2:] == ["1", me]
    cleaned(host, "n")


def own(host: OnHost, user: str) -> None:
    """Makes the base directory that user's, where we can."""
    if user and os.geteuid() == 0:
        for directory in (host.base, host.base / "files"):
            shutil.chown(directory, int(user), int(user))


# --- who


@pytest.mark.parametrize("uid", [NOBODY, "54321"])
def test_as_an_unprivileged_user(make_host: MakeHost, tree: FakeTree, kind: str, uid: str) -> None:
    host = make_host("dash", before=as_user(uid))
    own(host, uid)
    me = uid if os.geteuid() == 0 else str(os.geteuid())
    write = "echo x > /etc/new && echo x > /tmp/new && echo x > /var/tmp/new && mkdir -p /made/here"
    tree.package("liba", DO_BUILD=f"id -u > file && cat file && {write}; (setsid sleep {NAP} &)")
    result = host.build("u", host.job("u", tree, "test/liba", **values(host, kind, uid)))
    assert result["OUTCOME"] == "built", told(host, "u")
    assert host.log("u", "build").split() == [me]
    assert running(NAP) == []
    assert not any(Path(name).exists() for name in ("/etc/new", "/var/tmp/new", "/made"))
    cleaned(host, "u")


def test_a_build_user_builds(any_host: OnHost, tree: FakeTree, kind: str) -> None:
    any_host.base.chmod(0o755)
    tree.package("user", DO_CHECKSUM="id -un", DO_CONFIGURE="id -un", DO_BUILD="id -un | tee file")
    more = values(any_host, kind, BUILD_USER="nobody")
    result = any_host.build("user", any_host.job("user", tree, "test/user", **more))
    assert result["OUTCOME"] == "built", told(any_host, "user")
    builder = "nobody" if os.geteuid() == 0 else any_host.log("user", "checksum").strip()
    assert any_host.log("user", "build").split() == [builder]
    cleaned(any_host, "user")


# --- accidents


@pytest.mark.parametrize("who", ["supervisor", "sandbox", "both"])
def test_killed_midway(any_host: OnHost, tree: FakeTree, kind: str, who: str) -> None:
    tree.package("liba", DO_BUILD=f"(setsid sleep {NAP} &); sleep {NAP}")
    any_host.start("k", any_host.job("k", tree, "test/liba", **values(any_host, kind)))
    until(lambda: len(running(NAP)) == 2)
    for name in ("pid", "pid.sandbox"):
        if who == "both" or (name == "pid") == (who == "supervisor"):
            pid = facts((any_host.directory("k") / name).read_text())["PID"]
            os.kill(int(pid), signal.SIGKILL)
    if who == "sandbox":
        assert any_host.result("k")["EVIDENCE"] == "signal"
    cleaned(any_host, "k")
    assert running(NAP) == []


def test_after_a_reboot(any_host: OnHost, tree: FakeTree, kind: str) -> None:
    tree.package("liba", DO_BUILD=f"echo x > /etc/new; sleep {NAP}")
    any_host.start("r", any_host.job("r", tree, "test/liba", **values(any_host, kind)))
    until(lambda: running(NAP) != [])
    any_host.run("end", "r")
    (any_host.directory("r") / "result").unlink()
    for path in any_host.directory("r").glob("pid*"):
        path.write_text(path.read_text().replace("BOOT='", "BOOT='another-"))
    assert any_host.look()["r"][0::6] == ["gone", "rebooted"]
    cleaned(any_host, "r")


def test_what_cannot_be_set_up_leaves_nothing(
    any_host: OnHost, tree: FakeTree, top: Path, kind: str
) -> None:
    tree.package("liba")
    more = values(any_host, kind)
    if kind == "chroot":
        (top / "empty" / "etc").mkdir(parents=True)
        more["BASE_DIR"] = str(top / "empty")
    else:
        more["PREFIX"] = "/etc/passwd/prefix"
    result = any_host.build("s", any_host.job("s", tree, "test/liba", **more))
    assert (result["OUTCOME"], result["EVIDENCE"]) == ("unable", "sandbox")
    wanted = f"is there a system in {top}/empty?" if kind == "chroot" else "/etc/passwd/prefix"
    assert wanted in result["MESSAGE"]
    cleaned(any_host, "s")


def test_a_root_must_be_there(any_host: OnHost, tree: FakeTree, top: Path) -> None:
    tree.package("liba")
    text = any_host.job("a", tree, "test/liba", SANDBOX="chroot", BASE_DIR=str(top / "nowhere"))
    done = any_host.run("supervisor", "start", "a", text=text, status=65)
    assert f"there is no directory {top}/nowhere" in done.stderr
    text = any_host.job("a", tree, "test/liba", SANDBOX="chroot", BASE_FILE="1" * 64)
    done = any_host.run("supervisor", "start", "a", text=text, status=66)
    assert done.stdout == f"missing {'1' * 64}\n"
    cleaned(any_host, "a")


# --- nothing is removed through a mount


def precious(host: OnHost) -> str:
    """A job that is over, with something mounted in what it had as its root; as shell words."""
    own = host.base.parent / "precious"
    own.mkdir()
    (own / "mine").write_text("mine")
    for place in ("layer/root/home", "layer/root/a b", "work"):
        (host.directory("m") / place).mkdir(parents=True)
    host.directory("m").joinpath("result").write_text("END='yes'\n")
    job = host.directory("m")
    return " && ".join(
        f"mount --bind {own} '{job}/{place}'"
        for place in ("layer/root/home", "layer/root/home", "layer/root/a b", "work")
    )


def apart(host: OnHost, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*APART, "sh", "-c", script],
        env=host.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_clean_unmounts_and_removes_nothing_behind_a_mount(host: OnHost) -> None:
    mounts = precious(host)
    clean = " ".join(host.command("clean", "m"))
    done = apart(host, f"{mounts} && {clean} && ! grep {host.base} /proc/self/mounts")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert not host.directory("m").exists()
    assert (host.base.parent / "precious/mine").read_text() == "mine"


def test_what_stays_mounted_is_not_touched(make_host: MakeHost, tree: FakeTree, top: Path) -> None:
    tools = top / "tools"
    executable(tools / "umount", "#!/bin/sh\necho 'umount: target is busy' >&2\nexit 32\n")
    host = make_host("dash", path=f"{tools}:/usr/bin:/bin:/usr/sbin:/sbin")
    mounts = precious(host)
    clean = " ".join(host.command("clean", "m"))
    done = apart(host, f"{mounts} && {{ {clean}; }}")
    assert done.returncode == 71
    assert "still mounted" in done.stderr
    assert (top / "precious/mine").read_text() == "mine"


# --- where there is less


@pytest.fixture
def without(top: Path) -> Callable[[str, str], str]:
    """Makes a directory of tools before the others, in which one does not do everything."""

    def make(tool: str, script: str) -> str:
        executable(top / "less" / tool, f"#!/bin/sh\n{script}\n")
        return f"{top}/less:/usr/bin:/bin:/usr/sbin:/sbin"

    return make


NO_OVERLAY = """case " $* " in
*" overlay "*) echo "mount: unknown filesystem type 'overlay'." >&2; exit 32 ;;
esac
exec /bin/mount "$@"
"""


def test_without_overlays_a_root_is_copied(
    make_host: MakeHost, tree: FakeTree, without: Callable[[str, str], str]
) -> None:
    host = make_host("dash", path=without("mount", NO_OVERLAY))
    probed = host.run("probe").stdout
    assert "SANDBOX='chroot" in probed and "SANDBOX='mount" in probed
    assert "NO_SANDBOX='overlay no overlay file system is to be had here: mount: unknown" in probed
    tree.package("liba", DO_BUILD=f"echo x > /etc/{NAME} && echo y > file")
    result = host.build("c", host.job("c", tree, "test/liba", **values(host, "chroot")))
    assert result["OUTCOME"] == "built", told(host, "c")
    assert not (host.base.parent / "system/etc" / NAME).exists()
    assert (host.directory("c") / "layer/root/etc" / NAME).exists()
    result = host.build("o", host.job("o", tree, "test/liba", SANDBOX="overlay"))
    assert (result["OUTCOME"], result["EVIDENCE"]) == ("unable", "sandbox")
    assert "unknown filesystem type" in result["MESSAGE"]
    cleaned(host, "c", "o")


@pytest.mark.parametrize("end", ["", "kill -9", "end"])
def test_a_root_without_namespaces(
    make_host: MakeHost, tree: FakeTree, without: Callable[[str, str], str], end: str
) -> None:
    host = make_host("dash", path=without("unshare", "exit 1"))
    go = host.directory("g") / "go"
    tree.package("liba", DO_BUILD=f"while [ ! -e {go} ]; do sleep 0.1; done; echo y > file")
    job = host.base.parent / "job"
    job.write_text(host.job("g", tree, "test/liba", **values(host, "chroot")))
    directory = host.directory("g")
    clean = " ".join(host.command("clean", "g"))
    if end == "kill -9":
        kill = " ".join(f". {directory}/{name}; kill -9 $PID;" for name in ("pid", "pid.sandbox"))
        ending = f"{kill} {clean}"
    elif end:
        ending = f"{' '.join(host.command('end', 'g'))} && cat {directory}/result"
    else:
        ending = f"touch {go}; while ! [ -e {directory}/result ]; do sleep 0.1; done; "
        ending += f"cat {directory}/result"
    done = apart(
        host,
        f"""
        {" ".join(host.command("supervisor", "start", "g"))} <{job} || exit 2
        while ! grep -q 'begin build' {directory}/marks; do sleep 0.1; done
        grep -q {directory}/layer/root /proc/self/mounts || exit 3
        {ending}
        ! grep {directory} /proc/self/mounts || exit 4
        {clean} && ! ls {directory} 2>/dev/null
    """,
    )
    assert done.returncode == 0, (done, told(host, "g"))
    if end == "":
        assert "OUTCOME='built'" in done.stdout
    assert Path("/proc/self/mounts").exists() and Path("/dev/null").exists()
    assert (tree.root / "mk/fake.mk").exists()


# --- scans


def test_scans_as_jobs(host: OnHost, tree: FakeTree, kind: str, greeter: int) -> None:
    reach = f"busybox nc -w 3 127.0.0.1 {greeter} </dev/null || echo none"
    directory = tree.root / "x/see"
    directory.mkdir(parents=True)
    keep = "echo kept > ${PBULK_CACHE_DIRECTORY}/k"
    make = f"pbulk-index:\n\t@{reach}; echo x > /etc/{NAME}; {keep}\n"
    (directory / "Makefile").write_text(make)
    fields = {"KIND": "scan", "CACHE": "g", "SCAN_TIME_LIMIT": "20", "OUTPUT_LIMIT": "1000"}
    lines = host.job("s", tree, "x/y", "SCAN='x/see'", **values(host, kind), **fields).splitlines()
    text = "".join(f"{line}\n" for line in lines if not line.startswith("PKG"))
    assert host.build("s", text)["OUTCOME"] == "scanned", told(host, "s")
    assert (host.directory("s") / "scan/1.out").read_text() == "none\n"
    assert not Path("/etc", NAME).exists()
    assert [path.read_text() for path in host.base.glob("caches/*/k")] == ["kept\n"]
    cleaned(host, "s")


@pytest.mark.parametrize("shell", ["dash", "busybox"])
def test_scans_get_what_reaches_the_daemon(
    make_host: MakeHost, tree: FakeTree, top: Path, kind: str, shell: str
) -> None:
    host = make_host(shell)
    words = [kind, str(top / "room"), str(tree.prefix), f"{tree.prefix}/pkgdb", str(tree.kit)]
    done = subprocess.run(
        [str(host.shell), str(host.scripts / "clean-prefix"), *words,
         "sh", "-c", f"ls {tree.prefix}; exit 9"],
        env=host.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (9, "sbin\n")
    assert f"mount instead of {kind}" in done.stderr
    assert not (top / "room").exists()
