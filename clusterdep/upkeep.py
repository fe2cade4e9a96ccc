"""Looking after the file and the ledger while everything goes on.

Nothing here holds the event loop for long: what only reads runs in a thread, on a
connection that sees the file as it was at one moment; what writes is cut into pieces.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clusterdep.api.errors import Fault
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.feed import Feed
from clusterdep.forgetting import Forgetting
from clusterdep.ledger import Ledger, in_steps
from clusterdep.store import copying
from clusterdep.store.database import Reader, Row

log = logging.getLogger("clusterdep.upkeep")

SECOND = 1.0
HOUR = 3600.0
DAY = 86400.0
#: Pages of the file that are given back at a time: some milliseconds.
PAGES = 100
#: Events, or listings of files, that are forgotten at a time.
EVENTS = 1000

#: How often memory is compared with the file before everything else has to wait for it.
TRIES = 3


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is kept."""

    event_days: float
    event_count: int
    attempts: pb.PruneRequest = field(default_factory=pb.PruneRequest)


class Upkeep:
    """What the daemon does for itself, and checks, copies and compacts by order."""

    def __init__(
        self, ledger: Ledger, feed: Feed, forgetting: Forgetting, retention: Retention
    ) -> None:
        #: Told when the disk is full (False), and when there is room again.
        self.on_writable: Callable[[bool], None] = lambda writable: None
        self._ledger = ledger
        self._store = ledger.store
        self._feed = feed
        self._forgetting = forgetting
        self._retention = retention
        self._one = asyncio.Lock()
        self._stopped_at = 0.0
        self._prune_at = 0.0
        self._store.on_change = self._changed

    # ---- a full disk

    def _changed(self) -> None:
        """Writing stopped, or goes on. Comes from within a transaction: writes nothing."""
        if self._store.stopped:
            self._stopped_at = self._stopped_at or self._ledger.clock()
            log.error(
                "nothing can be written to %s: %s; it goes on when there is room",
                self._store.path,
                self._store.stopped,
            )
        else:
            log.warning("%s can be written again", self._store.path)
            # Nobody could renew what had to be written: that time does not count.
            now = self._ledger.clock()
            for lease in list(self._ledger.leases):
                self._ledger.leases.renew(lease.attempt, now)
        self.on_writable(not self._store.stopped)

    def _note_the_full_disk(self) -> None:
        """Writes the event of it as soon as it can be: that is how the first try is made."""
        seconds = self._ledger.clock() - self._stopped_at
        with self._ledger.transaction():
            self._ledger.event(
                "",
                "disk-full",
                str(self._store.path),
                f"nothing could be written for {seconds:.0f} s; nothing acknowledged is lost",
                seconds=round(seconds, 3),
            )
        self._stopped_at = 0.0

    # ---- by itself

    async def run(self) -> None:
        """Does what is due, for ever."""
        while True:
            await self.tick()
            await asyncio.sleep(SECOND)

    async def tick(self) -> None:
        """Does what is due now."""
        try:
            if self._stopped_at:
                self._note_the_full_disk()
            now = self._ledger.clock()
            if now >= self._prune_at:
                self._prune_at = now + HOUR
                await self._prune_events()
                await self._forgetting.finish()
                await self._forgetting.prune(self._retention.attempts)
                await self._prune_inputs()
        except Fault as fault:
            if not self._store.stopped:
                log.error("%s", fault)

    async def _prune_events(self) -> None:
        """Forgets events that are too old, or too many, some at a time."""
        before = self._ledger.clock() - self._retention.event_days * DAY
        values = {"before": before, "most": self._retention.event_count}
        bounds = self._store.row("event_bounds")
        up_to = await self._ask("events_to_prune", values)
        first = int(bounds[0]) if bounds else 0
        while up_to and first <= int(up_to[0][0]):
            first = self._forget_events(first, int(up_to[0][0]))
            await asyncio.sleep(0)

    async def _prune_inputs(self) -> None:
        """Forgets the files behind digests that nothing refers to, some at a time."""
        unused = [str(row["digest"]) for row in await self._ask("unused_inputs", {})]
        for at in range(0, len(unused), EVENTS):
            used = {
                place.inputs_digest
                for catalog in self._ledger.catalogs.values()
                for place in catalog.paths.values()
            }
            some = [(digest,) for digest in unused[at : at + EVENTS] if digest not in used]
            with self._store.transaction():
                self._store.run_many("drop_inputs", some)
            await asyncio.sleep(0)

    async def _ask(self, query: str, values: Mapping[str, object]) -> list[Row]:
        """The rows of a query that takes long, read in a thread."""
        return await self._store.read(lambda reader: list(reader.rows(query, values)))

    def _forget_events(self, first: int, up_to: int) -> int:
        """Forgets some events from `first` on; returns the oldest that is left."""
        with self._store.transaction():
            self._store.run("prune_events", (min(first + EVENTS, up_to),))
        bounds = self._store.row("event_bounds")
        return int(bounds[0]) if bounds and bounds[0] else up_to + 1

    # ---- by order

    async def check(self) -> list[str]:
        """What is wrong with the file, and where memory differs from it; empty if nothing.

        Everything goes on meanwhile, but for deliveries, which wait.
        """
        findings = await self._store.read(Reader.check)
        # What a damaged file says can not be folded.
        return findings or await self._compare()

    async def _compare(self) -> list[str]:
        """Where memory differs from what is stored: compared until nothing changes meanwhile."""
        async with self._feed.quiet():
            for _ in range(TRIES):
                version = self._store.version
                findings = await self._differences()
                if not findings or self._store.version == version:
                    return findings
            return self._ledger.check()  # in one go: nobody else has a turn

    async def _differences(self) -> list[str]:
        # What is stored at this moment is folded in a thread, and then compared in steps.
        stored = await self._store.read(self._ledger.fold)
        findings: list[str] = []

        def steps() -> Iterator[None]:
            for finding in self._ledger.compare(stored):
                if finding:
                    findings.append(finding)
                yield

        await in_steps(steps())
        return findings

    async def backup(self, target: Path) -> int:
        """Copies the database to `target`, whole and consistent; returns its size, bytes."""
        async with self._one:
            return await asyncio.to_thread(copying.copy, self._store.path, target)

    async def compact(self) -> tuple[int, int]:
        """Gives free pages back to the file system; returns bytes before and after."""
        async with self._one:
            before, _ = self._store.sizes()
            await asyncio.to_thread(self._store.checkpoint)
            left = self._store.give_back(PAGES)
            while left:
                await asyncio.sleep(0)
                left = self._store.give_back(PAGES)
            await asyncio.to_thread(self._store.checkpoint, truncate=True)
            after, _ = self._store.sizes()
            return before, after
