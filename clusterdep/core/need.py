"""What is needed of a graph: what is selected, and everything that requires, kept up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from clusterdep.core.graph import Graph


class Need:
    """Counts for each package how many needed packages require it directly, and its selection.

    `changed(package, needed)` is told of each package that comes to be needed, or is no more.
    """

    def __init__(self, graph: Graph, changed: Callable[[int, bool], None]) -> None:
        self._graph = graph
        self._changed = changed
        self.selected: set[int] = set()
        self._count: dict[int, int] = {}  # of those that are needed
        self._before: dict[int, tuple[int, ...]] = {}

    def __contains__(self, package: int) -> bool:
        return package in self._count

    def __len__(self) -> int:
        return len(self._count)

    def choose(self, package: int, selected: bool) -> None:
        """Whether this one is selected."""
        if selected and package not in self.selected:
            self.selected.add(package)
            self._more((package,))
        elif not selected and package in self.selected:
            self.selected.discard(package)
            self._less((package,))

    def keep(self, package: int) -> None:
        """It is about to require something else: until `rewire` what it does now counts."""
        self._before.setdefault(package, self._graph.requires_of(package))

    def rewire(self) -> Iterator[None]:
        """What was kept is over: what the graph says counts. To be called when it is settled.

        May be paused at each yield.
        """
        for package in list(self._before):
            before = self._before.pop(package, None)
            if before is not None and package in self._count:
                now = self._graph.requires[package]
                self._more(set(now).difference(before))
                self._less(set(before).difference(now))
            yield

    def _requires(self, package: int) -> tuple[int, ...]:
        kept = self._before.get(package)
        return self._graph.requires[package] if kept is None else kept

    def _more(self, packages: Iterable[int]) -> None:
        work = list(packages)
        while work:
            package = work.pop()
            count = self._count[package] = self._count.get(package, 0) + 1
            if count == 1:
                self._changed(package, True)
                work.extend(self._requires(package))

    def _less(self, packages: Iterable[int]) -> None:
        work = list(packages)
        if work and self._graph.cycles:
            self._recount()  # members of a cycle would need each other for ever
            return
        while work:
            package = work.pop()
            count = self._count[package] - 1
            if count:
                self._count[package] = count
                continue
            del self._count[package]
            self._changed(package, False)
            work.extend(self._requires(package))

    def _recount(self) -> None:
        self._before.clear()
        before = set(self._count)
        found = self._graph.closure(self.selected)
        count = dict.fromkeys(found, 0)
        for package in self.selected:
            count[package] += 1
        for package in found:
            for other in self._graph.requires[package]:
                count[other] += 1
        self._count = count
        for package in before - count.keys():
            self._changed(package, False)
        for package in count.keys() - before:
            self._changed(package, True)
