"""What is seen of trees: real git, checkouts of CVS and Mercurial as these leave them, files."""

from __future__ import annotations

import calendar
import os
import random
import shutil
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from clusterdep.core.changes import Kind
from clusterdep.trees import Listing, TreeError, load, save
from clusterdep.trees.cvs import Cvs
from clusterdep.trees.git import Git
from clusterdep.trees.hg import Hg
from clusterdep.trees.walk import Files

IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "t"), ("EMAIL", "t@example.org"))
}


def git(top: Path, *words: str) -> str:
    done = subprocess.run(
        ("git", "-C", top, "-c", "gc.auto=0", *words),
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | IDENTITY | {"GIT_CONFIG_GLOBAL": "/dev/null", "LC_ALL": "C"},
    )
    return done.stdout.strip()


def write(top: Path, **files: str) -> None:
    """Files by name, with __ for a slash; an empty text removes one."""
    for name, text in files.items():
        path = top / name.replace("__", "/")
        if text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        else:
            path.unlink()


def commit(top: Path, **files: str) -> str:
    write(top, **files)
    git(top, "add", "-A", ".")
    git(top, "commit", "-q", "--allow-empty", "-m", "change")
    return git(top, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    top.mkdir()
    git(top, "init", "-q", "-b", "trunk")
    commit(top, mk__a="1", cat__foo__Makefile="1", cat__bar__Makefile="1", doc__x="1")
    return top


def held(top: Path) -> dict[str, bytes]:
    """What the files of a tree hold, and the slow way of comparing two moments."""
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file() and ".git" not in path.parts and "CVS" not in path.parts
    }


def compared(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> dict[str, Kind]:
    kinds = {}
    for path in before.keys() | now.keys():
        if path not in now:
            kinds[path] = Kind.GONE
        elif path not in before:
            kinds[path] = Kind.NEW
        elif before[path] != now[path]:
            kinds[path] = Kind.CHANGED
    return kinds


# --- git ----------------------------------------------------------------------------------------


def test_commits(repository: Path) -> None:
    tree = Git(repository)
    first = tree.look(None)
    assert first.changes == {}
    assert tree.look(first.listing).changes == {}
    commit(repository, mk__a="2", cat__foo__options="new", cat__bar__Makefile="")
    git(repository, "mv", "doc/x", "doc/y")
    commit(repository)
    seen = tree.look(first.listing)
    assert seen.changes == {
        "mk/a": Kind.CHANGED,
        "cat/foo/options": Kind.NEW,
        "cat/bar/Makefile": Kind.GONE,
        "doc/x": Kind.GONE,
        "doc/y": Kind.NEW,
    }
    assert seen.remarks == ()
    assert seen.listing.revision == f"git:{git(repository, 'rev-parse', 'HEAD')}"


def test_uncommitted_changes_count(repository: Path) -> None:
    tree = Git(repository)
    before = tree.look(None).listing
    write(repository, mk__a="mine", cat__new__Makefile="mine", cat__foo__Makefile="")
    (repository / "cat/bar/work/x").mkdir(parents=True)
    write(repository, cat__bar__work__x__y="left over", cat__bar__Makefile_orig="x")
    (repository / "cat/bar/Makefile_orig").rename(repository / "cat/bar/Makefile.orig")
    seen = tree.look(before)
    assert set(seen.changes) == {"mk/a", "cat/new/Makefile", "cat/foo/Makefile"}
    assert tree.look(seen.listing).changes == {}
    write(repository, mk__a="mine again")
    again = tree.look(seen.listing)
    assert set(again.changes) == {"mk/a"}
    git(repository, "checkout", "-q", "--", "mk/a")
    assert tree.look(again.listing).changes == {"mk/a": Kind.CHANGED}


def test_a_directory_of_a_repository(repository: Path) -> None:
    tree = Git(repository / "cat")
    before = tree.look(None).listing
    commit(repository, mk__a="2", cat__foo__Makefile="2")
    write(repository, cat__bar__Makefile="mine", doc__x="mine")
    assert set(tree.look(before).changes) == {"foo/Makefile", "bar/Makefile"}
    was = git(repository, "rev-parse", "HEAD~1:cat")
    assert set(tree.look(Listing(f"git:{was}")).changes) == {"foo/Makefile", "bar/Makefile"}


def test_what_is_laid_over_is_another_tree(repository: Path, tmp_path: Path) -> None:
    tree = Git(repository, ("wip",))
    before = tree.look(None).listing
    commit(repository, wip__x="1", cat__foo__Makefile="2")
    (repository / "nested").mkdir()
    git(repository / "nested", "init", "-q")
    write(repository, wip__y="mine", nested__x="another repository")
    assert set(tree.look(before).changes) == {"cat/foo/Makefile"}


def test_rewritten_history(repository: Path) -> None:
    commit(repository, mk__a="2")
    tree = Git(repository)
    before = tree.look(None).listing
    git(repository, "reset", "-q", "--hard", "HEAD~1")
    commit(repository, cat__foo__Makefile="other")
    seen = tree.look(before)
    assert seen.changes == {"mk/a": Kind.CHANGED, "cat/foo/Makefile": Kind.CHANGED}
    assert "history was rewritten" in seen.remarks[0]


def test_a_commit_that_is_not_there_any_more(repository: Path, tmp_path: Path) -> None:
    before = Git(repository).look(None).listing
    shutil.rmtree(repository / ".git")
    git(repository, "init", "-q", "-b", "trunk")
    commit(repository, cat__foo__Makefile="2")
    seen = Git(repository).look(before)
    assert seen.changes == {"cat/foo/Makefile": Kind.CHANGED}
    assert "does not know" in seen.remarks[0]
    bare = Git(repository).look(Listing(before.revision))
    assert bare.everything
    assert "everything may have changed" in bare.remarks[0]


def test_a_shallow_clone(repository: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository}", str(clone))
    before = Git(clone).look(None).listing
    commit(repository, mk__a="2")
    git(clone, "fetch", "-q", "--depth", "1", "origin", "trunk")
    git(clone, "reset", "-q", "--hard", "FETCH_HEAD")
    seen = Git(clone).look(before)
    assert seen.changes == {"mk/a": Kind.CHANGED}
    assert "shallow" in seen.remarks[0]


def test_a_checkout_that_was_killed(repository: Path) -> None:
    tree = Git(repository)
    before = tree.look(None).listing
    (repository / ".git/index.lock").touch()
    write(repository, mk__a="half")
    with pytest.raises(TreeError, match=r"index\.lock is there"):
        tree.look(before)
    (repository / ".git/index.lock").unlink()
    git(repository, "checkout", "-q", "--", ".")
    assert tree.look(before).changes == {}


def test_conflicts(repository: Path) -> None:
    tree = Git(repository)
    before = tree.look(None).listing
    git(repository, "checkout", "-q", "-b", "side")
    commit(repository, mk__a="side")
    git(repository, "checkout", "-q", "trunk")
    commit(repository, mk__a="trunk")
    with pytest.raises(subprocess.CalledProcessError):
        git(repository, "merge", "-q", "side")
    with pytest.raises(TreeError, match="a merge has not ended"):
        tree.look(before)
    (repository / ".git/MERGE_HEAD").unlink()
    with pytest.raises(TreeError, match="mk/a: it has conflicts"):
        tree.look(before)
    git(repository, "reset", "-q", "--hard", "HEAD")
    assert tree.look(before).changes == {"mk/a": Kind.CHANGED}


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="not a git repository"):
        Git(tmp_path).look(None)
    with pytest.raises(TreeError, match="nosuch"):
        Git(tmp_path / "nosuch").look(None)


@pytest.mark.parametrize("seed", range(6))
def test_random_commits(repository: Path, seed: int, tmp_path: Path) -> None:
    """What git says is what comparing all files says, through every kind of commit."""
    chance = random.Random(seed)
    tree = Git(repository)
    listing, before = tree.look(None).listing, held(repository)
    for _ in range(8):
        for _ in range(chance.randrange(1, 3)):
            _random_change(repository, chance)
            if chance.random() < 0.7:
                commit(repository)
        if chance.random() < 0.2 and int(git(repository, "rev-list", "--count", "HEAD")) > 2:
            git(repository, "reset", "-q", "--hard", "HEAD~1")
        seen, now = tree.look(listing), held(repository)
        truth = compared(before, now)
        assert truth.keys() <= seen.changes.keys()
        # What was uncommitted and is committed now may be named once more, not more than that.
        assert seen.changes.keys() - truth.keys() <= listing.dirty.keys()
        save(seen.listing, tmp_path / "listing")
        loaded = load(tmp_path / "listing")
        assert loaded == seen.listing
        listing, before = loaded, now


def _random_change(top: Path, chance: random.Random) -> None:
    files = sorted(held(top))
    what = chance.choice(["edit", "add", "remove", "move", "name"])
    one = chance.choice(files)
    if what == "edit":
        (top / one).write_text(str(chance.random()))
    elif what == "remove" and len(files) > 3:
        (top / one).unlink()
    elif what == "move":
        target = top / f"cat/moved{chance.randrange(5)}"
        target.mkdir(parents=True, exist_ok=True)
        (top / one).rename(target / Path(one).name)
    else:
        strange = "a b\tc\u00e4" if what == "name" else "Makefile"
        path = top / f"net/{chance.randrange(5)}/{strange}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(chance.random()))


# --- files --------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    top = tmp_path / "files"
    write(top, mk__a="1", cat__foo__Makefile="1", cat__bar__Makefile="1", distfiles__big="x")
    _age(top)
    return top


def _age(top: Path, seconds: float = 100.0) -> None:
    for path in top.rglob("*"):
        os.utime(path, (time.time() - seconds,) * 2)


def test_files_by_what_they_hold(files: Path) -> None:
    tree = Files(files, ("wip",), pause=0)
    before = tree.look(None).listing
    assert set(before.marks) == {"mk/a", "cat/foo/Makefile", "cat/bar/Makefile"}
    _age(files, 50)  # as a checkout made anew does
    assert tree.look(before).changes == {}
    write(files, mk__a="2", cat__foo__options="x", cat__bar__Makefile="", wip__x="y")
    write(files, distfiles__other="x", cat__foo__work__z="y")
    seen = tree.look(before)
    assert seen.changes == {
        "mk/a": Kind.CHANGED,
        "cat/foo/options": Kind.NEW,
        "cat/bar/Makefile": Kind.GONE,
    }
    assert seen.listing.revision != before.revision
    assert tree.look(seen.listing).changes == {}


def test_the_same_size_and_time_is_not_the_same_file(files: Path) -> None:
    tree = Files(files, pause=0)
    before = tree.look(None).listing
    old = (files / "mk/a").stat()
    (files / "mk/b").write_text("2")
    os.utime(files / "mk/b", ns=(old.st_atime_ns, old.st_mtime_ns))
    (files / "mk/b").rename(files / "mk/a")
    assert tree.look(before).changes == {"mk/a": Kind.CHANGED}


def test_a_second_change_within_the_same_tick(files: Path) -> None:
    tree = Files(files, pause=0)
    write(files, mk__a="2")
    before = tree.look(None).listing
    old = (files / "mk/a").stat()
    (files / "mk/a").write_text("3")
    os.utime(files / "mk/a", ns=(old.st_atime_ns, old.st_mtime_ns))
    assert tree.look(before).changes == {"mk/a": Kind.CHANGED}


def test_files_that_change_while_they_are_looked_at(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Files(files)
    before = tree.look(None).listing
    write(files, mk__a="half of it")
    monkeypatch.setattr(time, "sleep", lambda _: write(files, mk__a="and the other half"))
    with pytest.raises(TreeError, match="mk/a and perhaps others change at this moment"):
        tree.look(before)


def test_a_link_is_where_it_leads(files: Path) -> None:
    tree = Files(files, pause=0)
    (files / "mk/link").symlink_to("a")
    before = tree.look(None).listing
    (files / "mk/link").unlink()
    (files / "mk/link").symlink_to("b")
    assert tree.look(before).changes == {"mk/link": Kind.CHANGED}


def test_a_tree_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="there is no such directory"):
        Files(tmp_path / "nosuch").look(None)


@pytest.mark.parametrize("seed", range(4))
def test_random_changes_of_files(files: Path, seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    tree = Files(files, pause=0)
    shutil.rmtree(files / "distfiles")
    listing, before = tree.look(None).listing, held(files)
    for _ in range(8):
        _random_change(files, chance)
        if chance.random() < 0.5:
            _age(files, 100 * chance.random())
        seen, now = tree.look(listing), held(files)
        assert seen.changes == compared(before, now)
        save(seen.listing, tmp_path / "listing")
        listing, before = load(tmp_path / "listing"), now


# --- CVS ----------------------------------------------------------------------------------------


def _entries(place: Path, *names: str, **changes: str) -> None:
    """CVS/Entries as `cvs update` leaves it."""
    (place / "CVS").mkdir(exist_ok=True)
    lines = ["D/foo////"]
    for name in names:
        mtime = int((place / name).stat().st_mtime)
        stamp = changes.get(name, time.asctime(time.gmtime(mtime)))
        lines.append(f"/{name}/1.{len((place / name).read_text())}/{stamp}//")
    (place / "CVS/Entries").write_text("\n".join(lines) + "\n")


@pytest.fixture
def checkout(files: Path) -> Path:
    _entries(files)
    _entries(files / "mk", "a")
    for name in ("foo", "bar"):
        _entries(files / "cat" / name, "Makefile")
    return files


def test_cvs_updates(checkout: Path) -> None:
    tree = Cvs(checkout, pause=0)
    before = tree.look(None).listing
    assert before.marks["mk/a"].content == "cvs:1.1"
    # Checked out anew: other times, other inodes, the same revisions.
    _age(checkout, 10)
    _entries(checkout / "mk", "a")
    _entries(checkout / "cat/foo", "Makefile")
    _entries(checkout / "cat/bar", "Makefile")
    assert tree.look(before).changes == {}
    write(checkout, mk__a="22", cat__foo__options="mine")
    _entries(checkout / "mk", "a")
    seen = tree.look(before)
    assert seen.changes == {"mk/a": Kind.CHANGED, "cat/foo/options": Kind.NEW}
    assert tree.look(seen.listing).changes == {}
    # Changed by hand, and not committed.
    (checkout / "cat/foo/Makefile").write_text("mine")
    os.utime(checkout / "cat/foo/Makefile", (1e9, 1e9))
    assert tree.look(seen.listing).changes == {"cat/foo/Makefile": Kind.CHANGED}


def test_cvs_conflicts(checkout: Path) -> None:
    tree = Cvs(checkout, pause=0)
    before = tree.look(None).listing
    write(checkout, mk__a="<<<<<<< a")
    stamp = time.asctime(time.gmtime(int((checkout / "mk/a").stat().st_mtime)))
    _entries(checkout / "mk", "a", a=f"Result of merge+{stamp}")
    with pytest.raises(TreeError, match="mk/a: cvs left conflicts in it"):
        tree.look(before)
    write(checkout, mk__a="mended")
    os.utime(checkout / "mk/a", (calendar.timegm(time.strptime(stamp)) + 5,) * 2)
    assert tree.look(before).changes == {"mk/a": Kind.CHANGED}


def test_cvs_cut_short(checkout: Path) -> None:
    tree = Cvs(checkout, pause=0)
    before = tree.look(None).listing
    (checkout / "mk/CVS/Entries.Log").write_text("A /b/1.1/dummy//\n")
    with pytest.raises(TreeError, match="a cvs update is under way, or was cut short"):
        tree.look(before)
    (checkout / "mk/CVS/Entries.Log").unlink()
    (checkout / "mk/a").unlink()
    write(checkout, mk__b="other")
    with pytest.raises(TreeError, match="mk/a: CVS/Entries has it, and it is not there"):
        tree.look(before)
    write(checkout, mk__b="")
    with pytest.raises(TreeError, match="CVS/Entries has it, and it is not there"):
        tree.look(before)


def test_not_a_checkout_of_cvs(files: Path) -> None:
    with pytest.raises(TreeError, match="CVS does not know it"):
        Cvs(files).look(None)


# --- Mercurial: a program that answers as hg does -------------------------------------------------

HG = r"""#!/bin/sh
shift 3
case "$1 $2 $3" in
"root  ") cat root ;;
"resolve --list ") cat resolve 2>/dev/null || : ;;
"log --rev .") cat parent ;;
log*) case "$3" in
	*and*) cat descends 2>/dev/null || : ;;
	*) grep -qx "$3" known ;;
	esac ;;
status*) case "$*" in
	*--rev*) cat between ;;
	*) cat dirty ;;
	esac ;;
*) echo "abort: unknown $*" >&2; exit 255 ;;
esac
"""


@pytest.fixture
def changeset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/hg"
    program.write_text(HG)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    top = tmp_path / "tree"
    (top / ".hg").mkdir(parents=True)
    write(top, root=f"{top}\n", parent="aaaa", known="aaaa\n", dirty="\0")
    return top


def test_changesets(changeset: Path) -> None:
    tree = Hg(changeset, ("wip",))
    before = tree.look(None).listing
    assert before.revision == "hg:aaaa"
    assert tree.look(before).changes == {}
    write(
        changeset, parent="bbbb", descends=".",
        between="M mk/a\0A cat/foo/options.mk\0R cat/bar/Makefile\0M wip/x\0",
        dirty="M doc/x\0? cat/foo/hacks.mk\0? cat/foo/Makefile.orig\0", doc__x="mine",
        cat__foo__hacks_mk="x",
    )  # fmt: skip
    (changeset / "cat/foo/hacks_mk").rename(changeset / "cat/foo/hacks.mk")
    seen = tree.look(before)
    assert seen.changes == {
        "mk/a": Kind.CHANGED,
        "cat/foo/options.mk": Kind.NEW,
        "cat/bar/Makefile": Kind.GONE,
        "doc/x": Kind.CHANGED,
        "cat/foo/hacks.mk": Kind.CHANGED,
    }
    assert seen.remarks == ()
    assert tree.look(seen.listing).changes == {}


def test_changesets_that_are_gone(changeset: Path) -> None:
    tree = Hg(changeset)
    before = tree.look(None).listing
    write(changeset, parent="bbbb", between="M mk/a\0")
    seen = tree.look(before)
    assert (set(seen.changes), seen.everything) == ({"mk/a"}, False)
    assert "history was rewritten" in seen.remarks[0]
    write(changeset, known="cccc\n")
    assert tree.look(before).everything


def test_what_has_not_ended(changeset: Path) -> None:
    tree = Hg(changeset)
    (changeset / ".hg/wlock").symlink_to("host:1")
    with pytest.raises(TreeError, match="wlock is there"):
        tree.look(None)
    (changeset / ".hg/wlock").unlink()
    (changeset / ".hg/updatestate").touch()
    with pytest.raises(TreeError, match="an update was cut short"):
        tree.look(None)
    (changeset / ".hg/updatestate").unlink()
    write(changeset, resolve="R mk/a\nU mk/b\n")
    with pytest.raises(TreeError, match="mk/b: it has conflicts"):
        tree.look(None)


# --- kept ---------------------------------------------------------------------------------------


def test_a_listing_that_cannot_be_read_is_none(tmp_path: Path, repository: Path) -> None:
    kept = tmp_path / "state/p.zst"
    assert load(kept) is None
    save(Git(repository).look(None).listing, kept)
    whole = kept.read_bytes()
    assert load(kept) is not None
    for damaged in (b"", whole[:-5], b"x" + whole[1:], whole[: len(whole) // 2]):
        kept.write_bytes(damaged)
        assert load(kept) is None
