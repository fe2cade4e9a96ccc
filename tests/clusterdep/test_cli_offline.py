"""`match` and `resolve`, as people run them."""

from __future__ import annotations

import bz2
import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

SCAN = b"""\
PKGNAME=liba-1.0
PKG_LOCATION=devel/liba
ALL_DEPENDS=
PKG_FAIL_REASON=
PKGNAME=app-1.0
PKG_LOCATION=misc/app
ALL_DEPENDS=  liba>=1:../../devel/liba liba-[0-9]*:../../devel/liba
PKG_FAIL_REASON=
MULTI_VERSION= A=1
"""
SOLVED = SCAN + b"DEPENDS=liba-1.0\n"

TROUBLE = (
    SCAN
    + b"""\
PKGNAME=lost-1.0
PKG_LOCATION=misc/lost
ALL_DEPENDS=no>=1:../../misc/no half no>=1:../../misc/no {a:../../x/y liba>=1:../../devel/liba
PKG_FAIL_REASON="own"
PKGNAME=bad name-1.0
PKG_LOCATION=misc/bad
ALL_DEPENDS=
PKGNAME=liba-1.0
PKG_LOCATION=devel/liba-again
ALL_DEPENDS=
PKGNAME=behind-1.0
PKG_LOCATION=misc/behind
ALL_DEPENDS=lost-[0-9]*:../../misc/lost
PKG_SKIP_REASON="not here"
"""
)
TROUBLE_SOLVED = (
    SOLVED
    + b"""\
PKGNAME=lost-1.0
PKG_LOCATION=misc/lost
ALL_DEPENDS=no>=1:../../misc/no half no>=1:../../misc/no {a:../../x/y liba>=1:../../devel/liba
PKG_FAIL_REASON="own" "could not resolve dependency "no>=1"" "malformed dependency "half": it has \
no :../../category/package after the pattern" "malformed pattern "{a": a { is not closed by a }"
PKGNAME=behind-1.0
PKG_LOCATION=misc/behind
ALL_DEPENDS=lost-[0-9]*:../../misc/lost
PKG_SKIP_REASON="not here"
DEPENDS=lost-1.0
"""
)
SAID = """\
clusterdep: SCAN: record 4 (misc/bad): PKGNAME bad name-1.0 has something else in it than \
printable ASCII, or a /
clusterdep: lost-1.0 (misc/lost): no package matches no>=1
clusterdep: lost-1.0 (misc/lost): malformed dependency half: it has no :../../category/package \
after the pattern
clusterdep: lost-1.0 (misc/lost): malformed pattern {a: a { is not closed by a }
clusterdep: liba-1.0 (devel/liba-again): left out, because a record of devel/liba before it has \
that name
"""


def clusterdep(*words: str, given: bytes = b"") -> tuple[int, bytes, str]:
    """(exit code, standard output, standard error)"""
    done = subprocess.run(
        [sys.executable, "-m", "clusterdep", *words], input=given, capture_output=True, check=False
    )
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.fixture
def scan(tmp_path: Path) -> Callable[[bytes], str]:
    def write(content: bytes) -> str:
        path = tmp_path / "scan"
        path.write_bytes(content)
        return str(path)

    return write


# --- resolve --------------------------------------------------------------------------------


def zstd(text: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(text)


def frames(text: bytes) -> bytes:
    return zstd(text[:100]) + zstd(text[100:])


def members(text: bytes) -> bytes:
    return gzip.compress(text[:100]) + gzip.compress(text[100:])


@pytest.mark.parametrize("pack", [bytes, zstd, frames, gzip.compress, members, bz2.compress])
def test_a_scan_is_read_however_it_is_packed(
    pack: Callable[[bytes], bytes], scan: Callable[[bytes], str]
) -> None:
    assert clusterdep("resolve", "--pscan", scan(pack(SCAN))) == (0, SOLVED, "")
    assert clusterdep("resolve", "--pscan", "-", given=pack(SCAN)) == (0, SOLVED, "")


def test_what_is_wrong_with_one_record_is_said_and_the_rest_resolved(
    scan: Callable[[bytes], str],
) -> None:
    path = scan(TROUBLE)
    code, out, said = clusterdep("resolve", "--summary", "--pscan", path)
    assert code == 0
    assert out == TROUBLE_SOLVED
    *lines, counts = said.replace(path, "SCAN").splitlines(keepends=True)
    assert "".join(lines) == SAID
    assert counts == "clusterdep: 4 packages: 2 buildable, 1 skipped, 1 prefailed\n"


def test_what_is_resolved_already_stays_as_it_is(scan: Callable[[bytes], str]) -> None:
    again = SOLVED.replace(b"DEPENDS=liba-1.0", b"DEPENDS=other-2.0  liba-1.0")
    assert clusterdep("resolve", "--pscan", scan(again)) == (0, again, "")
    code, out, _ = clusterdep("resolve", "--summary", "--pscan", scan(TROUBLE_SOLVED))
    assert (code, out) == (0, TROUBLE_SOLVED)


def test_the_output_file_is_there_whole_or_not_at_all(
    scan: Callable[[bytes], str], tmp_path: Path
) -> None:
    target = tmp_path / "out"
    words = ("resolve", "-o", str(target), "--pscan")
    assert clusterdep(*words, str(tmp_path / "missing"))[0] == os.EX_NOINPUT
    assert not target.exists()
    assert clusterdep(*words, scan(SCAN)) == (0, b"", "")
    assert target.read_bytes() == SOLVED
    target.chmod(0o640)
    assert clusterdep(*words, scan(zstd(SCAN)[:-1]))[0] == os.EX_DATAERR
    assert target.read_bytes() == SOLVED
    link = tmp_path / "link"
    link.symlink_to(target)
    assert clusterdep("resolve", "-o", str(link), "--pscan", scan(SCAN * 2))[0] == 0
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out", "scan"]


def test_output_that_can_not_be_written_is_said(scan: Callable[[bytes], str]) -> None:
    path = scan(SCAN)
    code, _, said = clusterdep("resolve", "-o", "/nonexistent/out", "--pscan", path)
    assert code == os.EX_CANTCREAT
    assert said == "clusterdep: /nonexistent/out: No such file or directory\n"
    assert clusterdep("resolve", "-o", "/dev/null", "--pscan", path) == (0, b"", "")
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (zstd(SCAN)[:-5], "compressed, but damaged or cut off"),
        (frames(SCAN)[:-5], "compressed, but damaged or cut off"),
        (zstd(SCAN)[:20] + b"????" + zstd(SCAN)[24:], "compressed, but damaged or cut off"),
        (gzip.compress(SCAN)[:-5], "compressed, but damaged or cut off"),
        (gzip.compress(SCAN)[:30] + b"????" + gzip.compress(SCAN)[34:], "damaged or cut off"),
        (bz2.compress(SCAN)[:-5], "compressed, but damaged or cut off"),
        (bz2.compress(SCAN)[:30] + b"????" + bz2.compress(SCAN)[34:], "damaged or cut off"),
        (b"", "there is no record in it to resolve"),
        (b"ELF\n", "no line begins with PKGNAME="),
        (b"PKGNAME=a-1\n", "there is no record in it to resolve"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_no_scan_is_refused(
    content: bytes, why: str, scan: Callable[[bytes], str]
) -> None:
    path = scan(content)
    code, out, said = clusterdep("resolve", "--pscan", path)
    assert (code, out) == (os.EX_DATAERR, b"")
    assert why in said
    assert all(line.startswith(f"clusterdep: {path}: ") for line in said.splitlines())


def test_a_file_that_can_not_be_opened_is_named(tmp_path: Path) -> None:
    for path, why in [
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ]:
        code, out, said = clusterdep("resolve", "--pscan", str(path))
        assert (code, out, said) == (os.EX_NOINPUT, b"", f"clusterdep: {path}: {why}\n")


def test_a_pipe_is_read_as_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["sh", "-c", 'cat >"$0"', str(pipe)], stdin=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        writer.stdin.write(SCAN)
        writer.stdin.close()
        assert clusterdep("resolve", "--pscan", str(pipe)) == (0, SOLVED, "")


def test_a_reader_that_goes_away_is_no_error(scan: Callable[[bytes], str]) -> None:
    path = scan(b"".join(SCAN.replace(b"-1.0", b"-1.%d" % n) for n in range(3000)))
    command = f"'{sys.executable}' -m clusterdep resolve --pscan '{path}' | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"PKGNAME=liba-1.0\n", b"")


# --- match ----------------------------------------------------------------------------------


def test_match_prints_the_names_that_match() -> None:
    names = ["foo-1.0", "foo-2.0", "bar-1.5", "foo-1.0nb1"]
    assert clusterdep("match", "{foo,bar}<2", *names) == (
        0,
        b"foo-1.0\nbar-1.5\nfoo-1.0nb1\n",
        "",
    )
    assert clusterdep("match", "baz>=1", *names) == (1, b"", "")


def test_match_refuses_a_malformed_pattern() -> None:
    said = "clusterdep: pattern {foo: a { is not closed by a }\n"
    assert clusterdep("match", "{foo", "foo-1.0") == (os.EX_DATAERR, b"", said)


def test_match_wants_names_or_lines() -> None:
    assert clusterdep("match", "foo")[0] == os.EX_USAGE
    assert clusterdep("match", "-", "foo-1.0")[0] == os.EX_USAGE


def test_match_answers_every_line() -> None:
    lines = b"foo>=1\tfoo-1.0\nfoo>=1\tfoo-0.9\nb\xe9*\tb\xe9t-1\n"
    assert clusterdep("match", "-", given=lines) == (0, b"1\n0\n1\n", "")
    assert clusterdep("match", "-") == (0, b"", "")
    code, out, said = clusterdep("match", "-", given=b"{a\ta-1\nfoo\na>0\ta-1\n")
    assert (code, out) == (os.EX_DATAERR, b"0\n0\n1\n")
    assert said == (
        "clusterdep: line 1: pattern {a: a { is not closed by a }\n"
        "clusterdep: line 2: there is no tab between a pattern and a name\n"
    )
