"""Which packages of a resolved scan could be built, and what is in the way of the others.

What a package's own record says comes first: a skip reason (also where it has a
fail reason), a fail reason, a token that leads to nothing. What is in the way of
one that requires it is the same, at second hand. Of several things in the way of
a package that counts which somebody could mend: a fail reason before an
unresolved token before a skip reason, however near or far they are.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence


class Buildable(enum.Enum):
    """What can be said of a package before anything was built."""

    YES = "buildable"
    SKIPPED = "skipped"
    PREFAILED = "prefailed"
    UNRESOLVED = "unresolved"
    BEHIND_SKIPPED = "indirectly skipped"
    BEHIND_PREFAILED = "indirectly prefailed"
    BEHIND_UNRESOLVED = "behind unresolved"
    CYCLE = "in or behind a cycle"


#: In the order in which they count.
_BEHIND = {
    Buildable.PREFAILED: Buildable.BEHIND_PREFAILED,
    Buildable.UNRESOLVED: Buildable.BEHIND_UNRESOLVED,
    Buildable.SKIPPED: Buildable.BEHIND_SKIPPED,
}


def alone(skip_reason: bool, fail_reason: bool, unresolved: bool) -> Buildable:
    """What a package's own record says."""
    if skip_reason:
        return Buildable.SKIPPED
    if fail_reason:
        return Buildable.PREFAILED
    return Buildable.UNRESOLVED if unresolved else Buildable.YES


def classify(own: Sequence[Buildable], requires: Sequence[Iterable[int]]) -> list[Buildable]:
    """What is to be said of each package, given `alone` of each and the indexes each requires."""
    result = list(own)
    users: list[list[int]] = [[] for _ in own]
    for package, needed in enumerate(requires):
        for one in set(needed):
            users[one].append(package)
    for cause, behind in _BEHIND.items():
        work = [package for package, what in enumerate(own) if what is cause]
        while work:
            for user in users[work.pop()]:
                if result[user] is Buildable.YES:
                    result[user] = behind
                    work.append(user)
    for package in _never_ready(result, users):
        result[package] = Buildable.CYCLE
    return result


def _never_ready(result: Sequence[Buildable], users: Sequence[Sequence[int]]) -> set[int]:
    """The packages that wait for each other, and those that wait for them."""
    left = {package for package, what in enumerate(result) if what is Buildable.YES}
    waits = Counter(user for package in left for user in users[package])
    ready = [package for package in left if not waits[package]]
    while ready:
        package = ready.pop()
        left.discard(package)
        for user in users[package]:
            waits[user] -= 1
            if not waits[user] and user in left:
                ready.append(user)
    return left


def summary(classes: Iterable[Buildable]) -> str:
    """The counts in one line: `30 packages: 25 buildable, 3 skipped, ...`."""
    counts = Counter(classes)
    parts = [f"{counts[one]} {one.value}" for one in Buildable if counts[one]]
    return f"{counts.total()} packages" + (f": {', '.join(parts)}" if parts else "")
