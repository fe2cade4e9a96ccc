"""The database of a whole tree in a running daemon: loading, restarting, changing, asking."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from clusterdep.api import client  # noqa: E402
from clusterdep.api.v1 import clusterdep_pb2 as pb  # noqa: E402
from clusterdep.api.v1 import clusterdep_pb2_grpc as rpc  # noqa: E402
from clusterdep.scanfile import ScanFile  # noqa: E402

DATA = Path(os.environ.get("CLUSTERDEP_TESTDATA", ROOT / "../shared/data"))
#: How many times the tree, for what should not grow with it.
TIMES = int(os.environ.get("BENCH_TIMES", "10"))
PIECE = 1 << 18

Measured = list[tuple[str, float, float, str]]  # what, figure, limit, unit


class Daemon:
    """A daemon in a directory, as a process."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = [sys.executable, "-m", "clusterdep", "--state", str(self.state), "serve"]
        self.process = subprocess.Popen(words, cwd=ROOT)

    async def ready(self) -> None:
        """Waits until its socket is there."""
        assert self.process is not None
        while not (self.state / "clusterdep.sock").exists():
            if self.process.poll() is not None:
                raise SystemExit(f"the daemon ended with exit code {self.process.returncode}")
            await asyncio.sleep(0.005)

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    @contextlib.asynccontextmanager
    async def channel(self) -> AsyncIterator[client.grpc.aio.Channel]:
        async with client.connect(f"unix:{self.state}/clusterdep.sock") as channel:
            await channel.channel_ready()
            yield channel

    def cpu(self) -> float:
        """CPU seconds it has used so far."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak(self) -> float:
        """The most memory it ever had, MiB."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024


def pieces(texts: Iterable[bytes]) -> Iterable[pb.PutRecordsRequest]:
    """A scan as messages."""
    header = pb.PutHeader(profile="p", mode=pb.PutHeader.MODE_REPLACE, create=True)
    yield pb.PutRecordsRequest(header=header)
    for text in texts:
        for at in range(0, len(text), PIECE):
            yield pb.PutRecordsRequest(records=text[at : at + PIECE])
    yield pb.PutRecordsRequest(end=pb.PutEnd(complete=True))


async def each(messages: Iterable[pb.PutRecordsRequest]) -> AsyncIterator[pb.PutRecordsRequest]:
    """The messages, one after the other."""
    for message in messages:
        yield message


async def load(daemon: Daemon, texts: Iterable[bytes]) -> tuple[float, float, list[float]]:
    """Loads a scan; (wall seconds, CPU seconds of the daemon, seconds of exchanges meanwhile)."""
    async with daemon.channel() as channel:
        feed, work = rpc.FeedStub(channel), rpc.WorkStub(channel)
        waits: list[float] = []
        request = pb.ExchangeRequest(dispatcher="bench", hosts=[pb.HostOffer(name="h", slots=1)])

        async def leases() -> None:
            while True:
                begin = time.perf_counter()
                await work.Exchange(request)
                waits.append(time.perf_counter() - begin)
                await asyncio.sleep(0.01)

        asking = asyncio.create_task(leases())
        before, begin = daemon.cpu(), time.perf_counter()
        await feed.PutRecords(each(pieces(texts)))
        wall, cpu = time.perf_counter() - begin, daemon.cpu() - before
        asking.cancel()
        return wall, cpu, waits


async def restart(daemon: Daemon) -> float:
    """Seconds from the start of the daemon to the first open job."""
    daemon.stop()
    begin = time.perf_counter()
    daemon.start()
    await daemon.ready()
    async with daemon.channel() as channel:
        query = rpc.QueryStub(channel)
        async for _ in query.ListOpenJobs(pb.ListOpenJobsRequest(profile="p", limit=1)):
            break
    return time.perf_counter() - begin


def record(name: str, path: str, depends: str = "", fail: str = "", n: int = 0) -> bytes:
    """A record as a scan prints it."""
    lines = [f"PKGNAME={name}", f"PKG_LOCATION={path}", f"ALL_DEPENDS={depends}"]
    lines += [f"PKG_FAIL_REASON={fail}", f"CATEGORIES=bench{n}"]
    return "\n".join([*lines, ""]).encode()


async def change(feed: rpc.FeedStub, path: str, text: bytes) -> float:
    """Seconds until a new record of a pkgpath is taken in."""
    header = pb.PutHeader(profile="p", mode=pb.PutHeader.MODE_MERGE)
    messages = [
        pb.PutRecordsRequest(header=header),
        pb.PutRecordsRequest(scan=pb.PutScan(pkgpath=path, records=text)),
        pb.PutRecordsRequest(end=pb.PutEnd()),
    ]
    begin = time.perf_counter()
    await feed.PutRecords(each(messages))
    return time.perf_counter() - begin


async def changes(daemon: Daemon, popular: tuple[str, str]) -> tuple[float, float, int]:
    """Seconds of a change of a leaf (median) and of a popular package, and its dependents."""
    name, path = popular
    async with daemon.channel() as channel:
        feed, query = rpc.FeedStub(channel), rpc.QueryStub(channel)
        leaf = [
            await change(
                feed,
                "bench/leaf",
                record("benchleaf-1.0", "bench/leaf", f"{name}-[0-9]*:../../{path}", n=n),
            )
            for n in range(60)
        ]
        request = pb.PackageRequest(profile="p", package=path)
        detail = await query.GetPackage(request)
        original = detail.record
        broken = original.replace(b"PKG_FAIL_REASON=", b"PKG_FAIL_REASON=broken ", 1)
        seconds = [await change(feed, path, text) for _ in range(3) for text in (broken, original)]
    return statistics.median(leaf[10:]), max(seconds), detail.package.depth


async def ask(daemon: Daemon, popular: str) -> dict[str, tuple[float, int]]:
    """99th percentile of some questions, seconds, and how many results."""
    async with daemon.channel() as channel:
        query = rpc.QueryStub(channel)
        names = [
            package.pkgname
            async for page in query.ListPackages(pb.ListPackagesRequest(profile="p"))
            for package in page.packages
        ][::149]

        def one(name: str) -> pb.PackageRequest:
            return pb.PackageRequest(profile="p", package=name)

        async def drain(call: AsyncIterator[Any]) -> int:
            return sum([len(getattr(x, "packages", "x")) async for x in call])

        async def why(name: str) -> int:
            await query.Why(one(name))
            return 1

        found: dict[str, tuple[float, int]] = {}
        kinds: dict[str, Callable[[str], Awaitable[int]]] = {
            "requires": lambda name: drain(query.Requires(one(name))),
            "required-by": lambda name: drain(query.RequiredBy(one(name))),
            "why": why,
        }
        for kind, call in kinds.items():
            seconds = []
            for name in names:
                begin = time.perf_counter()
                try:
                    await call(name)
                except client.grpc.aio.AioRpcError:
                    continue  # a duplicate's name
                seconds.append(time.perf_counter() - begin)
            found[kind] = statistics.quantiles(seconds, n=100)[98], len(seconds)
        request = pb.PackageRequest(profile="p", package=popular, transitive=True)
        begin = time.perf_counter()
        count = await drain(query.RequiredBy(request))
        found["transitive"] = time.perf_counter() - begin, count
        return found


_TOKEN = re.compile(rb"([^\s:]+):\.\./\.\./(\S+)")
_BASE = re.compile(rb"(^|[{,])(?=[A-Za-z])")


def renamed(text: bytes, mark: bytes) -> bytes:
    """The same tree with other names: `mark` stands before each of them."""

    def token(found: re.Match[bytes]) -> bytes:
        pattern = found[1]
        inner = _BASE.sub(rb"\1" + mark, pattern) if b"{" in pattern else mark + pattern
        return inner + b":../../" + mark + found[2]

    text = re.sub(rb"^(PKGNAME|PKG_LOCATION)=", rb"\1=" + mark, text, flags=re.M)
    return re.sub(rb"^ALL_DEPENDS=.*$", lambda line: _TOKEN.sub(token, line[0]), text, flags=re.M)


async def measure(text: bytes, popular: tuple[str, str]) -> Measured:
    """All of it on one scan."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        daemon = Daemon(Path(directory))
        daemon.start()
        try:
            await daemon.ready()
            wall, cpu, waits = await load(daemon, [text])
            peak = daemon.peak()
            again = min([await restart(daemon) for _ in range(3)])
            leaf, hub, depth = await changes(daemon, popular)
            answers = await ask(daemon, popular[0])
        finally:
            daemon.stop()
    figures: Measured = [
        ("load, until it is answered", wall, 5.0, "s"),
        ("load, CPU of the daemon", cpu, 0.0, "s"),
        ("memory of the daemon at its peak", peak, 300.0, "MiB"),
        ("exchanges meanwhile, the slowest", 1000 * max(waits), 100.0, "ms"),
        ("restart, until the first open job is answered", again, 1.5, "s"),
        ("a leaf record changes, until its job is open, median", 1000 * leaf, 5.0, "ms"),
        (f"a record changes that {depth} packages depend on", hub, 0.5, "s"),
    ]
    for kind, (seconds, count) in answers.items():
        limit = 100.0 if kind == "transitive" else 10.0
        what = f"required-by --transitive, {count} results" if kind == "transitive" else kind
        figures.append((f"{what}", 1000 * seconds, limit, "ms"))
    return [*figures, *await grown(text, popular, cpu, leaf)]


async def grown(text: bytes, popular: tuple[str, str], cpu: float, leaf: float) -> Measured:
    """A tree so many times as large, beside what the one took."""
    if TIMES < 2:
        return []
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        daemon = Daemon(Path(directory))
        daemon.start()
        try:
            await daemon.ready()
            copies = (renamed(text, b"x%dx" % n) for n in range(1, TIMES))
            _, more, _ = await load(daemon, itertools.chain([text], copies))
            larger, _, _ = await changes(daemon, popular)
        finally:
            daemon.stop()
    return [
        (f"load of {TIMES} times the tree, CPU, beside one", more / cpu, 1.1 * TIMES, "times"),
        (
            f"a leaf record changes in {TIMES} times the tree, beside one",
            larger / leaf,
            1.5,
            "times",
        ),
    ]


def main() -> int:
    """Measures and prints; 1 if a limit is passed."""
    packed = DATA / "pscan.zst"
    if not packed.exists():
        print(f"database: not measured, there is no {packed} (see CLUSTERDEP_TESTDATA)")
        return 0
    with ScanFile(str(packed)) as scan:
        text = b"".join(scan.pieces())
    popular = ("cwrappers", "pkgtools/cwrappers")
    over = 0
    for what, figure, limit, unit in asyncio.run(measure(text, popular)):
        bound = f" (at most {limit:g} {unit})" if limit else ""
        print(f"database: {what}: {figure:.3g} {unit}{bound}")
        over |= bool(limit) and figure > limit
    return int(over)


if __name__ == "__main__":
    raise SystemExit(main())
