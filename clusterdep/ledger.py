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
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import Catalog, Profile
from clusterdep.core.leases import Lease, Leases
from clusterdep.store.database import Row, Store

log = logging.getLogger("clusterdep.ledger")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PATHS = ("tree", "prefix", "pkgdb", "kit", "distdir")
POLICIES = ("inputs", "version", "exists")


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
    if profile.policy and profile.policy not in POLICIES:
        wrong.append(f"policy '{profile.policy}' is none of {', '.join(POLICIES)}")
    if wrong:
        raise Fault(Kind.DATA, f"the profile can not be used: {'; '.join(wrong)}")


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
        self.catalogs: dict[str, Catalog] = {}
        for profile in self._profiles():
            self.catalogs[profile.name] = Catalog(profile, store, self.leases)
        self._load_leases()

    def _profiles(self) -> list[Profile]:
        return [self._profile(row) for row in self.store.rows("profiles")]

    def _profile(self, row: Row) -> Profile:
        selection = tuple(r["entry"] for r in self.store.rows("selection", (row["id"],)))
        names = [f.name for f in fields(Profile) if f.name not in ("selection", "complete")]
        return Profile(
            **{name: row[name] for name in names},
            complete=bool(row["complete"]),
            selection=selection,
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
            and isinstance(getattr(wanted, field.name), str)
            and getattr(wanted, field.name)
        }
        with self.transaction():
            profile_id = self.store.utils.table("profile").insert(row).last_pk
            self.store.run_many(
                "select_add", [(profile_id, at, e) for at, e in enumerate(wanted.selection)]
            )
            self.event(wanted.name, "profile", wanted.name, "made")
        return self.reload(wanted.name)

    def reload(self, name: str) -> Catalog:
        """Makes the profile's part of memory anew from the database."""
        row = next((r for r in self.store.rows("profiles") if r["name"] == name), None)
        if row is None:
            raise Fault(Kind.NOT_FOUND, f"no profile '{name}'")
        catalog = Catalog(self._profile(row), self.store, self.leases)
        for lease in self.leases:
            if lease.profile == name and lease.package in catalog.index:
                catalog.take(catalog.index[lease.package])
        self.catalogs[name] = catalog
        return catalog

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """A commit; waiters are told when it is done and what follows it is applied.

        Whatever stands in the block must only write. Raises Fault, and nothing was
        written.
        """
        with self.store.transaction():
            yield
        asyncio.get_running_loop().call_soon(self.changes.set)

    def event(
        self, profile: str, kind: str, subject: str, cause: str = "", **detail: object
    ) -> None:
        """Writes an event; within a transaction."""
        self.store.run(
            "add_event",
            (self.clock(), profile, kind, subject, cause, json.dumps(detail, sort_keys=True)),
        )

    def check(self) -> list[str]:
        """Compares memory with a recount and with the stored facts; what differs."""
        findings: list[str] = []
        for name, catalog in self.catalogs.items():
            findings += [f"profile {name}: {text}" for text in catalog.graph.recount()]
            fresh = Catalog(catalog.profile, self.store, self.leases)
            for package, entry in enumerate(catalog.entries):
                if fresh.graph.state[package] is not catalog.graph.state[package]:
                    findings.append(
                        f"profile {name}: {entry.pkgname} is "
                        f"{catalog.graph.state[package].name.lower()} in memory and "
                        f"{fresh.graph.state[package].name.lower()} by the stored facts"
                    )
        stored = {row["attempt_id"] for row in self.store.rows("leases")}
        held = {lease.attempt for lease in self.leases}
        findings += [f"lease of attempt {a} is not stored" for a in sorted(held - stored)]
        findings += [f"lease of attempt {a} is stored only" for a in sorted(stored - held)]
        return findings
