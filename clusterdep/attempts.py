"""Attempts: granted, held, taken up again, lapsed. Every change of a lease is made here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clusterdep import origins
from clusterdep.catalog import Catalog
from clusterdep.core import leases as rules
from clusterdep.core.graph import State
from clusterdep.core.leases import AttemptEvent, AttemptState, Lease, Refused
from clusterdep.core.schedule import Job, Offer
from clusterdep.ledger import Ledger, lease_of
from clusterdep.store.database import Row


class Attempts:
    """Leases in the ledger, by the rules of core/leases."""

    def __init__(self, ledger: Ledger, new_id: Callable[[], str]) -> None:
        self.ledger = ledger
        self._new_id = new_id

    def hold(self, dispatcher: str, attempt: str, fence: int, now: float) -> None:
        """Its holder still works on it: renewed, or taken up again. Raises Refused."""
        leases = self.ledger.leases
        lease = leases.of_attempt(attempt)
        if lease is not None and (lease.fence, lease.dispatcher) == (fence, dispatcher):
            leases.renew(attempt, now)
            return
        row = self.ledger.store.row("attempt", (attempt,))
        state = self.state_of(row, fence)
        rules.advance(state, AttemptEvent.HELD)
        assert row is not None
        if row["dispatcher"] != dispatcher:
            raise Refused(None, AttemptEvent.HELD)
        self._take_up_again(row, now)

    def state_of(self, row: Row | None, fence: int) -> AttemptState | None:
        """The state of an attempt as its holder may see it."""
        if row is None or row["fence"] != fence:
            return None
        if row["outcome"] is None:
            return AttemptState.LEASED
        state = AttemptState(row["outcome"])
        if state is AttemptState.LAPSED and not self._still_ours(row):
            return AttemptState.CANCELLED
        return state

    def _still_ours(self, row: Row) -> bool:
        """Whether nobody was granted the job of a lapsed attempt, and it is still the same job."""
        found = self.find(row["package_id"])
        if found is None or self.ledger.leases.of_package(row["package_id"]) is not None:
            return False
        catalog, package = found
        return (
            catalog.entries[package].fence == row["fence"]
            and catalog.graph.state[package] is State.OPEN
            and catalog.keys.get(package) == row["input_key"]
        )

    def _take_up_again(self, row: Row, now: float) -> None:
        """A lapsed attempt is held after all, and the job is still free."""
        found = self.find(row["package_id"])
        assert found is not None
        catalog, package = found
        lease = lease_of(row, row["id"], catalog.profile.name)
        store = self.ledger.store
        with self.ledger.transaction():
            store.run("resume_attempt", (row["id"],))
            self._store_lease(lease)
            self.ledger.event(
                lease.profile,
                "adopted",
                row["pkgname"],
                "its holder is back, and nobody else had been granted it",
                attempt=lease.attempt,
                host=lease.host,
            )
        self.ledger.leases.add(lease, now)
        catalog.take(package)

    def _store_lease(self, lease: Lease) -> None:
        catalog = self.ledger.catalogs[lease.profile]
        origin = origins.current(self.ledger.store, catalog, catalog.index[lease.package])
        self.ledger.store.run(
            "add_lease",
            {
                "package_id": lease.package,
                "attempt": lease.attempt,
                "fence": lease.fence,
                "dispatcher": lease.dispatcher,
                "host": lease.host,
                "granted_at": lease.granted,
            }
            | origin.columns(),
        )

    def expire(self) -> int:
        """Leases whose time is over lapse: their jobs are open again. Returns how many."""
        now = self.ledger.clock()
        lapsed = self.ledger.leases.expired(now)
        if not lapsed:
            return 0
        with self.ledger.transaction():
            for lease in lapsed:
                rules.advance(AttemptState.LEASED, AttemptEvent.EXPIRED)
                self._end(lease, now, AttemptState.LAPSED, message="its lease was not renewed")
                self.ledger.event(
                    lease.profile,
                    "lapsed",
                    self._name(lease),
                    f"{lease.dispatcher} did not renew the lease for "
                    f"{self.ledger.leases.seconds:.0f} s",
                    attempt=lease.attempt,
                    host=lease.host,
                )
        for lease in lapsed:
            self._released(lease)
        return len(lapsed)

    def _end(
        self, lease: Lease, now: float, state: AttemptState, message: str = "", blame: str = ""
    ) -> None:
        """Writes the end of a lease and its attempt."""
        store = self.ledger.store
        store.run("drop_lease", (lease.package, lease.attempt, lease.fence))
        store.run(
            "end_attempt",
            {
                "attempt": lease.attempt,
                "ended_at": now,
                "outcome": state.value,
                "blame": blame,
                "stage": "",
                "message": message,
                "make_jobs": 0,
                "peak_memory": 0,
                "disk": 0,
                "log": "",
            },
        )

    def _released(self, lease: Lease) -> None:
        self.ledger.leases.end(lease.attempt)
        self.ledger.catalogs[lease.profile].release(lease)

    def _name(self, lease: Lease) -> str:
        catalog = self.ledger.catalogs[lease.profile]
        package = catalog.index.get(lease.package)
        return lease.attempt if package is None else catalog.entries[package].pkgname

    def find(self, package_id: int) -> tuple[Catalog, int] | None:
        """The profile and the index of a package, if the tree still has it."""
        for catalog in self.ledger.catalogs.values():
            package = catalog.index.get(package_id)
            if package is not None:
                return catalog, package
        return None

    def pkgpath(self, lease: Lease) -> str:
        """What is built under a lease; empty if the tree has it no more."""
        catalog = self.ledger.catalogs[lease.profile]
        package = catalog.index.get(lease.package)
        return "" if package is None else catalog.entries[package].pkgpath

    def grant(self, dispatcher: str, chosen: Sequence[tuple[Job, Offer]]) -> list[Lease]:
        """Leases for the chosen jobs, in one commit."""
        now = self.ledger.clock()
        with self.ledger.transaction():
            granted = [self._write_grant(dispatcher, job, offer, now) for job, offer in chosen]
        for lease in granted:
            catalog = self.ledger.catalogs[lease.profile]
            package = catalog.index[lease.package]
            catalog.entries[package].fence = lease.fence
            self.ledger.leases.add(lease, now)
            catalog.take(package)
        return granted

    def _write_grant(self, dispatcher: str, job: Job, offer: Offer, now: float) -> Lease:
        catalog = self.ledger.catalogs[job.profile]
        package = catalog.index[job.package]
        entry = catalog.entries[package]
        lease = Lease(
            profile=job.profile,
            package=job.package,
            attempt=self._new_id(),
            fence=entry.fence + 1,
            dispatcher=dispatcher,
            host=offer.host,
            granted=now,
            renewed=now,
            expires=now,
            input_key=catalog.keys[package],
        )
        store = self.ledger.store
        store.run(
            "add_attempt",
            {
                "attempt": lease.attempt,
                "package_id": lease.package,
                "pkgname": entry.pkgname,
                "fence": lease.fence,
                "input_key": lease.input_key,
                "dispatcher": dispatcher,
                "host": offer.host,
                "granted_at": now,
                "make_jobs": offer.make_jobs,
            },
        )
        self._store_lease(lease)
        store.run("set_fence", (lease.fence, lease.package, lease.fence))
        self.ledger.event(
            job.profile,
            "granted",
            entry.pkgname,
            attempt=lease.attempt,
            host=offer.host,
            dispatcher=dispatcher,
            pkgpath=entry.pkgpath,
        )
        return lease
