"""A job's life on a host: event in; new phase and instructions out.

In words:

* A job begins `granted`, with a slot of its host claimed. Once the host was looked at it
  is sent (`sending`), runs (`building`), its logs and package file are brought here
  (`fetching`), the file is checked and kept (`storing`), and clusterdep is told until
  there is a verdict (`reporting`). Then it is `done`, and nothing of it is left there.
* After a restart a granted job may be found on its host in any condition, and goes on
  from there.
* A host that cannot be reached makes its jobs `lost`: they are not renewed, so that their
  leases lapse, but when the host is back, whatever is found there is still reported.
* A job that clusterdep cancels is ended on its host and nothing is reported (`ending`).
  One that is stopped here, or that cannot go on, is ended and given back (`returning`).
  Neither waits for a host that is lost: what is left there is found and ended when the
  host is back, because nobody has leased it then.
* The slot is free as soon as nothing of the job runs on the host any more.
* What a host says late, when its job has gone on, changes nothing.

`TRANSITIONS` is the whole of it. An event that is not listed is illegal: it raises and
changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Phase(Enum):
    """Where a job is in its life; the values are the words people see."""

    GRANTED = "granted"
    SENDING = "sending"
    BUILDING = "building"
    FETCHING = "fetching"
    STORING = "storing"
    REPORTING = "reporting"
    RETURNING = "returning"
    ENDING = "ending"
    LOST = "lost"
    DONE = "done"


class Event(Enum):
    """What can happen to a job."""

    BEGIN = "begin"  # its host is ready, and nothing of the job is there yet
    FOUND_RUNNING = "found running"  # its host was looked at
    FOUND_FINISHED = "found finished"  # there is a result on the host
    FOUND_NOTHING = "found nothing"  # it runs no more and has left no result
    STARTED = "started"
    NOT_STARTED = "not started"  # something of it may be there all the same
    OVERDUE = "overdue"  # its phase takes longer than it may
    FETCHED = "fetched"  # logs and package file are here
    FETCHED_LOGS = "fetched logs"  # the logs are here, and there is no package file
    NOT_FETCHED = "not fetched"
    STORED = "stored"
    NOT_STORED = "not stored"
    ACCEPTED = "accepted"  # verdict: recorded, now or before
    REFUSED = "refused"  # verdict: another lease replaced it
    CANCELLED = "cancelled"  # clusterdep takes it away
    STOPPED = "stopped"  # an operator stops it now
    HOST_LOST = "host lost"
    ENDED = "ended"  # nothing of it runs on its host any more


class Instruction(Enum):
    """What has to be done next, in the order given."""

    START = "start"  # send what is missing and start it
    FETCH = "fetch"  # bring logs and package file here
    STORE = "store"  # check the package file and keep it
    REPORT = "report"  # tell clusterdep until there is a verdict
    PUBLISH = "publish"  # make the kept file visible
    DROP = "drop"  # forget what was fetched or kept of it
    SAVE_LOGS = "save logs"  # bring here what there is of its logs
    END = "end"  # end its processes on the host
    CLEAN = "clean"  # remove its job directory there
    RELEASE = "release"  # its slot is free


P = Phase
E = Event
DO = Instruction

Outcome = tuple[Phase, tuple[Instruction, ...]]

_BEGIN: Outcome = (P.SENDING, (DO.START,))
_FETCH: Outcome = (P.FETCHING, (DO.RELEASE, DO.FETCH))
_RETURN: Outcome = (P.RETURNING, (DO.SAVE_LOGS, DO.END))
_END: Outcome = (P.ENDING, (DO.END,))
_REPORT: Outcome = (P.REPORTING, (DO.REPORT,))
_FREE_AND_REPORT: Outcome = (P.REPORTING, (DO.RELEASE, DO.REPORT))
_FORGET: Outcome = (P.DONE, (DO.DROP, DO.CLEAN))


def _late(phase: Phase, *more: Event) -> dict[Event, Outcome]:
    """What a host says of a job that is in `phase`, where it changes nothing."""
    said = (E.FOUND_RUNNING, E.FOUND_FINISHED, E.FOUND_NOTHING, *more)
    return {event: (phase, ()) for event in said}


TRANSITIONS: dict[Phase, dict[Event, Outcome]] = {
    P.GRANTED: {
        E.BEGIN: _BEGIN,
        E.FOUND_RUNNING: (P.BUILDING, ()),
        E.FOUND_FINISHED: _FETCH,
        E.FOUND_NOTHING: _RETURN,
        E.HOST_LOST: (P.LOST, ()),
        E.CANCELLED: _END,
        E.STOPPED: _RETURN,
    },
    P.SENDING: {
        # Until the start is answered, the host may say anything: only an end counts.
        **_late(P.SENDING),
        E.STARTED: (P.BUILDING, ()),
        E.NOT_STARTED: _RETURN,
        E.FOUND_FINISHED: _FETCH,
        E.OVERDUE: _RETURN,
        E.HOST_LOST: (P.LOST, ()),
        E.CANCELLED: _END,
        E.STOPPED: _RETURN,
    },
    P.BUILDING: {
        E.FOUND_RUNNING: (P.BUILDING, ()),
        E.FOUND_FINISHED: _FETCH,
        E.FOUND_NOTHING: _RETURN,
        E.OVERDUE: _RETURN,
        E.HOST_LOST: (P.LOST, ()),
        E.CANCELLED: _END,
        E.STOPPED: _RETURN,
    },
    P.LOST: {
        E.FOUND_RUNNING: (P.BUILDING, ()),
        E.FOUND_FINISHED: _FETCH,
        E.FOUND_NOTHING: _RETURN,
        E.HOST_LOST: (P.LOST, ()),
        E.CANCELLED: (P.DONE, (DO.RELEASE, DO.DROP)),
        E.STOPPED: _FREE_AND_REPORT,
    },
    P.FETCHING: {
        **_late(P.FETCHING, E.HOST_LOST, E.STOPPED),
        E.FETCHED: (P.STORING, (DO.STORE,)),
        E.FETCHED_LOGS: _REPORT,
        E.NOT_FETCHED: _REPORT,
        E.OVERDUE: _REPORT,
        E.CANCELLED: _FORGET,
    },
    P.STORING: {
        **_late(P.STORING, E.HOST_LOST, E.STOPPED),
        E.STORED: _REPORT,
        E.NOT_STORED: _REPORT,
        E.OVERDUE: _REPORT,
        E.CANCELLED: _FORGET,
    },
    P.REPORTING: {
        **_late(P.REPORTING, E.HOST_LOST, E.STOPPED),
        E.ACCEPTED: (P.DONE, (DO.PUBLISH, DO.CLEAN)),
        E.REFUSED: _FORGET,
        E.CANCELLED: _FORGET,
    },
    P.RETURNING: {
        **_late(P.RETURNING, E.STOPPED),
        E.ENDED: _FREE_AND_REPORT,
        E.HOST_LOST: _FREE_AND_REPORT,
        E.OVERDUE: _FREE_AND_REPORT,
        E.CANCELLED: _END,
    },
    P.ENDING: {
        **_late(P.ENDING, E.STOPPED, E.CANCELLED),
        E.ENDED: (P.DONE, (DO.RELEASE, DO.DROP, DO.CLEAN)),
        E.HOST_LOST: (P.DONE, (DO.RELEASE, DO.DROP)),
        E.OVERDUE: (P.DONE, (DO.RELEASE, DO.DROP)),
    },
    P.DONE: {},
}

#: Phases in which a job has a slot of its host.
WITH_SLOT = frozenset({P.GRANTED, P.SENDING, P.BUILDING, P.LOST, P.RETURNING, P.ENDING})
#: Phases in which its lease is renewed.
RENEWED = frozenset(
    {P.GRANTED, P.SENDING, P.BUILDING, P.FETCHING, P.STORING, P.REPORTING, P.RETURNING}
)
#: How much of a job's story an error tells.
STORY = 20


class IllegalEventError(Exception):
    """An event that may not happen to a job in its phase; carries the job with its story."""

    def __init__(self, job: Job, event: Event) -> None:
        super().__init__(job, event)
        self.job = job
        self.event = event

    def __str__(self) -> str:
        story = ", ".join(event.value for event in self.job.story) or "nothing"
        return (
            f"job {self.job.attempt} is {self.job.phase.value}, where '{self.event.value}' "
            f"may not happen (before: {story})"
        )


@dataclass(frozen=True)
class Job:
    """One attempt: where it is, and the last events that led there."""

    attempt: str
    phase: Phase = Phase.GRANTED
    story: tuple[Event, ...] = ()


def advance(job: Job, event: Event) -> tuple[Job, tuple[Instruction, ...]]:
    """The job after `event`, and what has to be done; raises IllegalEventError."""
    outcome = TRANSITIONS[job.phase].get(event)
    if outcome is None:
        raise IllegalEventError(job, event)
    phase, instructions = outcome
    story = (*job.story, event)[-STORY:]
    return replace(job, phase=phase, story=story), instructions
