"""Scans in the dispatcher: with a fake engine and a fake clusterdep over real gRPC."""

from pathlib import Path

import grpc
import pytest
from build_fakes import TREE, until

from clusterbuild import scan_steps
from clusterbuild.core.result import Evidence, Outcome
from clusterbuild.engines import Life, Scanned
from clusterbuild.scan_steps import enumeration, put_scan
from clusterbuild.tree_files import TreeFiles
from clusterdep.api import scanned
from clusterdep.api.v1 import clusterdep_pb2 as pb

RECORD = b"PKGNAME=foo-1.0\nRESTRICTED=%s/x\nSCAN_DEPENDS=Makefile ../../clusterbuild/conftest.py\n"


def said(number, path="a/b", out=b"", **fields):
    values = {"status": 0, "late": False, "seconds": 0.5, "said": b""} | fields
    return Scanned(number, path, out=out, **values)


def through(world, attempt, *found, outcome=Outcome.SCANNED, **fields):
    """The scan has found this, and is over."""
    job = world.host.jobs[attempt]
    job.scanned = list(found)
    world.host.end(job, outcome, stage="scan", **fields)


async def started(world, grant):
    await until(lambda: grant.attempt in world.host.jobs, what="start")
    return world.host.jobs[grant.attempt]


async def test_a_scan_from_grant_to_result(world):
    grant = world.clusterdep.offer_scan("a/b", "a/bad", "a/slow")
    job = await started(world, grant)
    assert job.spec.scan.pkgpaths == ("a/b", "a/bad", "a/slow")
    assert (job.spec.scan.time_limit, job.spec.distdir) == (100.0, None)
    status = await world.status()
    assert [j.pkgname for j in status.jobs] == ["scan of 3 pkgpaths"]
    found = (
        said(1, "a/b", RECORD % str(TREE).encode()),
        said(2, "a/bad", status=1, said=b"broken"),
        said(3, "a/slow", status=143, late=True),
    )
    through(world, grant.attempt, *found)
    result = await world.result_of(grant)
    assert (result.done, result.fence) == (True, grant.fence)
    told = world.clusterdep.told()
    assert [one.pkgpath for one in told] == ["a/b", "a/bad", "a/slow"]
    assert [bool(one.error) for one in told] == [False, True, True]
    assert told[1].error == "make pbulk-index: it exited with status 1\nbroken"
    assert "longer than 100 s" in told[2].error
    header = world.clusterdep.puts[0][0].header
    assert (header.attempt, header.fence, header.mode) == (grant.attempt, grant.fence, 2)
    assert header.revision.startswith("snapshot:")
    assert not any(put[-1].end.complete for put in world.clusterdep.puts)
    await until(lambda: world.host.cleaned == [grant.attempt])
    assert (await world.status()).built == 0


async def test_records_name_the_profiles_tree_and_the_files_of_a_build(world):
    grant = world.clusterdep.offer_scan("a/b")
    await started(world, grant)
    through(world, grant.attempt, said(1, "a/b", RECORD % b"/elsewhere"))
    await world.result_of(grant)
    [told] = world.clusterdep.told()
    assert b"RESTRICTED=/elsewhere/x" in told.records
    assert [(one.path, len(one.digest)) for one in told.inputs] == [("clusterbuild/conftest.py", 7)]


async def test_what_is_found_is_told_while_the_scan_goes_on(world, monkeypatch):
    monkeypatch.setattr(scan_steps, "GATHER_SECONDS", 0.02)
    grant = world.clusterdep.offer_scan("a/b", "a/c")
    job = await started(world, grant)
    job.scanned = [said(1, "a/b", RECORD % b"/t")]
    await until(lambda: len(world.clusterdep.told()) == 1)
    through(world, grant.attempt, *job.scanned, said(2, "a/c", RECORD % b"/t"))
    assert (await world.result_of(grant)).done
    assert [one.pkgpath for one in world.clusterdep.told()] == ["a/b", "a/c"]


async def test_what_had_no_turn_is_said(world):
    grant = world.clusterdep.offer_scan("a/b", "a/c")
    await started(world, grant)
    through(world, grant.attempt, said(1, "a/b", RECORD % b"/t"))
    result = await world.result_of(grant)
    assert (result.done, result.blame) == (False, pb.BLAME_OPERATOR)
    assert result.message == "it took long: 1 of 2 had their turn"


async def test_a_host_that_cannot_scan_gives_it_back_with_what_it_has(world):
    grant = world.clusterdep.offer_scan("a/b", "a/c")
    await started(world, grant)
    through(
        world, grant.attempt, said(1, "a/b", RECORD % b"/t"),
        outcome=Outcome.UNABLE, evidence=frozenset({Evidence.NO_SPACE}),
    )  # fmt: skip
    result = await world.result_of(grant)
    assert (result.done, result.blame) == (False, pb.BLAME_HOST)
    assert [one.pkgpath for one in world.clusterdep.told()] == ["a/b"]


async def test_a_scan_that_vanishes_is_given_back(world):
    grant = world.clusterdep.offer_scan("a/b", "a/c")
    job = await started(world, grant)
    job.scanned = [said(1, "a/b", RECORD % b"/t")]
    world.host.vanish(job, "rebooted")
    result = await world.result_of(grant)
    assert (result.done, result.blame) == (False, pb.BLAME_HOST)
    assert [one.pkgpath for one in world.clusterdep.told()] == ["a/b"]


async def test_clusterdep_that_is_away_is_waited_for(world):
    world.clusterdep.put_error = grpc.StatusCode.UNAVAILABLE
    grant = world.clusterdep.offer_scan("a/b")
    await started(world, grant)
    through(world, grant.attempt, said(1, "a/b", RECORD % b"/t"))
    await until(lambda: any(j == grant.attempt for j in world.host.jobs))
    world.clusterdep.put_error = None
    assert (await world.result_of(grant)).done


async def test_results_of_a_lease_that_was_replaced_are_dropped(world):
    world.clusterdep.put_error = grpc.StatusCode.ABORTED
    grant = world.clusterdep.offer_scan("a/b")
    world.clusterdep.verdict[grant.attempt] = pb.Verdict.KIND_REFUSED
    await started(world, grant)
    through(world, grant.attempt, said(1, "a/b", RECORD % b"/t"))
    await until(lambda: world.host.cleaned == [grant.attempt])


async def test_a_scan_is_adopted_after_a_restart(world):
    grant = world.clusterdep.offer_scan("a/b", "a/c")
    job = await started(world, grant)
    job.scanned = [said(1, "a/b", RECORD % b"/t")]
    await world.kill()
    await world.start()
    await until(lambda: job.state.life is Life.RUNNING and world.clusterdep.last.holding)
    through(world, grant.attempt, *job.scanned, said(2, "a/c", RECORD % b"/t"))
    assert (await world.result_of(grant)).done
    assert world.host.started == [grant.attempt]
    told = world.clusterdep.told()
    assert {one.pkgpath for one in told} == {"a/b", "a/c"}
    assert all(one.inputs for one in told)


async def test_a_scan_is_cancelled(world):
    grant = world.clusterdep.offer_scan("a/b")
    await started(world, grant)
    world.clusterdep.cancel.append(grant.attempt)
    world.clusterdep.poke()
    await until(lambda: grant.attempt in world.host.cleaned)
    assert grant.attempt in world.host.ended
    assert grant.attempt not in world.clusterdep.recorded


async def test_the_lists_of_a_tree_become_an_enumeration(world):
    grant = world.clusterdep.offer_scan()
    await started(world, grant)
    lists = (
        said(1, ".", b"devel broken games"),
        said(2, "devel", b"foo bar foo"),
        said(3, "broken", status=1, said=b"away"),
        said(4, "games", b"../chess go"),
    )
    through(world, grant.attempt, *lists)
    result = await world.result_of(grant)
    assert result.done
    assert "broken could not be listed: make show-subdir-var" in result.message
    assert "games could not be listed: SUBDIR has ../chess" in result.message
    [put] = world.clusterdep.puts
    # What a category had before stays where it cannot be listed.
    assert list(put[-1].end.enumeration) == ["devel/foo", "devel/bar", "games/go", "broken/old"]


async def test_a_tree_that_cannot_be_listed_removes_nothing(world):
    grant = world.clusterdep.offer_scan()
    await started(world, grant)
    through(world, grant.attempt, said(1, ".", status=2, said=b"no such target"))
    result = await world.result_of(grant)
    assert result.done
    assert result.message.startswith("the tree could not be listed: make show-subdir-var")
    assert world.clusterdep.puts == []


@pytest.mark.parametrize(
    "fields", [{"pkgpaths": ["a/b"], "enumerate": True}, {"pkgpaths": [], "enumerate": False}]
)
async def test_a_grant_that_makes_no_sense_is_given_back(world, fields):
    grant = world.clusterdep.offer_scan("a/b")
    world.clusterdep.open.clear()
    strange = pb.ScanGrant(**fields)
    del grant.pkgpaths[:]
    grant.pkgpaths.extend(strange.pkgpaths)
    grant.enumerate = strange.enumerate
    world.clusterdep.open.append(grant)
    world.clusterdep.poke()
    result = await world.result_of(grant)
    assert (result.done, result.blame) == (False, pb.BLAME_INFRASTRUCTURE)


def test_what_make_says_becomes_a_result():
    good = put_scan(said(1, "a/b", RECORD % b"/t"), 9.0)
    assert (good.pkgpath, good.seconds, good.error) == ("a/b", 0.5, "")
    empty = put_scan(said(1, "a/b", b""), 9.0)
    assert empty.error == "make pbulk-index printed no record"
    killed = put_scan(said(1, "a/b", status=139), 9.0)
    assert killed.error == "make pbulk-index: it was killed by signal 11"
    much = put_scan(said(1, "a/b", b"x" * (scanned.MOST_OUTPUT + 1)), 9.0)
    assert much.error.startswith("make pbulk-index: it was ended because it printed more than")
    assert len(much.error) < 10000


def test_a_top_without_categories_is_no_enumeration():
    pkgpaths, [(where, why)] = enumeration([said(1, ".", b"\n")])
    assert (pkgpaths, where) == ([], ".")
    assert "names no category" in why


def test_the_files_of_a_snapshot_are_those_the_helper_finds(tmp_path: Path):
    digest = "ab" * 32
    (tmp_path / "cat/foo").mkdir(parents=True)
    (tmp_path / "cat/real").write_text("real")
    (tmp_path / "cat/foo/link").symlink_to("../real")
    (tmp_path / "cat/foo/lost").symlink_to("nowhere")
    listing = [
        ("d", "-", "cat"), ("d", "-", "cat/foo"), ("f", digest, "cat/foo/Makefile"),
        ("f", digest, "cat/foo/patches/a"), ("f", digest, "cat/foo/CVS/Entries"),
        ("f", digest, "cat/foo/Makefile.orig"), ("f", digest, "cat/foo2/Makefile"),
        ("l", "../real", "cat/foo/link"), ("l", "nowhere", "cat/foo/lost"),
        ("x", digest, "cat/bar/x.mk"), ("f", digest, "mk/y.mk"),
    ]  # fmt: skip
    out = b"SCAN_DEPENDS=Makefile ../../mk/y.mk /usr/pkgsrc/cat/bar/x.mk ../gone.mk /etc/mk.conf\n"
    found = TreeFiles(tmp_path, listing).read_by("cat/foo", out, "/usr/pkgsrc")
    real = scanned.content(tmp_path / "cat/real")
    assert found == {
        "cat/bar/x.mk": digest, "cat/foo/Makefile": digest, "cat/foo/link": real,
        "cat/foo/lost": "-> nowhere", "cat/foo/patches/a": digest, "cat/gone.mk": "no file",
    }  # fmt: skip
