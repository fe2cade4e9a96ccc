"""What is scanned next and by whom: rules that hold for any line and any sequence of leases."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clusterdep.core.scanqueue import (
    BATCH,
    LEAST,
    MOST,
    UNKNOWN,
    Outdated,
    ScanLease,
    ScanLeases,
    batches,
    expected,
)

LINES = st.lists(
    st.tuples(st.floats(0, 60), st.booleans()).map(lambda t: (t[0], t[1] and t[0] > 50)),
    max_size=400,
).map(lambda found: [Outdated(f"c/p{n}", s, alone) for n, (s, alone) in enumerate(found)])


@given(LINES, st.integers(0, 20), st.integers(0, 40))
def test_batches_are_taken_from_the_front_in_order(
    line: list[Outdated], free: int, slots: int
) -> None:
    found = list(batches(line, free, slots))
    taken = [one for batch in found for one in batch]
    assert taken == line[: len(taken)]
    assert len(found) <= free
    assert len(taken) == len(line) or len(found) == free
    for batch in found:
        assert 0 < len(batch) <= MOST
        assert len(batch) == 1 or sum(map(expected, batch)) <= BATCH
        assert len(batch) == 1 or not any(one.alone for one in batch)


def test_what_was_never_scanned_has_a_guess() -> None:
    assert expected(Outdated("a/b")) == UNKNOWN
    assert expected(Outdated("a/b", 3.0)) == 3.0


def makespan(seconds: list[float], slots: int) -> tuple[float, int]:
    """When the last slot ends, if each comes for a batch when it is free; and the batches."""
    line = [Outdated(f"c/p{n}", s) for n, s in enumerate(seconds)]
    free = [0.0] * slots
    count = 0
    while line:
        now = heapq.heappop(free)
        [batch] = batches(line, 1, slots)
        line = line[len(batch) :]
        heapq.heappush(free, now + sum(map(expected, batch)))
        count += 1
    return max(free), count


@given(st.lists(st.floats(0.05, 5.0), min_size=1, max_size=600), st.integers(1, 16))
def test_all_slots_end_at_about_the_same_time(seconds: list[float], slots: int) -> None:
    ends, count = makespan(seconds, slots)
    assert ends <= sum(seconds) / slots + LEAST + max(seconds) + 1e-6
    # And the work is not cut into crumbs.
    assert count <= sum(seconds) / (BATCH / 2) + 12 * slots + len(seconds) / MOST + 1


def lease(number: int, *pkgpaths: str, profile: str = "p") -> ScanLease:
    return ScanLease(profile, f"a{number}", number, "d", "h", 0.0, pkgpaths)


def test_no_pkgpath_is_leased_twice() -> None:
    leases = ScanLeases(10.0)
    leases.add(lease(1, "a/b", "a/c"), 0.0)
    with pytest.raises(ValueError, match="a/c is leased"):
        leases.add(lease(2, "a/d", "a/c"), 0.0)
    assert leases.holder("p", "a/d") == ""
    leases.add(lease(3, "a/c", profile="q"), 0.0)
    leases.add(lease(4), 0.0)
    with pytest.raises(ValueError, match="leased already"):
        leases.add(lease(5), 0.0)
    assert leases.count("p") == 2
    leases.end("a1")
    leases.end("a1")
    assert (leases.holder("p", "a/c"), leases.holder("q", "a/c")) == ("", "a3")


class Leasing(RuleBasedStateMachine):
    """Grants, renewals, ends and time in any order, beside a simple model."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = ScanLeases(10.0)
        self.model: dict[str, tuple[set[str], float]] = {}
        self.now = 0.0
        self.number = 0

    @rule(names=st.sets(st.sampled_from("abcdefgh"), min_size=1))
    def grant(self, names: set[str]) -> None:
        self.number += 1
        new = lease(self.number, *sorted(f"x/{name}" for name in names))
        busy = {name for held, _ in self.model.values() for name in held}
        if busy & names:
            with pytest.raises(ValueError, match="leased already"):
                self.leases.add(new, self.now)
        else:
            self.leases.add(new, self.now)
            self.model[new.attempt] = (names, self.now + 10.0)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), how=st.sampled_from(["renew", "end"]))
    def touch(self, data: st.DataObject, how: str) -> None:
        attempt = data.draw(st.sampled_from(sorted(self.model)))
        if how == "renew":
            self.leases.renew(attempt, self.now)
            self.model[attempt] = (self.model[attempt][0], self.now + 10.0)
        else:
            self.leases.end(attempt)
            del self.model[attempt]

    @rule(seconds=st.floats(0.0, 12.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        over = {attempt for attempt, (_, until) in self.model.items() if until <= self.now}
        assert {one.attempt for one in self.leases.expired(self.now)} == over

    @invariant()
    def holders_are_those_of_the_model(self) -> None:
        held = {name: attempt for attempt, (names, _) in self.model.items() for name in names}
        for name in "abcdefgh":
            assert self.leases.holder("p", f"x/{name}") == held.get(name, "")
        assert self.leases.count("p") == len(held)
        assert len(self.leases) == len(self.model)


TestLeasing = Leasing.TestCase
