"""What a host may be like, and what may happen to it: each must end in a true result."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from onhost_fakes import (
    SHELLS,
    FakeTree,
    MakeHost,
    OnHost,
    as_user,
    busybox_directory,
    facts,
    running,
    until,
)

NOBODY = "65534"


def tools(directory: Path, source: str, *names: str) -> Path:
    """A directory with links to nothing but these tools, all of `source` or of the system."""
    directory.mkdir(exist_ok=True)
    for name in names:
        program = source or shutil.which(name)
        assert program is not None, name
        (directory / name).symlink_to(program)
    return directory


# --- other tools, other users


@pytest.mark.parametrize("kind", ["mount", "overlay"])
@pytest.mark.parametrize("shell", SHELLS)
def test_with_busybox_tools_alone(
    make_host: MakeHost, tree: FakeTree, shell: str, kind: str
) -> None:
    where = busybox_directory(tree.root / "tools")
    # Within another root there are the tools of that: here the system's.
    within = ":/usr/bin:/bin:/usr/sbin:/sbin" if kind == "overlay" else ""
    host = make_host(shell, path=f"{where}{within}")
    tree.package("liba", DO_BUILD="echo y > file; (setsid sleep 7654331 &); sleep 0.2")
    path = f"{tree.prefix}/bin:{tree.prefix}/sbin:{host.path}"
    text = host.job("bb", tree, "test/liba", SEARCH_PATH=path, SANDBOX=kind)
    result = host.build("bb", text)
    assert (result["OUTCOME"], result["SANDBOX"]) == ("built", kind), host.log("bb", "sandbox")
    assert running("7654331") == []
    facts_said = facts(host.run("probe", "tar", "nosuchtool").stdout)
    assert facts_said["TOOL"] == f"tar {where}/tar"
    assert int(facts_said["CORES"]) > 0 and int(facts_said["MEMORY"]) > 0


def test_hosts_in_all_shells_have_no_other_tools(host: OnHost) -> None:
    look = "for tool in awk cat chmod cp date dd df env find grep gzip kill ln ls mkdir mount mv"
    look += " ps rm sed setsid sha256sum sleep sort stat tail tar tr umount uname unshare wc; do"
    look += ' command -v "$tool"; done; ! command -v openssl perl python3 bash'
    done = subprocess.run(
        [host.shell, "-c", look], env=host.environment, capture_output=True, text=True, check=True
    )
    tools_found = [Path(line) for line in done.stdout.split() if "/" in line]
    assert len(tools_found) > 15  # some shells have a few of them built in
    assert {path.resolve().name for path in tools_found} == {"busybox"}


def test_as_an_unprivileged_user(make_host: MakeHost, tree: FakeTree, top: Path) -> None:
    host = make_host("dash", before=as_user(NOBODY))
    if os.geteuid() == 0:
        shutil.chown(host.base, int(NOBODY), int(NOBODY))
        shutil.chown(host.base / "files", int(NOBODY), int(NOBODY))
    me = NOBODY if os.geteuid() == 0 else str(os.geteuid())
    see = f"id -u > file; ls -ldn {tree.prefix}/sbin | cut -d' ' -f3; (setsid sleep 7654332 &)"
    tree.package("who", DO_BUILD=see)
    tree.package("liba")
    assert host.build("lib", host.job("lib", tree, "test/liba"))["OUTCOME"] == "built"
    # Its file is somebody else's, as what an operator put there may be.
    line = host.require(host.directory("lib") / "out" / "liba-1.0.tgz")
    result = host.build("who", host.job("who", tree, "test/who", line))
    assert result["OUTCOME"] == "built", host.log("who", "sandbox")
    made = host.directory("who") / "work" / "test" / "who"
    assert made.stat().st_uid == int(me)
    assert host.log("who", "build") == f"{me}\n"
    assert running("7654332") == []
    # What nobody may write to is removed all the same.
    locked = host.directory("who") / "work" / "locked"
    subprocess.run([*host.before, "mkdir", "-p", f"{locked}/deep"], check=True)
    subprocess.run([*host.before, "chmod", "500", f"{locked}/deep", str(locked)], check=True)
    for attempt in ("who", "lib"):
        host.run("clean", attempt)
        assert not host.directory(attempt).exists()


def test_a_build_user_builds_and_root_does_the_rest(any_host: OnHost, tree: FakeTree) -> None:
    any_host.base.chmod(0o755)
    tree.package("user", DO_CHECKSUM="id -un", DO_CONFIGURE="id -un", DO_BUILD="id -un | tee file")
    text = any_host.job("user", tree, "test/user", BUILD_USER="nobody", USERGROUP_PHASE="configure")
    result = any_host.build("user", text)
    assert result["OUTCOME"] == "built", any_host.log("user", "configure")
    builder = "nobody" if os.geteuid() == 0 else any_host.log("user", "checksum").strip()
    assert any_host.log("user", "build").split() == [builder]
    usergroup = ["usergroup"] if os.geteuid() == 0 else []
    assert any_host.log("user", "configure").split() == [*usergroup, builder]


def test_without_setsid(make_host: MakeHost, tree: FakeTree, top: Path) -> None:
    names = "awk sed tar gzip ls rm mkdir mv ln cp cat tail head tr sleep date env id unshare mount"
    names += " dd df uname find sort grep cut sha256sum chmod rmdir test true sync umount sh touch"
    where = tools(top / "tools", "", *names.split())
    host = make_host("dash", path=str(where))
    tree.package("liba", DO_BUILD="(sleep 7654333 &); sleep 7654333")
    host.start("a", host.job("a", tree, "test/liba", STAGE_TIME_LIMIT="2"))
    assert host.result("a")["EVIDENCE"] == "stage-time-limit"
    assert running("7654333") == []
    host.start("b", host.job("b", tree, "test/liba"))
    until(lambda: running("7654333") != [])
    host.run("end", "b")
    assert running("7654333") == []
    assert host.result("b")["EVIDENCE"] == "order"


# --- the sandbox


def test_none_cleans_what_it_made_and_nothing_else(any_host: OnHost, tree: FakeTree) -> None:
    see = f"ls -A {tree.prefix} {any_host.base}/work | tee file"
    tree.package("liba", DO_BUILD=see)
    text = any_host.job("n1", tree, "test/liba", SANDBOX="none")
    result = any_host.build("n1", text)
    assert (result["OUTCOME"], result["SANDBOX"]) == ("built", "none")
    assert "sbin" in any_host.log("n1", "build")
    assert list(tree.prefix.iterdir()) == []
    assert list((any_host.base / "work").iterdir()) == []
    (tree.prefix / "precious").write_text("mine")
    result = any_host.build("n2", text.replace("'n1'", "'n2'"))
    assert (result["OUTCOME"], result["EVIDENCE"]) == ("unable", "sandbox")
    assert "not ours" in any_host.log("n2", "sandbox")
    assert (tree.prefix / "precious").read_text() == "mine"
    assert any_host.holders() == []


@pytest.mark.parametrize("who", ["supervisor", "sandbox", "both"])
def test_none_is_cleaned_after_a_crash(any_host: OnHost, tree: FakeTree, who: str) -> None:
    tree.package("liba", DO_BUILD="sleep 7654334")
    any_host.start("n", any_host.job("n", tree, "test/liba", SANDBOX="none"))
    until(lambda: running("7654334") != [])
    for name in ("pid", "pid.sandbox"):
        if who == "both" or (name == "pid") == (who == "supervisor"):
            pid = facts((any_host.directory("n") / name).read_text())["PID"]
            os.kill(int(pid), signal.SIGKILL)
    if who == "sandbox":
        assert any_host.result("n")["EVIDENCE"] == "signal"
    any_host.run("clean", "n")
    assert running("7654334") == []
    assert list(tree.prefix.iterdir()) == []
    tree.package("libb")
    result = any_host.build("m", any_host.job("m", tree, "test/libb", SANDBOX="none"))
    assert result["OUTCOME"] == "built"


def test_the_users_own_prefix_is_hidden_and_not_touched(any_host: OnHost, top: Path) -> None:
    if not os.access("/var/tmp", os.W_OK):
        pytest.fail("/var/tmp cannot be written")
    own = Path(f"/var/tmp/onhost-own-{os.getpid()}")
    own.mkdir()
    try:
        (own / "precious").write_text("mine")
        tree = FakeTree(top / "tree2", own)
        tree.package("liba", DO_BUILD=f"ls -A {own} | tee file")
        result = any_host.build("own", any_host.job("own", tree, "test/liba"))
        assert result["OUTCOME"] == "built"
        assert "precious" not in any_host.log("own", "build")
        assert [path.name for path in own.iterdir()] == ["precious"]
    finally:
        shutil.rmtree(own)


def test_tmp_is_private_but_what_is_needed_stays(any_host: OnHost, tree: FakeTree) -> None:
    mine = Path(f"/tmp/onhost-mine-{os.getpid()}")
    mine.write_text("x")
    try:
        tree.package("liba", DO_BUILD="ls /tmp | tee file; echo x > /tmp/left-behind")
        result = any_host.build("t", any_host.job("t", tree, "test/liba"))
        assert result["OUTCOME"] == "built"
        assert any_host.log("t", "build").split() == [tree.root.parent.name]
        assert not Path("/tmp/left-behind").exists()
    finally:
        mine.unlink()


def test_no_namespaces_is_the_hosts_evidence(
    make_host: MakeHost, tree: FakeTree, top: Path
) -> None:
    bin_ = tools(top / "tools", "/bin/false", "unshare")
    host = make_host("dash", path=f"{bin_}:/usr/bin:/bin:/usr/sbin:/sbin")
    probed = subprocess.run(
        [str(host.shell), str(host.scripts / "sandbox"), "probe", f"{host.base}/.probe"],
        env=host.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    kinds = [line.split()[0] for line in probed.stdout.splitlines()]
    assert kinds == ["!mount", "!overlay", "chroot" if os.geteuid() == 0 else "!chroot", "none"]
    tree.package("liba")
    result = host.build("u", host.job("u", tree, "test/liba"))
    assert (result["OUTCOME"], result["EVIDENCE"], result["STAGE"]) == ("unable", "sandbox", "")
    assert "namespaces" in result["MESSAGE"]
    assert host.holders() == []


def test_kits(any_host: OnHost, tree: FakeTree, top: Path) -> None:
    tree.package("liba")
    bad = top / "bad.tgz"
    bad.write_bytes(tree.kit.read_bytes()[:100])
    result = any_host.build("bad", any_host.job("bad", tree, "test/liba", KIT=any_host.keep(bad)))
    assert (result["OUTCOME"], result["EVIDENCE"]) == ("unable", "kit")
    evil = top / "evil"
    (evil / "etc").mkdir(parents=True)
    (evil / "etc" / "onhost-evil").write_text("x")
    prefix = evil / str(tree.prefix)[1:]
    prefix.mkdir(parents=True)
    (prefix / "made").write_text("here")
    with_evil = top / "evil.tgz"
    subprocess.run(["tar", "czf", str(with_evil), "-C", str(evil), "."], check=True)
    tree.package("libb", DO_BUILD=f"cat {tree.prefix}/made | tee file", DO_PACKAGE="exit 1")
    kit = any_host.keep(with_evil)
    any_host.build("evil", any_host.job("evil", tree, "test/libb", KIT=kit))
    assert any_host.log("evil", "build") == "here"
    assert not Path("/etc/onhost-evil").exists()


def test_a_clean_prefix_for_any_command(any_host: OnHost, tree: FakeTree, top: Path) -> None:
    for kind in ("mount", "none"):
        words = [kind, str(top / "room"), str(tree.prefix), f"{tree.prefix}/pkgdb", str(tree.kit)]
        script = str(any_host.scripts / "clean-prefix")
        done = subprocess.run(
            [str(any_host.shell), script, *words, "sh", "-c", f"ls {tree.prefix}; exit 9"],
            env=any_host.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (9, "sbin\n", "")
        assert not (top / "room").exists()
        assert not any(tree.prefix.glob("*"))


# --- accidents


def test_the_result_is_never_seen_half(any_host: OnHost, tree: FakeTree) -> None:
    tree.package("liba")
    seen: list[str] = []
    path = any_host.directory("whole") / "result"
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                seen.append(path.read_text())
            except FileNotFoundError:
                continue

    reader = threading.Thread(target=read)
    reader.start()
    any_host.build("whole", any_host.job("whole", tree, "test/liba"))
    until(lambda: len(seen) > 5)
    stop.set()
    reader.join()
    assert {text.endswith("END='yes'\n") for text in seen} == {True}
    assert len(set(seen)) == 1


def test_a_full_disk(make_host: MakeHost, tree: FakeTree, top: Path) -> None:
    # As root of a namespace, with a small disk as the base directory.
    small = top / "small"
    small.mkdir()
    host = make_host("dash", name="base")
    rest = " ".join(host.command("supervisor", "start", "full")[1:])
    tree.package("liba", DO_BUILD="echo begun; dd if=/dev/zero of=big bs=1024k && echo never")
    job = top / "job"
    job.write_text(host.job("full", tree, "test/liba"))
    script = f"""
        mount -t tmpfs -o size=3m none {host.base} && mkdir -p {host.base}/files || exit 1
        cp {tree.kit} {host.base}/files/$(sha256sum < {tree.kit} | cut -d' ' -f1) || exit 1
        {host.shell} {rest} < {job} || exit 2
        while ! [ -e {host.base}/jobs/full/result ]; do sleep 0.1; done
        cp -R {host.base}/jobs/full {small}/; ls {host.base}/slots
    """
    flags = ["--mount", "--propagation", "private"]
    flags += [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        ["unshare", *flags, "sh", "-c", script],
        env=host.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    result = facts((small / "full" / "result").read_text())
    assert (result["OUTCOME"], result["STAGE"], result["END"]) == ("failed", "build", "yes")
    assert "no-space" in result["EVIDENCE"].split()


def test_after_a_reboot_it_is_gone(any_host: OnHost, tree: FakeTree) -> None:
    tree.package("liba", DO_BUILD="sleep 7654335")
    any_host.start("r", any_host.job("r", tree, "test/liba"))
    until(lambda: running("7654335") != [])
    path = any_host.directory("r") / "pid"
    found = facts(path.read_text())
    path.write_text(path.read_text().replace(found["BOOT"], "another-boot"))
    assert any_host.look()["r"][0::6] == ["gone", "rebooted"]
    path.write_text(path.read_text().replace("another-boot", found["BOOT"]))
    any_host.run("end", "r")


def test_another_process_with_its_pid_is_left_alone(any_host: OnHost, tree: FakeTree) -> None:
    stranger = subprocess.Popen(["sleep", "7654336"], start_new_session=True)
    try:
        job = any_host.directory("x")
        (job / "log").mkdir(parents=True)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        for name in ("pid", "pid.sandbox"):
            (job / name).write_text(
                f"PID='{stranger.pid}'\nSTART='1'\nBOOT='{boot}'\nGROUP='{stranger.pid}'\n"
            )
        assert any_host.look()["x"][0] == "gone"
        any_host.run("end", "x")
        any_host.run("clean", "x")
        assert stranger.poll() is None
        assert not job.exists()
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("part", ["sandbox", "stages"])
def test_killed_from_outside(any_host: OnHost, tree: FakeTree, part: str) -> None:
    tree.package("liba", DO_BUILD="sleep 7654337")
    any_host.start("k", any_host.job("k", tree, "test/liba"))
    until(lambda: running("7654337") != [])
    sandbox = int(facts((any_host.directory("k") / "pid.sandbox").read_text())["PID"])
    victims = [sandbox]
    if part == "stages":
        script = str(any_host.scripts / "stages")
        victims = [pid for pid in running(script) if "build" not in words_of(pid)]
        victims = [pid for pid in victims if words_of(pid)[1] == script]
    for victim in victims:
        with contextlib.suppress(ProcessLookupError):  # the death of one may end another
            os.kill(victim, signal.SIGKILL)
    result = any_host.result("k")
    assert (result["OUTCOME"], result["STAGE"]) == ("ended", "build")
    assert (result["EVIDENCE"], result["SIGNAL"]) == ("signal", "9")
    assert running("7654337") == []


def words_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def test_garbage_in_directories_is_passed_over(any_host: OnHost, tree: FakeTree) -> None:
    jobs = any_host.base / "jobs"
    for name in ("a b", "x" * 65, "-rf", "empty", "two\nlines", "link", "broken"):
        if name != "link":
            (jobs / name).mkdir(parents=True)
    (jobs / "file").write_text("x")
    (jobs / "link").symlink_to("/etc")
    for name in ("pid", "stage", "slot", "marks", "job"):
        (jobs / "broken" / name).write_bytes(b"\x00\xff'; echo pwned\n\n'\n")
    (any_host.base / "slots").mkdir()
    (any_host.base / "slots" / "9.holder").mkdir()
    look = any_host.look()
    assert set(look) == {"-rf", "empty", "broken"}
    assert look["broken"][0] == "gone"
    tree.package("liba")
    assert any_host.build("ok", any_host.job("ok", tree, "test/liba"))["OUTCOME"] == "built"
    for name in ("-rf", "empty", "broken", "link"):
        any_host.run("clean", name)
    assert Path("/etc/passwd").exists()
    (any_host.base / "slots" / "9.holder").rmdir()
    shutil.rmtree(jobs / "two\nlines")


def test_missing_files_are_named(any_host: OnHost, tree: FakeTree, top: Path) -> None:
    tree.package("liba")
    made = top / "dep-1.0.tgz"
    made.write_text("whole")
    line = any_host.require(made)
    digest = line.split()[2]
    text = any_host.job("m", tree, "test/liba", line, line, KIT="0" * 64)
    (any_host.base / "files" / digest).write_text("cut")
    done = any_host.run("supervisor", "start", "m", text=text, status=66)
    assert sorted(done.stdout.splitlines()) == [f"missing {'0' * 64}", f"missing {digest}"]
    assert not any_host.directory("m").exists()
    assert any_host.holders() == []


def test_logs_are_read_from_any_place(any_host: OnHost, tree: FakeTree) -> None:
    tree.package("liba", DO_BUILD="echo 0123456789 | tee file")
    any_host.build("l", any_host.job("l", tree, "test/liba"))

    def read(*words: str) -> str:
        return any_host.run("read-log", "l", *words).stdout

    assert read("build", "0", "1") == "0123456789\n"
    assert read("build", "1", "1") == "123456789\n"
    assert read("build", "10", "1") == "\n"
    assert read("build", "99", "1") == ""
    assert read("nonsuch", "0", "1") == ""
    any_host.run("read-log", "l", "../job", "0", "1", status=64)
    any_host.run("read-log", "never", "build", "0", "1", status=66)
    log = any_host.directory("l") / "log" / "build.log"
    log.unlink()
    log.symlink_to("/etc/passwd")
    assert read("build", "0", "1") == ""


def test_watch_ends_when_nobody_listens(any_host: OnHost) -> None:
    watch = any_host.popen("watch")
    assert watch.stdout is not None and watch.stdin is not None
    assert watch.stdout.readline() == "end\n"
    watch.stdout.close()
    began = time.monotonic()
    assert watch.wait(20) == 0
    assert time.monotonic() - began < 20
    watch.stdin.close()
