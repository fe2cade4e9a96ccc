"""Which pkgpaths a free slot should scan next, and who scans what.

Rules
  * No pkgpath is under two leases. A lease is of some pkgpaths, or of the lists of the tree.
  * A lease is of about `BATCH` seconds of work by what scans have taken before; of less when
    little is left, so that all slots end at about the same time.
  * The most urgent come first, and what is urgent is not kept waiting by what only is next to
    it: a batch is taken from the front of the line.
  * A pkgpath whose scan was given back, or was lost with its host, is scanned alone: if it
    does that to hosts, it takes no other with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

#: What a scan is thought to take before any was seen, seconds.
UNKNOWN = 0.5
#: Work in one lease, seconds: as much as makes the start of a job cheap, and at least.
BATCH, LEAST = 25.0, 4.0
#: How many times the slots would have to come back for what is left.
ROUNDS = 2.0
#: Most pkgpaths in one lease.
MOST = 250


@dataclass(frozen=True, slots=True)
class Outdated:
    """A pkgpath that is to be scanned."""

    pkgpath: str
    seconds: float = 0.0  # what its last scan took; 0: it had none
    alone: bool = False


def expected(one: Outdated) -> float:
    """What its scan will take, seconds."""
    return one.seconds or UNKNOWN


def batches(line: Sequence[Outdated], free: int, slots: int) -> Iterator[list[Outdated]]:
    """What `free` slots should scan, a batch each. `line` has the most urgent first.

    `slots` are all that scan, busy or not: what is left is shared out among them.
    """
    left = sum(map(expected, line))
    at = 0
    for _ in range(free):
        if at >= len(line):
            return
        size = min(BATCH, max(LEAST, left / (max(slots, 1) * ROUNDS)))
        batch = _batch(line, at, size)
        at += len(batch)
        left -= sum(map(expected, batch))
        yield batch


def _batch(line: Sequence[Outdated], at: int, size: float) -> list[Outdated]:
    """From there on, until it is enough; one that has to be alone is."""
    batch: list[Outdated] = []
    total = 0.0
    for one in line[at : at + MOST]:
        if batch and (one.alone or total + expected(one) > size):
            break
        batch.append(one)
        total += expected(one)
        if one.alone:
            break
    return batch


@dataclass(frozen=True, slots=True)
class ScanLease:
    """The right to scan some pkgpaths, or the lists of the tree. Times in seconds on one clock."""

    profile: str
    attempt: str
    fence: int
    dispatcher: str
    host: str
    granted: float
    pkgpaths: tuple[str, ...]  # none: the lists of the tree
    generation: str = ""
    renewed: float = 0.0
    expires: float = 0.0


class ScanLeases:
    """All leases of scans, by attempt and by pkgpath. Time is an argument."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._by_attempt: dict[str, ScanLease] = {}
        self._taken: dict[tuple[str, str], str] = {}  # profile and pkgpath ("": lists): attempt

    def __len__(self) -> int:
        return len(self._by_attempt)

    def __iter__(self) -> Iterator[ScanLease]:
        return iter(self._by_attempt.values())

    def of_attempt(self, attempt: str) -> ScanLease | None:
        """The lease of an attempt, if it still has it."""
        return self._by_attempt.get(attempt)

    def holder(self, profile: str, pkgpath: str) -> str:
        """The attempt that scans a pkgpath, or with none the lists; empty if nobody does."""
        return self._taken.get((profile, pkgpath), "")

    def count(self, profile: str) -> int:
        """How many pkgpaths of a profile are being scanned."""
        return sum(len(lease.pkgpaths) for lease in self if lease.profile == profile)

    def add(self, lease: ScanLease, now: float) -> None:
        """It was granted, found in the database, or taken up again; it lasts from `now`.

        Raises ValueError if a pkgpath is leased already.
        """
        keys = [(lease.profile, pkgpath) for pkgpath in lease.pkgpaths or ("",)]
        taken = [pkgpath for profile, pkgpath in keys if (profile, pkgpath) in self._taken]
        if taken or lease.attempt in self._by_attempt:
            raise ValueError(f"{', '.join(taken) or lease.attempt} is leased already")
        self._by_attempt[lease.attempt] = lease
        self._taken.update(dict.fromkeys(keys, lease.attempt))
        self.renew(lease.attempt, now)

    def renew(self, attempt: str, now: float) -> None:
        """The holder still works on it."""
        lease = self._by_attempt[attempt]
        self._by_attempt[attempt] = replace(lease, renewed=now, expires=now + self.seconds)

    def end(self, attempt: str) -> None:
        """The lease is over, however."""
        lease = self._by_attempt.pop(attempt, None)
        if lease is not None:
            for pkgpath in lease.pkgpaths or ("",):
                del self._taken[lease.profile, pkgpath]

    def of_profile(self, profile: str) -> list[ScanLease]:
        """The leases of a profile."""
        return [lease for lease in self if lease.profile == profile]

    def expired(self, now: float) -> list[ScanLease]:
        """Leases whose time is over."""
        return [lease for lease in self if lease.expires <= now]
