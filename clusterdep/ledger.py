"""The one place where state changes: decide, commit, apply to memory, tell.

All of it happens on the event loop between two awaits, so nobody ever sees a state
that was not committed. Writes that come together are one commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from clusterdep import loading, origins
from clusterdep.api.access import SOCKET, caller
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import Catalog
from clusterdep.core.leases import Lease, Leases
from clusterdep.facts import Overlay, Profile
from clusterdep.file_index import FileIndex
from clusterdep.store.database import Reader, Row, Store

log = logging.getLogger("clusterdep.ledger")

#: Kinds of events that somebody orders, see service Admin in the contract.
ORDERED = frozenset(
    {"profile", "selected", "retried", "held", "released", "rebuild", "forgotten", "pruned"}
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PATHS = ("tree", "prefix", "pkgdb", "kit", "distdir")
POLICIES = ("inputs", "version", "exists")
_CHOICES = {
    "policy": POLICIES,
    "resolver": ("pbulk", "prefer-buildable"),
    "follow": ("none", "git", "cvs", "hg", "files"),
    "scans": ("helper", "hosts"),
}


def check_profile(profile: pb.Profile) -> None:
    """Raises Fault with everything that is wrong with the fields of a profile."""
    wrong = []
    if not _NAME.fullmatch(profile.name):
        wrong.append(
            f"name '{profile.name}' is not 1 to 64 letters, digits, or . _ - after the first"
        )
    for field in _PATHS:
        value = getattr(profile, field)
        if value and (not Path(value).is_absolute() or "\n" in value):
            wrong.append(f"{field} '{value}' is not an absolute path")
    for field, choices in _CHOICES.items():
        value = getattr(profile, field)
        if value and value not in choices:
            wrong.append(f"{field} '{value}' is none of {', '.join(choices)}")
    if profile.follow_seconds < 0:
        wrong.append(f"follow_seconds {profile.follow_seconds} is less than 0")
    wrong += [text for overlay in profile.overlays for text in _overlay_faults(overlay)]
    if wrong:
        raise Fault(Kind.DATA, f"the profile can not be used: {'; '.join(wrong)}")


def _overlay_faults(overlay: pb.Overlay) -> Iterator[str]:
    if not _NAME.fullmatch(overlay.at):
        yield f"overlay '{overlay.at}' is not the name of a directory"
    if overlay.tree and (not Path(overlay.tree).is_absolute() or "\n" in overlay.tree):
        yield f"the tree '{overlay.tree}' of overlay {overlay.at} is not an absolute path"
    if overlay.follow and overlay.follow not in _CHOICES["follow"]:
        choices = ", ".join(_CHOICES["follow"])
        yield f"follow '{overlay.follow}' of overlay {overlay.at} is none of {choices}"


def lease_of(row: Row, attempt: str, profile: str) -> Lease:
    """A lease as the tables say it; how long it lasts is up to whoever takes it up."""
    return Lease(
        profile=profile,
        package=row["package_id"],
        attempt=attempt,
        fence=row["fence"],
        dispatcher=row["dispatcher"],
        host=row["host"],
        granted=row["granted_at"],
        renewed=0.0,
        expires=0.0,
        input_key=row["input_key"],
    )


def differences(memory: Catalog, stored: Catalog) -> Iterator[str]:
    """What two catalogs of one profile do not agree on: one as it was kept up, one loaded.

    An empty text means that there was nothing, and is a place to pause.
    """
    for package_id, required_id in stored.strays:
        yield f"a requirement of package {package_id} names package {required_id}: it has no record"
    for package_id in memory.index.keys() ^ stored.index.keys():
        where = "memory" if package_id in memory.index else "the database"
        yield f"package {package_id} is in {where} only"
    for package_id in memory.index.keys() & stored.index.keys():
        yield ""
        if package_id not in memory.index:
            continue  # gone while it was paused
        ours, theirs = memory.index[package_id], stored.index[package_id]
        entry, other = memory.entries[ours], stored.entries[theirs]
        if entry != other:
            yield f"{entry.pkgname}: its record differs"
        needs = [memory.entries[p].id for p in memory.graph.requires[ours]]
        if needs != [stored.entries[p].id for p in stored.graph.requires[theirs]]:
            yield f"{entry.pkgname} has other requirements in memory"
        state, derived = memory.graph.state[ours], stored.graph.state[theirs]
        if state is not derived:
            yield (
                f"{entry.pkgname} is {state.name.lower()} in memory and "
                f"{derived.name.lower()} by the stored facts"
            )
        needed, wanted = ours in memory.needed, theirs in stored.needed
        if needed != wanted:
            yield f"{entry.pkgname} is {'' if needed else 'not '}needed in memory"
    ready = {memory.entries[p].id for p in memory.ready} ^ {
        stored.entries[p].id for p in stored.ready
    }
    for package_id in ready:
        yield f"package {package_id} is ready in memory or by the stored facts only"
    for path in memory.paths.keys() ^ stored.paths.keys():
        yield f"{path} is in memory or in the database only"


#: How long the event loop is held at a time, seconds.
STEP = 0.02
#: Packages that are recounted at a time: some milliseconds.
RECOUNTED = 1000
#: So many pkgpaths are named in events when they are outdated; more are counted.
MOST_NAMED = 20


async def in_steps(work: Iterator[None]) -> None:
    """Does work that may be paused, and lets others have their turn."""
    until = time.monotonic() + STEP
    for _ in work:
        if time.monotonic() > until:
            await asyncio.sleep(0)
            until = time.monotonic() + STEP


class Signal:
    """Tells any number of tasks that something changed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Something changed: wakes everybody who waits."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self, seconds: float) -> bool:
        """Waits for the next `set`, at most `seconds`; whether it came."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


class Ledger:
    """The store, everything that was made of it in memory, and the event log."""

    def __init__(self, store: Store, lease_seconds: float, clock: Callable[[], float]) -> None:
        """Folds the stored facts. `clock` gives seconds since 1970."""
        self.store = store
        self.clock = clock
        self.leases = Leases(lease_seconds)
        self.changes = Signal()
        self.files = FileIndex(store)
        self.catalogs: dict[str, Catalog] = {}
        for profile in self._profiles():
            self.catalogs[profile.name] = loading.load(profile, store, self.leases)
        self._load_leases()

    def _profiles(self) -> list[Profile]:
        rows = self.store.rows("profiles")
        # A name that no profile can have: it is being forgotten.
        return [self._profile(row) for row in rows if _NAME.fullmatch(row["name"])]

    def _profile(self, row: Row) -> Profile:
        selection = tuple(r["entry"] for r in self.store.rows("selection", (row["id"],)))
        overlays = tuple(Overlay(*r) for r in self.store.rows("overlays", (row["id"],)))
        names = [f.name for f in fields(Profile) if f.name not in ("selection", "overlays")]
        return Profile(
            **{name: row[name] for name in names}, selection=selection, overlays=overlays
        )

    def _load_leases(self) -> None:
        now = self.clock()
        names = {catalog.profile.id: name for name, catalog in self.catalogs.items()}
        for row in self.store.rows("leases"):
            name = names[row["profile_id"]]
            self.leases.add(lease_of(row, row["attempt_id"], name), now)
            package = self.catalogs[name].index.get(row["package_id"])
            if package is not None:
                self.catalogs[name].take(package)

    def catalog(self, name: str) -> Catalog:
        """The profile called `name`, or the only one if it is empty. Raises Fault."""
        if not name and len(self.catalogs) == 1:
            return next(iter(self.catalogs.values()))
        if name in self.catalogs:
            return self.catalogs[name]
        known = ", ".join(sorted(self.catalogs)) or "there are none"
        what = f"no profile '{name}'" if name else "no profile is named"
        raise Fault(Kind.NOT_FOUND, f"{what}", f"profiles: {known}")

    def create_profile(self, wanted: pb.Profile) -> Catalog:
        """Makes a profile; what is empty has its default. Raises Fault."""
        check_profile(wanted)
        row = {
            field.name: getattr(wanted, field.name)
            for field in fields(Profile)
            if field.name in wanted.DESCRIPTOR.fields_by_name
            and isinstance(getattr(wanted, field.name), str | float)
            and getattr(wanted, field.name)
        }
        with self.transaction():
            profile_id = self.store.utils.table("profile").insert(row).last_pk
            self.store.run_many(
                "select_add", [(profile_id, at, e) for at, e in enumerate(wanted.selection)]
            )
            self.store.run_many(
                "put_overlay", [(profile_id, o.at, o.tree, o.follow) for o in wanted.overlays]
            )
            self.event(wanted.name, "profile", wanted.name, "made")
        catalog = Catalog(self.stored_profile(wanted.name), self.leases)
        self.catalogs[wanted.name] = catalog
        return catalog

    def stored_profile(self, name: str) -> Profile:
        """The profile as the database has it. Raises Fault if it has none of that name."""
        row = self.store.row("profile", (name,))
        if row is None:
            raise Fault(Kind.NOT_FOUND, f"no profile '{name}'")
        return self._profile(row)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """A commit; waiters are told when it is done and what follows it is applied.

        Whatever stands in the block must only write. Raises Fault, and nothing was
        written.
        """
        with self.store.transaction():
            yield
        asyncio.get_running_loop().call_soon(self._committed)

    def _committed(self) -> None:
        self._tell_stale()
        self.changes.set()

    def _tell_stale(self) -> None:
        """An event for each package that is open because its artifact is stale, and why.

        Derived from what was committed, and lost if that can not be written now.
        """
        for name, catalog in self.catalogs.items():
            if catalog.settling or not catalog.reopened:
                continue
            reopened, catalog.reopened = list(catalog.reopened), {}
            found = [p for p in reopened if catalog.is_open(p) and p in catalog.artifacts]
            with contextlib.suppress(Fault), self.store.transaction():
                for package in found if len(found) <= MOST_NAMED else ():
                    why = origins.why_stale(self.store, catalog, package)
                    pkgname = catalog.entries[package].pkgname
                    self.event(name, "stale", pkgname, "; ".join(why), reasons=why)
                if len(found) > MOST_NAMED:
                    why = origins.why_stale(self.store, catalog, found[0])
                    pkgname = catalog.entries[found[0]].pkgname
                    cause = f"{pkgname}: {'; '.join(why)}"
                    self.event(name, "stale", name, cause, packages=len(found))

    async def work_off(self, catalog: Catalog, steps: Iterator[None]) -> None:
        """What follows in memory from something large that was committed, in steps.

        Others have their turn meanwhile, but nothing of the profile is granted.
        """
        catalog.settling = True
        try:
            await in_steps(steps)
        finally:
            catalog.settling = False
            self._committed()

    def mark_outdated(self, name: str, why: Mapping[str, str]) -> list[str]:
        """Pkgpaths are to be scanned again, each for its reason; returns those that were not.

        Names that the profile does not have are left out.
        """
        catalog, now = self.catalog(name), self.clock()
        marked = [path for path in why if path in catalog.paths]
        new = [path for path in marked if catalog.paths[path].outdated_at is None]
        if not marked:
            return []
        with self.transaction():
            for path in marked:
                row = (now, why[path], catalog.paths[path].id)
                self.store.run("mark_outdated", row)
            for path in new if len(new) <= MOST_NAMED else ():
                self.event(catalog.profile.name, "outdated", path, why[path])
            if len(new) > MOST_NAMED:
                cause = Counter(why[path] for path in new).most_common(1)[0][0]
                name = catalog.profile.name
                self.event(name, "outdated", name, cause, pkgpaths=len(new))
        for path in marked:
            catalog.paths[path].outdated_at = now
            catalog.paths[path].outdated_why = why[path]
        return new

    def event(
        self, profile: str, kind: str, subject: str, cause: str = "", **detail: object
    ) -> None:
        """Writes an event; within a transaction. Of an order it says who gave it."""
        if kind in ORDERED and caller() is not SOCKET:
            detail["by"] = caller().name
        self.store.run(
            "add_event",
            (self.clock(), profile, kind, subject, cause, json.dumps(detail, sort_keys=True)),
        )

    def check(self) -> list[str]:
        """Compares memory with a recount and with the stored facts; what differs."""
        return [finding for finding in self.compare(self.fold(self.store)) if finding]

    def fold(self, reader: Reader) -> dict[str, Catalog]:
        """The catalogs as the stored facts make them. For any thread with a reader of its own."""
        return {
            name: loading.load(catalog.profile, reader, self.leases)
            for name, catalog in list(self.catalogs.items())
        }

    def compare(self, stored: Mapping[str, Catalog]) -> Iterator[str]:
        """What differs between memory, a recount, and `stored`; an empty text to pause at."""
        for name, catalog in list(self.catalogs.items()):
            for first in range(0, len(catalog.graph.requires), RECOUNTED):
                end = min(first + RECOUNTED, len(catalog.graph.requires))
                for text in catalog.graph.recount(range(first, end)):
                    yield f"profile {name}: {text}"
                yield ""
            if name in stored:
                for text in differences(catalog, stored[name]):
                    yield f"profile {name}: {text}" if text else ""
        leases = {row["attempt_id"] for row in self.store.rows("leases")}
        held = {lease.attempt for lease in self.leases}
        yield from (f"lease of attempt {a} is not stored" for a in sorted(held - leases))
        yield from (f"lease of attempt {a} is stored only" for a in sorted(leases - held))
