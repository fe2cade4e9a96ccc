"""The facts of one profile in memory, and what follows from them.

Everything here can be made anew from the database: `load` folds the stored facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from clusterdep.api.errors import Fault, Kind
from clusterdep.core import dewey, inputs, predict
from clusterdep.core.graph import Graph, State
from clusterdep.core.leases import Lease, Leases
from clusterdep.core.schedule import Job, Platform, ReadyQueue
from clusterdep.core.status import Failure, Status, judge, own_verdict, status_of
from clusterdep.store.database import Row, Store


@dataclass(slots=True)
class Entry:
    """A package and its record, without the long texts."""

    id: int
    pkgpath: str
    variant: str
    pkgname: str
    skip_reason: str
    fail_reason: str  # its own, or what the last scan of its pkgpath said
    duplicate: bool
    weight: int
    digest: bytes
    inputs_digest: str
    fence: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """The newest artifact of a package."""

    pkgname: str
    sha256: str
    size: int
    suffix: str
    content_digest: str
    input_key: str
    built_at: float
    attempt: str
    runtime: tuple[bytes, ...]  # the patterns it needs when it runs


@dataclass(frozen=True, slots=True)
class Profile:
    """A row of the table profile, and its selection."""

    id: int
    name: str
    tree: str
    prefix: str
    pkgdb: str
    kit: str
    make: str
    opsys: str
    os_version: str
    machine_arch: str
    distdir: str
    policy: str
    parent: str
    toolchain: str
    revision: str
    resolver: str
    follow: str
    follow_seconds: float
    followed: str
    scans: str
    complete: bool
    selection: tuple[str, ...]

    @property
    def platform(self) -> Platform:
        """What its packages are for."""
        return Platform(self.opsys, self.os_version, self.machine_arch)


class Catalog:
    """One profile: packages in scan order, their graph, what is selected, what is ready.

    Packages are indexes 0…n-1 in scan order; `index` maps database ids to them.
    """

    def __init__(self, profile: Profile, store: Store, leases: Leases) -> None:
        self.profile = profile
        self._leases = leases
        self.entries = [_entry(row) for row in store.rows("records", (profile.id,))]
        self.index = {entry.id: i for i, entry in enumerate(self.entries)}
        self.scan_failures = {
            str(row["path"]): str(row["error"])
            for row in store.rows("pkgpaths", (profile.id,))
            if row["error"]
        }
        self.pkgpaths = {entry.pkgpath for entry in self.entries} | set(self.scan_failures)
        self.artifacts: dict[int, Artifact] = {}
        self.failures: dict[int, Failure] = {}
        self.keys: dict[int, str] = {}
        self._load_artifacts(store)
        self._load_failures(store)
        self._predict(store)
        #: What nothing matches, for packages that ask for such.
        self.problems: dict[int, str] = {}
        requires = self._load_requirements(store)
        own = [
            own_verdict(e.skip_reason, e.fail_reason, e.duplicate, i in self.problems)
            for i, e in enumerate(self.entries)
        ]
        self.ready = ReadyQueue(self._urgency)
        self.levels: list[float] = []
        self.needed: set[int] = set()
        self.selected: set[int] = set()
        self.missing_selection: list[str] = []
        self.requires = [tuple(dict.fromkeys(needed)) for needed in requires]
        self.graph = Graph(self.requires, own, self._judge, self._changed)
        self.select(profile.selection)

    # ---- facts from the database

    def _load_artifacts(self, store: Store) -> None:
        for row in store.rows("artifacts", (self.profile.id,)):
            package = self.index.get(row["package_id"])
            if package is not None:
                self.artifacts[package] = Artifact(
                    row["pkgname"],
                    row["sha256"],
                    row["size"],
                    row["suffix"],
                    row["content_digest"],
                    row["input_key"],
                    row["built_at"],
                    row["attempt_id"] or "",
                    runtime_patterns(row["summary"]),
                )

    def _load_failures(self, store: Store) -> None:
        for row in store.rows("ended_attempts", (self.profile.id,)):
            package = self.index.get(row["package_id"])
            if package is not None:
                self.note_attempt(package, row)

    def _load_requirements(self, store: Store) -> list[list[int]]:
        requires: list[list[int]] = [[] for _ in self.entries]
        index = self.index
        for package_id, required_id in store.rows("requirement_ids", (self.profile.id,)):
            requires[index[package_id]].append(index[required_id])
        for row in store.rows("unresolved", (self.profile.id,)):
            package = index[row["package_id"]]
            text = row["problem"] or f"no package matches {row['pattern']}"
            known = self.problems.get(package)
            self.problems[package] = f"{known}; {text}" if known else text
        return requires

    def _predict(self, store: Store) -> None:
        history = (
            (self.index[row["package_id"]], float(row["seconds"]))
            for row in store.rows("stage_totals", (self.profile.id,))
            if row["package_id"] in self.index
        )
        self.expected = predict.learn(history)
        self._unknown = predict.unknown(self.expected)

    # ---- what follows

    def key(self, package: int) -> str:
        """The input key of a package whose requirements are built."""
        entry = self.entries[package]
        return inputs.input_key(
            entry.digest,
            entry.inputs_digest,
            self.profile.toolchain,
            (
                (artifact.pkgname, artifact.content_digest)
                for artifact in map(self.artifacts.get, self.requires[package])
                if artifact is not None
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
        if new is State.OPEN:
            if package in self.needed:
                self.ready.add(package)
        elif old is State.OPEN:
            self.ready.discard(package)

    def _urgency(self, package: int) -> tuple[float, ...]:
        return (-self.levels[package], float(package))

    def select(self, entries: Iterable[str]) -> None:
        """Sets what is wanted: pkgpaths, categories or patterns; nothing means everything.

        Entries that name nothing are listed in `missing_selection`.
        """
        wanted = list(entries)
        self.missing_selection = []
        if wanted:
            self.selected = set()
            for entry in wanted:
                found = set(self.named(entry))
                self.selected |= found
                if not found and entry not in self.pkgpaths:
                    self.missing_selection.append(entry)
        else:
            self.selected = set(range(len(self.entries)))
        self.selected = {i for i in self.selected if not self.entries[i].duplicate}
        self.needed = self.graph.closure(self.selected)
        self._rank()

    def _rank(self) -> None:
        seconds = [
            self.expected.get(i, self._unknown) * max(entry.weight, 1) / 100
            for i, entry in enumerate(self.entries)
        ]
        self.levels = self.graph.bottom_levels(seconds, self.needed)
        self.ready = ReadyQueue(self._urgency)
        for package in self.needed:
            if self.graph.state[package] is State.OPEN:
                self.ready.add(package)

    def named(self, entry: str) -> Iterator[int]:
        """Packages that an entry of a selection names."""
        category = entry.rstrip("/") + "/"
        if "/" in category[:-1]:
            path = category[:-1]
            yield from (i for i, e in enumerate(self.entries) if e.pkgpath == path)
            return
        found = False
        for i, e in enumerate(self.entries):
            if e.pkgpath.startswith(category):
                found = True
                yield i
        if not found:
            pattern = entry.encode()
            try:
                for i, e in enumerate(self.entries):
                    if e.pkgname == entry or dewey.match(pattern, e.pkgname.encode()):
                        yield i
            except dewey.PatternError as error:
                raise Fault(Kind.DATA, f"selection entry '{entry}': {error}") from error

    def find(self, text: str, variant: str = "") -> int:
        """The one package that a pkgname, pkgpath or pkgbase names.

        Raises Fault NOT_FOUND, or AMBIGUOUS with the candidates.
        """
        entries = self.entries
        for found in (
            [i for i, e in enumerate(entries) if e.pkgname == text],
            [i for i, e in enumerate(entries) if e.pkgpath == text],
            [i for i, e in enumerate(entries) if e.pkgname.rpartition("-")[0] == text],
        ):
            fitting = [i for i in found if not variant or entries[i].variant == variant]
            standing = [i for i in fitting if not entries[i].duplicate] or fitting
            if len(standing) == 1:
                return standing[0]
            if standing:
                raise self._ambiguous(text, standing)
        if text in self.scan_failures:
            raise Fault(
                Kind.NOT_FOUND,
                f"{text} has no packages: its scan failed: {self.scan_failures[text].strip()}",
            )
        raise Fault(
            Kind.NOT_FOUND,
            f"profile {self.profile.name} has no package '{text}'",
            "name it as PKGNAME, PKGBASE or category/directory",
        )

    def _ambiguous(self, text: str, candidates: list[int]) -> Fault:
        names = [
            f"{e.pkgname} ({e.variant})" if e.variant else e.pkgname
            for e in map(self.entries.__getitem__, candidates[:10])
        ]
        more = f" and {len(candidates) - 10} more" if len(candidates) > 10 else ""
        return Fault(
            Kind.AMBIGUOUS,
            f"'{text}' is more than one package of profile {self.profile.name}: "
            f"{', '.join(names)}{more}",
            "name one of them by its PKGNAME, or with --variant",
        )

    def status(self, package: int) -> Status:
        """What the package is."""
        return status_of(self.graph.state[package], self.lease(package) is not None)

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

    def note_seconds(self, package: int, seconds: float) -> None:
        """A build took so long: the next prediction knows."""
        before = self.expected.get(package)
        history = ([] if before is None else [(package, before)]) + [(package, seconds)]
        self.expected.update(predict.learn(history))

    def lose_artifacts(self, lost: set[str]) -> list[int]:
        """The repository lost artifacts (by sha256): returns the packages."""
        gone = [i for i, artifact in self.artifacts.items() if artifact.sha256 in lost]
        for package in gone:
            del self.artifacts[package]
        for package in gone:
            self.graph.refresh(package)
        return gone

    def forgive(self, package: int) -> None:
        """Failures of the package count no more."""
        self.failures.pop(package, None)
        self.graph.refresh(package)

    def release(self, lease: Lease) -> None:
        """A lease is over: if the package is still open, it is ready again."""
        package = self.index.get(lease.package)
        if package is not None:
            self.graph.refresh(package)
            if self.graph.state[package] is State.OPEN and package in self.needed:
                self.ready.add(package)

    def take(self, package: int) -> None:
        """A lease was granted: the package is not ready any more."""
        self.ready.discard(package)


def _entry(row: Row) -> Entry:
    error = str(row["error"])
    fail = str(row["fail_reason"])
    if error and not fail:
        fail = f"the last scan of {row['pkgpath']} failed: {key_line(error)}"
    return Entry(
        row["package_id"],
        row["pkgpath"],
        row["variant"],
        row["pkgname"],
        row["skip_reason"],
        fail,
        bool(row["duplicate"]),
        row["weight"],
        row["digest"],
        row["inputs_digest"],
        row["fence"],
    )


def key_line(error: str) -> str:
    """A scan's error in one line: what went wrong, and the first that make said of it."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return ": ".join(lines[:2]) or "no reason given"


def runtime_patterns(summary: bytes) -> tuple[bytes, ...]:
    """The patterns in a pkg_summary entry's DEPENDS lines."""
    return tuple(
        line[len(b"DEPENDS=") :].strip()
        for line in summary.splitlines()
        if line.startswith(b"DEPENDS=")
    )


def _matches(pattern: bytes, name: bytes) -> bool:
    try:
        return dewey.match(pattern, name)
    except dewey.PatternError:
        return False  # an artifact's own claim: not worth more than being ignored
