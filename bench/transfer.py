"""How fast large files go to a host over ssh and come back, beside scp(1) in the same run.

Both use the same sshd, in turns. Ours are also checked by SHA-256 on the other side, and what
comes back is on the disk before it counts. A file that the host has already is not sent again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from demo_cluster import Cluster, ClusterError, attach, make  # noqa: E402

from clusterbuild.bulk import Bulk  # noqa: E402
from clusterbuild.engines.files import settle  # noqa: E402
from clusterbuild.engines.runner import Completed  # noqa: E402
from clusterbuild.engines.ssh import SshRunner  # noqa: E402
from clusterbuild.remote import Link  # noqa: E402
from clusterbuild.ssh_config import Way  # noqa: E402

LEAST = 0.8  # of scp's rate
ROUNDS = 5
MIB = 1 << 20
#: A large file, and what the whole of pkgsrc is as a compressed tar, bytes.
LARGE, SNAPSHOT = 256 * MIB, 64 * MIB
HOST = "h1"

Transfer = Callable[[], Awaitable[None]]


class CountingBulk(Bulk):
    """Counts the bytes of files that are sent."""

    sent = 0

    async def send(self, argv: Sequence[str], source: Path, offset: int) -> Completed:
        """See Bulk.send."""
        self.sent += await asyncio.to_thread(os.path.getsize, source) - offset
        return await super().send(argv, source, offset)


class Bench:
    """A file here and there, sent and fetched in both ways."""

    def __init__(self, cluster: Cluster, room: Path, size: int) -> None:
        way = Way(HOST, ssh_config=cluster.ssh_config)
        self.bulk = CountingBulk(way, 1)
        self._runner = SshRunner(Link(way, HOST), self.bulk, (), "sh")
        self._config = str(cluster.ssh_config)
        self._base = cluster.base(HOST)
        self._size = size
        self._there = f"{self._base}/there"
        self._here = room / "here"
        self._source = room / "source"
        digest = hashlib.sha256()
        with self._source.open("wb") as file:
            for _ in range(0, size, MIB):
                digest.update(piece := os.urandom(MIB))  # packed already: it gets no smaller
                file.write(piece)
        self._sha256 = digest.hexdigest()

    async def forget(self) -> None:
        """Removes what was transferred."""
        self._here.unlink(missing_ok=True)
        await self._runner.run(["rm", "-f", self._there], timeout=60)

    async def begin(self) -> None:
        """Opens the connection that a dispatcher keeps, and puts the file to be fetched there."""
        await self._runner.put(self._source, f"{self._base}/source", self._sha256)

    async def push(self) -> None:
        """Ours, to the host."""
        await self._runner.put(self._source, self._there, self._sha256)

    async def fetch(self) -> None:
        """Ours, from the host, as an engine fetches an artifact."""
        part = self._here.with_suffix(".part")
        await self._runner.get(f"{self._base}/source", part, self._size)
        await asyncio.to_thread(settle, part, self._here, self._size, self._sha256)

    async def scp_push(self) -> None:
        """By scp, to the host."""
        await self._scp(str(self._source), f"{HOST}:{self._there}")

    async def scp_fetch(self) -> None:
        """By scp, from the host."""
        await self._scp(f"{HOST}:{self._base}/source", str(self._here))

    async def _scp(self, source: str, target: str) -> None:
        words = ["scp", "-q", "-F", self._config, source, target]
        process = await asyncio.create_subprocess_exec(*words)
        if await process.wait():
            raise SystemExit(f"{' '.join(words)} failed")

    async def close(self) -> None:
        """Ends the connection."""
        await self._runner.close()

    async def compare(self, what: str, ours: Transfer, scp: Transfer) -> float:
        """Rate of ours as a part of scp's, by the medians of all rounds."""
        seconds: dict[Transfer, list[float]] = {ours: [], scp: []}
        for number in range(ROUNDS):
            for transfer in (ours, scp) if number % 2 else (scp, ours):
                await self.forget()
                began = time.monotonic()
                await transfer()
                seconds[transfer].append(time.monotonic() - began)
        our, its = (self._size / MIB / statistics.median(seconds[one]) for one in (ours, scp))
        print(
            f"transfer: {what} of {self._size // MIB} MiB: {our:.0f} MiB/s, scp {its:.0f} MiB/s: "
            f"{our / its:.0%} (at least {LEAST:.0%})",
            flush=True,
        )
        return our / its

    async def again(self) -> int:
        """Bytes that are sent of a file which the host has already."""
        await self.push()
        self.bulk.sent = 0
        await self.push()
        print(f"transfer: push of the same again: {self.bulk.sent} bytes sent")
        return self.bulk.sent


async def measure(cluster: Cluster, room: Path) -> bool:
    """Measures and prints; whether all is as it should be."""
    ratios, again = [], 0
    for size in (LARGE, SNAPSHOT):
        bench = Bench(cluster, room, size)
        await bench.begin()
        ratios.append(await bench.compare("push", bench.push, bench.scp_push))
        if size == LARGE:
            ratios.append(await bench.compare("fetch", bench.fetch, bench.scp_fetch))
            again = await bench.again()
        await bench.forget()
        await bench.close()
    return min(ratios) >= LEAST and not again


def main(words: Sequence[str]) -> int:
    """Starts a host, and itself where that can be reached; 1 if it is too slow."""
    if words:
        room = Path(words[0])
        return int(not asyncio.run(measure(attach(room / "cluster"), room)))
    with tempfile.TemporaryDirectory(prefix="bench", dir="/var/tmp") as name:
        cluster = make(Path(name) / "cluster", [HOST])
        try:
            with cluster, suppress(KeyboardInterrupt):
                inside = cluster.enter(sys.executable, str(Path(__file__).resolve()), name)
                return subprocess.run(inside, check=False).returncode
        except ClusterError as problem:
            print(f"transfer: not measured, there can be no host with sshd here: {problem}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
