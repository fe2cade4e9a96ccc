"""Scans on a host, in each of the shells: what make says, limits, lists, and what may go wrong."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from onhost_fakes import FakeTree, MakeHost, OnHost, executable, running, until

#: A long time, another in each process that runs tests at once.
LONG = f"{os.getpid()}0000"

ECHO = ".PHONY: pbulk-index\npbulk-index:\n\t@{}\n"


def makefile(tree: FakeTree, pkgpath: str, text: str) -> str:
    directory = tree.root / pkgpath
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "Makefile").write_text(text)
    return pkgpath


def prints(tree: FakeTree, pkgpath: str, command: str) -> str:
    return makefile(tree, pkgpath, ECHO.format(command))


def scan(host: OnHost, tree: FakeTree, *pkgpaths: str, attempt: str = "s", **values: str) -> str:
    """The text of a job file that scans these."""
    fields = {"KIND": "scan", "CACHE": "g1", "SCAN_TIME_LIMIT": "20", "OUTPUT_LIMIT": "1000"}
    lines = [f"SCAN='{pkgpath}'" for pkgpath in pkgpaths]
    text = host.job(attempt, tree, "x/y", *lines, **(fields | values))
    return "".join(f"{line}\n" for line in text.splitlines() if not line.startswith("PKG"))


def told(host: OnHost, attempt: str = "s", after: int = 0, most: int = 100000) -> dict[str, tuple]:
    """What `scanned` prints: of each path status, limit, and both outputs."""
    said = host.run("scanned", attempt, str(after), str(most)).stdout
    head, _, rest = said.partition("\nend\n")
    found = {}
    for line in head.splitlines()[1:]:
        word, _, path, status, _, _, limit, out, err = line.split()
        assert word == "scan"
        found[path] = (int(status), limit, rest[: int(out)], rest[int(out) : int(out) + int(err)])
        rest = rest[int(out) + int(err) :]
    assert not rest
    return found


def make_in(directory: Path) -> int:
    """The make that runs in a directory."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"bmake") and (process / "cwd").readlink() == directory:
                return int(process.name)
    raise AssertionError(f"there is no make in {directory}")


def test_what_make_says_and_how_it_ends(host: OnHost, tree: FakeTree) -> None:
    prints(tree, "a/good", "echo PKGNAME=good-1; echo careful >&2")
    prints(tree, "a/bad", "echo half; exit 3")
    result = host.build("s", scan(host, tree, "a/good", "a/absent", "a/bad"))
    assert result["OUTCOME"] == "scanned"
    found = told(host)
    assert list(found) == ["a/good", "a/absent", "a/bad"]
    assert found["a/good"] == (0, "-", "PKGNAME=good-1\n", "careful\n")
    status, _, out, err = found["a/absent"]
    assert (status, out) == (1, "")
    assert "cannot enter" in err
    assert found["a/bad"][:2] == (1, "-")
    assert found["a/bad"][2].startswith("half\n")
    assert host.holders() == []


def test_results_are_told_in_pieces_and_while_it_runs(host: OnHost, tree: FakeTree) -> None:
    for name in "ab":
        prints(tree, f"x/{name}", f"echo {name * 50}")
    prints(tree, "x/slow", f"while [ ! -e {tree.root}/go ]; do sleep 0.1; done; echo went")
    host.start("s", scan(host, tree, "x/a", "x/b", "x/slow"))
    until(lambda: len(told(host)) == 2)
    assert list(told(host, most=60)) == ["x/a"]
    assert list(told(host, most=0)) == ["x/a"]
    assert list(told(host, after=1, most=60)) == ["x/b"]
    assert told(host, after=2) == {}
    (tree.root / "go").touch()
    assert host.result("s")["OUTCOME"] == "scanned"
    assert told(host, after=2) == {"x/slow": (0, "-", "went\n", "")}


def test_one_that_hangs_is_ended_and_the_others_go_on(host: OnHost, tree: FakeTree) -> None:
    prints(tree, "x/hangs", f"echo begun; sleep {LONG}1 & sleep {LONG}2")
    prints(tree, "x/next", "echo next")
    host.start("s", scan(host, tree, "x/hangs", "x/next", SCAN_TIME_LIMIT="2"))
    result = host.result("s")
    # A job does not take longer than one of its pkgpaths may: the rest is for another job.
    assert result["OUTCOME"] == "scanned"
    found = told(host)
    assert list(found) == ["x/hangs"]
    status, limit, out, _ = found["x/hangs"]
    assert (status > 0, limit, out) == (True, "time", "begun\n")
    assert not running(f"{LONG}1") and not running(f"{LONG}2")


def test_one_that_prints_for_ever(host: OnHost, tree: FakeTree) -> None:
    prints(tree, "x/chatty", "while :; do echo yes; done")
    prints(tree, "x/next", "echo next")
    assert host.build("s", scan(host, tree, "x/chatty", "x/next"))["OUTCOME"] == "scanned"
    found = told(host)
    assert 1000 < len(found["x/chatty"][2]) <= 1024
    assert found["x/chatty"][0] > 0
    assert found["x/next"] == (0, "-", "next\n", "")


def test_make_does_not_hold_without_end_what_it_reads(any_host: OnHost, tree: FakeTree) -> None:
    makefile(tree, "x/eats", "A!=\twhile :; do echo 01234567890123456789; done\npbulk-index:\n")
    executable(any_host.scripts / "scans", (any_host.scripts / "scans").read_text().replace(
        "MEMORY_LIMIT=1048576", "MEMORY_LIMIT=65536"))  # fmt: skip
    prints(tree, "x/next", "echo next")
    assert any_host.build("s", scan(any_host, tree, "x/eats", "x/next"))["OUTCOME"] == "scanned"
    assert told(any_host)["x/eats"][0] > 0
    assert told(any_host)["x/next"] == (0, "-", "next\n", "")


def test_what_is_left_of_one_is_ended_before_the_next(host: OnHost, tree: FakeTree) -> None:
    prints(tree, "x/leaves", f"sleep {LONG}3 & echo left")
    prints(tree, "x/next", f"sleep 0.3; ps -A -o args= | grep -c '[s]leep {LONG}3'; :")
    host.build("s", scan(host, tree, "x/leaves", "x/next"))
    assert told(host)["x/next"][2] == "0\n"


def test_the_environment_is_clean_and_the_prefix_too(host: OnHost, tree: FakeTree) -> None:
    prints(
        tree,
        "x/env",
        f"env | sed 's/=.*//'; touch $$PBULK_CACHE_DIRECTORY/it; ls {tree.prefix}",
    )
    prints(tree, "x/cache", "ls $$PBULK_CACHE_DIRECTORY $$HOME")
    host.build("s", scan(host, tree, "x/env", "x/cache"))
    names = set(told(host)["x/env"][2].split())
    own = {"HOME", "LC_ALL", "PATH", "PBULK_CACHE_DIRECTORY", "sbin"}
    assert own <= names
    assert not {"CLUSTERBUILD_SH", "CLUSTERBUILD_PATH", "SCAN_NOW", "USER"} & names
    assert "it" in told(host)["x/cache"][2].split()


def test_an_option_cache_lasts_as_long_as_its_generation(host: OnHost, tree: FakeTree) -> None:
    prints(tree, "x/a", "ls $$PBULK_CACHE_DIRECTORY; touch $$PBULK_CACHE_DIRECTORY/known")
    for attempt, cache, known in (("s1", "g1", ""), ("s2", "g1", "known\n"), ("s3", "g2", "")):
        host.build(attempt, scan(host, tree, "x/a", attempt=attempt, CACHE=cache))
        assert told(host, attempt)["x/a"][2] == known
        host.run("clean", attempt)
    assert [path.name for path in (host.base / "caches").iterdir()] == ["g2.1"]


def test_the_lists_of_a_tree(host: OnHost, tree: FakeTree) -> None:
    lists = "show-subdir-var:\n\t@echo '{}'\n"
    makefile(tree, ".", lists.format("devel ../evil -x broken games"))
    makefile(tree, "devel", lists.format("foo bar"))
    makefile(tree, "broken", ".error away\n")
    makefile(tree, "games", lists.format("chess"))
    assert host.build("s", scan(host, tree, ENUMERATE="yes"))["OUTCOME"] == "scanned"
    found = told(host)
    assert list(found) == [".", "devel", "broken", "games"]
    assert found["devel"][:3] == (0, "-", "foo bar\n")
    assert found["broken"][0] > 0


def test_a_category_that_the_top_does_not_name(host: OnHost, tree: FakeTree) -> None:
    lists = "show-subdir-var:\n\t@echo '{}'\n"
    makefile(tree, ".", lists.format("devel"))
    makefile(tree, "devel", lists.format("foo"))
    makefile(tree, "own", lists.format("bar"))
    more = ("CATEGORY='own'", "CATEGORY='devel'")
    text = scan(host, tree, ENUMERATE="yes") + "\n".join(more) + "\n"
    assert host.build("s", text)["OUTCOME"] == "scanned"
    assert list(told(host)) == [".", "devel", "own"]


def test_it_is_ended_on_demand_and_keeps_what_it_has(host: OnHost, tree: FakeTree) -> None:
    prints(tree, "x/a", "echo a")
    prints(tree, "x/hangs", f"sleep {LONG}4")
    host.start("s", scan(host, tree, "x/a", "x/hangs"))
    until(lambda: len(told(host)) == 1)
    assert host.look()["s"][:2] == ["running", "scan"]
    host.run("end", "s")
    result = host.result("s")
    assert (result["OUTCOME"], result["EVIDENCE"]) == ("ended", "order")
    assert list(told(host)) == ["x/a"]
    assert not running(f"{LONG}4")


def test_make_killed_from_outside_is_not_the_pkgpaths_fault(host: OnHost, tree: FakeTree) -> None:
    prints(tree, "x/a", "echo a")
    prints(tree, "x/killed", f"sleep {LONG}5")
    prints(tree, "x/next", "echo next")
    host.start("s", scan(host, tree, "x/a", "x/killed", "x/next"))
    until(lambda: bool(running(f"{LONG}5")))
    os.kill(make_in(tree.root / "x/killed"), 9)
    result = host.result("s")
    assert (result["OUTCOME"], result["SIGNAL"]) == ("ended", "9")
    assert list(told(host)) == ["x/a"]


def test_a_host_without_make(any_host: OnHost, tree: FakeTree) -> None:
    result = any_host.build("s", scan(any_host, tree, "x/a", MAKE="nosuchmake"))
    assert (result["OUTCOME"], result["EVIDENCE"], result["TOOL"]) == (
        "unable", "tool", "nosuchmake",
    )  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        {"KIND": "nap"},
        {"CACHE": "../x"},
        {"SCAN_TIME_LIMIT": "0"},
        {"OUTPUT_LIMIT": "x"},
        {"ENUMERATE": "yes"},
        {"ENUMERATE": "no"},
    ],
    ids=str,
)
def test_what_is_refused(any_host: OnHost, tree: FakeTree, values: dict[str, str]) -> None:
    any_host.start("s", scan(any_host, tree, "x/a", **values), status=65)


def test_a_pkgpath_that_leads_elsewhere_is_refused(any_host: OnHost, tree: FakeTree) -> None:
    for pkgpath in ("x", "../x", "x/../y", "/x/y", "x/-y"):
        any_host.start("s", scan(any_host, tree, pkgpath), status=65)
    any_host.start("s", scan(any_host, tree), status=65)


def test_without_a_sandbox(make_host: MakeHost, tree: FakeTree) -> None:
    prints(tree, "x/a", "echo a; touch $$PBULK_CACHE_DIRECTORY/it")
    host = make_host("dash")
    host.build("s", scan(host, tree, "x/a", SANDBOX="none"))
    assert told(host)["x/a"] == (0, "-", "a\n", "")
    assert (host.base / "caches/g1/it").exists()
