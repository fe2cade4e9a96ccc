"""Leases that lapse, holders that come back, daemons that start again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dep_daemon import Daemon, built, failed, held, host, record

from clusterdep.api.v1 import clusterdep_pb2 as pb

SECONDS = 0.6


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Daemon]:
    """A daemon whose leases last for a moment."""
    there = Daemon(tmp_path / "state")
    await there.start(lease_seconds=SECONDS, renew_seconds=SECONDS / 3)
    await there.load(record("liba-1.0"))
    yield there
    await there.stop()


async def wait_for_status(dep: Daemon, wanted: str) -> None:
    for _ in range(200):
        if (await dep.statuses())["liba-1.0"] == wanted:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"liba-1.0 is {(await dep.statuses())['liba-1.0']}, not {wanted}")


async def outcome(dep: Daemon) -> list[str]:
    return [a.outcome async for a in dep.caller.query.History(pb.HistoryRequest(profile="p"))]


async def test_a_renewed_lease_stays(hasty: Daemon) -> None:
    grant = (await hasty.exchange()).grants[0]
    for _ in range(8):
        await asyncio.sleep(SECONDS / 4)
        answer = await hasty.exchange(holding=held(grant))
        assert not answer.cancellations
    assert (await hasty.statuses())["liba-1.0"] == "leased"


async def test_a_lapse_opens_the_job_and_a_late_result_is_taken(hasty: Daemon) -> None:
    grant = (await hasty.exchange()).grants[0]
    await wait_for_status(hasty, "open")
    answer = await hasty.exchange(results=[built(grant)], hosts=[])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_ACCEPTED
    assert (await hasty.statuses())["liba-1.0"] == "built"
    assert await outcome(hasty) == ["built"]


async def test_a_replaced_holder_is_told_to_end_and_its_result_refused(hasty: Daemon) -> None:
    late = (await hasty.exchange()).grants[0]
    await wait_for_status(hasty, "open")
    new = (await hasty.exchange(dispatcher="other")).grants[0]
    assert new.fence == late.fence + 1
    answer = await hasty.exchange(holding=held(late), hosts=[])
    assert [c.attempt for c in answer.cancellations] == [late.attempt]
    answer = await hasty.exchange(results=[built(late)], hosts=[])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_REFUSED
    answer = await hasty.exchange(dispatcher="other", results=[built(new)], hosts=[])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_ACCEPTED


async def test_a_holder_that_is_back_keeps_its_job(hasty: Daemon) -> None:
    grant = (await hasty.exchange()).grants[0]
    await wait_for_status(hasty, "open")
    answer = await hasty.exchange(holding=held(grant))
    assert not answer.cancellations
    assert not answer.grants
    assert (await hasty.statuses())["liba-1.0"] == "leased"
    answer = await hasty.exchange(results=[built(grant)], hosts=[])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_ACCEPTED


async def test_another_dispatcher_can_not_hold_or_end_it(hasty: Daemon) -> None:
    grant = (await hasty.exchange()).grants[0]
    answer = await hasty.exchange(dispatcher="thief", holding=held(grant), hosts=[])
    assert [c.attempt for c in answer.cancellations] == [grant.attempt]
    assert (await hasty.statuses())["liba-1.0"] == "leased"


async def test_a_late_failure_of_a_lapsed_attempt_counts_too(hasty: Daemon) -> None:
    grant = (await hasty.exchange()).grants[0]
    await wait_for_status(hasty, "open")
    answer = await hasty.exchange(results=[failed(grant)], hosts=[])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_ACCEPTED
    assert (await hasty.statuses())["liba-1.0"] == "failed"


async def test_after_a_restart_leases_are_there_and_last_a_whole_length(tmp_path: Path) -> None:
    dep = Daemon(tmp_path / "state")
    await dep.start(lease_seconds=3, renew_seconds=1)
    await dep.load(record("liba-1.0"))
    grant = (await dep.exchange()).grants[0]
    await dep.stop()
    await asyncio.sleep(3.2)  # longer than the lease: the daemon was away, not the holder
    await dep.start(lease_seconds=3, renew_seconds=1)
    listed = await dep.caller.work.ListLeases(pb.ListLeasesRequest(dispatcher="d"))
    assert [lease.grant.attempt for lease in listed.leases] == [grant.attempt]
    assert listed.leases[0].grant.record == grant.record
    answer = await dep.exchange(holding=held(grant))
    assert not answer.cancellations and not answer.grants
    answer = await dep.exchange(results=[built(grant)], hosts=[host(free=0)])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_ACCEPTED
    await dep.stop()
    await dep.start()
    assert await dep.statuses() == {"liba-1.0": "built"}
    await dep.stop()
