"""The graph against a slow, obviously right one."""

from __future__ import annotations

import os
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from clusterdep.core.graph import DEAD, Graph, Judge, Listener, State
from clusterdep.core.levels import Levels
from clusterdep.core.need import Need

SIZE = int(os.environ.get("TEST_SIZE", "1"))

OWN = (State.OPEN, State.OPEN, State.OPEN, State.SKIPPED, State.PREFAILED, State.UNRESOLVED)


class Facts:
    """Verdicts that a test changes, and the graph asks for."""

    def __init__(self, verdicts: list[State]) -> None:
        self.verdicts = verdicts
        self.asked_early = 0

    def judge(self, package: int) -> State:
        return self.verdicts[package]


def made(
    requires: list[list[int]], own: list[State], judge: Judge, listener: Listener | None = None
) -> Graph:
    """A graph of all these packages, settled."""
    graph = Graph(judge, listener or (lambda package, old, new: None))
    for package, needed in enumerate(requires):
        graph.put(package, needed, own[package])
    for _ in graph.settle():
        pass
    return graph


def naive(requires: list[list[int]], own: list[State], verdicts: list[State]) -> list[State]:
    """The same by definition: repeat until nothing changes."""
    count = len(requires)

    def reaches_itself(start: int) -> bool:
        seen: set[int] = set()
        work = list(requires[start])
        while work:
            node = work.pop()
            if node == start:
                return True
            if node not in seen:
                seen.add(node)
                work += requires[node]
        return False

    fixed = [
        own[i] if own[i] is not State.OPEN else State.CYCLE if reaches_itself(i) else None
        for i in range(count)
    ]
    state: list[State | None] = list(fixed)
    while None in state:
        for i in range(count):
            below = [state[j] for j in requires[i]]
            if state[i] is None and None not in below:
                if any(s in DEAD for s in below):
                    state[i] = State.BLOCKED
                elif all(s is State.BUILT for s in below):
                    state[i] = verdicts[i]
                else:
                    state[i] = State.WAITING
    return [s for s in state if s is not None]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[list[int]], list[State]]:
    count = draw(st.integers(1, 9))
    cyclic = draw(st.booleans())
    requires = [
        draw(st.lists(st.integers(0, count - 1 if cyclic else max(i - 1, 0)), max_size=4))
        if i or cyclic
        else []
        for i in range(count)
    ]
    return requires, draw(st.lists(st.sampled_from(OWN), min_size=count, max_size=count))


@settings(max_examples=300, deadline=None)
@given(graphs(), st.data())
def test_every_change_leaves_what_a_full_derivation_gives(
    graph: tuple[list[list[int]], list[State]], data: st.DataObject
) -> None:
    requires, own = graph
    facts = Facts([State.OPEN] * len(requires))
    told: dict[int, State] = {}
    real = made(requires, own, facts.judge, lambda p, old, new: told.update({p: new}))
    for _ in range(data.draw(st.integers(0, 12))):
        package = data.draw(st.integers(0, len(requires) - 1))
        facts.verdicts[package] = data.draw(
            st.sampled_from((State.OPEN, State.BUILT, State.BUILT, State.FAILED))
        )
        before = list(real.state)
        told.clear()
        real.refresh(package)
        assert real.recount() == []
        assert real.state == naive(requires, own, facts.verdicts)
        # The listener hears of exactly what changed.
        assert told.keys() >= {p for p, s in enumerate(before) if real.state[p] is not s}
        assert all(real.state[p] is s for p, s in told.items())


@settings(max_examples=200, deadline=None)
@given(graphs())
def test_chains_lead_to_a_cause_and_cycles_are_cycles(
    graph: tuple[list[list[int]], list[State]],
) -> None:
    requires, own = graph
    real = made(requires, own, lambda package: State.OPEN)
    for package in range(len(requires)):
        if real.state[package] is State.BLOCKED:
            chain = real.chain(package)
            assert chain[0] == package
            assert all(b in requires[a] for a, b in pairwise(chain))
            assert real.state[chain[-1]] in DEAD - {State.BLOCKED}
    for cycle in real.cycles.values():
        around = [*cycle, cycle[0]]
        assert all(b in requires[a] for a, b in pairwise(around))
    in_cycles = {p for p in range(len(requires)) if real.state[p] is State.CYCLE}
    assert in_cycles == {p for p in real.cycles if own[p] is State.OPEN}


@settings(max_examples=200, deadline=None)
@given(graphs(), st.data())
def test_bottom_levels_are_longest_paths(
    graph: tuple[list[list[int]], list[State]], data: st.DataObject
) -> None:
    requires, own = graph
    seconds = [float(data.draw(st.integers(1, 50))) for _ in requires]
    real = made(requires, own, lambda package: State.OPEN)
    levels = Levels(real, lambda p: real.state[p] in COUNTED, seconds.__getitem__)
    levels.mark_all()
    levels.settle()
    assert [levels[p] for p in range(len(requires))] == longest(real, seconds)


COUNTED = (State.OPEN, State.WAITING)


def longest(graph: Graph, seconds: list[float]) -> list[float]:
    """Bottom levels by definition."""

    def level(package: int) -> float:
        if graph.state[package] not in COUNTED:
            return 0.0
        return seconds[package] + max(map(level, graph.dependents[package]), default=0.0)

    return [level(package) for package in range(len(graph.state))]


@settings(max_examples=400 * SIZE, deadline=None)
@given(graphs(), st.data())
def test_any_sequence_of_changes_is_the_same_as_starting_with_the_last(
    graph: tuple[list[list[int]], list[State]], data: st.DataObject
) -> None:
    requires, own = graph
    count = len(requires)
    verdicts = [State.OPEN] * count
    told: list[tuple[int, State, State]] = []
    real = Graph(verdicts.__getitem__, lambda *change: told.append(change))
    seconds = [float(data.draw(st.integers(1, 50))) for _ in requires]
    levels = Levels(real, lambda p: real.state[p] in COUNTED, seconds.__getitem__)
    needed: set[int] = set()
    need = Need(real, lambda p, now: (needed.add if now else needed.discard)(p))
    for package in range(count):
        need.keep(package)
        real.put(package, requires[package], own[package])
        levels.mark(package)
    for _ in range(data.draw(st.integers(1, 8))):
        steps = real.settle()
        for _ in range(data.draw(st.integers(0, count))):  # somebody else has a turn meanwhile
            next(steps, None)
            package = data.draw(st.integers(0, count - 1))
            verdicts[package] = data.draw(st.sampled_from((*COUNTED[:1], *BUILT)))
            real.refresh(package)
        for _ in steps:
            pass
        for _ in need.rewire():
            pass
        _choose(need, data, count)
        for package, old, new in told:
            if (old in COUNTED) != (new in COUNTED):
                levels.mark(package)
        told.clear()
        levels.settle()
        assert real.recount() == []
        assert real.state == naive(requires, own, verdicts)
        assert needed == real.closure(need.selected)
        assert [levels[p] for p in range(count)] == longest(real, seconds)
        assert real.cycles.keys() == {p for p in range(count) if real._reaches_itself(p)}
        for package in data.draw(st.sets(st.integers(0, count - 1), max_size=3)):
            others = data.draw(st.lists(st.integers(0, count - 1), max_size=4))
            for other in (*requires[package], *others, package):
                levels.mark(other)
            requires[package] = others
            own[package] = data.draw(st.sampled_from(OWN))
            need.keep(package)
            real.put(package, others, own[package])


BUILT = (State.BUILT, State.BUILT, State.FAILED)


def _choose(need: Need, data: st.DataObject, count: int) -> None:
    for package in data.draw(st.sets(st.integers(0, count - 1), max_size=2)):
        need.choose(package, data.draw(st.booleans()))


def test_depth_counts_itself_and_each_dependent_once() -> None:
    # 0 <- 1, 2 <- 3 (a diamond), 4 alone
    real = made([[], [0], [0], [1, 2], []], [State.OPEN] * 5, lambda package: State.OPEN)
    assert [real.depth(p) for p in range(5)] == [4, 2, 2, 1, 1]
