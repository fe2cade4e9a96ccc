"""Leases: the right to do a job until a time, and the life of an attempt.

Rules
  * A package has at most one lease. Its fence grows with every grant.
  * A lease lasts `seconds` and is renewed by being listed as held. It is not stored when
    it ends: after a restart of the daemon every lease lasts a whole length again, so
    time in which the daemon was down does not count.
  * A lapse only opens the job again. The holder may still renew it or report, as long as
    nobody else was granted the job: then it is refused.
  * The same result twice is accepted once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum


class AttemptState(Enum):
    """Where an attempt is in its life. The values are what the database calls them."""

    LEASED = "leased"
    LAPSED = "lapsed"  # not renewed in time; the job is open again
    BUILT = "built"
    FAILED = "failed"  # the package's fault
    RETURNED = "returned"  # anybody else's fault: the job is open again
    CANCELLED = "cancelled"  # by us: the holder is told to end it


class AttemptEvent(Enum):
    """What may happen to an attempt."""

    HELD = "its holder lists it"
    EXPIRED = "its time is over"
    REPORTED_BUILT = "its holder reports an artifact"
    REPORTED_FAILED = "its holder reports a failure of the package"
    REPORTED_RETURNED = "its holder gives it back"
    CANCELLED = "an operator, or a change of the tree, ends it"
    REPLACED = "somebody else was granted the job"


_S, _E = AttemptState, AttemptEvent

#: The whole life of an attempt. What is not listed is refused and changes nothing.
TRANSITIONS: dict[tuple[AttemptState, AttemptEvent], AttemptState] = {
    (_S.LEASED, _E.HELD): _S.LEASED,
    (_S.LEASED, _E.EXPIRED): _S.LAPSED,
    (_S.LEASED, _E.REPORTED_BUILT): _S.BUILT,
    (_S.LEASED, _E.REPORTED_FAILED): _S.FAILED,
    (_S.LEASED, _E.REPORTED_RETURNED): _S.RETURNED,
    (_S.LEASED, _E.CANCELLED): _S.CANCELLED,
    (_S.LAPSED, _E.HELD): _S.LEASED,
    (_S.LAPSED, _E.REPORTED_BUILT): _S.BUILT,
    (_S.LAPSED, _E.REPORTED_FAILED): _S.FAILED,
    (_S.LAPSED, _E.REPORTED_RETURNED): _S.LAPSED,
    (_S.LAPSED, _E.REPLACED): _S.CANCELLED,
}


class Refused(Exception):
    """An event that an attempt's state does not allow; str() is a sentence for its holder."""

    def __init__(self, state: AttemptState | None, event: AttemptEvent) -> None:
        super().__init__(
            "the attempt is not known"
            if state is None
            else f"the attempt is {state.value}, and {event.value}"
        )
        self.state = state
        self.event = event


def advance(state: AttemptState | None, event: AttemptEvent) -> AttemptState:
    """The state after `event`; raises Refused where the table has none."""
    if state is None or (state, event) not in TRANSITIONS:
        raise Refused(state, event)
    return TRANSITIONS[state, event]


@dataclass(frozen=True, slots=True)
class Lease:
    """A job that somebody does. Times in seconds on one clock."""

    profile: str
    package: int  # id in the database
    attempt: str
    fence: int
    dispatcher: str
    host: str
    granted: float
    renewed: float
    expires: float
    input_key: str


class Leases:
    """All leases: by package, by attempt, and by dispatcher. Time is an argument."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._by_package: dict[int, Lease] = {}
        self._by_attempt: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._by_package)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._by_package.values())

    def of_package(self, package: int) -> Lease | None:
        """The lease of a package, if it has one."""
        return self._by_package.get(package)

    def of_attempt(self, attempt: str) -> Lease | None:
        """The lease of an attempt, if it still has it."""
        package = self._by_attempt.get(attempt)
        return None if package is None else self._by_package[package]

    def of_dispatcher(self, dispatcher: str) -> list[Lease]:
        """What a dispatcher holds, oldest first."""
        return [lease for lease in self if lease.dispatcher == dispatcher]

    def add(self, lease: Lease, now: float) -> None:
        """A lease was granted, found in the database, or taken up again; it lasts from `now`."""
        if lease.package in self._by_package:
            raise ValueError(f"package {lease.package} is leased already")
        self._by_package[lease.package] = replace(lease, renewed=now, expires=now + self.seconds)
        self._by_attempt[lease.attempt] = lease.package

    def renew(self, attempt: str, now: float) -> None:
        """The holder still works on it."""
        package = self._by_attempt[attempt]
        self._by_package[package] = replace(
            self._by_package[package], renewed=now, expires=now + self.seconds
        )

    def end(self, attempt: str) -> None:
        """The lease is over, however."""
        package = self._by_attempt.pop(attempt, None)
        if package is not None:
            del self._by_package[package]

    def expired(self, now: float) -> list[Lease]:
        """Leases whose time is over."""
        return [lease for lease in self if lease.expires <= now]

    def next_expiry(self) -> float | None:
        """When the next lease ends unless renewed."""
        return min((lease.expires for lease in self), default=None)


def reported(built: bool, package_is_to_blame: bool) -> AttemptEvent:
    """The event that a result is."""
    if built:
        return AttemptEvent.REPORTED_BUILT
    return AttemptEvent.REPORTED_FAILED if package_is_to_blame else AttemptEvent.REPORTED_RETURNED


def lost_grants(held: Iterable[Lease], listed: set[str]) -> list[Lease]:
    """Leases that their holder does not list: it never got the answer that granted them."""
    return [lease for lease in held if lease.attempt not in listed]
