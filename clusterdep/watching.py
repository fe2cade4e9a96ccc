"""The stream of events, to any number of readers, each at its own speed.

A reader has a place in the log and nothing else: what it has not read costs nobody
anything, and what is forgotten before it is read is said.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.ledger import Ledger
from clusterdep.store.database import Row

#: Events read from the database at a time.
PAGE = 500
#: A reader that waits looks again after so many seconds, whatever happens.
LOOK = 30.0


class Watching:
    """Reads the log of events for all who watch it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._version = -1
        self._bounds = (0, 0)
        #: What was read last, and after which number: those who are up to date share it.
        self._page: tuple[int, list[pb.Event]] = (-1, [])

    async def watch(self, request: pb.WatchRequest) -> AsyncIterator[pb.Event]:
        """Events after a sequence number, then each as it happens; see Query.Watch."""
        after = self._begin(request.after)
        while True:
            page = self._read(after)
            for event in page:
                after = event.sequence
                if request.profile in ("", event.profile):
                    yield event
            if page:
                continue
            if not request.follow:
                return
            await self._ledger.changes.wait(LOOK)

    def bounds(self) -> tuple[int, int]:
        """Numbers of the oldest event that is kept, and of the newest there ever was."""
        self._look()
        return self._bounds

    def _begin(self, after: int) -> int:
        oldest, last = self.bounds()
        if after < 0:
            return last
        if after == 0:
            return oldest - 1
        if after > last:
            raise Fault(
                Kind.BEHIND,
                f"there are no events after {after} yet: the newest is {last}",
                "watch after that, or after -1; what was known from another database is worth "
                "nothing here",
            )
        if after < oldest - 1:
            raise Fault(
                Kind.BEHIND,
                f"events after {after} are not kept any more; the oldest is {oldest}",
                f"watch after {oldest - 1}, or after 0",
            )
        return after

    def _look(self) -> None:
        """Notices whether anything was written since the last look."""
        store = self._ledger.store
        if self._version == store.version:
            return
        self._version = store.version
        row = store.row("event_bounds")
        oldest, last = (int(row[0]), int(row[1])) if row else (0, 0)
        # With every event forgotten, the oldest that can be read is the next.
        self._bounds = (oldest or last + 1, last)
        self._page = (-1, [])

    def _read(self, after: int) -> list[pb.Event]:
        """The next events after a number, at most a page; none if there are no more yet."""
        oldest, last = self.bounds()
        if after < oldest - 1:
            raise Fault(
                Kind.LOST,
                f"events after {after} were forgotten before this reader came to them; "
                f"the oldest is {oldest}",
                f"watch after {oldest - 1}, or after 0; keep more with event_days and event_count",
            )
        if after >= last:
            return []
        if self._page[0] != after:
            rows = self._ledger.store.rows("events", (after, PAGE))
            self._page = (after, [_event(row) for row in rows])
        return self._page[1]


def _event(row: Row) -> pb.Event:
    return pb.Event(
        sequence=row["sequence"],
        time=row["time"],
        profile=row["profile"],
        kind=row["kind"],
        subject=row["subject"],
        cause=row["cause"],
        detail=row["detail"],
    )
