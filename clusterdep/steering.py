"""Orders about single packages: held, released, built again, scanned again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from clusterdep import naming
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import Catalog
from clusterdep.ledger import MOST_NAMED, Ledger
from clusterdep.lists import in_order

#: Packages or pkgpaths that are changed at a time.
STEP = 500


class Steering:
    """Decides against what follows from the facts alone; each order is an event."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def hold(self, request: pb.HoldRequest) -> int:
        """Holds packages, or releases them; returns of how many that changed something."""
        catalog = self.ledger.catalog(request.profile)
        packages = self._named(catalog, request.packages)
        why = request.why or "by order"
        changed = [
            package
            for package in packages
            if (package in catalog.held) == request.release
            or (not request.release and catalog.entries[package].held != why)
        ]
        if not changed:
            return 0
        now = None if request.release else self.ledger.clock()
        with self.ledger.transaction():
            for package in changed:
                entry = catalog.entries[package]
                reason = "" if request.release else why
                self.ledger.store.run("hold", (now, reason, entry.id))
                if request.release:
                    self.ledger.event(catalog.profile.name, "released", entry.pkgname, why)
                else:
                    self.ledger.event(catalog.profile.name, "held", entry.pkgname, why)
        for package in changed:
            if request.release:
                catalog.release_hold(package)
            else:
                catalog.hold(package, why)
        return len(changed)

    async def rebuild(self, request: pb.RebuildRequest) -> int:
        """The packages' artifacts and failures count no more; returns of how many packages."""
        catalog = self.ledger.catalog(request.profile)
        chosen = set(self._named(catalog, request.packages))
        if request.dependents:
            chosen = catalog.graph.dependent_closure(chosen)
        known = [p for p in in_order(catalog, chosen) if _has_facts(catalog, p)]
        ids = [catalog.entries[package].id for package in known]
        named = ", ".join(request.packages)
        cause = f"by order, with what requires {named}" if request.dependents else "by order"
        for at in range(0, len(ids), STEP):
            self._discard(catalog, ids[at : at + STEP], cause, len(ids) <= MOST_NAMED)
            await asyncio.sleep(0)
        if len(ids) > MOST_NAMED:
            with self.ledger.transaction():
                name = catalog.profile.name
                self.ledger.event(name, "rebuild", name, cause, packages=len(ids))
        return len(ids)

    def _discard(self, catalog: Catalog, ids: Sequence[int], cause: str, name_each: bool) -> None:
        there = [catalog.index[number] for number in ids if number in catalog.index]
        now, store = self.ledger.clock(), self.ledger.store
        with self.ledger.transaction():
            for package in there:
                entry = catalog.entries[package]
                store.run("discard_artifacts", (now, cause, entry.id))
                store.run("retry", (now, entry.id))
                if name_each:
                    self.ledger.event(catalog.profile.name, "rebuild", entry.pkgname, cause)
        catalog.lose_artifacts(there)
        for package in there:
            catalog.forgive(package)

    async def rescan(self, request: pb.RescanRequest) -> int:
        """The pkgpaths named, or all, are to be scanned again; returns how many there are."""
        catalog = self.ledger.catalog(request.profile)
        if request.names:
            paths = list(dict.fromkeys(p for n in request.names for p in _paths(catalog, n)))
        else:
            paths = list(catalog.paths)
        for at in range(0, len(paths), STEP):
            part = dict.fromkeys(paths[at : at + STEP], "by order")
            self.ledger.mark_outdated(catalog.profile.name, part)
            await asyncio.sleep(0)
        return len(paths)

    @staticmethod
    def _named(catalog: Catalog, names: Sequence[str]) -> list[int]:
        if not names:
            raise Fault(Kind.DATA, "no package is named")
        return list(dict.fromkeys(naming.find(catalog, name) for name in names))


def _has_facts(catalog: Catalog, package: int) -> bool:
    return package in catalog.artifacts or package in catalog.failures


def _paths(catalog: Catalog, name: str) -> list[str]:
    """The pkgpaths that are called so, or in the category, or of the package."""
    wanted = name.rstrip("/")
    if wanted in catalog.paths:
        return [wanted]
    inside = [path for path in catalog.paths if path.startswith(f"{wanted}/")]
    return inside or [catalog.entries[naming.find(catalog, name)].pkgpath]
