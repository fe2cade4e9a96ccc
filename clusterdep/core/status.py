"""What a package is, from facts; and why, as one tree of evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from clusterdep.core.graph import State


class Status(Enum):
    """What a package is, in the words everybody sees."""

    UNSCANNED = "unscanned"
    SKIPPED = "skipped"
    PREFAILED = "prefailed"
    UNRESOLVED = "unresolved"
    WAITING = "waiting"
    OPEN = "open"
    LEASED = "leased"
    BUILT = "built"
    FAILED = "failed"
    BLOCKED = "blocked"
    HELD = "held"


#: Without leases and holds, which come on top. A member of a cycle waits for itself; what is
#: just being taken in waits until that is done.
_OF_STATE: dict[State, Status] = {
    State.OPEN: Status.OPEN,
    State.WAITING: Status.WAITING,
    State.BUILT: Status.BUILT,
    State.FAILED: Status.FAILED,
    State.BLOCKED: Status.BLOCKED,
    State.SKIPPED: Status.SKIPPED,
    State.PREFAILED: Status.PREFAILED,
    State.UNRESOLVED: Status.UNRESOLVED,
    State.CYCLE: Status.BLOCKED,
    State.ABSENT: Status.WAITING,
}

#: pbulk's report has fewer words.
PBULK: dict[Status, str] = {
    Status.UNSCANNED: "prefailed",
    Status.SKIPPED: "prefailed",
    Status.PREFAILED: "prefailed",
    Status.UNRESOLVED: "prefailed",
    Status.WAITING: "open",
    Status.OPEN: "open",
    Status.HELD: "open",
    Status.LEASED: "in_processing",
    Status.BUILT: "done",
    Status.FAILED: "failed",
    Status.BLOCKED: "indirect-failed",  # or indirect-prefailed, by its cause
}


def own_verdict(skip_reason: str, fail_reason: str, duplicate: bool, unresolved: bool) -> State:
    """What a record alone says: OPEN if nothing is against it.

    A record whose PKGNAME an earlier one has is left out, as by pbulk. A skip reason
    comes before a fail reason (a package with both is not for this platform); a pattern
    that nothing matches comes last.
    """
    if skip_reason or duplicate:
        return State.SKIPPED
    if fail_reason:
        return State.PREFAILED
    return State.UNRESOLVED if unresolved else State.OPEN


def status_of(state: State, leased: bool = False, held: bool = False) -> Status:
    """What a package is: a lease comes before all else, a hold only before being open."""
    if leased:
        return Status.LEASED
    status = _OF_STATE[state]
    if held and status in (Status.OPEN, Status.WAITING):
        return Status.HELD
    return status


@dataclass(frozen=True, slots=True)
class Failure:
    """Attempts that count against a package, as long as its input key is theirs."""

    input_key: str
    package_is_to_blame: bool
    returned: int  # attempts in a row that were others' fault
    attempt: str
    stage: str
    message: str
    host: str
    log: str

    #: Attempts in a row, lost to hosts or infrastructure, after which a job is not tried again.
    LIMIT = 3

    @property
    def final(self) -> bool:
        """Whether it is not tried again until something changes."""
        return self.package_is_to_blame or self.returned >= self.LIMIT


def judge(
    policy: str,
    pkgname: str,
    key: str,
    artifact: tuple[str, str] | None,
    failure: Failure | None,
) -> State:
    """BUILT, FAILED or OPEN: what a package is when all its requirements are built.

    `artifact` is (pkgname, input key) of the newest there is. Policies: `exists` takes
    any artifact, `version` one of the same pkgname, `inputs` one of the same input key.
    """
    if artifact is not None:
        name, made_from = artifact
        current = {
            "exists": True,
            "version": name == pkgname,
            "inputs": name == pkgname and made_from == key,
        }[policy]
        if current:
            return State.BUILT
    if failure is not None and failure.final and failure.input_key == key:
        return State.FAILED
    return State.OPEN


@dataclass(frozen=True, slots=True)
class Evidence:
    """One node of an answer to "why?": what it is about, what that is, and the causes."""

    subject: str
    status: Status
    text: str
    causes: tuple[Evidence, ...] = ()


#: Most nodes in one answer, and how deep it goes: more only says the same.
MOST_NODES = 200
DEEPEST = 60


def explain(
    package: int,
    name: Callable[[int], str],
    status: Callable[[int], Status],
    sentence: Callable[[int], str],
    causes: Callable[[int], Sequence[int]],
) -> Evidence:
    """Why `package` has its status, down to causes that speak for themselves.

    A package met a second time is named, and not explained again.
    """
    seen: set[int] = set()

    def node(current: int, deep: int) -> Evidence:
        if current in seen:
            return Evidence(name(current), status(current), "see above")
        seen.add(current)
        below: list[Evidence] = []
        for cause in causes(current):
            if len(seen) >= MOST_NODES or deep >= DEEPEST:
                break
            below.append(node(cause, deep + 1))
        return Evidence(name(current), status(current), sentence(current), tuple(below))

    return node(package, 0)
