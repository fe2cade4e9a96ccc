"""Bottom levels: the priority of a package, kept up as builds end and records change.

The bottom level of a package is the time from its start to the end of the last package
that needs it, if nothing has to wait for a host.
"""

from __future__ import annotations

from collections.abc import Callable

from clusterdep.core.graph import Graph

#: From so many changes on all levels are computed anew: that costs a pass over the graph.
_MANY = 400


class Levels:
    """Bottom levels of the packages of a graph, seconds.

    `counts(package)` says whether it is wanted and still to be built: all others have
    level 0. `seconds(package)` is how long its build is expected to take.
    """

    def __init__(
        self, graph: Graph, counts: Callable[[int], bool], seconds: Callable[[int], float]
    ) -> None:
        self._graph = graph
        self._counts = counts
        self._seconds = seconds
        self._levels: list[float] = []
        self._marked: set[int] = set()
        self._all = False

    def mark(self, package: int) -> None:
        """Its seconds, its dependents, or whether it counts may have changed."""
        if not self._all:
            self._marked.add(package)

    def mark_all(self) -> None:
        """The same of all."""
        self._all = True
        self._marked.clear()

    def __getitem__(self, package: int) -> float:
        """The level of a package when `settle` was called last."""
        return self._levels[package] if package < len(self._levels) else 0.0

    def settle(self) -> set[int] | None:
        """Works off what was marked; the packages whose level changed, None for any number."""
        self._levels += [0.0] * (len(self._graph.state) - len(self._levels))
        if self._all or len(self._marked) > _MANY:
            self._all = False
            self._marked.clear()
            self._compute()
            return None
        changed: set[int] = set()
        while self._marked:
            package = self._marked.pop()
            level = self._level(package)
            if level != self._levels[package]:
                self._levels[package] = level
                changed.add(package)
                self._marked.update(self._graph.requires[package])
        return changed

    def _level(self, package: int) -> float:
        if not self._counts(package):
            return 0.0
        levels = self._levels
        behind = max((levels[other] for other in self._graph.dependents[package]), default=0.0)
        return self._seconds(package) + behind

    def _compute(self) -> None:
        requires, dependents = self._graph.requires, self._graph.dependents
        counted = [p for p in range(len(self._levels)) if self._counts(p)]
        left = dict.fromkeys(counted, 0)
        for package in counted:
            for other in requires[package]:
                if other in left:
                    left[other] += 1
        levels = self._levels = [0.0] * len(self._levels)
        order = [package for package in counted if not left[package]]
        for package in order:
            behind = max((levels[other] for other in dependents[package]), default=0.0)
            levels[package] = self._seconds(package) + behind
            for other in requires[package]:
                if other in left:
                    left[other] -= 1
                    if not left[other]:
                        order.append(other)
