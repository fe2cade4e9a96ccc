"""The scan helper with real make: on a tree made to fail in every way, and on the examples."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from clusterdep.api import scanned
from clusterdep.core.inputs import files_digest
from clusterdep.scanner import Enumeration, Problem, Scanner, ScannerError, ScanResult

EXAMPLES = Path(__file__).parents[2] / "examples/pkgsrc"

LIST = "show-subdir-var:\n\t@echo ${SUBDIR}\n"
RECORD = r"""
pbulk-index:
	@echo "PKGNAME=${PKGNAME}"
	@echo "ALL_DEPENDS= ${DEPENDS}"
	@echo "RESTRICTED=${RESTRICTED}"
	@echo "SCAN_DEPENDS=${.MAKE.MAKEFILES}"
"""

Put = Callable[[str, str], Path]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    top.mkdir()
    return top


@pytest.fixture
def put(tree: Path) -> Put:
    """Writes a file of the tree; for a package it is enough to give the Makefile's head."""

    def write(name: str, text: str) -> Path:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def package(put: Put, pkgpath: str, head: str = "", depends: str = "") -> str:
    name = f"PKGNAME?=\t{pkgpath.partition('/')[2]}-1.0\nDEPENDS=\t{depends}\n"
    put(f"{pkgpath}/Makefile", head + name + RECORD)
    return pkgpath


def script(put: Put, pkgpath: str, *commands: str) -> str:
    """A package whose pbulk-index is these commands, with the record of foo-1.0 at hand."""
    record = "PKGNAME=foo-1.0\\nALL_DEPENDS=\\n"
    lines = [command.replace("RECORD", f"printf '{record}'") for command in commands]
    put(f"{pkgpath}/Makefile", "pbulk-index:\n" + "".join(f"\t@{line}\n" for line in lines))
    return pkgpath


async def scan(
    tree: Path, pkgpaths: Iterable[str], follow: bool = False, time_limit: float = 100.0
) -> dict[str, ScanResult]:
    with Scanner(tree, jobs=2, time_limit=time_limit) as scanner:
        results = [result async for result in scanner.scan(pkgpaths, follow)]
    assert len({result.pkgpath for result in results}) == len(results)
    for result in results:
        assert bool(result.error) != bool(result.records)
        assert bool(result.error) != bool(result.inputs_digest)
        assert result.seconds >= 0
    return {result.pkgpath: result for result in results}


async def scan_one(tree: Path, pkgpath: str, time_limit: float = 100.0) -> ScanResult:
    return (await scan(tree, [pkgpath], time_limit=time_limit))[pkgpath]


# --- what there is --------------------------------------------------------------------------


async def test_a_tree_is_enumerated_in_its_own_order(tree: Path, put: Put) -> None:
    put("Makefile", "SUBDIR= b a\nSUBDIR+= b c\n" + LIST)
    put("a/Makefile", "SUBDIR= two one\n" + LIST)
    put("b/Makefile", "SUBDIR= x y x\n" + LIST)
    put("c/Makefile", "SUBDIR=\n" + LIST)
    with Scanner(tree) as scanner:
        assert await scanner.enumerate() == Enumeration(("b/x", "b/y", "a/two", "a/one"), ())


async def test_a_category_that_can_not_be_listed_is_a_problem(tree: Path, put: Put) -> None:
    put("Makefile", "SUBDIR= a gone bare wrong odd ../up\n" + LIST)
    put("a/Makefile", "SUBDIR= one\n" + LIST)
    put("bare/README", "")
    put("wrong/Makefile", ".error not today\n")
    put("odd/Makefile", "SUBDIR= fine .. a/b -x\n" + LIST)
    with Scanner(tree) as scanner:
        found = await scanner.enumerate()
    assert found.pkgpaths == ("a/one", "odd/fine")
    problems = {}
    for problem in found.problems:
        problems.setdefault(problem.where, []).append(problem.why)
    assert list(problems) == [str(tree), "gone", "bare", "wrong", "odd"]
    assert "../up" in problems[str(tree)][0]
    assert "No such file or directory" in problems["gone"][0]
    assert "don't know how to make show-subdir-var" in problems["bare"][0]
    assert "exited with status 1" in problems["wrong"][0]
    assert "not today" in problems["wrong"][0]
    assert [why.split()[2] for why in problems["odd"]] == ["..,", "a/b,", "-x,"]
    assert str(Problem("a", "b")) == "a: b"


@pytest.mark.parametrize(
    ("makefile", "why"),
    [
        (".error not today\n", "not today"),
        ("all:\n", "don't know how to make show-subdir-var"),
        ("SUBDIR=\n" + LIST, "names no category"),
    ],
)
async def test_a_top_that_can_not_be_listed_is_fatal(
    tree: Path, put: Put, makefile: str, why: str
) -> None:
    put("Makefile", makefile)
    with Scanner(tree) as scanner, pytest.raises(ScannerError, match=why) as caught:
        await scanner.enumerate()
    assert str(tree) in str(caught.value)
    assert caught.value.status == os.EX_DATAERR


def test_a_tree_that_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("missing", "file", "loop"):
        with pytest.raises(ScannerError, match=f"{tmp_path}/{name}: .") as caught:
            Scanner(tmp_path / name)
        assert caught.value.status == os.EX_NOINPUT


async def test_a_make_that_is_not_there_is_said(tree: Path, tmp_path: Path, put: Put) -> None:
    for make in ("nosuchmake", f"{tmp_path}/bmake"):
        with pytest.raises(ScannerError, match=f"{make}: there is no such program") as caught:
            Scanner(tree, make=make)
        assert caught.value.status == os.EX_UNAVAILABLE
    package(put, "a/one")
    make = tmp_path / "make"
    make.write_text("no program")
    make.chmod(0o755)
    with Scanner(tree, make=str(make)) as scanner:
        with pytest.raises(ScannerError, match="make: Exec format error") as caught:
            assert [result async for result in scanner.scan(["a/one"] * 9)]
        with pytest.raises(ScannerError, match="make: Exec format error") as caught:
            await scanner.enumerate_named(["a"])
    assert caught.value.status == os.EX_OSERR


async def test_some_of_a_tree_is_enumerated_by_names(tree: Path, put: Put) -> None:
    put("a/Makefile", "SUBDIR= one two\n" + LIST)
    with Scanner(tree) as scanner:
        found = await scanner.enumerate_named(["b/x", "a/", "a/one", "nosuch", "/etc", "a/../b"])
    assert found.pkgpaths == ("b/x", "a/one", "a/two")
    assert sorted(problem.where for problem in found.problems) == ["/etc", "a/../b", "nosuch"]


# --- what the packages say ------------------------------------------------------------------


async def test_records_are_what_make_printed(tree: Path, put: Put) -> None:
    package(put, "a/one", "RESTRICTED= it's mine\n")
    script(put, "a/two", "RECORD", "RECORD | sed s/foo/bar/")
    results = await scan(tree, ["a/one", "a/two", "a/one"])
    one, two = results["a/one"].records, results["a/two"].records
    assert one.startswith(b"PKGNAME=one-1.0\nALL_DEPENDS= \nRESTRICTED=it's mine\nSCAN_DEPENDS=")
    assert two == b"PKGNAME=foo-1.0\nALL_DEPENDS=\nPKGNAME=bar-1.0\nALL_DEPENDS=\n"


FAILURES = {
    "a/syntax": (["RECORD"], "exited with status 1", "line 1"),
    "a/middle": (["RECORD", "echo >&2 'no such Python'; exit 1"], "exited with", "no such Python"),
    "a/nul": (["RECORD; printf '\\0'"], "printed a NUL byte", ""),
    "a/silent": (["true"], "printed no record", ""),
    "a/noname": (
        ["printf 'PKGNAME=\\nALL_DEPENDS=\\n'"],
        "PKGNAME is empty",
        "record 1 (a/noname)",
    ),
    "a/cut": (["RECORD; printf X="], "cut off", ""),
    "a/elsewhere": (["RECORD; echo PKG_LOCATION=b/c"], "it was scanned in a/elsewhere", ""),
    "a/stray": (["echo make: I print this"], "no line begins with PKGNAME=", "I print this"),
    "a/killed": (["kill -KILL $$PPID"], "was killed by signal 9 (Killed)", ""),
}


async def test_every_kind_of_failure_is_recorded_with_what_make_said(tree: Path, put: Put) -> None:
    for pkgpath, (commands, _, _) in FAILURES.items():
        script(put, pkgpath, *commands)
    put("a/syntax/Makefile", '.include "nothing.mk"\n')
    put("a/notarget/Makefile", "all:\n")
    put("a/bare/DESCR", "no Makefile\n")
    put("a/file", "")
    package(put, "a/good")
    expected = {pkgpath: (why, said) for pkgpath, (_, why, said) in FAILURES.items()}
    expected["a/notarget"] = ("exited with status 2", "don't know how to make pbulk-index")
    expected["a/bare"] = ("exited with status 2", "don't know how to make pbulk-index")
    expected["a/gone"] = ("No such file or directory", "a/gone")
    expected["a/file"] = ("Not a directory", "a/file")
    results = await scan(tree, [*expected, "a/good"])
    assert not results.pop("a/good").error
    for pkgpath, (why, said) in expected.items():
        error = results[pkgpath].error
        assert why in error.splitlines()[0], pkgpath
        assert said in error, pkgpath
        assert error.startswith("make pbulk-index"), pkgpath
        assert "ALL_DEPENDS" not in error, pkgpath


async def test_what_make_only_warns_of_is_no_failure(tree: Path, put: Put) -> None:
    package(put, "a/one", "X!= exit 3\n.warning careful\n.info look\n", depends="half-1.0")
    script(put, "a/two", "RECORD", "echo >&2 noise; printf '\\351\\n' >&2")
    results = await scan(tree, ["a/one", "a/two"])
    assert b"ALL_DEPENDS= half-1.0\n" in results["a/one"].records
    assert "careful" in results["a/one"].warning
    assert results["a/two"].warning == "noise\n\\xe9"


async def test_one_bad_record_fails_them_all(tree: Path, put: Put) -> None:
    script(put, "a/one", "RECORD", "printf 'PKGNAME=\\nALL_DEPENDS=\\n'", "echo >&2 noise")
    result = await scan_one(tree, "a/one")
    assert result.error == "make pbulk-index: record 2 (a/one): PKGNAME is empty\nnoise"
    assert result.records == b""


async def test_what_make_says_is_kept_within_bounds(tree: Path, put: Put) -> None:
    script(put, "a/loud", "yes error | head -c 1000000 >&2; echo last words >&2; exit 1")
    error = (await scan_one(tree, "a/loud")).error
    assert len(error) <= scanned.LONGEST_ERROR
    assert error.count("error") > 5000
    odd = script(put, "a/odd", "printf '\\351\\n' >&2; exit 1")
    assert "\\xe9" in (await scan_one(tree, odd)).error


async def test_output_without_end_is_ended(
    tree: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanned, "MOST_OUTPUT", 100_000)
    script(put, "a/endless", "RECORD; yes")
    error = (await scan_one(tree, "a/endless")).error
    assert "it was ended because it printed more than 100000 bytes" in error


def alive(file: Path) -> bool:
    """Whether the process whose id stands in the file is there and not a zombie."""
    try:
        os.kill(int(file.read_text()), 0)
        status = Path("/proc", file.read_text().strip(), "stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False


async def there(file: Path) -> None:
    while not os.path.lexists(file):  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.01)


async def test_make_that_hangs_is_ended_with_all_its_children(tree: Path, put: Put) -> None:
    pid = tree / "pid"
    script(put, "a/hangs", f"RECORD; sleep 1000 & echo $$! >{pid}; wait")
    result = await scan_one(tree, "a/hangs", time_limit=1.5)
    assert "it was ended because it took longer than 1.5 s" in result.error
    assert not alive(pid)


async def test_what_make_leaves_running_is_ended(tree: Path, put: Put) -> None:
    pid = tree / "pid"
    script(put, "a/leaves", f"RECORD; sleep 1000 & echo $$! >{pid}")
    result = await scan_one(tree, "a/leaves")
    assert result.records == b"PKGNAME=foo-1.0\nALL_DEPENDS=\n"
    assert not alive(pid)


async def test_a_scan_that_is_given_up_leaves_nothing(tree: Path, put: Put) -> None:
    package(put, "a/one")
    script(put, "a/hangs", f"echo $$$$ >{tree}/pid.new; mv {tree}/pid.new {tree}/pid; sleep 1000")
    with Scanner(tree, jobs=2) as scanner:
        async with contextlib.aclosing(scanner.scan(["a/hangs", "a/one"])) as results:
            assert (await anext(results)).pkgpath == "a/one"
            await there(tree / "pid")
        assert not alive(tree / "pid")
        (tree / "pid").unlink()

        async def all_of_it() -> None:
            assert [result async for result in scanner.scan(["a/hangs"])]

        task = asyncio.create_task(all_of_it())
        await there(tree / "pid")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not alive(tree / "pid")


async def test_no_more_run_at_once_than_there_are_jobs(tree: Path, put: Put) -> None:
    log = tree / "log"
    pkgpaths = [
        script(put, f"a/p{n}", f"echo + >>{log}; sleep 0.05; echo - >>{log}; RECORD")
        for n in range(9)
    ]
    await scan(tree, pkgpaths)
    running = most = 0
    for line in log.read_text().split():
        running += 1 if line == "+" else -1
        most = max(most, running)
    assert (running, most) == (0, 2)


async def test_dependencies_are_followed_to_the_end(tree: Path, put: Put) -> None:
    package(put, "a/one", depends="two>=1:../../b/two two-[0-9]*:../../b/two half odd:../../b/..")
    package(put, "b/two", depends="three-[0-9]*:../../a/three gone-1:../../a/gone")
    package(put, "a/three", depends="one-[0-9]*:../../a/one")
    package(put, "a/four")
    results = await scan(tree, ["a/one"], follow=True)
    assert set(results) == {"a/one", "b/two", "a/three", "a/gone"}
    assert "No such file or directory" in results["a/gone"].error
    assert set(await scan(tree, ["a/one"])) == {"a/one"}


# --- how make is run ------------------------------------------------------------------------


async def test_nothing_of_our_environment_reaches_make(
    tree: Path, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOO", "mine")
    monkeypatch.setenv("MAKEFLAGS", "-n")
    make = tmp_path / "make"
    make.write_text("#!/bin/sh\nprintf 'PKGNAME=foo-1.0\\nALL_DEPENDS=\\n'; env\n")
    make.chmod(0o755)
    package(put, "a/one")
    with Scanner(tree, make=str(make)) as scanner:
        (result,) = [result async for result in scanner.scan(["a/one"])]
    words = dict(line.split("=", 1) for line in result.records.decode().splitlines()[2:])
    for name in ("PWD", "OLDPWD", "SHLVL", "_"):  # the shell's own
        words.pop(name, None)
    assert set(words) == {"HOME", "LC_ALL", "PATH", "PBULK_CACHE_DIRECTORY"}
    assert (words["LC_ALL"], words["PATH"]) == ("C", "/usr/bin:/bin:/usr/sbin:/sbin")
    assert not list(Path(words["HOME"]).parent.glob("*"))  # it is gone with the scan


async def test_the_option_cache_is_fresh_for_each_generation(tree: Path, put: Put) -> None:
    for name in ("a/one", "a/two"):
        script(put, name, "ls $$PBULK_CACHE_DIRECTORY; >$$PBULK_CACHE_DIRECTORY/seen; RECORD")
    with Scanner(tree, jobs=1) as scanner:
        found = [result.records async for result in scanner.scan(["a/one", "a/two"])]
    assert [b"seen" in records for records in found] == [False, True]
    assert b"seen" not in (await scan_one(tree, "a/one")).records


async def test_the_kit_s_make_and_configuration_are_used(
    tree: Path, put: Put, tmp_path: Path
) -> None:
    prefix = tmp_path / "prefix"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "etc").mkdir()
    (prefix / "etc/mk.conf").touch()
    own = prefix / "bin/bmake"
    own.write_text('#!/bin/sh\nprintf "PKGNAME=kit-1\\nALL_DEPENDS=\\nX=$MAKECONF $PATH\\n"\n')
    own.chmod(0o755)
    package(put, "a/one")
    with Scanner(tree, prefix=prefix, make="nosuchmake") as scanner:
        (result,) = [result async for result in scanner.scan(["a/one"])]
    assert result.records.decode().splitlines()[2] == (
        f"X={prefix}/etc/mk.conf {prefix}/bin:{prefix}/sbin:/usr/bin:/bin:/usr/sbin:/sbin"
    )
    own.unlink()
    with Scanner(tree, prefix=prefix, path="/nowhere:/usr/bin:/bin") as scanner:
        (result,) = [result async for result in scanner.scan(["a/one"])]
    assert result.records.startswith(b"PKGNAME=one-1.0\n")


# --- what a build reads ---------------------------------------------------------------------


@pytest.fixture
def inputs(tree: Path, put: Put) -> Callable[[], str]:
    includes = (
        '.include "../../b/two/buildlink3.mk"\n'
        '.include "../../mk/bsd.pkg.mk"\n'
        '.include "${.CURDIR}/../../b/two/../shared.mk"\n'
    )
    package(put, "a/one", includes)
    for name in ("b/two/buildlink3.mk", "b/two/Makefile", "b/shared.mk", "mk/bsd.pkg.mk"):
        put(name, "# as it was\n")
    put("a/one/patches/patch-aa", "a patch\n")
    put("a/one/DESCR", "text\n")

    def digest() -> str:
        return asyncio.run(scan_one(tree, "a/one")).inputs_digest

    return digest


@pytest.mark.parametrize(
    "name",
    ["a/one/DESCR", "a/one/distinfo", "a/one/patches/patch-aa", "a/one/patches/patch-ab",
     "a/one/files/deep/er", "a/one/work.txt", "b/two/buildlink3.mk", "b/shared.mk"],
)  # fmt: skip
def test_what_a_build_reads_changes_the_digest(
    put: Put, inputs: Callable[[], str], name: str
) -> None:
    before = inputs()
    put(name, "# changed\n")
    after = inputs()
    assert len(after) == 64
    assert after != before


@pytest.mark.parametrize(
    "name",
    ["b/two/Makefile", "mk/bsd.pkg.mk", "a/one/CVS/Entries", "a/one/files/CVS/Root",
     "a/one/.git/index", "a/one/work/x", "a/one/work.host/y", "a/one/Makefile~",
     "a/one/patches/patch-aa.orig", "a/one/Makefile.rej", "a/one/.#Makefile.1.2"],
)  # fmt: skip
def test_what_a_build_does_not_read_leaves_the_digest(
    put: Put, inputs: Callable[[], str], name: str
) -> None:
    before = inputs()
    put(name, "# changed\n")
    assert inputs() == before


def test_the_digest_is_of_contents_and_names(
    tree: Path, put: Put, inputs: Callable[[], str]
) -> None:
    before = inputs()
    os.utime(tree / "a/one/DESCR", (1, 1))
    assert inputs() == before
    (tree / "a/one/DESCR").rename(tree / "a/one/DESCR.common")
    renamed = inputs()
    assert renamed != before
    os.mkfifo(tree / "a/one/pipe")
    (tree / "a/one/link").symlink_to("nowhere")
    (tree / "a/one/directory").symlink_to(tree)
    odd = inputs()
    assert odd != renamed
    (tree / "a/one/link").unlink()
    (tree / "a/one/link").symlink_to("elsewhere")
    assert inputs() != odd


async def test_the_files_behind_the_digest_are_listed(
    tree: Path, put: Put, inputs: Callable[[], str]
) -> None:
    (tree / "a/one/link").symlink_to("nowhere")
    result = await scan_one(tree, "a/one")
    assert files_digest(result.inputs) == result.inputs_digest
    assert set(result.inputs) == {
        "a/one/DESCR", "a/one/Makefile", "a/one/link", "a/one/patches/patch-aa",
        "b/shared.mk", "b/two/buildlink3.mk",
    }  # fmt: skip
    assert result.inputs["a/one/DESCR"] == hashlib.sha256(b"text\n").hexdigest()
    assert result.inputs["a/one/link"] == "-> nowhere"


async def test_the_tree_may_be_named_by_a_link(tree: Path, put: Put, tmp_path: Path) -> None:
    package(put, "a/one", '.include "${.CURDIR}/../two/x.mk"\n')
    put("a/two/x.mk", "")
    (tmp_path / "link").symlink_to(tree)
    straight, linked = await scan_one(tree, "a/one"), await scan_one(tmp_path / "link", "a/one")
    assert straight.inputs_digest == linked.inputs_digest


# --- the example tree -----------------------------------------------------------------------


async def test_the_example_tree_is_scanned_whole() -> None:
    with Scanner(EXAMPLES) as scanner:
        found = await scanner.enumerate()
        results = [result async for result in scanner.scan(found.pkgpaths)]
    assert found.problems == ()
    assert sorted(result.pkgpath for result in results) == sorted(found.pkgpaths)
    assert [result.error for result in results if result.error] == []
    assert len({result.inputs_digest for result in results}) == len(results)


async def test_what_is_broken_in_the_example_tree_is_isolated() -> None:
    with Scanner(EXAMPLES) as scanner:
        found = await scanner.enumerate_named(["broken"])
        results = [result async for result in scanner.scan(found.pkgpaths, follow=True)]
    assert [result.pkgpath for result in results if result.error] == ["broken/scan-error"]
    assert len(results) > len(found.pkgpaths)  # what they need from elsewhere


async def test_a_copy_of_the_tree_is_seen_as_the_tree(tree: Path, put: Put) -> None:
    package(put, "cat/foo", 'RESTRICTED=\t${.CURDIR}\n.include "${.CURDIR}/../bar/other.mk"\n')
    put("cat/bar/other.mk", "A=b\n")
    with Scanner(tree, seen_as="/usr/pkgsrc") as scanner:
        [result] = [result async for result in scanner.scan(["cat/foo"])]
    assert b"RESTRICTED=/usr/pkgsrc/cat/foo\n" in result.records
    assert b"/usr/pkgsrc/cat/foo/../bar/other.mk" in result.records
    assert set(result.inputs) == {"cat/foo/Makefile", "cat/bar/other.mk"}
    assert str(tree).encode() not in result.records
