"""The facts of one profile in memory, and what follows from them.

Everything here can be made anew from the database (`loading.py`). Afterwards it is told of
each change when that was committed.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from clusterdep.api.errors import Fault, Kind
from clusterdep.core import dewey, inputs, predict
from clusterdep.core.graph import Graph, State
from clusterdep.core.leases import Lease, Leases
from clusterdep.core.levels import Levels
from clusterdep.core.need import Need
from clusterdep.core.schedule import Job, ReadyQueue
from clusterdep.core.selection import Selection
from clusterdep.core.status import Failure, Status, judge, own_verdict, status_of
from clusterdep.core.tally import Tally
from clusterdep.facts import Artifact, Change, Entry, Pkgpath, Profile
from clusterdep.store.database import Row

_NONE: Mapping[int, Artifact] = {}


#: When so many packages change at once, bottom levels are computed anew.
MANY = 500


class Counts(NamedTuple):
    """How many packages there are of each status."""

    every: Counter[Status]
    needed: Counter[Status]
    selected: Counter[Status]


class Catalog:
    """One profile: packages, their graph, what is selected, what is ready.

    Packages are integers that stay theirs as long as the package exists; `index` maps
    database ids to them.
    """

    def __init__(self, profile: Profile, leases: Leases) -> None:
        """Empty; see loading.py."""
        self.profile = profile
        self._leases = leases
        self.entries: dict[int, Entry] = {}
        self.index: dict[int, int] = {}
        self.paths: dict[str, Pkgpath] = {}
        self.by_name: dict[str, list[int]] = {}
        self.by_base: dict[str, list[int]] = {}
        self.artifacts: dict[int, Artifact] = {}
        self.failures: dict[int, Failure] = {}
        self.keys: dict[int, str] = {}
        self.expected: dict[int, float] = {}
        #: What nothing matches, for packages that ask for such.
        self.problems: dict[int, str] = {}
        self.held: set[int] = set()
        #: Stored requirements (ids) of what has no record: the file was damaged.
        self.strays: list[tuple[int, int]] = []
        #: While a large change is worked off, in steps, nothing is granted.
        self.settling = False
        #: Where pbulk would have chosen another requirement: ids of package, requirement
        #: and pbulk's, with the pattern second. Kept up by the feed.
        self.differences: list[tuple[int, str, int, int]] = []
        #: Packages that became open although they have an artifact, since somebody asked.
        self.reopened: dict[int, None] = {}
        self._unknown = predict.unknown({})
        self._free: list[int] = []
        self._removed: list[int] = []  # they become free when what follows is settled
        self._in_order: list[int] | None = None
        self._tally = Tally()
        self.graph = Graph(self._judge, self._changed)
        self.needed = Need(self.graph, self._needed_changed)
        self._levels = Levels(self.graph, self._counts, self._cost)
        self._ready = ReadyQueue(self._urgency)
        self._selection = Selection(profile.selection)

    # ---- a delivery

    def apply(self, change: Change) -> Iterator[None]:
        """Takes in what a delivery changed, after it was committed.

        May be paused at each yield; until the end nothing should be granted.
        """
        yield from self._take_in(change)
        yield from self._settle(change)

    def _take_in(self, change: Change) -> Iterator[None]:
        """The facts; what follows from them is left to `_settle`."""
        self.profile = change.profile
        self._in_order = None
        for place in change.paths:
            known = self.paths.get(place.path)
            if known is not None:
                place.packages = known.packages
                for package in known.packages:
                    self.entries[package].place = place
            self.paths[place.path] = place
        for path, position in change.positions.items():
            self.paths[path].position = position
        for package_id in change.dropped:
            self._remove(self.index[package_id])
        for entry in change.records:
            self._enter(entry, change)
            yield
        for path in change.dropped_paths:
            self.paths.pop(path, None)
        for package_id, artifact in change.rekeyed.items():
            package = self.index.get(package_id, -1)
            if package in self.artifacts and self.artifacts[package].sha256 == artifact.sha256:
                self.artifacts[package] = artifact

    def _enter(self, entry: Entry, change: Change) -> None:
        """A record that is new, or has changed."""
        known = self.index.get(entry.id)
        if known is None:
            package = self._new(entry)
            if entry.id in change.artifacts:
                self.artifacts[package] = change.artifacts[entry.id]
            for row in change.attempts.get(entry.id, ()):
                self.note_attempt(package, row)
        else:
            package = known
            before = self.entries[package]
            self._unname(package, before)
            entry.fence, entry.held = before.fence, before.held
            self.entries[package] = entry
        self.by_name.setdefault(entry.pkgname, []).append(package)
        self.by_base.setdefault(entry.pkgbase, []).append(package)

    def _new(self, entry: Entry) -> int:
        """A number for a package that has none."""
        package = self._free.pop() if self._free else len(self.entries)
        self.entries[package] = entry
        self.graph.reserve(package)
        self.index[entry.id] = package
        entry.place.packages.append(package)
        if entry.held is not None:
            self.held.add(package)
        return package

    def _unname(self, package: int, entry: Entry) -> None:
        for names, name in ((self.by_name, entry.pkgname), (self.by_base, entry.pkgbase)):
            names[name].remove(package)
            if not names[name]:
                del names[name]

    def _remove(self, package: int) -> None:
        """The tree has the package no more; its number is free when that was worked off."""
        entry = self.entries[package]
        self._unname(package, entry)
        entry.place.packages.remove(package)
        del self.index[entry.id]
        self.needed.keep(package)
        self._select(package, False)
        self.graph.drop(package)
        for facts in (self.artifacts, self.failures, self.keys, self.expected, self.problems):
            facts.pop(package, None)
        self.held.discard(package)
        self._removed.append(package)

    def _settle(self, change: Change) -> Iterator[None]:
        """What follows from a change that was taken in; may be paused at each yield."""
        for package_id, duplicate in change.duplicates.items():
            self.entries[self.index[package_id]].duplicate = duplicate
        changed = itertools.chain(
            change.requirements, change.duplicates, (entry.id for entry in change.records)
        )
        touched = dict.fromkeys(self.index[package_id] for package_id in changed)
        touched.update(dict.fromkeys(p for place in change.paths for p in place.packages))
        if len(touched) > MANY:
            self._levels.mark_all()
        for package in touched:
            self._rewire(package, change.requirements.get(self.entries[package].id))
            yield
        yield from self.graph.settle()
        yield from self.needed.rewire()
        for package in touched:
            entry = self.entries[package]
            chosen = not entry.duplicate and self._selection.takes(entry.pkgpath, entry.pkgname)
            self._select(package, chosen)
            yield
        for package in self._removed:
            del self.entries[package]
        self._free += self._removed
        self._removed = []

    def _rewire(self, package: int, found: tuple[Sequence[int], str] | None) -> None:
        """Facts of a package changed; `found`: ids it requires now, and what is unresolved."""
        requires = before = self.graph.requires_of(package)
        if found is not None:
            needed, problem = found
            if problem:
                self.problems[package] = problem
            else:
                self.problems.pop(package, None)
            requires = tuple([self.index[other] for other in needed])
        if requires != before:
            self.needed.keep(package)
            for other in (*before, *requires):
                self._levels.mark(other)
        self.graph.put(package, requires, self._own(package))
        self._levels.mark(package)

    def _own(self, package: int) -> State:
        entry = self.entries[package]
        return own_verdict(
            entry.skip_reason, entry.fail_reason, entry.duplicate, package in self.problems
        )

    # ---- what follows

    def in_order(self) -> list[int]:
        """All packages in scan order."""
        if self._in_order is None:
            entries = self.entries
            self._in_order = sorted(self.index.values(), key=lambda package: entries[package].order)
        return self._in_order

    def key(
        self,
        package: int,
        coming: Mapping[int, Artifact] = _NONE,
        inputs_digest: str | None = None,
    ) -> str:
        """The input key of a package whose requirements are built.

        With artifacts of requirements that are `coming`, or for another `inputs_digest`.
        """
        entry, known = self.entries[package], self.artifacts
        return inputs.input_key(
            entry.digest,
            entry.place.inputs_digest if inputs_digest is None else inputs_digest,
            self.profile.toolchain,
            (
                (artifact.pkgname, artifact.content_digest)
                for other in self.graph.requires[package]
                if (artifact := coming.get(other) or known.get(other)) is not None
            ),
        )

    def _judge(self, package: int) -> State:
        key = self.keys[package] = self.key(package)
        artifact = self.artifacts.get(package)
        return judge(
            self.profile.policy,
            self.entries[package].pkgname,
            key,
            None if artifact is None else (artifact.pkgname, artifact.input_key),
            self.failures.get(package),
        )

    def _changed(self, package: int, old: State, new: State) -> None:
        self._tally.move(old, new, package in self.needed, package in self.needed.selected)
        if new is _OPEN:
            self._offer(package)
            if package in self.artifacts:
                self.reopened[package] = None
        elif old is _OPEN:
            self._ready.discard(package)
        if (old <= _WAITING) != (new <= _WAITING):
            self._levels.mark(package)

    def _needed_changed(self, package: int, needed: bool) -> None:
        state = self.graph.state[package]
        self._tally.need(state, needed, package in self.needed.selected)
        self._levels.mark(package)
        if needed and state is State.OPEN:
            self._offer(package)
        elif not needed:
            self._ready.discard(package)

    def _select(self, package: int, chosen: bool) -> None:
        if chosen == (package in self.needed.selected):
            return
        self._tally.select(self.graph.state[package], package in self.needed, chosen)
        self.needed.choose(package, chosen)

    def _offer(self, package: int) -> None:
        """The package is open: it is ready, unless something is in the way."""
        if package in self.needed and package not in self.held and self.lease(package) is None:
            self._ready.add(package)

    def _counts(self, package: int) -> bool:
        return self.graph.state[package] <= _WAITING and package in self.needed

    def _cost(self, package: int) -> float:
        weight = max(self.entries[package].weight, 1)
        return self.expected.get(package, self._unknown) * weight / 100

    def _urgency(self, package: int) -> tuple[float, ...]:
        return (-self._levels[package], *map(float, self.entries[package].order))

    @property
    def ready(self) -> ReadyQueue:
        """What could be granted, most urgent first."""
        changed = self._levels.settle()
        if changed is None:
            self._ready.sort()
        else:
            for package in changed:
                self._ready.move(package)
        return self._ready

    def level(self, package: int) -> float:
        """Its bottom level, seconds."""
        _ = self.ready
        return self._levels[package]

    def select(self, entries: Iterable[str]) -> None:
        """Sets what is wanted: pkgpaths, categories or patterns; nothing means everything.

        Raises Fault for an entry that can name nothing.
        """
        self._selection = selection(entries)
        takes = self._selection.takes
        for package in self.index.values():
            entry = self.entries[package]
            self._select(package, not entry.duplicate and takes(entry.pkgpath, entry.pkgname))

    @property
    def selected(self) -> set[int]:
        """Packages that are selected."""
        return self.needed.selected

    @property
    def missing_selection(self) -> list[str]:
        """Entries of the selection that name nothing."""
        if not self._selection.entries:
            return []
        named = ((self.entries[p].pkgpath, self.entries[p].pkgname) for p in self.index.values())
        return self._selection.missing(named, self.paths)

    @property
    def scan_failures(self) -> dict[str, str]:
        """What make said, for pkgpaths whose last scan failed."""
        return {path: place.error for path, place in self.paths.items() if place.error}

    def count(self) -> Counts:
        """How many packages there are of each status: of all, needed, and selected ones."""
        every, needed, selected = Counts(Counter(), Counter(), Counter())

        def add(status: Status, is_needed: bool, is_selected: bool, number: int) -> None:
            every[status] += number
            needed[status] += number * is_needed
            selected[status] += number * is_selected

        for state, is_needed, is_selected, number in self._tally:
            add(status_of(state), is_needed, is_selected, number)
        leased = {self.index[x.package] for x in self._leases if self._has(x)}
        for package in leased | self.held:
            place = package in self.needed, package in self.needed.selected
            add(status_of(self.graph.state[package]), *place, -1)
            add(self.status(package), *place, 1)
        return Counts(every, needed, selected)

    def _has(self, lease: Lease) -> bool:
        return lease.profile == self.profile.name and lease.package in self.index

    # ---- one package

    def status(self, package: int) -> Status:
        """What the package is."""
        return status_of(
            self.graph.state[package], self.lease(package) is not None, package in self.held
        )

    def is_open(self, package: int) -> bool:
        """Whether it is there, and could be built now."""
        return package in self.entries and self.graph.state[package] is State.OPEN

    def lease(self, package: int) -> Lease | None:
        """Its lease, if it has one."""
        return self._leases.of_package(self.entries[package].id)

    def job(self, package: int) -> Job:
        """The open build of a package, for matching."""
        entry = self.entries[package]
        return Job(self.profile.name, entry.id, entry.pkgpath, self.profile.platform)

    def expected_seconds(self, package: int) -> float:
        """What its build is predicted to take; 0 if nothing is known."""
        return self.expected.get(package, 0.0)

    def runtime_closure(self, package: int) -> list[tuple[int, bool]]:
        """What must be at hand to build it: (package, whether it is a direct requirement).

        Direct requirements are installed by name; those bring what they need when they
        run: the patterns in their artifacts, matched to what they were resolved to.
        """
        found = dict.fromkeys(self.graph.requires[package], True)
        work = list(found)
        while work:
            current = work.pop()
            if current not in self.artifacts:
                continue  # lost since: the grant says what is left
            patterns = self.artifacts[current].runtime
            for other in self.graph.requires[current]:
                if other in found or other not in self.artifacts:
                    continue
                name = self.artifacts[other].pkgname.encode()
                if any(_matches(pattern, name) for pattern in patterns):
                    found[other] = False
                    work.append(other)
        return list(found.items())

    # ---- changes, after they were committed

    def reconsider(self, profile: Profile) -> Iterator[None]:
        """The profile's settings changed, and with them perhaps every input key."""
        before, self.profile = self.profile, profile
        if before.selection != profile.selection:
            self.select(profile.selection)
        if (before.policy, before.toolchain) != (profile.policy, profile.toolchain):
            for package in list(self.index.values()):
                if package in self.entries:
                    self.graph.refresh(package)
                yield

    def note_attempt(self, package: int, row: Row | dict[str, object]) -> None:
        """An attempt ended: `row` has what the table attempt says of it."""
        if row["outcome"] == "built":
            self.failures.pop(package, None)
            return
        before = self.failures.get(package)
        blame, key = str(row["blame"]), str(row["input_key"])
        again = before.returned if before is not None and before.input_key == key else 0
        self.failures[package] = Failure(
            input_key=key,
            package_is_to_blame=blame == "package",
            # What ended before any stage began says nothing about the package.
            returned=again + (blame in ("host", "infrastructure") and bool(row["stage"])),
            attempt=str(row["id"]),
            stage=str(row["stage"]),
            message=str(row["message"]),
            host=str(row["host"]),
            log=str(row["log"]),
        )

    def note_artifact(self, package: int, artifact: Artifact) -> None:
        """There is a new artifact: its package is judged, and what was built with the old one."""
        before = self.artifacts.get(package)
        self.artifacts[package] = artifact
        self.graph.refresh(package)
        if before is not None and before.content_digest != artifact.content_digest:
            self.graph.rejudge_dependents(package)

    def learn(self, history: Iterable[tuple[int, float]]) -> None:
        """What builds took, seconds, oldest first: (package, seconds)."""
        self.expected = predict.learn(history)
        self._unknown = predict.unknown(self.expected)
        self._levels.mark_all()

    def note_seconds(self, package: int, seconds: float) -> None:
        """A build took so long: the next prediction knows."""
        before = self.expected.get(package)
        history = ([] if before is None else [(package, before)]) + [(package, seconds)]
        self.expected.update(predict.learn(history))
        self._levels.mark(package)
        if before is None and len(self.expected) % 50 == 0:
            self._unknown = predict.unknown(self.expected)
            self._levels.mark_all()

    def learn_again(self, package: int, seconds: Iterable[float]) -> None:
        """What its builds took, oldest first, as far as that is still known."""
        self.expected.pop(package, None)
        self.expected.update(predict.learn((package, wall) for wall in seconds))
        self._levels.mark(package)

    def lose_artifacts(self, packages: Iterable[int]) -> None:
        """The artifacts of the packages are gone, or count no more."""
        lost = [package for package in packages if self.artifacts.pop(package, None) is not None]
        for package in lost:
            self.graph.refresh(package)

    def forgive(self, package: int) -> None:
        """Failures of the package count no more."""
        self.failures.pop(package, None)
        self.graph.refresh(package)

    def hold(self, package: int, why: str) -> None:
        """The package is not granted until `release_hold`."""
        self.entries[package].held = why
        self.held.add(package)
        self._ready.discard(package)

    def release_hold(self, package: int) -> None:
        """The package may be granted again."""
        self.entries[package].held = None
        self.held.discard(package)
        if self.graph.state[package] is State.OPEN:
            self._offer(package)

    def release(self, lease: Lease) -> None:
        """A lease is over: if the package is still open, it is ready again."""
        package = self.index.get(lease.package)
        if package is not None:
            self.graph.refresh(package)
            if self.graph.state[package] is State.OPEN:
                self._offer(package)

    def take(self, package: int) -> None:
        """A lease was granted: the package is not ready any more."""
        self._ready.discard(package)


# Members of an enum are found slowly; states up to waiting are still to be built.
_OPEN, _WAITING = State.OPEN, State.WAITING


def selection(entries: Iterable[str]) -> Selection:
    """A selection of these entries; raises Fault for one that can name nothing."""
    wanted = list(entries)
    for entry in wanted:
        if not entry or any(c.isspace() for c in entry):
            raise Fault(Kind.DATA, f"selection entry '{entry}' is empty or has blanks in it")
        try:
            Selection((entry,))
        except dewey.PatternError as error:
            raise Fault(Kind.DATA, f"selection entry '{entry}': {error}") from error
    return Selection(wanted)


def _matches(pattern: bytes, name: bytes) -> bool:
    try:
        return dewey.match(pattern, name)
    except dewey.PatternError:
        return False  # an artifact's own claim: not worth more than being ignored
