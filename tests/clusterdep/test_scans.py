"""Scans as leased jobs, over a real daemon: granted, told in pieces, lost, given back, adopted."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterable

import grpc
import pytest
from dep_daemon import Daemon, held, host, record

from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.cli_feed import put

TREE = ("cat/a", "cat/b", "cat/c")


async def profile(dep: Daemon, **fields: object) -> None:
    values: dict[str, object] = {"name": "p", "tree": "/t", "prefix": "/p", "scans": "hosts"}
    await dep.caller.admin.PutProfile(pb.PutProfileRequest(profile=pb.Profile(**values | fields)))


async def exchange(dep: Daemon, **fields: object) -> pb.ExchangeResponse:
    return await dep.exchange(**{"takes_scans": True} | fields)


async def tell(
    dep: Daemon,
    grant: pb.ScanGrant,
    scans: Iterable[tuple[str, bytes | str]] = (),
    enumeration: Iterable[str] = (),
) -> None:
    """What a scan has found: of each pkgpath records, or an error."""
    header = pb.PutHeader(
        profile="p", mode=pb.PutHeader.MODE_MERGE, attempt=grant.attempt, fence=grant.fence
    )
    parts = [
        pb.PutRecordsRequest(
            scan=pb.PutScan(pkgpath=path, error=said, seconds=1.0)
            if isinstance(said, str)
            else pb.PutScan(pkgpath=path, records=said, seconds=1.0)
        )
        for path, said in scans
    ]
    await put(dep.caller, header, parts, pb.PutEnd(enumeration=enumeration))


def ended(grant: pb.ScanGrant, **fields: object) -> pb.ScanResult:
    return pb.ScanResult(attempt=grant.attempt, fence=grant.fence, **fields or {"done": True})


def good(path: str) -> tuple[str, bytes]:
    return path, record(f"{path.partition('/')[2]}-1.0", pkgpath=path)


async def lists(dep: Daemon, paths: Iterable[str] = TREE) -> None:
    """The tree is enumerated."""
    grant = (await exchange(dep)).scans[0]
    assert grant.enumerate and not grant.pkgpaths
    await tell(dep, grant, enumeration=paths)
    answer = await exchange(dep, scan_results=[ended(grant)], hosts=[])
    assert [v.kind for v in answer.verdicts] == [pb.Verdict.KIND_ACCEPTED]


async def finish(dep: Daemon, hosts: int = 1) -> int:
    """Hosts scan until nothing is left; how many leases it took."""
    count = 0
    offers = [host(f"h{n}", free=1, slots=1) for n in range(hosts)]
    while granted := (await exchange(dep, hosts=offers)).scans:
        count += len(granted)
        for grant in granted:
            await tell(dep, grant, map(good, grant.pkgpaths))
        results = [ended(grant) for grant in granted]
        await exchange(dep, scan_results=results, hosts=[])
    return count


async def summary(dep: Daemon) -> pb.SummaryResponse:
    answer: pb.SummaryResponse = await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))
    return answer


async def events(dep: Daemon, *kinds: str) -> list[tuple[str, str]]:
    stream = dep.caller.query.Watch(pb.WatchRequest(profile="p"))
    return [(event.kind, event.subject) async for event in stream if event.kind in kinds]


async def test_a_tree_is_listed_and_scanned_and_then_complete(dep: Daemon) -> None:
    await profile(dep)
    assert (await dep.exchange()).scans == []  # it would not understand them
    await lists(dep)
    before = await summary(dep)
    assert (before.outdated, before.scanning, before.profile.complete) == (3, 0, False)
    grants = (await exchange(dep)).scans
    assert sorted(path for grant in grants for path in grant.pkgpaths) == sorted(TREE)
    assert len({grant.generation for grant in grants}) == 1
    assert all(grant.time_limit > 0 for grant in grants)
    assert (await summary(dep)).scanning == 3
    assert not (await summary(dep)).idle
    for grant in grants:
        await tell(dep, grant, [good(path) for path in grant.pkgpaths])
    assert (await summary(dep)).profile.complete
    answer = await exchange(dep, scan_results=[ended(grant) for grant in grants])
    assert [v.kind for v in answer.verdicts] == [pb.Verdict.KIND_ACCEPTED] * len(grants)
    assert len(answer.grants) == 2  # builds, at last
    after = await summary(dep)
    assert (after.outdated, after.scanning, after.pkgpaths) == (0, 0, 3)
    kinds = [kind for kind, _ in await events(dep, "scan-granted", "scan-done", "complete")]
    assert kinds[:2] == ["scan-granted", "scan-done"]
    assert kinds.count("complete") == 1


async def test_results_come_in_pieces_and_a_repeated_piece_changes_nothing(dep: Daemon) -> None:
    await profile(dep)
    await lists(dep)
    [grant] = (await exchange(dep, hosts=[host(free=1, slots=1)])).scans
    first, *rest = grant.pkgpaths
    await tell(dep, grant, [good(first)])
    await tell(dep, grant, [good(first)])
    assert (await summary(dep)).outdated == 2
    await tell(dep, grant, [good(first), *map(good, rest)])
    answer = await exchange(dep, scan_results=[ended(grant)], hosts=[])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_ACCEPTED
    answer = await exchange(dep, scan_results=[ended(grant)], hosts=[])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_DUPLICATE
    assert sorted(await dep.statuses()) == ["a-1.0", "b-1.0", "c-1.0"]


async def test_a_failed_scan_is_an_answer(dep: Daemon) -> None:
    await profile(dep)
    await lists(dep)
    [grant] = (await exchange(dep, hosts=[host(free=1, slots=1)])).scans
    await tell(dep, grant, [good("cat/a"), ("cat/b", "make: away"), ("cat/c", b"nonsense\n")])
    await exchange(dep, scan_results=[ended(grant)], hosts=[])
    found = await summary(dep)
    assert (found.outdated, found.scan_failures, found.profile.complete) == (0, 2, True)


async def test_of_a_scan_all_is_taken_or_nothing(dep: Daemon) -> None:
    await profile(dep)
    await lists(dep, ["cat/a"])
    [grant] = (await exchange(dep)).scans
    both = record("a-1.0", pkgpath="cat/a") + b"PKGNAME=b-1.0\nPKG_LOCATION=other/place\n"
    await tell(dep, grant, [("cat/a", both)])
    await exchange(dep, scan_results=[ended(grant)], hosts=[])
    [failure] = (await summary(dep)).failures
    assert failure.error.startswith("make pbulk-index: ")
    assert await dep.statuses() == {}


async def test_what_was_not_answered_is_granted_again_and_at_last_fails(dep: Daemon) -> None:
    await profile(dep)
    await lists(dep)
    [grant] = (await exchange(dep, hosts=[host(free=1, slots=1)])).scans
    await tell(dep, grant, [good(grant.pkgpaths[0])])
    result = ended(grant, blame=pb.BLAME_HOST, message="it was rebooted")
    await exchange(dep, scan_results=[result], hosts=[])
    tried: list[str] = []
    for _ in range(2):  # each alone now, so that none takes others with it
        grants = (await exchange(dep)).scans
        assert [len(g.pkgpaths) for g in grants] == [1, 1]
        tried += [path for g in grants for path in g.pkgpaths]
        results = [ended(g, blame=pb.BLAME_HOST, message="it was rebooted") for g in grants]
        if len(tried) == 4:
            await tell(dep, grants[0], [good(grants[0].pkgpaths[0])])
        await exchange(dep, scan_results=results, hosts=[])
    async with asyncio.timeout(10):
        while not (await summary(dep)).profile.complete:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    found = await summary(dep)
    assert found.outdated == 0
    [failure] = found.failures
    assert "hosts gave it back 3 times: it was rebooted" in failure.error


async def test_an_operator_s_return_does_not_count(dep: Daemon) -> None:
    await profile(dep)
    await lists(dep)
    for _ in range(5):
        [grant] = (await exchange(dep, hosts=[host(free=1, slots=1)])).scans
        assert len(grant.pkgpaths) == 3
        result = ended(grant, blame=pb.BLAME_OPERATOR, message="stopped")
        await exchange(dep, scan_results=[result], hosts=[])


async def test_done_without_answers_is_no_end(dep: Daemon) -> None:
    await profile(dep)
    await lists(dep)
    [grant] = (await exchange(dep, hosts=[host(free=1, slots=1)])).scans
    await exchange(dep, scan_results=[ended(grant)], hosts=[])
    assert (await summary(dep)).outdated == 3
    assert (await events(dep, "scan-returned"))[0][1] == "p"


async def test_a_lost_answer_is_granted_again_and_holding_renews(dep: Daemon) -> None:
    await profile(dep)
    await lists(dep)
    [grant] = (await exchange(dep, hosts=[host(free=1, slots=1)])).scans
    [again] = (await exchange(dep, hosts=[host(free=1, slots=1)])).scans
    assert (again.attempt, again.pkgpaths) == (grant.attempt, grant.pkgpaths)
    answer = await exchange(dep, holding=held(grant), hosts=[host(free=1, slots=1)])
    assert not answer.scans and not answer.cancellations
    leases = await dep.caller.work.ListLeases(pb.ListLeasesRequest(dispatcher="d"))
    assert [lease.scan.attempt for lease in leases.leases] == [grant.attempt]


async def test_a_lapse_opens_it_again_and_the_late_one_is_refused(dep: Daemon) -> None:
    await dep.stop()
    await dep.start(lease_seconds=0.5)
    await profile(dep)
    await lists(dep)
    [grant] = (await exchange(dep, hosts=[host(free=1, slots=1)])).scans
    await tell(dep, grant, [good("cat/a")])
    async with asyncio.timeout(10):
        while not await events(dep, "scan-lapsed"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    others = (await exchange(dep, dispatcher="e", hosts=[host("i")])).scans
    assert sorted(path for g in others for path in g.pkgpaths) == ["cat/b", "cat/c"]
    with pytest.raises(grpc.RpcError, match="granted to somebody else"):
        await tell(dep, grant, [good("cat/b")])
    answer = await exchange(dep, holding=held(grant), hosts=[])
    assert [c.attempt for c in answer.cancellations] == [grant.attempt]
    answer = await exchange(dep, scan_results=[ended(grant)], hosts=[])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_REFUSED


async def test_a_lapsed_holder_that_is_back_keeps_it(dep: Daemon) -> None:
    await dep.stop()
    await dep.start(lease_seconds=0.5)
    await profile(dep)
    await lists(dep)
    [grant] = (await exchange(dep, hosts=[host(free=1, slots=1)])).scans
    async with asyncio.timeout(10):
        while not await events(dep, "scan-lapsed"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    answer = await exchange(dep, holding=held(grant), hosts=[])
    assert not answer.cancellations
    assert (await summary(dep)).scanning == 3
    await tell(dep, grant, map(good, grant.pkgpaths))
    answer = await exchange(dep, scan_results=[ended(grant)], hosts=[])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_ACCEPTED


async def test_leases_survive_a_restart_and_time_away_does_not_count(dep: Daemon) -> None:
    await profile(dep)
    await lists(dep)
    [grant] = (await exchange(dep, hosts=[host(free=1, slots=1)])).scans
    await tell(dep, grant, [good("cat/a")])
    await dep.stop()
    await dep.start()
    found = await summary(dep)
    assert (found.outdated, found.scanning) == (2, 3)
    leases = await dep.caller.work.ListLeases(pb.ListLeasesRequest())
    assert [lease.scan.attempt for lease in leases.leases] == [grant.attempt]
    assert not (await exchange(dep, holding=held(grant))).scans
    await tell(dep, grant, map(good, grant.pkgpaths))
    answer = await exchange(dep, scan_results=[ended(grant)], hosts=[])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_ACCEPTED
    assert (await summary(dep)).profile.complete


async def test_returns_are_remembered_over_a_restart(dep: Daemon) -> None:
    await profile(dep)
    await lists(dep, ["cat/a"])
    for _ in range(2):
        [grant] = (await exchange(dep)).scans
        result = ended(grant, blame=pb.BLAME_INFRASTRUCTURE, message="no kit")
        await exchange(dep, scan_results=[result], hosts=[])
        await dep.stop()
        await dep.start()
    [grant] = (await exchange(dep)).scans
    result = ended(grant, blame=pb.BLAME_INFRASTRUCTURE, message="no kit")
    await exchange(dep, scan_results=[result], hosts=[])
    async with asyncio.timeout(10):
        while not (await summary(dep)).scan_failures:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert not (await exchange(dep)).scans


async def test_what_is_delivered_has_to_be_leased(dep: Daemon) -> None:
    await profile(dep)
    await lists(dep)
    [grant] = (await exchange(dep, hosts=[host(free=1, slots=1)])).scans
    with pytest.raises(grpc.RpcError, match="is none of the pkgpaths"):
        await tell(dep, grant, [good("cat/other")])
    stranger = pb.ScanGrant(attempt=grant.attempt, fence=grant.fence + 1)
    with pytest.raises(grpc.RpcError, match="is not known"):
        await tell(dep, stranger, [good("cat/a")])
    answer = await exchange(dep, holding=held(stranger), hosts=[])
    assert [c.attempt for c in answer.cancellations] == [grant.attempt]


async def test_two_dispatchers_never_scan_the_same(dep: Daemon) -> None:
    await profile(dep)
    paths = [f"cat/p{n}" for n in range(300)]
    await lists(dep, paths)
    seen: list[str] = []
    for turn in range(40):
        grants = []
        for name in ("d", "e"):
            grants += (await exchange(dep, dispatcher=name, hosts=[host(f"{name}{turn}")])).scans
        if not grants:
            break
        seen += [path for grant in grants for path in grant.pkgpaths]
        for grant in grants:
            await tell(dep, grant, map(good, grant.pkgpaths))
            name = grant.host[0]
            await exchange(dep, dispatcher=name, scan_results=[ended(grant)], hosts=[])
    assert sorted(seen) == sorted(paths)


async def test_only_hosts_of_the_platform_scan(dep: Daemon) -> None:
    await profile(dep, opsys="NetBSD")
    assert not (await exchange(dep, hosts=[host(opsys="Linux")])).scans
    assert (await exchange(dep, hosts=[host("n", opsys="NetBSD")])).scans


async def test_builds_go_on_while_much_is_scanned(dep: Daemon) -> None:
    await profile(dep)
    await lists(dep)
    await finish(dep)
    await dep.caller.admin.PutProfile(pb.PutProfileRequest(profile=pb.Profile(name="p")))
    # All is outdated again, and all is open: one slot is left to builds.
    header = pb.PutHeader(profile="p", mode=pb.PutHeader.MODE_MERGE)
    more = [f"cat/x{n}" for n in range(50)]
    await put(dep.caller, header, [], pb.PutEnd(enumeration=[*TREE, *more]))
    answer = await exchange(dep, hosts=[host(free=4, slots=4)])
    assert (len(answer.scans), len(answer.grants)) == (3, 1)


async def test_the_only_slot_scans_and_builds_by_turns(dep: Daemon) -> None:
    await profile(dep)
    await lists(dep)
    await finish(dep)
    header = pb.PutHeader(profile="p", mode=pb.PutHeader.MODE_MERGE)
    await put(dep.caller, header, [], pb.PutEnd(enumeration=[*TREE, "cat/x", "cat/y"]))
    one = [host(free=1, slots=1)]
    first = await exchange(dep, hosts=one)
    assert (len(first.scans), len(first.grants)) == (1, 0)
    await exchange(dep, scan_results=[ended(first.scans[0], blame=pb.BLAME_OPERATOR)], hosts=[])
    second = await exchange(dep, hosts=one)
    assert (len(second.scans), len(second.grants)) == (0, 1)


async def test_with_a_selection_only_what_it_needs_is_scanned(dep: Daemon) -> None:
    await profile(dep, selection=["cat/a"])
    await lists(dep, ["cat/a", "cat/b", "cat/c", "cat/d"])
    scanned = []
    text = {
        "cat/a": record("a-1.0", ["b-[0-9]*"], pkgpath="cat/a"),
        "cat/b": record("b-1.0", ["d>=1"], pkgpath="cat/b"),
        "cat/d": record("d-1.0", pkgpath="cat/d"),
    }
    while grants := (await exchange(dep, hosts=[host(free=1, slots=1)])).scans:
        for grant in grants:
            scanned += grant.pkgpaths
            await tell(dep, grant, [(path, text[path]) for path in grant.pkgpaths])
        results = [ended(grant) for grant in grants]
        answer = await exchange(dep, scan_results=results, hosts=[])
        assert len(answer.verdicts) == len(grants)
        if (await summary(dep)).profile.complete:
            break
    assert scanned == ["cat/a", "cat/b", "cat/d"]
    assert (await summary(dep)).outdated == 0
    # A wider selection wants the rest, too.
    await dep.caller.admin.Select(pb.SelectRequest(profile="p", selection=["cat"]))
    assert (await summary(dep)).outdated == 1


async def test_a_selection_may_name_a_category_that_the_top_does_not(dep: Daemon) -> None:
    await profile(dep)
    await lists(dep)
    await finish(dep)
    assert (await summary(dep)).profile.complete
    await dep.caller.admin.Select(pb.SelectRequest(profile="p", selection=["own/x"]))
    assert not (await summary(dep)).idle
    [grant] = (await exchange(dep, hosts=[host(free=1, slots=1)])).scans
    assert grant.enumerate and grant.profile.selection == ["own/x"]
    await tell(dep, grant, enumeration=[*TREE, "own/x"])
    await exchange(dep, scan_results=[ended(grant)], hosts=[])
    [grant] = (await exchange(dep, hosts=[host(free=1, slots=1)])).scans
    assert list(grant.pkgpaths) == ["own/x"]
    # What is not there either is looked for once.
    await tell(dep, grant, [good("own/x")])
    await exchange(dep, scan_results=[ended(grant)], hosts=[])
    await dep.caller.admin.Select(pb.SelectRequest(profile="p", selection=["gone/x"]))
    [grant] = (await exchange(dep, hosts=[host(free=1, slots=1)])).scans
    await tell(dep, grant, enumeration=[*TREE, "own/x"])
    await exchange(dep, scan_results=[ended(grant)], hosts=[])
    assert not (await exchange(dep)).scans


async def test_lists_that_cannot_be_had_are_said(dep: Daemon) -> None:
    await profile(dep)
    [grant] = (await exchange(dep)).scans
    result = ended(grant, done=True, message="the tree could not be listed: make: no target")
    await exchange(dep, scan_results=[result], hosts=[])
    found = await summary(dep)
    assert (found.scan_failures, found.idle) == (1, True)
    assert "could not be listed" in found.failures[0].error
    assert not (await exchange(dep)).scans


async def test_what_is_most_needed_is_scanned_first(dep: Daemon) -> None:
    await profile(dep)
    await lists(dep, ["cat/leaf", "cat/hub", "cat/user"])
    [grant] = (await exchange(dep, hosts=[host(free=1, slots=1)])).scans
    texts = {
        "cat/leaf": record("leaf-1.0", pkgpath="cat/leaf"),
        "cat/hub": record("hub-1.0", pkgpath="cat/hub"),
        "cat/user": record("user-1.0", ["hub-[0-9]*"], pkgpath="cat/user"),
    }
    await tell(dep, grant, texts.items())
    await exchange(dep, scan_results=[ended(grant)], hosts=[])
    await dep.stop()
    with contextlib.closing(sqlite3.connect(dep.state / "clusterdep.db")) as database, database:
        database.execute("UPDATE pkgpath SET outdated_at = 1, outdated_why = 'reads mk/x.mk'")
    await dep.start()
    await dep.caller.admin.Select(pb.SelectRequest(profile="p", selection=["user-[0-9]*"]))
    [grant] = (await exchange(dep, hosts=[host(free=2, slots=2)])).scans
    assert list(grant.pkgpaths)[:2] == ["cat/hub", "cat/user"]


async def test_a_profile_that_is_scanned_by_the_helper_has_no_scans(dep: Daemon) -> None:
    await profile(dep, scans="helper")
    assert not (await exchange(dep)).scans
    assert (await summary(dep)).outdated == 0


async def test_what_was_loaded_whole_needs_no_lists(dep: Daemon) -> None:
    await profile(dep)
    await dep.load(record("a-1.0"), profile="p")
    assert not (await exchange(dep)).scans
    assert (await summary(dep)).enumerate == ""


async def test_nonsense_is_refused(dep: Daemon) -> None:
    answer = await exchange(dep, scan_results=[pb.ScanResult(attempt="nobody", fence=1)], hosts=[])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_REFUSED
    await profile(dep)
    [grant] = (await exchange(dep)).scans
    result = pb.ScanResult(attempt=grant.attempt, fence=grant.fence)
    answer = await exchange(dep, scan_results=[result], hosts=[])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_REFUSED
    with pytest.raises(grpc.RpcError):
        await dep.caller.work.Exchange(pb.ExchangeRequest(takes_scans=True))
