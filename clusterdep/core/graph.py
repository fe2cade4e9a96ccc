"""The dependency graph of a profile, and what each package is, kept up as facts change.

Packages are integers from 0. Three things decide what a package is:

* its own verdict, from its record: fine, or one of those that can never be built;
* its requirements: all built, some still to be built, or one that never will be;
* when all are built, a judgement of facts outside (artifacts, attempts), which the
  graph asks for: built, failed, or open.

A change of one package is told to its direct dependents only, and goes on only where
it changes something: the cost is that of what changed. Many changes at once (`put`,
`drop`, then `settle`) are worked off requirements first, so that each package is
looked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from enum import IntEnum


class State(IntEnum):
    """What a package is. From FAILED on: its dependents can not be built."""

    OPEN = 0  # all requirements built, and it is still to be built
    WAITING = 1  # a requirement is still to be built
    BUILT = 2  # its artifact is there and current
    FAILED = 3  # its last attempt failed, and nothing has changed since
    BLOCKED = 4  # a requirement can not be built
    SKIPPED = 5  # has a skip reason
    PREFAILED = 6  # has a fail reason, or is no more what its pkgpath makes
    UNRESOLVED = 7  # asks for something that is not there
    CYCLE = 8  # requires itself
    ABSENT = 9  # there is no such package


#: Their dependents can not be built.
DEAD = frozenset(state for state in State if state >= State.FAILED)

# Members of an enum are found and hashed slowly, and this is done for every requirement.
_BUILT, _FIRST_DEAD = State.BUILT, State.FAILED

#: Asked when all requirements of a package are built: BUILT, FAILED or OPEN.
Judge = Callable[[int], State]
#: Told of each change: package, old state, new state.
Listener = Callable[[int, State, State], None]


class Graph:
    """Requirements, dependents, and the state of every package.

    `requires[i]` are the distinct packages that i needs. `own[i]` is OPEN for a package
    whose record has nothing against it, else SKIPPED, PREFAILED or UNRESOLVED.
    """

    def __init__(self, judge: Judge, listener: Listener = lambda package, old, new: None) -> None:
        self.requires: list[tuple[int, ...]] = []
        self.dependents: list[set[int]] = []
        self.own: list[State] = []
        self.state: list[State] = []
        #: Members of cycles, each with one shortest cycle of its component: a list of
        #: packages, each requiring the next and the last the first.
        self.cycles: dict[int, list[int]] = {}
        self._judge = judge
        self._listener = listener
        self._unbuilt: list[int] = []
        self._dead: list[int] = []
        self._pending: set[int] = set()  # put or dropped, and their state not derived yet
        self._rewired: set[int] = set()  # whose requirements changed

    # ---- packages and requirements

    def put(self, package: int, requires: Sequence[int], own: State) -> None:
        """The package is there and needs those; what that makes of it is left to `settle`."""
        self.reserve(max((package, *requires)))
        needed = tuple(dict.fromkeys(requires))
        if needed != self.requires[package]:
            self._wire(package, needed)
        self.own[package] = own
        self._pending.add(package)

    def drop(self, package: int) -> None:
        """The package is no more. What requires it must be put again before `settle`."""
        self._wire(package, ())
        self.own[package] = State.ABSENT
        self._pending.add(package)

    def requires_of(self, package: int) -> tuple[int, ...]:
        """What it requires; nothing if it was never put."""
        return self.requires[package] if package < len(self.requires) else ()

    def reserve(self, package: int) -> None:
        """There is room for that number: until it is put and settled it is ABSENT."""
        while len(self.state) <= package:
            self.requires.append(())
            self.dependents.append(set())
            self.own.append(State.ABSENT)
            self.state.append(State.ABSENT)
            self._unbuilt.append(0)
            self._dead.append(0)

    def _wire(self, package: int, needed: tuple[int, ...]) -> None:
        for other in self.requires[package]:
            self.dependents[other].discard(package)
        for other in needed:
            self.dependents[other].add(package)
        self.requires[package] = needed
        states = [self.state[other] for other in needed]
        self._unbuilt[package] = len(states) - states.count(_BUILT)
        self._dead[package] = sum([state >= _FIRST_DEAD for state in states])
        self._rewired.add(package)

    def settle(self) -> Iterator[None]:
        """Derives what follows from `put` and `drop`; may be paused at each yield.

        While it is paused, counters are right and `refresh` may be called; states of what
        was put or dropped are those from before.
        """
        rewired, self._rewired = self._rewired, set()
        if len(self._pending) < _MANY:
            self._find_cycles(rewired)
            order = self._requirements_first()
        else:
            order = yield from self._sort()
            rest = set(range(len(self.state))).difference(order)
            self._replace_cycles(self.cycles.keys(), rest)
            order += sorted(rest)
        for package in order:
            if package in self._pending:
                self._pending.discard(package)
                self._spread(package)
                yield

    def _requirements_first(self) -> list[int]:
        """What is pending, so that requirements stand before what requires them; cycles last."""
        pending = self._pending
        left = {p: sum(q in pending for q in self.requires[p]) for p in pending}
        order = sorted(p for p, count in left.items() if not count)
        for package in order:
            for dependent in self.dependents[package]:
                if dependent in left:
                    left[dependent] -= 1
                    if not left[dependent]:
                        order.append(dependent)
        return [*order, *sorted(pending.difference(order))]

    def _sort(self) -> Generator[None, None, list[int]]:
        """All packages likewise, but for those in and behind cycles, which are left out."""
        left = [len(needed) for needed in self.requires]
        order = [package for package, count in enumerate(left) if not count]
        for package in order:
            for dependent in self.dependents[package]:
                left[dependent] -= 1
                if not left[dependent]:
                    order.append(dependent)
            yield
        return order

    # ---- cycles

    def _find_cycles(self, rewired: set[int]) -> None:
        """Brings `cycles` up to date with the requirements of some packages."""
        # A new cycle goes through what has new requirements and dependents; an old one can
        # only have been opened there.
        suspects = {p for p in rewired if self.requires[p] and self.dependents[p]}
        suspects = {p for p in suspects if self._reaches_itself(p)}
        for package in rewired & self.cycles.keys():
            suspects |= self._component(package)
        if suspects:
            among = _reach(suspects, self.requires)
            self._replace_cycles(self.cycles.keys() & among, among)

    def _replace_cycles(self, old: Collection[int], among: Iterable[int]) -> None:
        """Looks for cycles among some packages; the `old` ones are forgotten."""
        self._pending.update(old)
        for package in list(old):
            del self.cycles[package]
        for part in _Components(self.requires, among).found:
            if len(part) > 1 or part[0] in self.requires[part[0]]:
                cycle = _shortest_cycle(self.requires, part)
                self.cycles.update(dict.fromkeys(part, cycle))
                self._pending.update(part)

    def _component(self, package: int) -> set[int]:
        """Members of cycles whose component was the package's when they were found."""
        cycle = self.cycles[package]
        return {other for other, its in self.cycles.items() if its is cycle}

    def _reaches_itself(self, package: int) -> bool:
        seen: set[int] = set()
        work = list(self.requires[package])
        while work:
            other = work.pop()
            if other == package:
                return True
            if other not in seen:
                seen.add(other)
                work.extend(self.requires[other])
        return False

    # ---- states

    def _derive(self, package: int) -> State:
        if self.own[package] is not State.OPEN:
            return self.own[package]
        if package in self.cycles:
            return State.CYCLE
        if self._dead[package]:
            return State.BLOCKED
        if self._unbuilt[package]:
            return State.WAITING
        return self._judge(package)

    def refresh(self, package: int) -> None:
        """Facts about `package` have changed: derives its state, and what follows from it."""
        if package not in self._pending:
            self._spread(package)

    def _spread(self, package: int) -> None:
        work = [package]
        while work:
            current = work.pop()
            old = self.state[current]
            new = self._derive(current)
            if new is old:
                continue
            self.state[current] = new
            self._listener(current, old, new)
            built = (old is _BUILT) - (new is _BUILT)
            dead = (new >= _FIRST_DEAD) - (old >= _FIRST_DEAD)
            if not built and not dead:
                continue
            for dependent in self.dependents[current]:
                self._unbuilt[dependent] += built
                self._dead[dependent] += dead
                if dependent not in self._pending:
                    work.append(dependent)

    def rejudge_dependents(self, package: int) -> None:
        """The content of a built package's artifact changed: asks again about its dependents."""
        for dependent in list(self.dependents[package]):
            self.refresh(dependent)

    # ---- questions

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

    def recount(self, packages: Iterable[int] | None = None) -> list[str]:
        """What differs between counters and a recount, of all or some; empty if nothing does."""
        findings = []
        for package in range(len(self.requires)) if packages is None else packages:
            needed = self.requires[package]
            unbuilt = sum(self.state[other] is not State.BUILT for other in needed)
            dead = sum(self.state[other] in DEAD for other in needed)
            if unbuilt != self._unbuilt[package]:
                findings.append(
                    f"package {package}: {self._unbuilt[package]} unbuilt, not {unbuilt}"
                )
            if dead != self._dead[package]:
                findings.append(f"package {package}: {self._dead[package]} dead, not {dead}")
            if any(package not in self.dependents[other] for other in needed):
                findings.append(
                    f"package {package}: is not among the dependents of all it requires"
                )
            if self.state[package] is not self._derive(package):
                findings.append(f"package {package}: is {self.state[package].name}")
        return findings


#: From so many changed packages on the whole graph is sorted.
_MANY = 300


def _reach(start: Iterable[int], edges: Sequence[Iterable[int]]) -> set[int]:
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
