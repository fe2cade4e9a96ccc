"""clusterdep is killed at random moments: nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import sqlite3
import sys
from collections import Counter
from pathlib import Path

import grpc
import pytest
from dep_daemon import built, host, record

from clusterdep.api import client
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.cli_call import Caller
from clusterdep.cli_feed import put

SIZE = int(os.environ.get("TEST_SIZE", "1"))
PACKAGES = 60


class Process:
    """A clusterdep of its own process, that can be killed."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.process: asyncio.subprocess.Process
        self.caller: Caller

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "clusterdep", "serve", "--state", str(self.state)
        )
        self.caller = Caller(client.default_address("clusterdep", self.state))
        for _ in range(400):
            assert self.process.returncode is None, "it ended by itself"
            with contextlib.suppress(grpc.RpcError):
                await self.caller.query.ListProfiles(pb.ListProfilesRequest(), timeout=1)
                return
            await asyncio.sleep(0.02)
        raise AssertionError("it does not answer")

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()
        await self.caller.close()

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = await self.process.wait()
        await self.caller.close()
        return code

    async def check(self) -> None:
        answer = await self.caller.admin.CheckDatabase(pb.CheckDatabaseRequest(), timeout=30)
        assert answer.sound, answer.findings


def records() -> list[bytes]:
    """A tree in which each package requires two of those before it."""
    found = []
    for number in range(PACKAGES):
        needs = {number // 2, number // 3} - {number}
        found.append(record(f"p{number}-1.0", [f"p{n}-[0-9]*" for n in sorted(needs)]))
    return found


async def load(there: Process, text: list[bytes], mode: pb.PutHeader.Mode) -> None:
    header = pb.PutHeader(profile="p", mode=mode, create=True)
    parts = [pb.PutRecordsRequest(records=part) for part in text]
    await put(there.caller, header, parts, pb.PutEnd(complete=True))


async def work(
    there: Process, accepted: set[str], pending: dict[str, pb.Result], *, by_attempt: bool = False
) -> None:
    """Builds until nothing is left; knows what was acknowledged, whatever happens.

    `accepted` are names, or, where records change meanwhile, attempts.
    """
    kinds = {pb.Verdict.KIND_ACCEPTED, pb.Verdict.KIND_DUPLICATE}
    if by_attempt:
        kinds.add(pb.Verdict.KIND_STALE)
    while True:
        answer = await there.caller.work.Exchange(
            pb.ExchangeRequest(
                dispatcher="d",
                hosts=[host(free=4, slots=4)],
                results=list(pending.values()),
                holding=[pb.Holding(attempt=r.attempt, fence=r.fence) for r in pending.values()],
            ),
            timeout=10,
        )
        for verdict in answer.verdicts:
            assert verdict.kind in kinds
            result = pending.pop(verdict.attempt)
            accepted.add(verdict.attempt if by_attempt else result.artifact.pkgname)
        for grant in answer.grants:
            pending[grant.attempt] = built(grant)
        if not answer.grants and not pending:
            return


@pytest.mark.timeout(600)
async def test_killed_while_it_works(tmp_path: Path) -> None:
    rng = random.Random(os.environ.get("TEST_SEED", "1"))
    there = Process(tmp_path / "state")
    await there.start()
    await load(there, records(), pb.PutHeader.MODE_REPLACE)
    accepted: set[str] = set()
    pending: dict[str, pb.Result] = {}
    kills = 0
    while len(accepted) < PACKAGES or kills < 6 * SIZE:
        task = asyncio.create_task(work(there, accepted, pending))
        await asyncio.wait({task}, timeout=rng.uniform(0.0, 0.06))
        await there.kill()
        kills += 1
        with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
            await task  # closing the connection cancels a call under way
        await there.start()
        await there.check()
        statuses = {
            p.pkgname: p.status
            async for page in there.caller.query.ListPackages(pb.ListPackagesRequest(profile="p"))
            for p in page.packages
        }
        lost = {name for name in accepted if statuses[name] != pb.STATUS_BUILT}
        assert not lost
        assert len(statuses) == PACKAGES
    attempts = Counter()
    async for attempt in there.caller.query.History(
        pb.HistoryRequest(profile="p", limit=10 * PACKAGES)
    ):
        attempts[attempt.pkgname, attempt.outcome] += 1
    assert attempts == {(f"p{n}-1.0", "built"): 1 for n in range(PACKAGES)}
    assert await there.stop() == 0


@pytest.mark.timeout(600)
async def test_killed_while_it_loads(tmp_path: Path) -> None:
    rng = random.Random(os.environ.get("TEST_SEED", "1"))
    old = records()
    new = [text.replace(b"-1.0\n", b"-2.0\n") for text in old]
    there = Process(tmp_path / "state")
    await there.start()
    await load(there, old, pb.PutHeader.MODE_REPLACE)
    acknowledged = "1.0"
    for _ in range(4 * SIZE):
        text, version = (new, "2.0") if acknowledged == "1.0" else (old, "1.0")
        task = asyncio.create_task(load(there, text, pb.PutHeader.MODE_REPLACE))
        done, _ = await asyncio.wait({task}, timeout=rng.uniform(0.0, 0.1))
        await there.kill()
        await asyncio.wait({task})
        await there.start()
        await there.check()
        versions = {
            p.pkgname.rpartition("-")[2]
            async for page in there.caller.query.ListPackages(pb.ListPackagesRequest(profile="p"))
            for p in page.packages
        }
        assert len(versions) == 1, "a load happened by half"
        if done and task.exception() is None:
            assert versions == {version}
        acknowledged = versions.pop()
    await there.kill()


class Changes:
    """Changes single records for ever, and knows which were acknowledged."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.acknowledged = dict.fromkeys(range(PACKAGES), 0)
        self.pending: tuple[int, int] | None = None  # package and version; it may be there, or not

    async def run(self, there: Process) -> None:
        while True:
            number = self.rng.randrange(PACKAGES)
            version = self.acknowledged[number] + 1
            self.pending = number, version
            needs = {number // 2, number // 3} - {number}
            text = record(f"p{number}-1.{version}", [f"p{n}-[0-9]*" for n in sorted(needs)])
            await load(there, [text], pb.PutHeader.MODE_MERGE)
            self.acknowledged[number] = version
            self.pending = None

    def compare(self, names: set[str]) -> None:
        """What there is must be what was acknowledged; what was on its way may be there."""
        expected = {f"p{n}-1.{v}" for n, v in self.acknowledged.items()}
        if self.pending is not None:
            number, version = self.pending
            if f"p{number}-1.{version}" in names:
                self.acknowledged[number] = version
                expected = {f"p{n}-1.{v}" for n, v in self.acknowledged.items()}
            self.pending = None
        assert names == expected


async def copy(there: Process, directory: Path, done: list[Path]) -> None:
    """Backups and compactions for ever."""
    for number in itertools.count():
        target = directory / f"backup{number}.db"
        await there.caller.admin.Backup(pb.BackupRequest(path=str(target)), timeout=30)
        done.append(target)
        await there.caller.admin.Compact(pb.CompactRequest(), timeout=30)
        await there.caller.admin.Prune(pb.PruneRequest(artifacts=True), timeout=30)


def look_at(directory: Path, done: list[Path]) -> None:
    """Whatever has the name of a backup is whole; those that were acknowledged are there."""
    for target in done:
        assert target.exists()
    for target in directory.glob("*.db"):
        with contextlib.closing(sqlite3.connect(target)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            assert connection.execute("SELECT count(*) FROM record").fetchone()[0] == PACKAGES
    for target in directory.iterdir():
        target.unlink()
    done.clear()


@pytest.mark.timeout(1800)
async def test_killed_while_everything_happens_at_once(tmp_path: Path) -> None:
    rng = random.Random(os.environ.get("TEST_SEED", "1"))
    backups = tmp_path / "backups"
    backups.mkdir()
    there = Process(tmp_path / "state")
    await there.start()
    await load(there, records(), pb.PutHeader.MODE_REPLACE)
    changes = Changes(rng)
    done: list[Path] = []
    accepted: set[str] = set()
    pending: dict[str, pb.Result] = {}
    for _ in range(5 * SIZE):
        tasks = [
            asyncio.create_task(changes.run(there)),
            asyncio.create_task(copy(there, backups, done)),
            asyncio.create_task(work(there, accepted, pending, by_attempt=True)),
        ]
        await asyncio.wait(tasks, timeout=rng.uniform(0.0, 0.4))
        await there.kill()
        for task in tasks:
            with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
                await task
        await there.start()
        await there.check()
        names = {
            p.pkgname
            async for page in there.caller.query.ListPackages(pb.ListPackagesRequest(profile="p"))
            for p in page.packages
        }
        changes.compare(names)
        history = pb.HistoryRequest(profile="p", limit=1_000_000)
        built = {
            a.attempt async for a in there.caller.query.History(history) if a.outcome == "built"
        }
        assert accepted <= built
        look_at(backups, done)
    assert await there.stop() == 0
