"""Which open jobs the offered slots should get now."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Platform:
    """OPSYS, OS version, MACHINE_ARCH; an empty field matches any."""

    opsys: str = ""
    os_version: str = ""
    machine_arch: str = ""

    def accepts(self, other: Platform) -> str:
        """Why something made for this platform can not run on `other`; empty if it can."""
        for name in ("opsys", "os_version", "machine_arch"):
            wanted, there = getattr(self, name), getattr(other, name)
            if wanted and there and wanted != there:
                return f"{name} is {there}, and {wanted} is wanted"
        return ""


@dataclass(frozen=True, slots=True)
class Job:
    """An open build."""

    profile: str
    package: int  # id in the database
    pkgpath: str
    platform: Platform


@dataclass(slots=True)
class Offer:
    """A host in one exchange."""

    dispatcher: str
    host: str
    slots: int
    free: int
    ready: bool
    platform: Platform = field(default_factory=Platform)
    reason: str = ""  # why it is not ready
    profiles: frozenset[str] = frozenset()  # it is prepared for; empty: any
    make_jobs: int = 0  # a fair share of its cores for one slot; 0: unknown

    def at_best(self) -> Offer:
        """The same host when it is ready and all its slots are free."""
        return replace(self, ready=True, free=self.slots, reason="")


def refusal(job: Job, offer: Offer) -> str:
    """Why `offer` could never take `job`, free or not; empty if it could."""
    if not offer.ready:
        return offer.reason or "is not ready"
    if offer.slots < 1:
        return "has no slots"
    if offer.profiles and job.profile not in offer.profiles:
        return f"is not prepared for profile {job.profile}"
    return job.platform.accepts(offer.platform)


def match(
    jobs: Iterable[Job], offers: Sequence[Offer], busy: Collection[tuple[str, str]]
) -> list[tuple[Job, Offer]]:
    """Grants for the free slots: the most urgent job first, to the least loaded host.

    `jobs` come in order of urgency and are read only as far as needed. `busy` are the
    (profile, pkgpath) with a lease: two builds of one pkgpath never run at once.
    """
    left = {id(offer): offer.free for offer in offers if offer.ready and offer.free > 0}
    taken = set(busy)
    grants: list[tuple[Job, Offer]] = []
    for job in jobs:
        if not any(left.values()):
            break
        if (job.profile, job.pkgpath) in taken:
            continue
        fits = [o for o in offers if left.get(id(o), 0) > 0 and not refusal(job, o)]
        if not fits:
            continue
        # Fewest jobs for its size first; the dispatcher's order decides between equals.
        best = min(fits, key=lambda offer: 1.0 - left[id(offer)] / offer.slots)
        left[id(best)] -= 1
        taken.add((job.profile, job.pkgpath))
        grants.append((job, best))
    return grants


class ReadyQueue:
    """Open jobs, most urgent first; entering and leaving cost the logarithm of its length."""

    def __init__(self, urgency: Callable[[int], tuple[float, ...]]) -> None:
        """`urgency(package)` sorts packages: smaller is more urgent."""
        self._urgency = urgency
        self._members: dict[int, tuple[float, ...]] = {}
        self._heap: list[tuple[tuple[float, ...], int]] = []

    def __contains__(self, package: int) -> bool:
        return package in self._members

    def __len__(self) -> int:
        return len(self._members)

    def add(self, package: int) -> None:
        """The package is open."""
        if package not in self._members:
            self._push(package)

    def move(self, package: int) -> None:
        """Its urgency may be another."""
        if package in self._members and self._members[package] != self._urgency(package):
            self._push(package)

    def sort(self) -> None:
        """All urgencies may be others."""
        self._members = {package: self._urgency(package) for package in self._members}
        self._heap = [(urgency, package) for package, urgency in self._members.items()]
        heapq.heapify(self._heap)

    def _push(self, package: int) -> None:
        urgency = self._members[package] = self._urgency(package)
        heapq.heappush(self._heap, (urgency, package))
        if len(self._heap) > 2 * len(self._members) + 64:
            self.sort()

    def discard(self, package: int) -> None:
        """The package is not open any more; its entry in the heap goes when it is met."""
        self._members.pop(package, None)

    def __iter__(self) -> Generator[int, None, None]:
        """Packages in order of urgency; may be left at any time."""
        kept: list[tuple[tuple[float, ...], int]] = []
        try:
            while self._heap:
                entry = heapq.heappop(self._heap)
                if self._members.get(entry[1]) == entry[0] and entry not in kept[-1:]:
                    kept.append(entry)
                    yield entry[1]
        finally:
            for entry in kept:
                heapq.heappush(self._heap, entry)
