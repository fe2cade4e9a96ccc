"""The stream of events: replayed, followed, by many, by slow ones, by those who fall behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from dep_daemon import Daemon, record

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.ledger import Ledger
from clusterdep.store.database import Store
from clusterdep.watching import PAGE, Watching


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    store = Store(tmp_path / "clusterdep.db")
    yield Ledger(store, 120.0, time.time)
    store.close()


def write(ledger: Ledger, count: int, profile: str = "p") -> None:
    with ledger.transaction():
        for number in range(count):
            ledger.event(profile, "x", f"s{number}")


async def numbers(watching: Watching, after: int, profile: str = "") -> list[int]:
    request = pb.WatchRequest(after=after, profile=profile)
    return [event.sequence async for event in watching.watch(request)]


async def test_replay_from_any_number_that_is_kept(ledger: Ledger) -> None:
    count = 2 * PAGE + 100
    write(ledger, count)
    watching = Watching(ledger)
    for after in (0, 1, PAGE - 1, PAGE, PAGE + 1, count - 1, count):
        assert await numbers(watching, after) == list(range(after + 1, count + 1))
    assert await numbers(watching, -1) == []
    with ledger.store.transaction():
        ledger.store.run("prune_events", (PAGE,))
    assert await numbers(watching, 0) == list(range(PAGE + 1, count + 1))
    assert await numbers(watching, PAGE) == list(range(PAGE + 1, count + 1))
    with pytest.raises(Fault) as fault:
        await numbers(watching, PAGE - 1)
    assert fault.value.code is grpc.StatusCode.OUT_OF_RANGE
    assert f"the oldest is {PAGE + 1}" in str(fault.value)
    with pytest.raises(Fault) as fault:
        await numbers(watching, count + 1)
    assert fault.value.kind is Kind.BEHIND and f"the newest is {count}" in str(fault.value)


async def test_events_of_one_profile_among_many(ledger: Ledger) -> None:
    write(ledger, 3 * PAGE, "other")
    write(ledger, 2, "mine")
    write(ledger, PAGE, "other")
    assert await numbers(Watching(ledger), 0, "mine") == [3 * PAGE + 1, 3 * PAGE + 2]


async def test_all_forgotten_is_no_reason_to_fail(ledger: Ledger) -> None:
    write(ledger, 10)
    with ledger.store.transaction():
        ledger.store.run("prune_events", (10,))
    watching = Watching(ledger)
    assert await numbers(watching, 0) == []
    assert await numbers(watching, 10) == []
    write(ledger, 1)
    assert await numbers(watching, 10) == [11]


async def test_nothing_is_missed_between_reading_and_waiting(ledger: Ledger) -> None:
    """Events that come while the last of a page is told are told at once, too."""
    write(ledger, 1)
    stream = Watching(ledger).watch(pb.WatchRequest(after=0, follow=True))
    assert (await anext(stream)).sequence == 1
    write(ledger, 1)  # while the reader has the first in its hands
    await asyncio.sleep(0.01)
    assert (await asyncio.wait_for(anext(stream), 5)).sequence == 2
    later = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.01)
    write(ledger, 1)
    assert (await asyncio.wait_for(later, 5)).sequence == 3


async def test_a_reader_that_fell_behind_is_told(ledger: Ledger) -> None:
    write(ledger, 3 * PAGE)
    stream = Watching(ledger).watch(pb.WatchRequest(after=0, follow=True))
    seen = [(await anext(stream)).sequence for _ in range(10)]
    with ledger.store.transaction():
        ledger.store.run("prune_events", (2 * PAGE,))
    with pytest.raises(Fault) as fault:
        while True:
            seen.append((await anext(stream)).sequence)
    assert fault.value.code is grpc.StatusCode.DATA_LOSS
    assert f"events after {seen[-1]} were forgotten" in str(fault.value)
    assert seen == list(range(1, seen[-1] + 1)), "what was told has no gap"


async def test_one_that_does_not_read_keeps_nobody_waiting(tmp_path: Path) -> None:
    dep = Daemon(tmp_path / "state")
    await dep.start()
    await dep.load(record("liba-1.0"))
    idle = [dep.caller.query.Watch(pb.WatchRequest(after=0, follow=True)) for _ in range(10)]
    for stream in idle:
        await stream.read()
    request = pb.WatchRequest(after=-1, follow=True)
    eager = dep.caller.query.Watch(request)
    reading = asyncio.ensure_future(_read(eager, 300))
    await asyncio.sleep(0.1)
    for number in range(300):
        await dep.caller.admin.Select(
            pb.SelectRequest(profile="p", selection=[f"cat/{number}-{n:0500}" for n in range(6)])
        )
    assert len(await asyncio.wait_for(reading, 30)) == 300
    # And those who did not read have missed nothing: they go on where they were.
    assert [event.sequence for event in await _read(idle[0], 250)] == list(range(2, 252))
    for stream in idle:
        stream.cancel()
    await dep.stop()


async def _read(
    stream: grpc.aio.UnaryStreamCall[pb.WatchRequest, pb.Event], count: int
) -> list[pb.Event]:
    found = []
    while len(found) < count:
        event = await stream.read()
        assert isinstance(event, pb.Event)
        found.append(event)
    return found


async def test_many_watch_and_come_and_go(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"))

    async def follow(count: int) -> list[int]:
        stream = dep.caller.query.Watch(pb.WatchRequest(after=0, follow=True))
        found = [event.sequence for event in await _read(stream, count)]
        stream.cancel()
        return found

    readers = [asyncio.ensure_future(follow(n % 20 + 1)) for n in range(100)]
    for number in range(20):
        await dep.caller.admin.Select(pb.SelectRequest(profile="p", selection=[f"cat/x{number}"]))
    for n, found in enumerate(await asyncio.wait_for(asyncio.gather(*readers), 30)):
        assert found == list(range(1, n % 20 + 2))
    with contextlib.suppress(grpc.RpcError):
        assert (await dep.exchange(hosts=[])).lease_seconds == 120.0
