"""A build from start to clean, on real processes, in each of the shells."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from onhost_fakes import FakeTree, OnHost, running, sha256, until

from clusterbuild.core.result import STAGES


def test_builds_with_its_requirements(host: OnHost, tree: FakeTree) -> None:
    tree.package("liba")
    tree.package("libb", requires=["liba-1.0"])
    see = f"ls {tree.prefix}/share > file; echo $$HOME $$PATH $$LC_ALL; env | sort"
    tree.package("prog", requires=["libb-1.0"], DO_BUILD=see)
    files = []
    for attempt, name, how in (("a-1", "liba", []), ("a-2", "libb", [("direct", 0)])):
        lines = [host.require(files[i], h) for h, i in how]
        result = host.build(attempt, host.job(attempt, tree, f"test/{name}", *lines))
        assert result["OUTCOME"] == "built", (result, host.log(attempt, "depends"))
        files.append(host.directory(attempt) / "out" / f"{name}-1.0.tgz")
    lines = [host.require(files[1]), host.require(files[0], "indirect"), "VARIABLE='X=a b'"]
    result = host.build("a-3", host.job("a-3", tree, "test/prog", *lines))

    made = host.directory("a-3") / "out" / "prog-1.0.tgz"
    assert result["OUTCOME"] == "built"
    assert (result["PACKAGE"], result["SIZE"]) == (made.name, str(made.stat().st_size))
    assert result["SHA256"] == sha256(made)
    assert (result["SANDBOX"], result["SLOT"], result["EXIT"]) == ("mount", "1", "0")
    summary = host.directory("a-3") / "out" / "summary"
    assert summary.read_text() == "PKGNAME=prog-1.0\nOPSYS=Test\n\n"
    contents = subprocess.run(
        ["tar", "xzOf", str(made), "file"], capture_output=True, text=True, check=True
    ).stdout
    assert contents.split() == ["liba-1.0", "libb-1.0"]

    marks = [line.split() for line in (host.directory("a-3") / "marks").read_text().splitlines()]
    assert [(m[0], m[1]) for m in marks] == [(w, s) for s in STAGES for w in ("begin", "end")]
    for mark in marks[1::2]:
        assert mark[3] == "0" and float(mark[4]) >= 0 and float(mark[5]) >= 0
    assert host.look()["a-3"][0] == "ended"
    assert host.holders() == []
    # Nothing of it was seen outside, and nothing of our environment in it.
    assert not any(tree.prefix.glob("*"))
    log = host.log("a-3", "build")
    assert "CLUSTERBUILD" not in log and "LC_ALL=C" in log
    for attempt in ("a-1", "a-2", "a-3", "never"):
        host.run("clean", attempt)
    assert list((host.base / "jobs").iterdir()) == []


def test_a_failure_names_stage_and_line_and_still_cleans(host: OnHost, tree: FakeTree) -> None:
    tree.package("bad", DO_BUILD="echo one; echo 'x.c:3: error: no such thing'; echo two; exit 3")
    result = host.build("bad", host.job("bad", tree, "test/bad"))
    assert (result["OUTCOME"], result["STAGE"]) == ("failed", "build")
    assert result["EVIDENCE"] == "exit"
    assert "x.c:3: error: no such thing" in result["MESSAGE"]
    assert "PACKAGE" not in result
    ended = [m.split()[1] for m in host.directory("bad").joinpath("marks").open() if m[0] == "e"]
    assert ended == ["pre-clean", "depends", "checksum", "configure", "build", "clean"]
    assert not any((host.directory("bad") / "work" / "test").glob("*/work"))
    assert host.holders() == []


def test_started_twice_it_is_built_once(host: OnHost, tree: FakeTree, top: Path) -> None:
    count = host.base / "count"
    tree.package("once", DO_BUILD=f"echo x >> {count}; sleep 0.5; echo y > file")
    text = host.job("once", tree, "test/once", SLOTS="2")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: host.start("once", text), range(3)))
    assert host.result("once")["OUTCOME"] == "built"
    host.start("once", text)
    assert count.read_text() == "x\n"
    until(lambda: host.holders() == [])


def test_it_outlives_who_started_it(host: OnHost, tree: FakeTree, top: Path) -> None:
    go = host.base / "go"
    tree.package("long", DO_BUILD=f"while ! [ -e {go} ]; do sleep 0.1; done; echo y > file")
    job = top / "job"
    job.write_text(host.job("long", tree, "test/long"))
    words = " ".join(host.command("supervisor", "start", "long"))
    parent = subprocess.Popen(
        ["sh", "-c", f"{words} < {job}; echo started; sleep 60"],
        stdout=subprocess.PIPE,
        env=host.environment,
        start_new_session=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"started\n"
    os.killpg(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until(lambda: host.look()["long"][:2] == ["running", "build"])
    go.touch()
    assert host.result("long")["OUTCOME"] == "built"


def test_end_leaves_no_process(host: OnHost, tree: FakeTree) -> None:
    tree.package(
        "flee",
        DO_BUILD="(setsid sh -c 'trap \"\" TERM; sleep 7654321' &); trap '' TERM; sleep 7654321",
    )
    host.start("flee", host.job("flee", tree, "test/flee"))
    until(lambda: len(running("7654321")) >= 2)
    host.run("end", "flee")
    assert running("7654321") == []
    result = host.result("flee")
    assert (result["OUTCOME"], result["EVIDENCE"], result["STAGE"]) == ("ended", "order", "build")
    assert host.holders() == []
    host.run("end", "flee")
    assert host.result("flee") == result
    host.run("end", "never", status=66)


def test_limits(host: OnHost, tree: FakeTree) -> None:
    tree.package("slow", DO_BUILD="echo here; sleep 7654322")
    tree.package("loud", DO_BUILD="yes abcdefghijklmnopqrstuvwxyz0123456789")
    for attempt in ("stage", "whole", "loud"):
        name = "loud" if attempt == "loud" else "slow"
        limits = {
            "stage": {"STAGE_TIME_LIMIT": "1", "TIME_LIMIT": "60"},
            "whole": {"STAGE_TIME_LIMIT": "60", "TIME_LIMIT": "6"},
            "loud": {"LOG_LIMIT": "100000"},
        }[attempt]
        host.start(attempt, host.job(attempt, tree, f"test/{name}", SLOTS="3", **limits))
    found = {attempt: host.result(attempt) for attempt in ("stage", "whole", "loud")}
    said = {a: (r["OUTCOME"], r["STAGE"], r["EVIDENCE"], r["LIMIT"]) for a, r in found.items()}
    assert said == {
        "stage": ("failed", "build", "stage-time-limit", "1"),
        "whole": ("failed", "build", "time-limit", "6"),
        "loud": ("failed", "build", "log-limit", "100000"),
    }
    assert host.log("stage", "build").startswith("here\n")
    log = host.directory("loud") / "log" / "build.log"
    assert log.stat().st_size < 110000
    assert log.read_text().endswith("at the limit of 100000 bytes\n")
    assert running("7654322") == []


def test_a_killed_supervisor_is_gone_until_clean(host: OnHost, tree: FakeTree) -> None:
    tree.package("orphan", DO_BUILD="sleep 7654323")
    host.start("orphan", host.job("orphan", tree, "test/orphan"))
    until(lambda: running("7654323") != [])
    os.kill(int(host.look()["orphan"][4]), signal.SIGKILL)
    until(lambda: host.look()["orphan"][0] == "gone")
    assert host.look()["orphan"][6] == "died"
    assert host.holders() == ["orphan"]
    host.run("clean", "orphan")
    assert running("7654323") == []
    assert host.holders() == []
    assert host.look() == {}


def test_two_at_once_see_their_own_prefix(host: OnHost, tree: FakeTree) -> None:
    tree.package("liba")
    tree.package("libb")
    meet = f"touch {host.base}/here.${{PKGNAME}}; while [ $$(ls {host.base}/here.* | wc -l) != 2 ];"
    see = f"{meet} do sleep 0.1; done; ls {tree.prefix}/share > file; cat file"
    pairs = (("liba", "proga"), ("libb", "progb"))
    for name, _ in pairs:
        assert host.build(name, host.job(name, tree, f"test/{name}"))["OUTCOME"] == "built"
    for name, other in pairs:
        tree.package(other, requires=[f"{name}-1.0"], DO_BUILD=see)
        made = host.directory(name) / "out" / f"{name}-1.0.tgz"
        text = host.job(other, tree, f"test/{other}", host.require(made), SLOTS="2")
        host.start(other, text)
    slots = set()
    for name, other in pairs:
        result = host.result(other)
        assert result["OUTCOME"] == "built"
        assert host.log(other, "build").split() == [f"{name}-1.0"]
        slots.add(result["SLOT"])
    assert slots == {"1", "2"}


def test_no_more_jobs_than_slots(host: OnHost, tree: FakeTree) -> None:
    go = host.base / "go"
    tree.package("wait", DO_BUILD=f"while ! [ -e {go} ]; do sleep 0.1; done; echo y > file")
    host.start("w1", host.job("w1", tree, "test/wait"))
    host.start("w2", host.job("w2", tree, "test/wait"), status=75)
    assert not host.directory("w2").exists()
    go.touch()
    assert host.result("w1")["OUTCOME"] == "built"
    assert host.build("w2", host.job("w2", tree, "test/wait"))["OUTCOME"] == "built"


def test_watch_tells_of_changes_and_ends_with_its_input(host: OnHost, tree: FakeTree) -> None:
    go = host.base / "go"
    tree.package("seen", DO_BUILD=f"while ! [ -e {go} ]; do sleep 0.1; done; echo y > file")
    watch = host.popen("watch")
    assert watch.stdout is not None and watch.stdin is not None
    assert watch.stdout.readline() == "end\n"
    host.start("seen", host.job("seen", tree, "test/seen"))

    def told(life: str, stage: str) -> list[str]:
        assert watch.stdout is not None
        while words := watch.stdout.readline().split():
            if words[:3] == ["job", "seen", life] and stage in ("", words[3]):
                return words
        raise AssertionError("the watcher has ended")

    assert told("running", "build")[7] == "1"
    began = time.monotonic()
    go.touch()
    assert len(told("ended", "")) == 9
    assert time.monotonic() - began < 15
    host.run("clean", "seen")
    while watch.stdout.readline() != "alive\n":
        pass
    watch.stdin.close()
    assert watch.wait(10) == 0
    watch.stdout.close()


def test_the_job_file_is_never_executed(host: OnHost, tree: FakeTree) -> None:
    tree.package("strict")
    good = host.job("strict", tree, "test/strict")
    pwned = host.base / "pwned"
    for line, why in (
        (f"X=$(touch {pwned})", "NAME='value'"),
        (f"PATH='x'; touch {pwned}; y='", "NAME='value'"),
        (f"`touch {pwned}`='x'", "unknown name"),
        ("base='/x'", "unknown name"),
        ("MAKE='a'\\''b'c'", "NAME='value'"),
        ("MAKE_JOBS='-1'", "MAKE_JOBS"),
        ("MAKE_JOBS='1'\nMAKE_JOBS='2'", "stands twice"),
        ("SANDBOX='jail'", "unknown SANDBOX"),
        ("SANDBOX='chroot'", "BASE_DIR or BASE_FILE"),
        ("BASE_DIR='../x'", "BASE_DIR"),
        ("LAYER_SIZE='1k'", "LAYER_SIZE"),
        ("SANDBOX='none'\nSLOTS='2'", "one slot"),
        ("REQUIRE='direct ../x-1 0 0 .tgz'", "REQUIRE"),
        ("BUILD_USER='a b'", "BUILD_USER"),
        ("DISTDIR='/a/../b'", "DISTDIR"),
        ("MAKE='a\tb'", "control character"),
        ("PREFIX", "NAME='value'"),
    ):
        done = host.run("supervisor", "start", "strict", text=good + line + "\n", status=65)
        assert why in done.stderr, (line, done.stderr)
        assert not host.directory("strict").exists()
    host.run("supervisor", "start", "other", text=good, status=65)
    for attempt in ("../x", "", "a b", "x" * 65, "a/b", ".", "é"):
        host.run("supervisor", "start", attempt, text=good, status=64)
        host.run("clean", attempt, status=64)
    assert not pwned.exists()
    assert host.holders() == []


@pytest.mark.parametrize("value", ["it's", "''", "'", "a '\\'' b", "\\", '$(x) `y` "z"', "-n x"])
def test_any_printable_value_arrives(any_host: OnHost, tree: FakeTree, value: str) -> None:
    tree.package("value", DO_CONFIGURE="printf '%s\\n' ${ODD:Q} > ../odd")
    line = "VARIABLE='ODD={}'".format(value.replace("$", "$$").replace("'", "'\\''"))
    result = any_host.build("value", any_host.job("value", tree, "test/value", line))
    assert result["OUTCOME"] == "built"
    odd = any_host.directory("value") / "work" / "test" / "value" / "odd"
    assert odd.read_text() == value + "\n"
