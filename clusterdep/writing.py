"""Writes what a delivery changes, in commits of bounded size."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from clusterdep import origins
from clusterdep.catalog import Catalog
from clusterdep.core import files, resolve
from clusterdep.delivery import Delivery
from clusterdep.facts import Change, Entry, Pkgpath, key_line
from clusterdep.ledger import Ledger
from clusterdep.loading import artifact_of
from clusterdep.plan import Plan, Texts, requirement_rows, requires_of
from clusterdep.store.database import Row

#: Packages written in one commit.
COMMIT = 250

_T = TypeVar("_T")


def batches(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """The items, so many at a time."""
    for at in range(0, len(items), size):
        yield items[at : at + size]


@dataclass(slots=True)
class Writing:
    """One delivery on its way into the database; `change` is for memory, when all is written."""

    ledger: Ledger
    catalog: Catalog
    delivery: Delivery
    plan: Plan
    resolver: resolve.Resolver
    returning: Mapping[int, Row]  # identities of packages that were gone and are back
    word: str  # what this is, for the event
    change: Change = field(init=False)
    #: What pkgpaths (ids) read, packed.
    files: dict[int, bytes] = field(init=False, default_factory=dict)
    _places: dict[str, Pkgpath] = field(init=False)
    _new_ids: set[int] = field(init=False)
    _texts: Texts = field(init=False, default_factory=Texts)

    def __post_init__(self) -> None:
        catalog, plan = self.catalog, self.plan
        self.change = Change(
            catalog.profile,
            dropped=plan.dropped,
            dropped_paths=plan.dropped_paths,
            positions={p: at for p, at in plan.positions.items() if p in catalog.paths},
            duplicates={p: d for p, d in plan.duplicates.items() if p not in plan.put},
        )
        self._places = dict(catalog.paths) if len(self.delivery.scans) > COMMIT else {}
        self._new_ids = {p for p in plan.put if p not in catalog.index}

    def commits(self) -> Iterator[None]:
        """Writes it all; each yield follows a commit. A small delivery is one commit.

        A large one is marked as unsettled from the first commit to the last.
        """
        paths = list(self.delivery.scans)
        packages = self.plan.touched
        moved = list(self.change.positions.items())
        dropped = list(self.plan.dropped)
        if len(paths) + len(packages) + len(moved) + len(dropped) <= 2 * COMMIT:
            with self.ledger.transaction():
                self.ledger.files.write()
                self._paths(paths)
                self._packages(packages)
                self._moves(moved)
                self._drop(dropped)
                self._end()
            self.ledger.files.stored()
        else:
            yield from self._in_pieces(paths, packages, moved, dropped)

    def _in_pieces(
        self,
        paths: list[str],
        packages: list[int],
        moved: list[tuple[str, int]],
        dropped: list[int],
    ) -> Iterator[None]:
        ledger = self.ledger
        with ledger.transaction():
            ledger.store.run("unsettle", (1, self.catalog.profile.id))
        yield from ledger.files.write_in_pieces(ledger.transaction)
        for some in batches(paths, 2 * COMMIT):
            with ledger.transaction():
                self._paths(some)
            yield
        for few in batches(packages, COMMIT):
            with ledger.transaction():
                self._packages(few)
            yield
        for moves in batches(moved, 8 * COMMIT):
            with ledger.transaction():
                self._moves(moves)
            yield
        for gone in batches(dropped, COMMIT):
            with ledger.transaction():
                self._drop(gone)
            yield
        with ledger.transaction():
            ledger.store.run("unsettle", (0, self.catalog.profile.id))
            self._end()

    def _paths(self, paths: Iterable[str]) -> None:
        """Pkgpaths that were scanned."""
        profile, store = self.catalog.profile, self.ledger.store
        now = self.ledger.clock()
        last = store.row("last_pkgpath")
        fresh = itertools.count(last["id"] + 1 if last else 1)
        rows = []
        for path in paths:
            scan = self.delivery.scans[path]
            old = self.catalog.paths.get(path)
            position = self.plan.positions.get(path, old.position if old else 0)
            revision = self.delivery.header.revision
            read = files.pack(scan.reads) if scan.reads else b""
            number = next(fresh) if old is None else old.id
            new = Pkgpath(
                number, path, position, now, scan.seconds, scan.error, scan.inputs_digest, revision
            )
            rows.append(
                {
                    "id": number,
                    "profile_id": profile.id,
                    "path": path,
                    "position": position,
                    "scanned_at": now,
                    "seconds": scan.seconds,
                    "revision": revision,
                    "error": scan.error,
                    "inputs_digest": scan.inputs_digest,
                    "since": self.delivery.began,
                    "files": read,
                }
            )
            if scan.listing:
                store.run("put_inputs", (scan.inputs_digest, scan.listing))
            if old is not None:
                if scan.error:
                    new.inputs_digest = old.inputs_digest
                elif scan.inputs_digest and not old.inputs_digest:
                    self._trust(old, scan.inputs_digest)
                if old.outdated_at is not None and old.outdated_at > self.delivery.began:
                    new.outdated_at, new.outdated_why = old.outdated_at, old.outdated_why
            if read:
                self.files[new.id] = read
            self.change.paths.append(new)
            self._places[path] = new
            if scan.error:
                self.ledger.event(profile.name, "scan-failed", path, key_line(scan.error))
        store.run_many("put_pkgpath", rows)

    def _trust(self, place: Pkgpath, inputs_digest: str) -> None:
        """For the first time it is known which files builds there read."""
        for package, artifact in origins.trusted(self.catalog, place, inputs_digest).items():
            package_id = self.catalog.entries[package].id
            row = (artifact.input_key, inputs_digest, package_id, artifact.sha256)
            self.ledger.store.run("rekey_artifact", row)
            self.change.rekeyed[package_id] = artifact

    def _packages(self, packages: Sequence[int]) -> None:
        """Records and requirements of these packages."""
        store, plan = self.ledger.store, self.plan
        put = [package for package in packages if package in plan.put]
        rows = []
        for package in put:
            record = plan.put[package].record
            entry = self._entry(package)
            self.change.records.append(entry)
            rows.append(
                {
                    "package_id": package,
                    "pkgpath_id": entry.place.id,
                    "number": record.number,
                    "pkgname": record.pkgname,
                    "skip_reason": record.skip_reason,
                    "fail_reason": record.fail_reason,
                    "duplicate": entry.duplicate,
                    "weight": record.weight,
                    "digest": record.digest,
                    "text": record.text,
                }
            )
        store.run_many("put_record", rows)
        store.run_many("drop_requirements", ((p,) for p in packages if p not in self._new_ids))
        resolver, texts = self.resolver, self._texts
        needs = [row for p in packages for row in requirement_rows(resolver, p, texts)]
        store.run_many("put_requirement", needs)
        for package in packages:
            self.change.requirements[package] = requires_of(resolver, package)

    def _entry(self, package: int) -> Entry:
        """A record as memory has it, with what is stored of a package that was gone."""
        store = self.ledger.store
        path, variant, record = self.plan.put[package]
        place = self._places.get(path) or self.catalog.paths[path]
        duplicate = self.plan.duplicates.get(package)
        known = self.catalog.index.get(package)
        if duplicate is None:
            duplicate = known is not None and self.catalog.entries[known].duplicate
        entry = Entry(
            package,
            place,
            variant,
            record.number,
            record.pkgname,
            record.skip_reason,
            record.fail_reason,
            duplicate,
            record.weight,
            record.digest,
        )
        row = self.returning.get(package)
        if row is not None:
            entry.fence = row["fence"]
            entry.held = row["held_why"] if row["held_at"] is not None else None
            artifact = store.row("artifact_of", (package,))
            if artifact is not None:
                self.change.artifacts[package] = artifact_of(artifact)
            self.change.attempts[package] = list(store.rows("attempts_of", (package,)))
        return entry

    def _moves(self, moved: Iterable[tuple[str, int]]) -> None:
        """Places of pkgpaths in the enumeration."""
        paths = self.catalog.paths
        self.ledger.store.run_many(
            "place_pkgpath", [(position, paths[path].id) for path, position in moved]
        )

    def _drop(self, packages: Iterable[int]) -> None:
        """Records that are no more."""
        ids = [(package,) for package in packages]
        self.ledger.store.run_many("drop_record", ids)
        self.ledger.store.run_many("drop_requirements", ids)

    def _end(self) -> None:
        """What comes last, and the event."""
        store, plan, header = self.ledger.store, self.plan, self.delivery.header
        profile, end = self.catalog.profile, self.delivery.end
        assert end is not None
        store.run_many(
            "drop_pkgpath", [(self.catalog.paths[path].id,) for path in plan.dropped_paths]
        )
        store.run_many("mark_duplicate", [(d, p) for p, d in self.change.duplicates.items()])
        self._never_scanned()
        if end.complete or header.revision:
            store.run("set_complete", (end.complete, header.revision, profile.id))
        self.change.profile = self.ledger.stored_profile(profile.name)
        self.ledger.event(
            profile.name,
            "records",
            profile.name,
            self.word,
            pkgpaths=len(self.delivery.scans),
            added=plan.added,
            changed=plan.changed,
            removed=len(plan.dropped),
            refused=self.delivery.refused_count,
            complete=end.complete,
            revision=header.revision,
        )

    def _never_scanned(self) -> None:
        """Pkgpaths of an enumeration of which nothing is known yet."""
        store, profile = self.ledger.store, self.catalog.profile
        now = self.ledger.clock()
        for path, position in self.plan.positions.items():
            if path in self.delivery.scans or path in self.catalog.paths:
                continue
            row = {"profile_id": profile.id, "path": path, "position": position, "now": now}
            store.run("enumerate_pkgpath", row)
            stored = store.row("pkgpath_id", (profile.id, path))
            assert stored is not None
            self.change.paths.append(
                Pkgpath(
                    stored["id"], path, position, outdated_at=now, outdated_why="was never scanned"
                )
            )
