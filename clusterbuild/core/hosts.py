"""Hosts: what state each is in, which slots are claimed, and when it is looked at again.

In words:

* A host begins `unknown` and is probed. It becomes `ready`, `lost` if it cannot be
  reached, or `refused` if it cannot build (with what is missing).
* After a job that failed through no fault of its package a host is probed before it gets
  another: whatever broke the job, as a full disk, may make it `refused`.
* A ready host that fails several jobs in a row through no fault of the packages is
  `quarantined` for a pause that grows with every time. One success forgets it all.
* `draining` hosts finish what they run and take nothing new.
* `lost`, `quarantined` and `refused` end by themselves: when the pause is over the host
  is probed again.
* Never are more jobs claimed on a host than it has slots. Jobs found running after a
  restart are claimed even so, because they do run; the host then has no free slot until
  enough of them have ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum


class State(Enum):
    """Where a host is in its life; the values are the words people see."""

    UNKNOWN = "unknown"
    PROBING = "probing"
    READY = "ready"
    DRAINING = "draining"
    LOST = "lost"
    QUARANTINED = "quarantined"
    REFUSED = "refused"


class Event(Enum):
    """What can happen to a host."""

    PROBE = "probe"  # it is being looked at
    PROBED = "probed"  # it answered, and can build
    UNFIT = "unfit"  # it answered, and cannot build
    MISSED = "missed"  # it did not answer, or the connection broke
    FAULTED = "faulted"  # it failed too many jobs in a row
    DRAIN = "drain"  # somebody wants it to take nothing new
    RESUME = "resume"


S = State
E = Event

TRANSITIONS: dict[State, dict[Event, State]] = {
    S.UNKNOWN: {E.PROBE: S.PROBING},
    S.PROBING: {E.PROBED: S.READY, E.UNFIT: S.REFUSED, E.MISSED: S.LOST},
    S.READY: {
        E.PROBED: S.READY,
        E.UNFIT: S.REFUSED,
        E.MISSED: S.LOST,
        E.FAULTED: S.QUARANTINED,
        E.DRAIN: S.DRAINING,
    },
    S.DRAINING: {
        E.PROBED: S.DRAINING,
        E.UNFIT: S.REFUSED,
        E.MISSED: S.LOST,
        E.FAULTED: S.QUARANTINED,
        E.DRAIN: S.DRAINING,
        E.RESUME: S.READY,
    },
    S.LOST: {E.PROBE: S.PROBING},
    S.QUARANTINED: {E.PROBE: S.PROBING, E.MISSED: S.LOST},
    S.REFUSED: {E.PROBE: S.PROBING, E.MISSED: S.LOST},
}

#: Faults in a row after which a host is quarantined.
FAULTS = 3
#: First and longest pause before a host that is not ready is probed again, seconds.
PAUSES: dict[State, tuple[float, float]] = {
    S.LOST: (1.0, 60.0),
    S.QUARANTINED: (30.0, 3600.0),
    S.REFUSED: (30.0, 600.0),
}


class IllegalHostEventError(Exception):
    """An event that may not happen to a host in its state."""

    def __init__(self, host: Host, event: Event) -> None:
        super().__init__(host, event)
        self.host = host
        self.event = event

    def __str__(self) -> str:
        return (
            f"host {self.host.name} is {self.host.state.value}, where "
            f"'{self.event.value}' may not happen"
        )


class NoSlotError(Exception):
    """A job was to be claimed where there is no free slot."""

    def __init__(self, host: Host, attempt: str) -> None:
        super().__init__(host, attempt)
        self.host = host
        self.attempt = attempt

    def __str__(self) -> str:
        if self.host.state is State.READY and self.host.due:
            return f"host {self.host.name} is looked at before it gets {self.attempt}"
        return (
            f"host {self.host.name} ({self.host.state.value}) has no free slot for "
            f"{self.attempt}: {len(self.host.claims)} of {self.host.slots} are claimed"
        )


@dataclass(frozen=True)
class Host:
    """One host. `due` is the time at which it is probed again, 0 where nothing is due."""

    name: str
    slots: int
    state: State = State.UNKNOWN
    reason: str = ""
    claims: frozenset[str] = field(default_factory=frozenset)
    faults: int = 0  # jobs in a row that failed through no fault of their packages
    setbacks: int = 0  # times in a row it was not ready when it should have been
    due: float = 0.0

    @property
    def free(self) -> int:
        """Slots in which a job could start now: none unless the host is ready, nothing due."""
        if self.state is not State.READY or self.due:
            return 0
        return max(0, self.slots - len(self.claims))


def happen(host: Host, event: Event, now: float, reason: str = "") -> Host:
    """The host after `event` at time `now`; raises IllegalHostEventError.

    `reason` says why, for people, and is kept while the state lasts.
    """
    state = TRANSITIONS[host.state].get(event)
    if state is None:
        raise IllegalHostEventError(host, event)
    if state is host.state:
        due = 0.0 if event is Event.PROBED else host.due
        return replace(host, reason=reason or host.reason, due=due)
    moved = replace(host, state=state, reason=reason, due=0.0)
    if state in PAUSES:
        first, longest = PAUSES[state]
        pause = min(longest, first * 2.0 ** min(host.setbacks, 30))
        moved = replace(moved, setbacks=host.setbacks + 1, due=now + pause, faults=0)
    return moved


def claim(host: Host, attempt: str) -> Host:
    """The host with a slot for `attempt`, which may have it already; raises NoSlotError."""
    if attempt in host.claims:
        return host
    if host.free < 1:
        raise NoSlotError(host, attempt)
    return adopt(host, attempt)


def adopt(host: Host, attempt: str) -> Host:
    """The host with a slot for `attempt`, which runs there already, whatever is free."""
    return replace(host, claims=host.claims | {attempt})


def release(host: Host, attempt: str) -> Host:
    """The host without `attempt`, which may have no slot of it."""
    return replace(host, claims=host.claims - {attempt})


def job_worked(host: Host) -> Host:
    """The host after a job that was built or failed by its own fault: it is sound."""
    return replace(host, faults=0, setbacks=0)


def job_faulted(host: Host, now: float, message: str) -> Host:
    """The host after a job that failed through no fault of its package.

    `message` is what went wrong; the host is probed at once, and quarantined after FAULTS in
    a row.
    """
    faults = host.faults + 1
    counted = replace(host, faults=faults)
    if Event.FAULTED not in TRANSITIONS[host.state]:
        return counted
    if faults < FAULTS:
        return replace(counted, due=now)
    return happen(counted, Event.FAULTED, now, f"{faults} jobs failed in a row: {message}")


def hastened(host: Host, now: float) -> Host:
    """The host, to be probed now if it was to be probed later."""
    return replace(host, due=min(host.due, now)) if host.due else host


def resized(host: Host, slots: int) -> Host:
    """The host with another number of slots; what is claimed stays claimed."""
    return replace(host, slots=slots)


def next_due(hosts: list[Host]) -> float:
    """The earliest time at which one of the hosts has to be probed; 0 if none has."""
    return min((host.due for host in hosts if host.due), default=0.0)
