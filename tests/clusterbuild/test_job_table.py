"""The job table, walked exhaustively."""

import pytest

from clusterbuild.core.job import (
    RENEWED,
    TRANSITIONS,
    WITH_SLOT,
    Event,
    IllegalEventError,
    Instruction,
    Job,
    Phase,
    advance,
)

EVERY = [(phase, event) for phase in Phase for event in Event]
LISTED = [(phase, event) for phase, row in TRANSITIONS.items() for event in row]
#: Instructions whose end is told by one of these events; a phase entered by one waits for it.
ANSWERS = {
    Instruction.START: {Event.STARTED, Event.NOT_STARTED},
    Instruction.FETCH: {Event.FETCHED, Event.FETCHED_LOGS, Event.NOT_FETCHED},
    Instruction.STORE: {Event.STORED, Event.NOT_STORED},
    Instruction.REPORT: {Event.ACCEPTED, Event.REFUSED},
    Instruction.END: {Event.ENDED},
}


def ident(pair):
    return f"{pair[0].value}-{pair[1].value}"


@pytest.mark.parametrize("pair", EVERY, ids=ident)
def test_every_event_in_every_phase_moves_or_raises(pair):
    phase, event = pair
    job = Job("a1", phase, (Event.BEGIN,))
    row = TRANSITIONS[phase]
    if event in row:
        moved, instructions = advance(job, event)
        assert (moved.phase, instructions) == row[event]
        assert moved.story == (Event.BEGIN, event)
    else:
        with pytest.raises(IllegalEventError) as caught:
            advance(job, event)
        assert caught.value.job is job
        assert f"is {phase.value}, where '{event.value}' may not happen" in str(caught.value)
        assert "begin" in str(caught.value)


@pytest.mark.parametrize("pair", LISTED, ids=ident)
def test_a_slot_is_released_exactly_when_it_is_left(pair):
    phase, event = pair
    after, instructions = TRANSITIONS[phase][event]
    leaves = phase in WITH_SLOT and after not in WITH_SLOT
    assert instructions.count(Instruction.RELEASE) == (1 if leaves else 0)
    assert phase in WITH_SLOT or after not in WITH_SLOT, "a slot cannot be taken again"


@pytest.mark.parametrize("pair", LISTED, ids=ident)
def test_whoever_waits_listens_for_the_answer(pair):
    phase, event = pair
    after, instructions = TRANSITIONS[phase][event]
    for instruction in instructions:
        assert ANSWERS.get(instruction, set()) <= set(TRANSITIONS[after])


@pytest.mark.parametrize("pair", LISTED, ids=ident)
def test_a_job_that_stays_has_nothing_new_to_do(pair):
    phase, event = pair
    after, instructions = TRANSITIONS[phase][event]
    assert after is not phase or instructions == ()


@pytest.mark.parametrize("pair", LISTED, ids=ident)
def test_only_an_accepted_result_is_published(pair):
    phase, event = pair
    _, instructions = TRANSITIONS[phase][event]
    assert (Instruction.PUBLISH in instructions) == (event is Event.ACCEPTED)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.DONE])
def test_every_phase_can_end(phase):
    seen, todo = set(), [phase]
    while todo:
        at = todo.pop()
        if at not in seen:
            seen.add(at)
            todo.extend(after for after, _ in TRANSITIONS[at].values())
    assert Phase.DONE in seen


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.DONE])
def test_clusterdep_can_take_away_any_job(phase):
    assert Event.CANCELLED in TRANSITIONS[phase]
    job, _ = advance(Job("a1", phase), Event.CANCELLED)
    assert job.phase in (Phase.ENDING, Phase.DONE)


@pytest.mark.parametrize("phase", sorted(WITH_SLOT, key=lambda phase: phase.value))
def test_every_phase_on_a_host_survives_its_loss(phase):
    job, _ = advance(Job("a1", phase), Event.HOST_LOST)
    assert job.phase in (Phase.LOST, Phase.REPORTING, Phase.DONE)


def test_done_is_the_end():
    assert TRANSITIONS[Phase.DONE] == {}
    assert set(TRANSITIONS) == set(Phase)


def test_leases_of_lost_and_cancelled_jobs_lapse():
    assert set(Phase) - RENEWED == {Phase.LOST, Phase.ENDING, Phase.DONE}


def test_every_event_and_instruction_is_used():
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)
    used = {do for row in TRANSITIONS.values() for _, todo in row.values() for do in todo}
    assert used == set(Instruction)


def test_the_straight_way():
    job = Job("a1")
    told = []
    for event in (
        Event.BEGIN,
        Event.STARTED,
        Event.FOUND_FINISHED,
        Event.FETCHED,
        Event.STORED,
        Event.ACCEPTED,
    ):
        job, instructions = advance(job, event)
        told += instructions
    assert job.phase is Phase.DONE
    assert told == [
        Instruction.START,
        Instruction.RELEASE,
        Instruction.FETCH,
        Instruction.STORE,
        Instruction.REPORT,
        Instruction.PUBLISH,
        Instruction.CLEAN,
    ]


def test_the_story_is_bounded():
    job = Job("a1", Phase.BUILDING)
    for _ in range(100):
        job, _ = advance(job, Event.FOUND_RUNNING)
    assert len(job.story) == 20
