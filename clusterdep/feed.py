"""Records in: from a scan or a file, through resolving, into the database and memory.

A delivery is read as it comes, planned in a thread, written in commits of bounded
size, and then taken in by memory in steps: nobody else waits for more than one such
step. A delivery that was not written to its end is known by its mark, and what follows
from the records there are is worked out anew at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import Catalog
from clusterdep.core import resolve
from clusterdep.delivery import Delivery, Identity, Scan
from clusterdep.facts import Change, Entry
from clusterdep.ledger import Ledger, in_steps
from clusterdep.plan import differences, make_plan, place, reconciled, stored_package
from clusterdep.scans import Scans
from clusterdep.store.database import Row
from clusterdep.writing import COMMIT, Writing, batches

log = logging.getLogger("clusterdep.feed")


class Feed:
    """Puts deliveries into the database; one at a time for each profile."""

    def __init__(self, ledger: Ledger, scans: Scans) -> None:
        self.ledger = ledger
        self._scans = scans
        self._locks: dict[str, asyncio.Lock] = {}
        self._resolvers: dict[str, resolve.Resolver] = {}

    def lock(self, profile: str) -> asyncio.Lock:
        """Held while the records of a profile change."""
        return self._locks.setdefault(profile, asyncio.Lock())

    async def put_records(
        self, stream: AsyncIterator[pb.PutRecordsRequest]
    ) -> pb.PutRecordsResponse:
        """See Feed.PutRecords in the contract."""
        delivery: Delivery | None = None
        created = False
        async for part in stream:
            if delivery is None:
                created = self._open(part)
                profile = self.ledger.catalog(part.header.profile).profile
                delivery = Delivery(
                    part.header,
                    await self.ledger.files.load(),
                    profile.tree,
                    began=part.header.began or math.inf,
                )
            else:
                delivery.take(part)
        if delivery is None or delivery.end is None:
            raise Fault(
                Kind.INTERRUPTED,
                "the stream ended before its last message; nothing was changed",
                "send it again",
            )
        answer = await self._take_in(delivery)
        answer.created_profile = created
        return answer

    async def _take_in(self, delivery: Delivery) -> pb.PutRecordsResponse:
        name = self.ledger.catalog(delivery.header.profile).profile.name
        async with self.lock(name):
            self._scans.admit(delivery)
            answer = await self._deliver(name, delivery)
            self._scans.taken_in(name, delivery)
        return answer

    async def fail_scans(self, name: str, errors: Mapping[str, str]) -> None:
        """The scans of these pkgpaths have failed, and nobody will bring what make said."""
        header = pb.PutHeader(profile=name, mode=pb.PutHeader.MODE_MERGE)
        scans = {path: Scan(error=error) for path, error in errors.items()}
        await self._take_in(Delivery(header, scans=scans, end=pb.PutEnd()))

    @contextlib.asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """No delivery is taken in for as long as the block lasts."""
        async with contextlib.AsyncExitStack() as stack:
            for name in sorted(self.ledger.catalogs):
                await stack.enter_async_context(self.lock(name))
            yield

    def forget(self, catalog: Catalog) -> None:
        """The profile is no more; to be called under its lock."""
        self._resolvers.pop(catalog.profile.name, None)
        self.ledger.files.forget(catalog.profile.id)

    def _open(self, part: pb.PutRecordsRequest) -> bool:
        """Looks at the header; whether the profile was made."""
        if part.WhichOneof("part") != "header":
            raise Fault(Kind.DATA, "the first message of the stream is not the header")
        header = part.header
        if header.mode not in (pb.PutHeader.MODE_REPLACE, pb.PutHeader.MODE_MERGE):
            raise Fault(Kind.DATA, "header.mode is neither REPLACE nor MERGE")
        if header.profile in self.ledger.catalogs or not header.create:
            self.ledger.catalog(header.profile)
            return False
        self.ledger.create_profile(pb.Profile(name=header.profile))
        return True

    # ---- the resolver

    async def resolver(self, catalog: Catalog) -> resolve.Resolver | None:
        """The resolver of a profile, made of its records when it is first asked for.

        None: there are no records. To be called, and the resolver used, under the lock.
        """
        name = catalog.profile.name
        rule = resolve.Rule(catalog.profile.resolver)
        known = self._resolvers.get(name)
        if known is not None and known.rule is rule:
            return known
        if not catalog.index:
            return None
        packages = await self._stored(catalog)
        made = await asyncio.to_thread(resolve.Resolver, packages, rule)
        self._resolvers[name] = made
        return made

    async def _stored(self, catalog: Catalog) -> list[resolve.Package]:
        packages: list[resolve.Package] = []
        tokens: dict[bytes, bytes] = {}

        def work() -> Iterator[None]:
            for package in catalog.in_order():
                entry = catalog.entries[package]
                packages.append(stored_package(entry, self._text(entry.id), tokens))
                yield

        await in_steps(work())
        return packages

    def _text(self, package_id: int) -> bytes:
        row = self.ledger.store.row("record_text", (package_id,))
        return b"" if row is None else bytes(row["text"])

    # ---- a delivery

    async def _deliver(self, name: str, delivery: Delivery) -> pb.PutRecordsResponse:
        catalog = self.ledger.catalog(name)
        resolver = await self.resolver(catalog)
        ids, returning = await self._identities(catalog, delivery)
        standing = await self._standing(catalog, delivery)
        order = _moved(catalog, delivery)
        word = "loaded" if delivery.replaces else "scanned"
        try:
            plan, made = await asyncio.to_thread(
                make_plan,
                delivery,
                resolver,
                resolve.Rule(catalog.profile.resolver),
                ids,
                standing=standing,
                paths=catalog.paths,
                order=order,
            )
            change = await self._write(
                Writing(self.ledger, catalog, delivery, plan, made, returning, word)
            )
        except BaseException:
            # It may be ahead of what is stored: the next one is made of that.
            self._resolvers.pop(name, None)
            raise
        self._resolvers[name] = made
        catalog.differences = plan.differences
        await self.ledger.work_off(catalog, catalog.apply(change))
        return pb.PutRecordsResponse(
            records=delivery.count,
            pkgpaths=len(delivery.scans),
            added=plan.added,
            changed=plan.changed,
            removed=len(plan.dropped),
            refused=delivery.refused,
            refused_count=delivery.refused_count,
        )

    async def _write(self, writing: Writing) -> Change:
        for _ in writing.commits():
            await asyncio.sleep(0)
        gone = [writing.catalog.paths[path].id for path in writing.plan.dropped_paths]
        self.ledger.files.take(writing.catalog.profile.id, writing.files, gone)
        return writing.change

    async def reconcile(self, name: str) -> None:
        """Resolves all records anew, and mends what is stored where it says something else."""
        async with self.lock(name):
            catalog = self.ledger.catalog(name)
            self._resolvers.pop(name, None)
            resolver = await self.resolver(catalog) or resolve.Resolver()
            delivery = Delivery(pb.PutHeader(profile=name), end=pb.PutEnd())
            plan = await asyncio.to_thread(reconciled, catalog, resolver)
            writing = Writing(self.ledger, catalog, delivery, plan, resolver, {}, "resolved anew")
            change = await self._write(writing)
            catalog.differences = plan.differences
            await self.ledger.work_off(catalog, catalog.apply(change))

    async def compare(self) -> None:
        """Finds out where pbulk would have chosen otherwise, for profiles with another rule."""
        for name, catalog in list(self.ledger.catalogs.items()):
            if catalog.profile.resolver != resolve.Rule.PBULK:
                async with self.lock(name):
                    resolver = await self.resolver(catalog)
                    if resolver is not None:
                        catalog.differences = differences(resolver)

    async def recover(self) -> None:
        """Ends what an earlier daemon left unsettled. To be called before anything is served."""
        for name, catalog in list(self.ledger.catalogs.items()):
            if catalog.profile.unsettled or catalog.strays:
                why = "requirements are damaged" if catalog.strays else "a delivery was cut short"
                log.warning("profile %s: %s; resolving anew", name, why)
                await self.reconcile(name)

    async def _identities(
        self, catalog: Catalog, delivery: Delivery
    ) -> tuple[dict[Identity, int], dict[int, Row]]:
        """Ids of all packages of a delivery, and the rows of those that were gone and are back.

        Those that never had an id get one.
        """
        store = self.ledger.store
        profile = catalog.profile.id
        found: dict[Identity, int] = {}
        returning: dict[int, Row] = {}
        new: list[Identity] = []

        def look() -> Iterator[None]:
            for path, scan in delivery.scans.items():
                place = catalog.paths.get(path)
                known = {catalog.entries[p].variant: p for p in place.packages} if place else {}
                for variant in scan.records:
                    if variant in known:
                        found[path, variant] = catalog.entries[known[variant]].id
                    else:
                        new.append((path, variant))
                yield

        await in_steps(look())
        rows = self._once_there(profile, new)
        for some in batches(new, 4 * COMMIT):
            last = store.row("last_package")
            fresh = itertools.count(last["id"] + 1 if last else 1)
            unknown = []
            for one in some:
                row = rows.get(one)
                found[one] = next(fresh) if row is None else row["id"]
                if row is None:
                    unknown.append((found[one], profile, *one))
                elif row["fence"] or row["held_at"] is not None:
                    returning[row["id"]] = row
            with store.transaction():
                store.run_many("put_package", unknown)
            await asyncio.sleep(0)
        return found, returning

    def _once_there(self, profile: int, identities: Sequence[Identity]) -> dict[Identity, Row]:
        """Rows of those that had an id before, and have no record now."""
        store = self.ledger.store
        if len(identities) <= COMMIT:
            found = [store.row("package", (profile, *one)) for one in identities]
            return {(row["pkgpath"], row["variant"]): row for row in found if row is not None}
        rows = store.rows("gone_packages", (profile,))
        return {(row["pkgpath"], row["variant"]): row for row in rows}

    async def _standing(
        self, catalog: Catalog, delivery: Delivery
    ) -> dict[int, tuple[Entry, bytes]]:
        """What the delivery is compared with: packages of pkgpaths that it scans or drops."""
        _, dropped = place(delivery, catalog.paths)
        found: dict[int, tuple[Entry, bytes]] = {}

        def work() -> Iterator[None]:
            for path in (*dropped, *(p for p, scan in delivery.scans.items() if not scan.error)):
                known = catalog.paths.get(path)
                for package in known.packages if known else ():
                    entry = catalog.entries[package]
                    found[entry.id] = entry, self._text(entry.id)
                yield

        await in_steps(work())
        return found


def _moved(catalog: Catalog, delivery: Delivery) -> dict[int, tuple[int, int]]:
    """Packages (ids) of known pkgpaths that move in scan order, and where they are to stand."""
    positions, _ = place(delivery, catalog.paths)
    return {
        catalog.entries[package].id: (position, catalog.entries[package].number)
        for path, position in positions.items()
        if path in catalog.paths
        for package in catalog.paths[path].packages
    }
