"""Snapshots: what is in them, that they do not change, and who may remove them."""

from __future__ import annotations

import os
import shutil
import tarfile
import time
from pathlib import Path

import pytest

from clusterbuild import snapshots as module
from clusterbuild.snapshots import KEPT_SECONDS, Snapshot, Snapshots
from clusterbuild.trees import Trees
from clusterdep.api.errors import Fault

#: Names that have to survive lists and archives.
ODD = "odd name\n\t\\ \x85\u2028 \udcff ä"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "pkgsrc"
    for name, text in {
        "Makefile": "SUBDIR+= devel\n",
        "devel/foo/Makefile": "DISTNAME= foo-1.0\n",
        "devel/foo/distinfo": "",
        "devel/foo/files/run.sh": "#!/bin/sh\n",
        "devel/foo/files/work/kept": "not a work directory",
        f"devel/foo/patches/{ODD}": "a name",
        "mk/work.mk": "",
        "devel/empty/PLIST": "",
        ".git/HEAD": "ref",
        "devel/CVS/Root": "cvs",
        "distfiles/foo-1.0.tar.gz": "data",
        "packages/All/foo-1.0.tgz": "data",
        "devel/foo/work/.extract_done": "",
        "devel/foo/work.host/foo.o": "",
    }.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tree / "devel/foo/files/run.sh").chmod(0o755)
    (tree / "devel/bar").symlink_to("foo")
    (tree / "devel/empty/directory").mkdir()
    os.mkfifo(tree / "devel/pipe")
    age(tree)
    return tree


def age(tree: Path) -> None:
    """Makes all files look as if they had not changed for long."""
    for path in tree.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1_600_000_000, 1_600_000_000))


@pytest.fixture
def kept(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "state/trees")


def content(root: Path) -> dict[str, str]:
    """Everything below a directory: what it is, and what is in it."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = "directory"
        else:
            found[name] = f"{path.stat().st_mode & 0o111 != 0} {path.read_text()}"
    return found


EXPECTED = {
    "Makefile": "False SUBDIR+= devel\n",
    "devel": "directory",
    "devel/bar": "-> foo",
    "devel/empty": "directory",
    "devel/empty/PLIST": "False ",
    "devel/empty/directory": "directory",
    "devel/foo": "directory",
    "devel/foo/Makefile": "False DISTNAME= foo-1.0\n",
    "devel/foo/distinfo": "False ",
    "devel/foo/files": "directory",
    "devel/foo/files/run.sh": "True #!/bin/sh\n",
    "devel/foo/files/work": "directory",
    "devel/foo/files/work/kept": "False not a work directory",
    "devel/foo/patches": "directory",
    f"devel/foo/patches/{ODD}": "False a name",
    "mk": "directory",
    "mk/work.mk": "False ",
}


def test_it_holds_what_a_tree_is_made_of(tree: Path, kept: Snapshots) -> None:
    snapshot = kept.take(tree)
    assert snapshot.path == kept.path_of(snapshot.digest)
    assert content(snapshot.path) == EXPECTED
    assert (snapshot.path / "Makefile").stat().st_mtime == 1_600_000_000


def test_the_same_content_is_the_same_snapshot(tree: Path, kept: Snapshots, tmp_path: Path) -> None:
    first = kept.take(tree)
    made = first.path.stat().st_ino
    (tree / "Makefile").touch()
    shutil.rmtree(tree / "devel/foo/work")
    (tree / "distfiles/more").write_text("")
    assert kept.take(tree) == first
    assert first.path.stat().st_ino == made, "nothing was copied"
    copy = tmp_path / "copy"
    shutil.copytree(first.path, copy, symlinks=True)
    assert kept.take(copy) == first
    assert Snapshots(tmp_path / "other").take(tree).digest == first.digest


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "devel/foo/Makefile").write_text("DISTNAME= foo-1.1\n"),
        lambda tree: (tree / "devel/foo/Makefile").chmod(0o755),
        lambda tree: (tree / "devel/foo/new").write_text(""),
        lambda tree: (tree / "devel/foo/distinfo").unlink(),
        lambda tree: (tree / "devel/foo").rename(tree / "devel/baz"),
        lambda tree: (tree / "devel/empty/directory").rmdir(),
        lambda tree: ((tree / "devel/bar").unlink(), (tree / "devel/bar").symlink_to("baz")),
    ],
)
def test_any_change_is_another(tree: Path, kept: Snapshots, change) -> None:  # type: ignore[no-untyped-def]
    first = kept.take(tree)
    change(tree)
    second = kept.take(tree)
    assert second.digest != first.digest
    assert content(first.path) == EXPECTED
    assert content(second.path) != EXPECTED


def test_a_change_that_keeps_size_and_time_is_seen(tree: Path, kept: Snapshots) -> None:
    makefile = tree / "devel/foo/Makefile"
    first = kept.take(tree)
    makefile.write_text("DISTNAME= foo-9.9\n")
    age(tree)
    assert kept.take(tree).digest != first.digest


def test_what_is_written_in_place_does_not_reach_a_snapshot(tree: Path, kept: Snapshots) -> None:
    first = kept.take(tree)
    with (tree / "mk/work.mk").open("a") as file:
        file.write("more")
    second = kept.take(tree)
    assert content(first.path) == EXPECTED
    shared = (first.path / "Makefile").stat().st_ino
    assert shared == (second.path / "Makefile").stat().st_ino, "what is the same is shared"
    assert shared != (tree / "Makefile").stat().st_ino, "but not with the tree"


def test_trees_laid_over_each_other(tree: Path, kept: Snapshots, tmp_path: Path) -> None:
    wip = tmp_path / "wip"
    (wip / "baz").mkdir(parents=True)
    (wip / "baz/Makefile").write_text("DISTNAME= baz-1\n")
    (tree / "wip").symlink_to(wip)
    (tree / "inner").symlink_to("devel/foo")
    snapshot = kept.take(tree)
    assert (snapshot.path / "wip/baz/Makefile").read_text() == "DISTNAME= baz-1\n"
    assert not (snapshot.path / "wip").is_symlink()
    assert (snapshot.path / "inner").readlink() == Path("devel/foo")


def test_a_state_directory_in_the_tree_is_left_out(tree: Path) -> None:
    kept = Snapshots(tree / "var/trees")
    first = kept.take(tree)
    assert "var" not in content(first.path)
    assert kept.take(tree) == first


def test_a_tree_that_changes_while_it_is_copied(
    tree: Path, kept: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = module._copy
    changes = iter(["DISTNAME= foo-1.1\n", "DISTNAME= foo-1.2\n"])

    def moving(source: Path, target: Path, kind: str, expected: str) -> None:
        copied(source, target, kind, expected)
        if source.name == "distinfo" and (text := next(changes, "")):
            (tree / "devel/foo/Makefile").write_text(text)

    monkeypatch.setattr(module, "_copy", moving)
    snapshot = kept.take(tree)
    assert (snapshot.path / "devel/foo/Makefile").read_text() == "DISTNAME= foo-1.2\n"
    assert [p.name for p in kept.path_of("").glob(".new*")] == []


def test_a_tree_that_does_not_stop_changing(
    tree: Path, kept: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = module._copy
    count = iter(range(10**6))

    def moving(source: Path, target: Path, kind: str, expected: str) -> None:
        (tree / "mk/work.mk").write_text(f"{next(count)}")
        copied(source, target, kind, expected)

    monkeypatch.setattr(module, "_copy", moving)
    with pytest.raises(Fault, match="do not stop changing"):
        kept.take(tree)
    assert [path.name for path in kept.path_of("").iterdir() if path.is_dir()] == []


def test_what_a_killed_one_left_is_removed(tree: Path, kept: Snapshots) -> None:
    root = kept.path_of("")
    (root / ".new.abc/half").mkdir(parents=True)
    (root / ".new.abc.tgz").write_text("half")
    kept.take(tree)
    assert [path.name for path in root.glob(".new*")] == []


def test_a_tree_that_cannot_be_read(kept: Snapshots, tmp_path: Path) -> None:
    with pytest.raises(Fault, match="nowhere"):
        kept.take(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(Fault, match="file"):
        kept.take(tmp_path / "file")


def test_an_archive_holds_the_same(tree: Path, kept: Snapshots, tmp_path: Path) -> None:
    snapshot = kept.take(tree)
    archive = kept.archive(snapshot.digest)
    with tarfile.open(archive) as tar:
        assert {(member.uid, member.gid, member.uname) for member in tar} == {(0, 0, "")}
        tar.extractall(tmp_path / "unpacked", filter="fully_trusted")
    assert content(tmp_path / "unpacked") == EXPECTED
    written = archive.stat().st_mtime_ns
    assert kept.archive(snapshot.digest).stat().st_mtime_ns == written, "it is made once"


def test_pins(tree: Path, kept: Snapshots, tmp_path: Path) -> None:
    assert kept.pinned("p", tree) is None
    first = kept.take(tree)
    kept.pin("p", tree, first)
    assert kept.pinned("p", tree) == first
    assert kept.pinned("q", tree) is None
    assert kept.pinned("p", tmp_path) is None, "the profile has got another tree"
    assert kept.wanted() == {first.digest}
    (tree / "mk/work.mk").write_text("2")
    second = kept.take(tree)
    assert kept.pinned("p", tree) == first
    kept.pin("p", tree, second)
    assert kept.wanted() == {second.digest}
    (kept.path_of("pins") / "p").write_text("torn {")
    assert kept.pinned("p", tree) is None


def take_many(tree: Path, kept: Snapshots, count: int) -> list[Snapshot]:
    taken = []
    for number in range(count):
        (tree / "mk/work.mk").write_text(str(number))
        taken.append(kept.take(tree))
        kept.archive(taken[-1].digest)
    return taken


def test_only_what_nobody_uses_is_pruned(tree: Path, kept: Snapshots) -> None:
    old, built_from, pinned = take_many(tree, kept, 3)
    kept.pin("p", tree, pinned)
    job = kept.path_of("").parent / "hosts/localhost/jobs/a/job"
    job.parent.mkdir(parents=True)
    job.write_text(f"PKGNAME='foo-1'\nTREE='{built_from.path}'\n")
    assert kept.prune() == [], "it may be about to be used"
    assert kept.prune(time.time() + KEPT_SECONDS + 60) == [old.digest]
    left = {path.name.partition(".")[0] for path in kept.path_of("").glob("[0-9a-f]*")}
    assert {digest for digest in left if len(digest) == 64} == {built_from.digest, pinned.digest}
    shutil.rmtree(job.parent)
    assert kept.prune(time.time() + KEPT_SECONDS + 60) == [built_from.digest]
    assert content(pinned.path)


async def test_jobs_read_what_is_pinned_or_else_the_tree_as_it_is(
    tree: Path, kept: Snapshots
) -> None:
    trees = Trees(kept.path_of(""))
    first = await trees.of("p", tree)
    (tree / "mk/work.mk").write_text("2")
    assert await trees.of("p", tree) == first, "it is not looked at all the time"
    second = kept.take(tree)
    kept.pin("p", tree, second)
    assert await trees.of("p", tree) == second
    assert await trees.of("q", tree) == first
    assert trees.wanted() == {first.digest, second.digest}
    with pytest.raises(Fault):
        await trees.of("r", tree / "nowhere")
