"""How many packages there are of each state, needed and selected ones apart, kept up."""

from __future__ import annotations

from collections.abc import Iterator

from clusterdep.core.graph import State


class Tally:
    """Counts packages by state, whether they are needed, and whether they are selected."""

    def __init__(self) -> None:
        self._counts = [0] * (4 * len(State))

    def move(self, old: State, new: State, needed: bool, selected: bool) -> None:
        """A package has another state."""
        place = 2 * needed + selected
        self._counts[4 * old + place] -= 1
        self._counts[4 * new + place] += 1

    def need(self, state: State, needed: bool, selected: bool) -> None:
        """A package has come to be needed, or is no more."""
        self._counts[4 * state + 2 * (not needed) + selected] -= 1
        self._counts[4 * state + 2 * needed + selected] += 1

    def select(self, state: State, needed: bool, selected: bool) -> None:
        """A package has come to be selected, or is no more."""
        self._counts[4 * state + 2 * needed + (not selected)] -= 1
        self._counts[4 * state + 2 * needed + selected] += 1

    def __iter__(self) -> Iterator[tuple[State, bool, bool, int]]:
        """(state, needed, selected, how many), of those that are there."""
        for at, count in enumerate(self._counts):
            state = State(at // 4)
            if count and state is not State.ABSENT:
                yield state, bool(at & 2), bool(at & 1), count
