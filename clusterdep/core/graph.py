"""The dependency graph of a profile, and what each package is, kept up as facts change.

Packages are integers from 0. Three things decide what a package is:

* its own verdict, from its record: fine, or one of those that can never be built;
* its requirements: all built, some still to be built, or one that never will be;
* when all are built, a judgement of facts outside (artifacts, attempts), which the
  graph asks for: built, failed, or open.

A change of one package is told to its direct dependents only, and goes on only where
it changes something: the cost is that of what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum


class State(IntEnum):
    """What a package is. SKIPPED to BLOCKED keep dependents from being built."""

    OPEN = 0  # all requirements built, and it is still to be built
    WAITING = 1  # a requirement is still to be built
    BUILT = 2  # its artifact is there and current
    FAILED = 3  # its last attempt failed, and nothing has changed since
    BLOCKED = 4  # a requirement can not be built
    SKIPPED = 5  # has a skip reason
    PREFAILED = 6  # has a fail reason, or is no more what its pkgpath makes
    UNRESOLVED = 7  # asks for something that is not there
    CYCLE = 8  # requires itself


#: Their dependents can not be built.
DEAD = frozenset(
    (
        State.FAILED,
        State.BLOCKED,
        State.SKIPPED,
        State.PREFAILED,
        State.UNRESOLVED,
        State.CYCLE,
    )
)

#: Asked when all requirements of a package are built: BUILT, FAILED or OPEN.
Judge = Callable[[int], State]
#: Told of each change: package, old state, new state.
Listener = Callable[[int, State, State], None]


class Graph:
    """Requirements, dependents, and the state of every package.

    `requires[i]` are the distinct packages that i needs. `own[i]` is OPEN for a package
    whose record has nothing against it, else SKIPPED, PREFAILED or UNRESOLVED; members
    of a cycle that are OPEN become CYCLE.
    """

    def __init__(
        self,
        requires: Sequence[Sequence[int]],
        own: Sequence[State],
        judge: Judge,
        listener: Listener = lambda package, old, new: None,
    ) -> None:
        count = len(requires)
        self.requires = [tuple(dict.fromkeys(needed)) for needed in requires]
        self.dependents: list[list[int]] = [[] for _ in range(count)]
        for package, needed in enumerate(self.requires):
            for other in needed:
                self.dependents[other].append(package)
        self.own = list(own)
        #: Cycles as lists of packages, each requiring the next and the last the first.
        self.cycles: list[list[int]] = []
        self._judge = judge
        self._listener = listener
        self._unbuilt = [len(needed) for needed in self.requires]
        self._dead = [0] * count
        self.state = [State.WAITING] * count
        self.order = self._sort()
        for package in self.order:
            self._enter(package)

    def _sort(self) -> list[int]:
        """Requirements before dependents (Kahn); what remains stands in or behind cycles."""
        left = list(map(len, self.requires))
        order = [package for package, count in enumerate(left) if not count]
        for package in order:
            for dependent in self.dependents[package]:
                left[dependent] -= 1
                if not left[dependent]:
                    order.append(dependent)
        if len(order) < len(left):
            rest = [package for package, count in enumerate(left) if count]
            self._find_cycles(rest)
            # Behind the members of cycles the sort goes on as if those were placed.
            members = [package for cycle in self._components for package in cycle]
            placed = set(order) | set(members)
            order += sorted(members)
            pending = [p for p in rest if p not in placed]
            needs = {p: sum(q not in placed for q in self.requires[p]) for p in pending}
            queue = [p for p in pending if not needs[p]]
            for package in queue:
                order.append(package)
                for dependent in self.dependents[package]:
                    if dependent in needs and dependent not in placed:
                        needs[dependent] -= 1
                        if not needs[dependent]:
                            queue.append(dependent)
        return order

    def _find_cycles(self, among: Iterable[int]) -> None:
        """Marks strongly connected components as CYCLE; keeps one shortest cycle of each."""
        self._components = [
            part
            for part in _Components(self.requires, among).found
            if len(part) > 1 or part[0] in self.requires[part[0]]
        ]
        for part in self._components:
            self.cycles.append(_shortest_cycle(self.requires, part))
            for package in part:
                if self.own[package] is State.OPEN:
                    self.own[package] = State.CYCLE

    def _enter(self, package: int) -> None:
        """First state of a package whose requirements have theirs."""
        new = self._derive(package)
        self.state[package] = new
        for dependent in self.dependents[package]:
            if new is State.BUILT:
                self._unbuilt[dependent] -= 1
            elif new in DEAD:
                self._dead[dependent] += 1

    def _derive(self, package: int) -> State:
        if self.own[package] is not State.OPEN:
            return self.own[package]
        if self._dead[package]:
            return State.BLOCKED
        if self._unbuilt[package]:
            return State.WAITING
        return self._judge(package)

    def refresh(self, package: int) -> None:
        """Facts about `package` have changed: derives its state, and what follows from it."""
        work = [package]
        while work:
            current = work.pop()
            old = self.state[current]
            new = self._derive(current)
            if new is old:
                continue
            self.state[current] = new
            self._listener(current, old, new)
            was_built, is_built = old is State.BUILT, new is State.BUILT
            was_dead, is_dead = old in DEAD, new in DEAD
            if was_built == is_built and was_dead == is_dead:
                continue
            for dependent in self.dependents[current]:
                self._unbuilt[dependent] += was_built - is_built
                self._dead[dependent] += is_dead - was_dead
                work.append(dependent)

    def rejudge_dependents(self, package: int) -> None:
        """The content of a built package's artifact changed: asks again about its dependents."""
        for dependent in self.dependents[package]:
            self.refresh(dependent)

    def closure(self, packages: Iterable[int]) -> set[int]:
        """`packages` and everything they require, transitively."""
        return _reach(packages, self.requires)

    def dependent_closure(self, packages: Iterable[int]) -> set[int]:
        """`packages` and everything that requires them, transitively."""
        return _reach(packages, self.dependents)

    def depth(self, package: int) -> int:
        """Number of transitive dependents and itself: pbulk's PKG_DEPTH.

        For pbulk a package with an unresolvable pattern requires nothing at all.
        """
        found = {package}
        work = [package]
        while work:
            for other in self.dependents[work.pop()]:
                if other not in found and self.own[other] is not State.UNRESOLVED:
                    found.add(other)
                    work.append(other)
        return len(found)

    def bottom_levels(self, seconds: Sequence[float], among: set[int] | None = None) -> list[float]:
        """Expected seconds from the start of each package to the end of the last that needs it.

        `seconds[i]` is how long i is expected to take; only packages in `among`, and of
        these only those that are neither built nor dead, add anything.
        """
        levels = [0.0] * len(seconds)
        for package in reversed(self.order):
            if (among is not None and package not in among) or self.state[package] not in (
                State.OPEN,
                State.WAITING,
            ):
                continue
            behind = max((levels[d] for d in self.dependents[package]), default=0.0)
            levels[package] = seconds[package] + behind
        return levels

    def blockers(self, package: int) -> Iterator[int]:
        """Direct requirements of `package` that can not be built."""
        return (other for other in self.requires[package] if self.state[other] in DEAD)

    def chain(self, package: int) -> list[int]:
        """From a blocked package by way of blocked requirements to one shortest cause."""
        if self.state[package] is not State.BLOCKED:
            return [package]
        came: dict[int, int] = {package: package}
        queue = [package]
        for current in queue:
            for other in self.blockers(current):
                if other in came:
                    continue
                came[other] = current
                if self.state[other] is not State.BLOCKED:
                    path = [other]
                    while path[-1] != package:
                        path.append(came[path[-1]])
                    return path[::-1]
                queue.append(other)
        return [package]

    def recount(self) -> list[str]:
        """What differs between the counters and a recount; empty if nothing does."""
        findings = []
        for package, needed in enumerate(self.requires):
            unbuilt = sum(self.state[other] is not State.BUILT for other in needed)
            dead = sum(self.state[other] in DEAD for other in needed)
            if unbuilt != self._unbuilt[package]:
                findings.append(
                    f"package {package}: {self._unbuilt[package]} unbuilt, not {unbuilt}"
                )
            if dead != self._dead[package]:
                findings.append(f"package {package}: {self._dead[package]} dead, not {dead}")
            if self.state[package] is not self._derive(package):
                findings.append(f"package {package}: is {self.state[package].name}")
        return findings


def _reach(start: Iterable[int], edges: Sequence[Sequence[int]]) -> set[int]:
    found = set(start)
    work = list(found)
    while work:
        for other in edges[work.pop()]:
            if other not in found:
                found.add(other)
                work.append(other)
    return found


class _Components:
    """Strongly connected components of the subgraph of some nodes (Tarjan, without recursion)."""

    def __init__(self, edges: Sequence[Sequence[int]], among: Iterable[int]) -> None:
        self.found: list[list[int]] = []
        self._edges = edges
        self._allowed = set(among)
        self._index: dict[int, int] = {}
        self._low: dict[int, int] = {}
        self._stack: list[int] = []
        self._on_stack: set[int] = set()
        for root in sorted(self._allowed):
            if root not in self._index:
                self._walk(root)

    def _walk(self, root: int) -> None:
        walk = [self._visit(root)]
        while walk:
            node, successors = walk[-1]
            for other in successors:
                if other not in self._allowed:
                    continue
                if other not in self._index:
                    walk.append(self._visit(other))
                    break
                if other in self._on_stack:
                    self._low[node] = min(self._low[node], self._index[other])
            else:
                walk.pop()
                if walk:
                    parent = walk[-1][0]
                    self._low[parent] = min(self._low[parent], self._low[node])
                if self._low[node] == self._index[node]:
                    self._cut(node)

    def _visit(self, node: int) -> tuple[int, Iterator[int]]:
        self._index[node] = self._low[node] = len(self._index)
        self._stack.append(node)
        self._on_stack.add(node)
        return node, iter(self._edges[node])

    def _cut(self, node: int) -> None:
        at = self._stack.index(node)
        part = self._stack[at:]
        del self._stack[at:]
        self._on_stack.difference_update(part)
        self.found.append(sorted(part))


def _shortest_cycle(edges: Sequence[Sequence[int]], part: Sequence[int]) -> list[int]:
    """One shortest cycle through the first member of a component."""
    inside = set(part)
    start = part[0]
    came: dict[int, int] = {}
    queue = [start]
    for node in queue:
        for other in edges[node]:
            if other == start:
                path = [node]
                while path[-1] != start:
                    path.append(came[path[-1]])
                return path[::-1]
            if other in inside and other not in came:
                came[other] = node
                queue.append(other)
    return [start]
