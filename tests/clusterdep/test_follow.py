"""Trees that are followed: from a commit to the pkgpaths that are scanned again, and no others."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import pytest
from dep_daemon import Daemon, record
from test_dep_cli import ask
from test_trees import commit, git, write

from clusterdep import cli_scan, follow
from clusterdep.api.errors import Fault
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.cli import parser

#: A tree in which everything is read that pkgsrc reads, and little else.
PKG_MK = r"""
.if exists(${.CURDIR}/hacks.mk)
.include "${.CURDIR}/hacks.mk"
.endif
.for b in ${BUILDLINKS}
.include "../../${b}/buildlink3.mk"
.if exists(../../${b}/builtin.mk)
.include "../../${b}/builtin.mk"
.endif
.endfor
NAME?=	${.CURDIR:T}
.include "version.mk"
show-var:
	@echo ${OPTIONS:U}
pbulk-index:
	@echo "PKGNAME=${NAME}-${VERSION:U1}${COMMON:U}${MK:U}"
	@echo "ALL_DEPENDS=${BUILDLINKS:@b@${b:T}-[0-9]*:../../${b}@}"
	@echo "RESTRICTED=${OPTIONS:U} ${HACKS:U} ${ASKED:U} ${BUILTIN:U} ${CONF:U}"
	@echo "SCAN_DEPENDS=${.MAKE.MAKEFILES:N/usr/*}"
"""
ASKS = """
.include "../../mk/pkg-build-options.mk"
ASKED!=	cd ${.CURDIR}/../../cat/lib && ${MAKE} show-var
"""


def lists(top: Path) -> None:
    """The lists of categories and packages, as they should be."""
    packages = sorted(p.parent.relative_to(top) for p in top.glob("*/*/Makefile"))
    categories = sorted({p.parts[0] for p in packages})
    show = "show-subdir-var:\n\t@echo ${SUBDIR}\n"
    (top / "Makefile").write_text("".join(f"SUBDIR+=\t{c}\n" for c in categories) + show)
    for category in categories:
        names = "".join(f"SUBDIR+=\t{p.parts[1]}\n" for p in packages if p.parts[0] == category)
        (top / category / "Makefile").write_text(names + show)


def makefile(*lines: str) -> str:
    return "\n".join((*lines, '.include "../../mk/pkg.mk"')) + "\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    top.mkdir()
    git(top, "init", "-q", "-b", "trunk")
    write(
        top,
        **{
            "mk__pkg.mk": PKG_MK,
            "mk__version.mk": "MK=\t0\n",
            "mk__pkg-build-options.mk": "# asks\n",
            "cat__lib__Makefile": makefile('.include "options.mk"'),
            "cat__lib__options.mk": "OPTIONS=\tx11\n",
            "cat__lib__buildlink3.mk": ASKS,
            "cat__prog__Makefile": makefile("BUILDLINKS=\tcat/lib"),
            "cat__other__Makefile": makefile('.include "../../cat/prog/Makefile.common"'),
            "cat__prog__Makefile.common": "COMMON=\t5\n",
            "net__tool__Makefile": makefile('.include "../../cat/prog/Makefile.common"'),
            "net__tool__distinfo": "some\n",
            "doc__CHANGES": "nothing reads it\n",
        },
    )
    lists(top)
    commit(top)
    return top


async def cli(dep: Daemon, *words: str) -> str:
    code, out, err = await ask(dep, *words)
    assert code == os.EX_OK, err
    return out


async def profile(dep: Daemon, tree: Path, name: str = "p", **fields: Any) -> None:
    made = pb.Profile(name=name, tree=str(tree), make="bmake", **fields)
    await dep.caller.admin.PutProfile(pb.PutProfileRequest(profile=made))


async def scan(dep: Daemon, name: str = "p", *words: str) -> None:
    """What the command scan does, without another process."""
    args = parser().parse_args(["scan", "--jobs", "2", name, *words])
    assert await cli_scan._scan(dep.caller, args) == os.EX_OK


async def scanned(dep: Daemon, tree: Path, **fields: Any) -> None:
    """A profile that is followed, and scanned."""
    await profile(dep, tree, "p", **({"follow": "git", "follow_seconds": 3600.0} | fields))
    await scan(dep)
    await changed(dep)


async def changed(dep: Daemon, *files: str, **fields: Any) -> pb.TreeChangedResponse:
    request = pb.TreeChangedRequest(profile="p", files=files, **({"at_once": True} | fields))
    answer: pb.TreeChangedResponse = await dep.caller.feed.TreeChanged(request, timeout=60)
    return answer


def pkgpaths(answer: pb.TreeChangedResponse) -> set[str]:
    return {rescan.pkgpath for rescan in answer.rescans}


async def outdated(dep: Daemon) -> dict[str, str]:
    request = pb.ListPkgpathsRequest(profile="p", outdated=True)
    return {p.path: p.outdated async for p in dep.caller.query.ListPkgpaths(request)}


async def until(dep: Daemon, number: int) -> None:
    """Waits until so many pkgpaths are outdated."""
    async with asyncio.timeout(60):
        while len(await outdated(dep)) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def stored(dep: Daemon, name: str) -> list[tuple[Any, ...]]:
    """All that a profile knows of its tree, in scan order.

    What failed has its last good records still, which a profile that is new has not.
    """
    with sqlite3.connect(f"file:{dep.state}/clusterdep.db?mode=ro", uri=True) as database:
        return database.execute(
            "SELECT pkgpath.path, iif(error = '', inputs_digest, ''), error <> '', record.number, "
            "record.text FROM pkgpath LEFT JOIN record ON record.pkgpath_id = pkgpath.id "
            "AND pkgpath.error = '' "
            "WHERE pkgpath.profile_id = (SELECT id FROM profile WHERE name = ?) "
            "ORDER BY pkgpath.position, record.number",
            (name,),
        ).fetchall()


# --- commits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cat__lib__Makefile": makefile("VERSION=\t2")}, "cat/lib"),
        ({"cat__prog__Makefile.common": "COMMON=\t6\n"}, "cat/prog cat/other net/tool"),
        ({"cat__lib__options.mk": "OPTIONS=\tgtk\n"}, "cat/lib cat/prog"),
        ({"cat__lib__builtin.mk": "BUILTIN=\tyes\n"}, "cat/lib cat/prog"),
        ({"cat__prog__hacks.mk": "HACKS=\tyes\n"}, "cat/prog cat/other net/tool"),
        ({"net__tool__distinfo": ""}, "net/tool"),
        ({"net__tool__patches__patch-aa": "x"}, "net/tool"),
        ({"mk__version.mk": "MK=\t1\n"}, "cat/lib cat/prog cat/other net/tool"),
        ({"doc__CHANGES": "more\n"}, ""),
    ],
)
async def test_a_commit_leads_to_its_readers(
    dep: Daemon, tree: Path, files: dict[str, str], expected: str
) -> None:
    await scanned(dep, tree)
    assert await outdated(dep) == {}
    commit(tree, **files)
    dry = await changed(dep, dry_run=True, explain=True)
    assert pkgpaths(dry) == set(expected.split())
    assert {f for rescan in dry.rescans for f in rescan.files} == {
        name.replace("__", "/") for name in files if expected
    }
    assert await outdated(dep) == {}
    answer = await changed(dep)
    assert answer.marked == len(expected.split())
    assert answer.revision == f"git:{git(tree, 'rev-parse', 'HEAD')}"
    assert set(await outdated(dep)) == set(expected.split())
    assert (await changed(dep)).files == 0
    await scan(dep, "p", "--outdated")
    assert await outdated(dep) == {}


async def test_packages_come_and_go(dep: Daemon, tree: Path) -> None:
    await scanned(dep, tree)
    shutil.rmtree(tree / "net/tool")
    write(tree, **{"x11__new__Makefile": makefile("BUILDLINKS=\tcat/lib")})
    lists(tree)
    commit(tree)
    dry = await changed(dep, dry_run=True)
    assert dry.enumerate
    assert {r.pkgpath: r.why for r in dry.rescans} == {"x11/new": "is new", "net/tool": "is gone"}
    await changed(dep)
    summary = await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))
    assert summary.enumerate == "Makefile changed"
    assert "the lists of packages are to be read: Makefile changed" in await cli(dep, "status")
    await scan(dep, "p", "--outdated")
    assert set(await dep.statuses()) == {"lib-10", "prog-10", "other-150", "new-10"}
    summary = await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))
    assert (summary.enumerate, summary.outdated) == ("", 0)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3))
async def test_any_commits_come_to_a_full_scan(dep: Daemon, tree: Path, seed: int) -> None:
    """After the smallest update all records, digests and places are those of a full scan."""
    chance = random.Random(seed)
    await scanned(dep, tree)
    for number in range(3):
        for _ in range(chance.randrange(1, 4)):
            _random_commit(tree, chance)
        await changed(dep)
        await scan(dep, "p", "--outdated")
        await profile(dep, tree, f"full{number}")
        await scan(dep, f"full{number}")
        assert stored(dep, "p") == stored(dep, f"full{number}")


#: Files of one package that others read, or none.
SHARED = {
    "common": ("cat/prog/Makefile.common", "COMMON=\t{}\n"),
    "options": ("cat/lib/options.mk", "OPTIONS=\t{}\n"),
    "builtin": ("cat/lib/builtin.mk", "BUILTIN=\t{}\n"),
    "mk": ("mk/version.mk", "MK=\t{}\n"),
}
KINDS = ["leaf", "distinfo", "hacks.mk", "new", "gone", "no builtin", "move", "bad", *SHARED]


def _random_commit(top: Path, chance: random.Random) -> None:
    packages = sorted(p.parent for p in top.glob("*/*/Makefile"))
    one, value = chance.choice(packages), chance.randrange(1000)
    what = chance.choice(KINDS)
    if what in SHARED:
        name, text = SHARED[what]
        if (top / name).parent.is_dir():
            (top / name).write_text(text.format(value))
    elif what == "leaf":
        # Never itself: make would ask itself for its options without end.
        use = "" if one.name == "lib" else chance.choice(["", "BUILDLINKS=\tcat/lib"])
        (one / "Makefile").write_text(makefile(f"VERSION=\t{value}", use))
    elif what in ("distinfo", "hacks.mk"):
        (one / what).write_text(f"HACKS=\t{value}\n")
    elif what == "bad":
        (one / "Makefile").write_text('.include "../../cat/prog/nosuch.mk"\n')
    elif what == "no builtin":
        (top / "cat/lib/builtin.mk").unlink(missing_ok=True)
    elif what == "new":
        place = top / chance.choice(["cat", "x11"]) / f"new{value}"
        write(place, Makefile=makefile())
    elif len(packages) > 3 and what == "gone":
        shutil.rmtree(one)
    elif what == "move":
        target = top / "net" / f"moved{value}"
        target.parent.mkdir(exist_ok=True)
        one.rename(target)
    lists(top)
    if chance.random() < 0.8:
        commit(top)


# --- told ---------------------------------------------------------------------------------------


async def test_told_without_following(dep: Daemon, tree: Path) -> None:
    await profile(dep, tree)
    await scan(dep)
    with pytest.raises(Exception, match="does not say how changes of its tree are seen"):
        await changed(dep)
    write(tree, **{"cat__lib__Makefile": makefile("VERSION=\t7")})
    answer = await changed(dep, "cat/lib/Makefile", f"{tree}/doc/CHANGES", "/etc/none.conf")
    assert pkgpaths(answer) == {"cat/lib"}
    assert list(answer.unread) == ["doc/CHANGES", "/etc/none.conf"]
    assert await outdated(dep) == {"cat/lib": "reads cat/lib/Makefile"}


async def test_a_change_during_a_scan_stays(dep: Daemon, tree: Path) -> None:
    """What is marked after a scan began is not up to date when that scan is delivered."""
    await scanned(dep, tree)
    summary = await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))
    commit(tree, **{"cat__lib__Makefile": makefile("VERSION=\t7")})
    await changed(dep)
    from clusterdep.cli_feed import put

    text = record("lib-1.0", pkgpath="cat/lib")
    for began, left in ((summary.now, {"cat/lib"}), (0.0, set())):
        header = pb.PutHeader(profile="p", mode=pb.PutHeader.MODE_MERGE, began=began)
        parts = [pb.PutRecordsRequest(scan=pb.PutScan(pkgpath="cat/lib", records=text))]
        await put(dep.caller, header, parts, pb.PutEnd())
        assert set(await outdated(dep)) == left


async def test_the_command(dep: Daemon, tree: Path) -> None:
    await scanned(dep, tree)
    commit(tree, **{"cat__lib__options.mk": "OPTIONS=\tgtk\n", "doc__CHANGES": "x"})
    out = await cli(dep, "changed", "p", "--dry-run", "--explain")
    assert "cat/prog  asks for options of cat/lib/options.mk\n" in out
    assert "nothing reads doc/CHANGES\n" in out
    assert "2 files changed; 2 pkgpaths would be to be scanned again" in out
    answer = json.loads(await cli(dep, "changed", "p", "--now", "--json"))
    assert [rescan["pkgpath"] for rescan in answer["rescans"]] == ["cat/lib", "cat/prog"]
    assert answer["rescans"][0]["needed"] == 2
    assert answer["unread"] == ["doc/CHANGES"]


# --- what many read -----------------------------------------------------------------------------


async def test_a_file_that_many_read_waits(tmp_path: Path, tree: Path) -> None:
    dep = Daemon(tmp_path / "state")
    await dep.start(hot_readers=2, settle_seconds=1000.0)
    await scanned(dep, tree)
    commit(tree, **{"mk__version.mk": "MK=\t1\n", "net__tool__distinfo": "other\n"})
    answer = await changed(dep, at_once=False)
    assert pkgpaths(answer) == {"net/tool"}
    assert (list(answer.waiting), answer.wait_seconds) == (["mk/version.mk"], 1000.0)
    assert "1 changed files that many read wait" in await cli(dep, "status")
    # It is not forgotten when the daemon dies, and is taken in when there is time.
    await dep.stop()
    await dep.start(hot_readers=2, settle_seconds=0.01)
    assert set(await outdated(dep)) == {"net/tool"}
    await asyncio.sleep(0.02)
    assert pkgpaths(await changed(dep, at_once=False)) == {
        "cat/lib", "cat/prog", "cat/other", "net/tool",
    }  # fmt: skip
    assert not (await changed(dep, at_once=False)).waiting
    await dep.stop()


async def test_waiting_has_an_end(tmp_path: Path, tree: Path) -> None:
    """A file that changes all the time is taken in at last."""
    dep = Daemon(tmp_path / "state")
    await dep.start(hot_readers=2, settle_seconds=0.5)
    await scanned(dep, tree)
    found: set[str] = set()
    for number in range(100):
        commit(tree, **{"mk__version.mk": f"MK=\t{number}\n"})
        found = pkgpaths(await changed(dep, at_once=False))
        if found:
            break
    assert len(found) == 4
    await dep.stop()


# --- by itself ----------------------------------------------------------------------------------


async def test_it_looks_for_itself(
    dep: Daemon, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await dep.stop()
    monkeypatch.setattr(follow, "FIRST", 0.0)
    monkeypatch.setattr(follow, "TICK", 0.02)
    await dep.start()
    await profile(dep, tree, "p", follow="git", follow_seconds=0.05)
    await scan(dep)
    await changed(dep)
    commit(tree, **{"net__tool__distinfo": "other\n"})
    await until(dep, 1)
    assert await outdated(dep) == {"net/tool": "changed in its directory: net/tool/distinfo"}
    # What cannot be seen is said, and then seen.
    (tree / ".git/index.lock").touch()
    for _ in range(100):
        if "it cannot be seen what changed" in await cli(dep, "status"):
            break
    with pytest.raises(Exception, match=r"index\.lock is there"):
        await changed(dep)
    (tree / ".git/index.lock").unlink()
    commit(tree, **{"cat__lib__distinfo": "new\n"})
    await until(dep, 2)
    assert "it cannot be seen" not in await cli(dep, "status")


async def test_a_restart_forgets_nothing(dep: Daemon, tree: Path) -> None:
    await scanned(dep, tree)
    await dep.stop()
    commit(tree, **{"net__tool__distinfo": "other\n"})
    await dep.start()
    assert pkgpaths(await changed(dep)) == {"net/tool"}
    # The listing is lost, or older than what was taken in: more is scanned, not less.
    shutil.rmtree(dep.state / "trees")
    await dep.stop()
    await dep.start()
    commit(tree, **{"cat__lib__distinfo": "new\n"})
    again = await changed(dep)
    assert again.remarks or "cat/lib" in pkgpaths(again)


async def test_what_was_scanned_is_where_following_begins(dep: Daemon, tree: Path) -> None:
    await profile(dep, tree)
    await scan(dep)
    commit(tree, **{"cat__lib__Makefile": makefile("VERSION=\t7")})
    await profile(dep, tree, "p", follow="git")
    answer = await changed(dep)
    assert pkgpaths(answer) == {"cat/lib"}
    assert list(answer.remarks) == []


async def test_rewritten_history_is_said(dep: Daemon, tree: Path) -> None:
    commit(tree, **{"cat__lib__Makefile": makefile("VERSION=\t7")})
    await scanned(dep, tree)
    git(tree, "reset", "-q", "--hard", "HEAD~1")
    commit(tree, **{"net__tool__distinfo": "other\n"})
    answer = await changed(dep)
    assert pkgpaths(answer) == {"cat/lib", "net/tool"}
    assert "history was rewritten" in answer.remarks[0]


# --- other files and trees ----------------------------------------------------------------------


async def test_settings_outside_of_the_tree(dep: Daemon, tree: Path, tmp_path: Path) -> None:
    settings = tmp_path / "site.mk"
    settings.write_text("CONF=\t1\n")
    write(tree, **{"cat__lib__Makefile": makefile(f'.include "{settings}"')})
    commit(tree)
    await scanned(dep, tree)
    settings.write_text("CONF=\t2\n")
    assert pkgpaths(await changed(dep)) == {"cat/lib"}
    assert pkgpaths(await changed(dep)) == set()


async def test_settings_in_the_kit(dep: Daemon, tree: Path, tmp_path: Path) -> None:
    """mk.conf is in the prefix only while something is scanned: it comes out of the kit."""
    prefix, kit = tmp_path / "prefix", tmp_path / "kit.tgz"
    settings = prefix / "etc/mk.conf"
    settings.parent.mkdir(parents=True)

    def pack(text: str) -> None:
        settings.write_text(text)
        with tarfile.open(kit, "w:gz") as archive:
            archive.add(settings, f".{settings}")

    pack("CONF=\t1\n")
    write(tree, **{"cat__lib__Makefile": makefile(f'.include "{settings}"')})
    commit(tree)
    await scanned(dep, tree, prefix=str(prefix), kit=str(kit))
    settings.unlink()
    assert pkgpaths(await changed(dep)) == set()
    pack("CONF=\t2\n")
    settings.unlink()
    answer = await changed(dep)
    assert (pkgpaths(answer), answer.enumerate) == ({"cat/lib"}, True)


async def test_a_tree_that_is_laid_over(dep: Daemon, tree: Path, tmp_path: Path) -> None:
    wip = tmp_path / "wip"
    write(wip, **{"thing__Makefile": makefile(), "thing__distinfo": "1\n"})
    git(wip, "init", "-q", "-b", "trunk")
    commit(wip)
    # As the parent directory of what a link leads to is where it really is, it is mounted in
    # practice; here the second tree is a repository within the first.
    shutil.move(wip, tree / "wip")
    lists(tree)
    git(tree, "add", "Makefile")
    git(tree, "commit", "-q", "-m", "wip")
    await profile(dep, tree)
    await cli(dep, "profile", "set", "p", "--overlay", f"wip={tree}/wip:git")
    await scanned(dep, tree)
    assert "thing-10" in await dep.statuses()
    commit(tree / "wip", thing__distinfo="2\n")
    answer = await changed(dep, explain=True)
    assert [(r.pkgpath, list(r.files)) for r in answer.rescans] == [
        ("wip/thing", ["wip/thing/distinfo"])
    ]
    listed = (await dep.caller.query.ListProfiles(pb.ListProfilesRequest())).profiles[0]
    assert [(o.at, o.follow) for o in listed.overlays] == [("wip", "git")]
    summary = await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))
    assert [f.at for f in summary.following] == ["", "wip"]


async def test_a_link_in_the_tree(dep: Daemon, tree: Path) -> None:
    (tree / "mk/link.mk").symlink_to("../cat/prog/Makefile.common")
    write(tree, **{"cat__lib__Makefile": makefile('.include "../../mk/link.mk"')})
    commit(tree)
    await scanned(dep, tree)
    commit(tree, **{"cat__prog__Makefile.common": "COMMON=\t6\n"})
    assert "cat/lib" in pkgpaths(await changed(dep))


@pytest.mark.parametrize(
    ("overlay", "wrong"),
    [
        (pb.Overlay(at="a/b", tree="/x"), "is not the name of a directory"),
        (pb.Overlay(at="wip", tree="x"), "is not an absolute path"),
        (pb.Overlay(at="wip", tree="/x", follow="svn"), "is none of"),
    ],
)
async def test_overlays_that_cannot_be(dep: Daemon, overlay: pb.Overlay, wrong: str) -> None:
    from clusterdep.ledger import check_profile

    with pytest.raises(Fault, match=wrong):
        check_profile(pb.Profile(name="p", overlays=[overlay]))
