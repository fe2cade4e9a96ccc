"""The host table, walked exhaustively, and slots under any order of events."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from clusterbuild.core.hosts import (
    FAULTS,
    PAUSES,
    TRANSITIONS,
    Event,
    Host,
    IllegalHostEventError,
    NoSlotError,
    State,
    adopt,
    claim,
    happen,
    hastened,
    job_faulted,
    job_worked,
    next_due,
    release,
    resized,
)

EVERY = [(state, event) for state in State for event in Event]


def ident(pair):
    return f"{pair[0].value}-{pair[1].value}"


@pytest.mark.parametrize("pair", EVERY, ids=ident)
def test_every_event_in_every_state_moves_or_raises(pair):
    state, event = pair
    host = Host("h1", 2, state, "before", frozenset({"a1"}))
    if event in TRANSITIONS[state]:
        moved = happen(host, event, 100.0, "because")
        assert moved.state is TRANSITIONS[state][event]
        assert moved.reason == "because"
        assert moved.claims == host.claims
    else:
        with pytest.raises(IllegalHostEventError, match=f"h1 is {state.value}"):
            happen(host, event, 100.0)


@pytest.mark.parametrize("state", list(State))
def test_only_a_ready_host_has_free_slots(state):
    host = Host("h1", 2, state)
    assert host.free == (2 if state is State.READY else 0)


@pytest.mark.parametrize("state", [state for state in State if state is not State.READY])
def test_every_state_leads_back_to_ready(state):
    seen, todo = set(), [state]
    while todo:
        at = todo.pop()
        if at not in seen:
            seen.add(at)
            todo.extend(TRANSITIONS[at].values())
    assert State.READY in seen


@pytest.mark.parametrize("state", sorted(PAUSES, key=lambda state: state.value))
def test_what_ends_by_itself_is_due_some_time(state):
    event = {State.LOST: Event.MISSED, State.REFUSED: Event.UNFIT, State.QUARANTINED: Event.FAULTED}
    host = happen(Host("h1", 1, State.READY), event[state], 50.0, "why")
    first, longest = PAUSES[state]
    assert host.due == 50.0 + first
    pauses = []
    for _ in range(20):
        host = happen(happen(host, Event.PROBE, host.due), Event.PROBED, host.due)
        host = happen(host, event[state], 1000.0, "why")
        pauses.append(host.due - 1000.0)
    assert pauses == sorted(pauses)
    assert pauses[-1] == longest


def test_faults_in_a_row_quarantine_and_a_success_forgets():
    host = Host("h1", 1, State.READY)
    for _ in range(FAULTS - 1):
        host = job_faulted(host, 10.0, "disk full")
        assert host.state is State.READY
        assert (host.due, host.free) == (10.0, 0), "it is looked at before it gets another job"
        host = happen(host, Event.PROBED, 11.0)
        assert (host.due, host.free) == (0.0, 1)
    host = job_worked(host)
    for _ in range(FAULTS):
        assert host.state is State.READY
        host = job_faulted(host, 10.0, "disk full")
    assert host.state is State.QUARANTINED
    assert host.reason == "3 jobs failed in a row: disk full"
    assert host.due == 40.0
    later = job_faulted(host, 20.0, "disk full")
    assert (later.state, later.due) == (State.QUARANTINED, 40.0)
    assert job_worked(host).setbacks == 0


def test_what_waits_can_be_hastened():
    lost = happen(Host("h1", 1, State.READY), Event.MISSED, 50.0)
    assert hastened(lost, 50.5).due == 50.5 < lost.due
    assert hastened(lost, 90.0).due == lost.due
    assert hastened(Host("h1", 1, State.READY), 50.0).due == 0.0


def test_claims_stop_at_slots_and_are_idempotent():
    host = claim(claim(Host("h1", 1, State.READY), "a1"), "a1")
    assert host.claims == {"a1"}
    with pytest.raises(NoSlotError, match="no free slot for a2: 1 of 1 are claimed"):
        claim(host, "a2")
    assert release(release(host, "a1"), "a1").free == 1


def test_adopted_jobs_count_even_where_there_is_no_room():
    host = adopt(adopt(Host("h1", 1, State.READY), "a1"), "a2")
    assert host.free == 0
    assert release(host, "a1").free == 0
    assert release(release(host, "a1"), "a2").free == 1
    assert resized(host, 3).free == 1


def test_the_next_probe_is_the_earliest():
    hosts = [Host("h1", 1), Host("h2", 1, State.LOST, due=9.0), Host("h3", 1, State.LOST, due=7.0)]
    assert next_due(hosts) == 7.0
    assert next_due(hosts[:1]) == 0.0


class Slots(RuleBasedStateMachine):
    """Any order of claims, releases and events: accounts agree with a plain set."""

    def __init__(self):
        super().__init__()
        self.host = Host("h1", 3)
        self.claimed = set()

    @rule(attempt=st.sampled_from("abcdefgh"))
    def claim(self, attempt):
        ready = self.host.state is State.READY and not self.host.due
        room = ready and len(self.claimed) < self.host.slots
        if attempt in self.claimed or room:
            self.host = claim(self.host, attempt)
            self.claimed.add(attempt)
        else:
            with pytest.raises(NoSlotError):
                claim(self.host, attempt)

    @rule(attempt=st.sampled_from("abcdefgh"))
    def release(self, attempt):
        self.host = release(self.host, attempt)
        self.claimed.discard(attempt)

    @rule(event=st.sampled_from(list(Event)), now=st.floats(0, 1e9))
    def happen(self, event, now):
        if event in TRANSITIONS[self.host.state]:
            self.host = happen(self.host, event, now)

    @precondition(lambda self: self.host.state is State.UNKNOWN)
    @rule()
    def probed(self):
        self.host = happen(happen(self.host, Event.PROBE, 0), Event.PROBED, 0)

    @rule(good=st.booleans())
    def ended(self, good):
        self.host = job_worked(self.host) if good else job_faulted(self.host, 1.0, "x")

    @invariant()
    def never_more_than_slots(self):
        assert self.host.claims == self.claimed
        assert len(self.claimed) <= self.host.slots
        assert 0 <= self.host.free <= self.host.slots

    @invariant()
    def what_waits_is_due(self):
        if self.host.state in PAUSES:
            assert self.host.due > 0
        elif self.host.due:
            assert self.host.state in (State.READY, State.DRAINING)


TestSlots = Slots.TestCase


@given(st.integers(0, 5), st.sets(st.sampled_from("abcdefgh")))
def test_free_is_what_is_left(slots, attempts):
    host = Host("h1", slots, State.READY)
    for attempt in attempts:
        host = adopt(host, attempt)
    assert host.free == max(0, slots - len(attempts))
    assert replace(host, claims=frozenset()).free == slots
