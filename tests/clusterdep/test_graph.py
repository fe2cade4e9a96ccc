"""The graph against a slow, obviously right one."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from clusterdep.core.graph import DEAD, Graph, State

OWN = (State.OPEN, State.OPEN, State.OPEN, State.SKIPPED, State.PREFAILED, State.UNRESOLVED)


class Facts:
    """Verdicts that a test changes, and the graph asks for."""

    def __init__(self, verdicts: list[State]) -> None:
        self.verdicts = verdicts
        self.asked_early = 0

    def judge(self, package: int) -> State:
        return self.verdicts[package]


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
    real = Graph(requires, own, facts.judge, lambda p, old, new: told.update({p: new}))
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
    real = Graph(requires, own, lambda package: State.OPEN)
    for package in range(len(requires)):
        if real.state[package] is State.BLOCKED:
            chain = real.chain(package)
            assert chain[0] == package
            assert all(b in requires[a] for a, b in pairwise(chain))
            assert real.state[chain[-1]] in DEAD - {State.BLOCKED}
    for cycle in real.cycles:
        around = [*cycle, cycle[0]]
        assert all(b in requires[a] for a, b in pairwise(around))
    in_cycles = {p for p in range(len(requires)) if real.state[p] is State.CYCLE}
    assert in_cycles or not any(real.own[p] is State.CYCLE for p in range(len(requires)))


@settings(max_examples=200, deadline=None)
@given(graphs(), st.data())
def test_bottom_levels_are_longest_paths(
    graph: tuple[list[list[int]], list[State]], data: st.DataObject
) -> None:
    requires, own = graph
    seconds = [float(data.draw(st.integers(1, 50))) for _ in requires]
    real = Graph(requires, own, lambda package: State.OPEN)
    counts = {State.OPEN, State.WAITING}

    def longest(package: int) -> float:
        if real.state[package] not in counts:
            return 0.0
        behind = [longest(d) for d in range(len(requires)) if package in requires[d]]
        return seconds[package] + max(behind, default=0.0)

    assert real.bottom_levels(seconds) == [longest(p) for p in range(len(requires))]


def test_depth_counts_itself_and_each_dependent_once() -> None:
    # 0 <- 1, 2 <- 3 (a diamond), 4 alone
    real = Graph([[], [0], [0], [1, 2], []], [State.OPEN] * 5, lambda package: State.OPEN)
    assert [real.depth(p) for p in range(5)] == [4, 2, 2, 1, 1]
