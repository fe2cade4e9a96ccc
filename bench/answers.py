"""Answers about a whole tree from a running daemon, and how long others wait while it looks
after itself: checks, copies, compacts and forgets."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from database import DATA, Daemon, load

from clusterdep.api import client
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.api.v1 import clusterdep_pb2_grpc as rpc
from clusterdep.scanfile import ScanFile

POPULAR = "cwrappers"
WATCHERS = 100
Ask = Callable[[str], Awaitable[int]]


async def drain(call: AsyncIterator[Any]) -> int:
    """How many a streamed list has."""
    count = 0
    async for page in call:
        items = getattr(page, "packages", None) or getattr(page, "requirements", ())
        count += len(items)
    return count


async def percentile(names: list[str], ask: Ask) -> tuple[float, float]:
    """Median and 99th percentile of a question about each of `names`, seconds."""
    seconds = []
    for name in names:
        begin = time.perf_counter()
        try:
            await ask(name)
        except client.grpc.aio.AioRpcError as error:
            if error.code() is not client.grpc.StatusCode.FAILED_PRECONDITION:
                raise
            continue  # the name of more than one package
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds), statistics.quantiles(seconds, n=100)[98]


async def answers(daemon: Daemon, query: Any) -> None:
    """Questions about single packages, and the longest lists."""
    pages = query.ListPackages(pb.ListPackagesRequest(profile="p"))
    packages = [package async for page in pages for package in page.packages]
    names = [package.pkgname for package in packages][::97]

    def one(name: str, transitive: bool = False) -> pb.PackageRequest:
        return pb.PackageRequest(profile="p", package=name, transitive=transitive)

    async def unary(call: Awaitable[Any]) -> int:
        await call
        return 1

    kinds: dict[str, Ask] = {
        "show": lambda name: unary(query.GetPackage(one(name))),
        "requires": lambda name: drain(query.Requires(one(name))),
        "required-by": lambda name: drain(query.RequiredBy(one(name))),
        "why": lambda name: unary(query.Why(one(name))),
        "status": lambda name: unary(query.Summary(pb.SummaryRequest(profile="p"))),
        "jobs (10)": lambda name: drain(
            query.ListOpenJobs(pb.ListOpenJobsRequest(profile="p", limit=10))
        ),
    }
    for kind, ask in kinds.items():
        median, late = await percentile(names, ask)
        limit = " (at most 10 ms)" if kind in ("requires", "required-by", "why") else ""
        print(f"{kind}: median {median * 1e3:.1f} ms, 99th percentile {late * 1e3:.1f} ms{limit}")
    median, late = await percentile(
        names[:30], lambda name: drain(query.Search(pb.SearchRequest(profile="p", words=name[:5])))
    )
    print(f"search: median {median * 1e3:.0f} ms, 99th percentile {late * 1e3:.0f} ms")
    long: dict[str, Callable[[], AsyncIterator[Any]]] = {
        "required-by --transitive": lambda: query.RequiredBy(one(POPULAR, True)),
        "breaks": lambda: query.Breaks(one(POPULAR)),
        "status --packages": lambda: query.ListPackages(pb.ListPackagesRequest(profile="p")),
    }
    for kind, make in long.items():
        rounds = []
        before = daemon.cpu()
        for _ in range(10):
            begin = time.perf_counter()
            count = await drain(make())
            rounds.append(time.perf_counter() - begin)
        cpu = (daemon.cpu() - before) / 10
        print(
            f"{kind}: {count} results in {min(rounds) * 1e3:.0f} ms at best, median "
            f"{statistics.median(rounds) * 1e3:.0f} ms, the daemon's CPU {cpu * 1e3:.0f} ms"
        )


async def meanwhile(channel: Any, what: str, work: Awaitable[Any]) -> None:
    """How long the easiest question waits while the daemon does something long."""
    query = rpc.QueryStub(channel)
    task = asyncio.ensure_future(work)
    begin = time.perf_counter()
    waits = []
    while not task.done():
        asked = time.perf_counter()
        await query.ListProfiles(pb.ListProfilesRequest())
        waits.append(time.perf_counter() - asked)
        await asyncio.sleep(0.002)
    await task
    print(
        f"{what}: {time.perf_counter() - begin:.2f} s; a question meanwhile waits "
        f"{statistics.median(waits) * 1e3:.1f} ms median, {max(waits) * 1e3:.0f} ms at most"
    )


async def watched(query: Any, admin: Any) -> None:
    """Many who watch everything, and what an order costs then."""

    async def order(number: int) -> float:
        begin = time.perf_counter()
        why = f"bench {number}"
        await admin.Hold(pb.HoldRequest(profile="p", packages=[POPULAR], why=why))
        return time.perf_counter() - begin

    alone = statistics.median([await order(number) for number in range(50)])
    streams = [query.Watch(pb.WatchRequest(after=-1, follow=True)) for _ in range(WATCHERS)]
    reading = [asyncio.ensure_future(stream.read()) for stream in streams]
    await asyncio.sleep(0.5)
    first = await order(1000)
    await asyncio.gather(*reading)  # from here on nobody reads
    ignored = statistics.median([await order(number) for number in range(50)])
    for stream in streams:
        stream.cancel()
    print(
        f"an order: {alone * 1e3:.1f} ms; the first one that {WATCHERS} are told of "
        f"{first * 1e3:.1f} ms; with {WATCHERS} that do not read {ignored * 1e3:.1f} ms"
    )


async def main() -> int:
    """Measures and prints."""
    packed = DATA / "pscan.zst"
    if not packed.exists():
        print(f"answers: not measured, there is no {packed} (see CLUSTERDEP_TESTDATA)")
        return 0
    with ScanFile(str(packed)) as scan:
        text = b"".join(scan.pieces())
    with tempfile.TemporaryDirectory() as directory:
        daemon = Daemon(Path(directory))
        daemon.start()
        await daemon.ready()
        try:
            await load(daemon, text)
            async with daemon.channel() as channel:
                query, admin = rpc.QueryStub(channel), rpc.AdminStub(channel)
                await answers(daemon, query)
                await watched(query, admin)
                copy = str(Path(directory) / "copy.db")
                long: dict[str, Callable[[], Awaitable[Any]]] = {
                    "db check": lambda: admin.CheckDatabase(pb.CheckDatabaseRequest()),
                    "db backup": lambda: admin.Backup(pb.BackupRequest(path=copy)),
                    "rescan all": lambda: admin.Rescan(pb.RescanRequest(profile="p")),
                    "forget --whole": lambda: admin.Forget(
                        pb.ForgetRequest(profile="p", whole=True)
                    ),
                    "db compact": lambda: admin.Compact(pb.CompactRequest()),
                }
                for what, begin in long.items():
                    await meanwhile(channel, what, begin())
        finally:
            daemon.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
