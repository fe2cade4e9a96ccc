"""What roots are made of: unpacked once, whole or not at all, and gone when nobody needs it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from onhost_fakes import FakeTree, OnHost
from small_system import small_system

ONE, TWO = "1" * 64, "2" * 64


def packed(host: OnHost, top: Path, flag: str = "z", where: str = ".") -> str:
    """An archive of a few files among the files of the host; returns its digest."""
    source = top / "source"
    for directory in ("etc", "usr/src/dev", "dev", "a b", "locked"):
        (source / directory).mkdir(parents=True, exist_ok=True)
    for name in ("etc/passwd", "usr/src/dev/null.c", "dev/null", "a b/c d", ".hidden"):
        (source / name).write_text(name)
    (source / "usr/su").write_text("su")
    (source / "usr/su").chmod(0o4755)
    archive = top / f"base{flag}.tar"
    names = [where] if where == "." else sorted(path.name for path in source.iterdir())
    subprocess.run(["tar", f"c{flag}f", str(archive), "-C", str(source), *names], check=True)
    return host.keep(archive)


def roots(host: OnHost) -> list[str]:
    return sorted(path.name for path in (host.base / "roots").iterdir())


@pytest.mark.parametrize("flag", ["", "z", "J"])
@pytest.mark.parametrize("where", [".", "names"])
def test_a_root_is_unpacked_once(any_host: OnHost, top: Path, flag: str, where: str) -> None:
    digest = packed(any_host, top, flag, where)
    any_host.run("roots", "unpack", digest)
    root = any_host.base / "roots" / digest
    assert (root / "a b/c d").read_text() == "a b/c d"
    assert (root / "usr/src/dev/null.c").exists() and (root / ".hidden").exists()
    assert not (root / "dev").exists(), "every job has devices of its own"
    assert stat.S_IMODE((root / "usr/su").stat().st_mode) == 0o4755
    assert not (any_host.base / "files" / digest).exists(), "it takes room only once"
    (root / "etc/passwd").write_text("as it was")
    any_host.run("roots", "unpack", digest)
    assert (root / "etc/passwd").read_text() == "as it was"
    assert roots(any_host) == [digest]


def test_in_every_shell(host: OnHost, top: Path) -> None:
    digest = packed(host, top)
    host.run("roots", "unpack", digest)
    assert (host.base / "roots" / digest / "a b/c d").exists()
    host.run("roots", "prune", ONE)
    assert roots(host) == []


def test_what_cannot_be_unpacked_is_not_there(any_host: OnHost, top: Path) -> None:
    any_host.run("roots", "unpack", TWO, status=66)
    whole = (any_host.base / "files" / packed(any_host, top)).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no archive", b""):
        path = top / "damaged"
        path.write_bytes(damaged)
        any_host.run("roots", "unpack", any_host.keep(path), status=74)
        assert roots(any_host) == []


def test_only_roots_that_nobody_uses_are_pruned(any_host: OnHost, top: Path) -> None:
    digest = packed(any_host, top)
    any_host.run("roots", "unpack", digest)
    left = any_host.base / "roots/.new.4711/root/locked"
    left.mkdir(parents=True)
    left.chmod(0)
    job = any_host.directory("a")
    job.mkdir(parents=True)
    (job / "job").write_text(f"ATTEMPT='a'\nBASE_FILE='{digest}'\n")
    any_host.run("roots", "prune", ONE)
    assert roots(any_host) == [digest]
    (job / "job").unlink()
    (any_host.base / "roots" / digest / "locked").chmod(0)
    any_host.run("roots", "prune", ONE)
    assert roots(any_host) == []


@pytest.mark.parametrize(
    "words", [(), ("unpack",), ("unpack", "../../etc"), ("prune", "*"), ("remove", ONE)]
)
def test_bad_calls(any_host: OnHost, words: tuple[str, ...]) -> None:
    any_host.run("roots", *words, status=64)


def test_a_job_in_an_unpacked_root(any_host: OnHost, tree: FakeTree, top: Path) -> None:
    small_system(top / "system")
    (top / "system/etc/made-of").write_text("an archive\n")
    archive = top / "base.tgz"
    subprocess.run(["tar", "czf", str(archive), "-C", str(top / "system"), "."], check=True)
    digest = any_host.keep(archive)
    tree.package("liba", DO_BUILD="cat /etc/made-of > file && rm /etc/made-of && cat file")
    path = f"{tree.prefix}/bin:{tree.prefix}/sbin:/usr/bin:/bin"
    more = {"SANDBOX": "chroot", "BASE_FILE": digest, "SEARCH_PATH": path}
    any_host.run("roots", "unpack", digest)
    for attempt in ("a", "b"):
        text = any_host.job(attempt, tree, "test/liba", **more)
        assert any_host.build(attempt, text)["OUTCOME"] == "built", any_host.log(attempt, "sandbox")
        assert any_host.log(attempt, "build") == "an archive\n"
    assert (any_host.base / "roots" / digest / "etc/made-of").exists()
    owner = (any_host.base / "roots" / digest / "etc").stat().st_uid
    assert owner == os.geteuid()
