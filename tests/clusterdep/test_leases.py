"""The life of an attempt, exhaustively; and the table of leases."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterdep.core.leases import (
    TRANSITIONS,
    AttemptEvent,
    AttemptState,
    Lease,
    Leases,
    Refused,
    advance,
    lost_grants,
)

ENDED = {
    AttemptState.BUILT,
    AttemptState.FAILED,
    AttemptState.RETURNED,
    AttemptState.CANCELLED,
}


def lease(package: int, attempt: str = "", dispatcher: str = "d") -> Lease:
    return Lease("p", package, attempt or f"a{package}", 1, dispatcher, "h", 0, 0, 0, "key")


@pytest.mark.parametrize(("state", "event"), list(product(AttemptState, AttemptEvent)))
def test_what_is_not_in_the_table_is_refused(state: AttemptState, event: AttemptEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert advance(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(Refused) as refused:
            advance(state, event)
        assert state.value in str(refused.value)


def test_what_ended_stays_ended() -> None:
    assert not [key for key in TRANSITIONS if key[0] in ENDED]


def test_an_unknown_attempt_is_refused() -> None:
    with pytest.raises(Refused, match="not known"):
        advance(None, AttemptEvent.HELD)


def test_a_package_has_one_lease() -> None:
    leases = Leases(120)
    leases.add(lease(1), now=0)
    with pytest.raises(ValueError, match="leased already"):
        leases.add(lease(1, "other"), now=0)


def test_renewing_moves_the_end() -> None:
    leases = Leases(120)
    leases.add(lease(1), now=100)
    assert leases.next_expiry() == 220
    leases.renew("a1", now=200)
    assert leases.expired(319) == []
    assert [x.attempt for x in leases.expired(320)] == ["a1"]


def test_lost_grants_are_those_not_listed() -> None:
    held = [lease(1), lease(2)]
    assert [x.attempt for x in lost_grants(held, {"a2", "a9"})] == ["a1"]


@given(st.lists(st.tuples(st.sampled_from("are"), st.integers(0, 4), st.integers(0, 50))))
def test_the_three_views_agree(steps: list[tuple[str, int, int]]) -> None:
    leases = Leases(10)
    there: dict[int, float] = {}
    for now, (what, package, _) in enumerate(steps):
        if what == "a" and package not in there:
            leases.add(lease(package), now)
            there[package] = now + 10
        elif what == "r" and package in there:
            leases.renew(f"a{package}", now)
            there[package] = now + 10
        elif what == "e":
            leases.end(f"a{package}")
            there.pop(package, None)
        assert len(leases) == len(there)
        assert {x.package for x in leases.expired(now + 5)} == {
            p for p, end in there.items() if end <= now + 5
        }
        for other in range(5):
            found = leases.of_package(other)
            assert (found is not None) == (other in there)
            assert leases.of_attempt(f"a{other}") is found
