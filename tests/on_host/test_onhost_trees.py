"""Trees and distfiles on a host: whole or not at all, and gone when nobody needs them."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from onhost_fakes import FakeTree, MakeHost, OnHost

ONE, TWO, THREE = (hashlib.sha256(word).hexdigest() for word in (b"1", b"2", b"3"))


def archive(host: OnHost, top: Path, text: str = "text") -> str:
    """An archive of a small tree among the files of the host; returns its digest."""
    source = top / "source"
    (source / "devel/foo").mkdir(parents=True, exist_ok=True)
    (source / "devel/foo/Makefile").write_text(text)
    packed = top / "packed.tgz"
    subprocess.run(["tar", "czf", str(packed), "-C", str(source), "devel"], check=True)
    return host.keep(packed)


def trees(host: OnHost) -> list[str]:
    """Everything in the directory of trees."""
    return sorted(path.name for path in (host.base / "trees").iterdir())


def test_a_tree_is_unpacked_once(host: OnHost, top: Path) -> None:
    digest = archive(host, top)
    host.run("trees", "unpack", ONE, digest)
    makefile = host.base / "trees" / ONE / "devel/foo/Makefile"
    assert makefile.read_text() == "text"
    assert not (host.base / "files" / digest).exists(), "it takes room only once"
    makefile.write_text("as it was")
    host.run("trees", "unpack", ONE, digest)
    assert makefile.read_text() == "as it was"
    assert trees(host) == [ONE]


def test_what_cannot_be_unpacked_is_not_there(host: OnHost, top: Path) -> None:
    host.run("trees", "unpack", ONE, TWO, status=66)
    whole = (host.base / "files" / archive(host, top)).read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no archive", b""):
        path = top / "damaged"
        path.write_bytes(damaged)
        host.run("trees", "unpack", ONE, host.keep(path), status=74)
        assert trees(host) == []


def test_what_a_killed_one_left_is_swept(host: OnHost, top: Path) -> None:
    left = host.base / "trees/.new.4711/tree"
    left.mkdir(parents=True)
    (host.base / "trees/.old.abc").mkdir()
    host.run("trees", "unpack", ONE, archive(host, top))
    assert trees(host) == [ONE]


def test_only_trees_that_nobody_uses_are_pruned(host: OnHost, top: Path, tree: FakeTree) -> None:
    for digest in (ONE, TWO, THREE):
        host.run("trees", "unpack", digest, archive(host, top))
    job = host.directory("a")
    job.mkdir(parents=True)
    (job / "job").write_text(f"ATTEMPT='a'\nTREE='{host.base}/trees/{TWO}'\n")
    (host.base / "trees/something-else").mkdir()
    host.run("trees", "prune", ONE)
    assert trees(host) == sorted([ONE, TWO, "something-else"])
    (job / "job").unlink()
    host.run("trees", "prune", ONE, THREE)
    assert trees(host) == sorted([ONE, "something-else"])
    host.run("trees", "prune", status=0)
    assert trees(host) == ["something-else"]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("unpack",),
        ("unpack", ONE),
        ("unpack", "../../etc", ONE),
        ("unpack", ONE, "../x"),
        ("prune", "*"),
        ("remove", ONE),
    ],
)
def test_bad_calls(any_host: OnHost, words: tuple[str, ...]) -> None:
    any_host.run("trees", *words, status=64)


def test_a_job_whose_tree_is_missing_does_not_start(
    host: OnHost, top: Path, tree: FakeTree
) -> None:
    pkgpath = tree.package("foo")
    text = host.job("a", tree, pkgpath, TREE=f"{host.base}/trees/{ONE}")
    done = host.run("supervisor", "start", "a", text=text, status=66)
    assert done.stdout == f"missing {ONE}\n"
    assert not host.directory("a").exists()
    packed = top / "tree.tgz"
    subprocess.run(["tar", "czf", str(packed), "-C", str(tree.root), "test", "mk"], check=True)
    host.run("trees", "unpack", ONE, host.keep(packed))
    assert host.build("a", text)["OUTCOME"] == "built"


def test_a_job_gets_its_distfiles(host: OnHost, top: Path, tree: FakeTree) -> None:
    file = top / "foo-1.0.tar"
    file.write_text("distfile")
    digest = hashlib.sha256(b"distfile").hexdigest()
    pkgpath = tree.package("foo", DO_CHECKSUM="cd ${DISTDIR} && cat foo.tar sub/foo.tar")
    lines = (f"DISTFILE='foo.tar {digest} 8'", f"DISTFILE='sub/foo.tar {digest} 8'")
    text = host.job("a", tree, pkgpath, *lines, DISTDIR=f"{host.directory('a')}/distfiles")
    done = host.run("supervisor", "start", "a", text=text, status=66)
    assert done.stdout == f"missing {digest}\n", "it is asked for once"
    host.keep(file)
    assert host.build("a", text)["OUTCOME"] == "built", host.log("a", "checksum")
    assert "distfiledistfile" in host.log("a", "checksum")
    wrong = text.replace(f"{digest} 8'", f"{digest} 9'")
    done = host.run("supervisor", "start", "b", text=wrong.replace("'a'", "'b'"), status=66)
    assert done.stdout == f"missing {digest}\n", "what has another size is not it"


@pytest.mark.parametrize(
    "value",
    [
        f"../foo {ONE} 8",
        f"/foo {ONE} 8",
        f"sub/../../foo {ONE} 8",
        f"foo;bar {ONE} 8",
        "foo 1234 8",
        f"foo {ONE} x",
        f"foo {ONE} 8 more",
        f"foo {ONE}",
    ],
)
def test_distfiles_that_cannot_be(make_host: MakeHost, tree: FakeTree, value: str) -> None:
    host = make_host("dash")
    text = host.job("a", tree, tree.package("foo"), f"DISTFILE='{value}'")
    done = host.run("supervisor", "start", "a", text=text, status=65)
    assert "DISTFILE" in done.stderr
    assert not host.directory("a").exists()
