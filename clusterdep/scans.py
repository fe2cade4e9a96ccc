"""Scans as jobs: leases of pkgpaths to hosts, and what becomes of them.

What was answered under a lease is known by its time: its pkgpath was scanned after the
lease was granted. All else of it is still outdated when the lease ends, and granted again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.scanned import TIME_LIMIT, is_directory_name
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import Catalog
from clusterdep.core.leases import AttemptEvent, AttemptState, Refused
from clusterdep.core.scanqueue import ScanLease, ScanLeases, batches
from clusterdep.core.schedule import Job, Offer, refusal
from clusterdep.delivery import Delivery
from clusterdep.facts import Pkgpath
from clusterdep.ledger import Ledger
from clusterdep.render import profile_message
from clusterdep.scanline import MOST_RETURNS, ScanLine
from clusterdep.store.database import Row

#: Whose fault a lease that was given back may be, and counts against its pkgpaths.
_COUNTED = (pb.BLAME_HOST, pb.BLAME_INFRASTRUCTURE)
_BLAMES = {
    pb.BLAME_HOST: "host",
    pb.BLAME_INFRASTRUCTURE: "infrastructure",
    pb.BLAME_OPERATOR: "operator",
}
#: So many pkgpaths at most are scanned in a moment.
FEW = 500
#: The lists of the tree, where a pkgpath would stand.
LISTS = ""


@dataclass(frozen=True, slots=True)
class _Returned:
    """How often the scan of a pkgpath was given back since it was outdated."""

    outdated_at: float
    times: int = 0
    why: str = ""


class Scans:
    """Grants scans of profiles whose scans run on hosts, and takes what comes of them."""

    def __init__(self, ledger: Ledger, new_id: Callable[[], str]) -> None:
        self.ledger = ledger
        self.leases = ScanLeases(ledger.leases.seconds)
        self.line = ScanLine(ledger)
        self._new_id = new_id
        self._returned: dict[tuple[str, str], _Returned] = {}
        self._alternate: set[str] = set()  # dispatchers of one slot that scanned last
        self._listed: dict[str, tuple[str, ...]] = {}  # the selection that lists were had for
        self._load()

    def _load(self) -> None:
        """Leases that an earlier daemon granted last a whole length again."""
        now, store = self.ledger.clock(), self.ledger.store
        row = store.row("scan_fence")
        self._fence = int(row["fence"]) if row else 0
        names = {catalog.profile.id: name for name, catalog in self.ledger.catalogs.items()}
        for row in store.rows("scan_leases"):
            self.leases.add(_lease(row, names[row["profile_id"]]), now)
        for row in store.rows("scan_returns"):
            self._count(_lease(row, names[row["profile_id"]]), row["message"])

    # ---- what there is to do

    def profiles(self) -> Iterator[Catalog]:
        """Profiles whose scans run on hosts."""
        for catalog in self.ledger.catalogs.values():
            if catalog.profile.scans == "hosts":
                yield catalog

    def lists(self, catalog: Catalog) -> Row:
        """How it stands with the lists of a profile's tree."""
        row = self.ledger.store.row("lists", (catalog.profile.id,))
        assert row is not None
        return row

    def outdate_lists(self, name: str, why: str) -> None:
        """The lists of categories or packages changed: the tree is enumerated again."""
        catalog = self.ledger.catalog(name)
        with self.ledger.transaction():
            row = (self.ledger.clock(), why, catalog.profile.id)
            self.ledger.store.run("outdate_lists", row)
            self.ledger.event(catalog.profile.name, "outdated", catalog.profile.name, why)

    def outdated(self, catalog: Catalog) -> list[str]:
        """The pkgpaths of a profile that are to be scanned, whoever does."""
        if catalog.profile.scans == "hosts":
            return [place.path for place in self.line.outdated(catalog)]
        return [path for path, place in catalog.paths.items() if place.outdated_at is not None]

    def soon(self, catalog: Catalog) -> frozenset[str]:
        """The pkgpaths that hosts will have scanned in a moment; none if they are very many."""
        if catalog.profile.scans != "hosts":
            return frozenset()
        found = [place.path for place in self.line.outdated(catalog)]
        return frozenset(found if len(found) <= FEW else ())

    def left(self, catalog: Catalog) -> int:
        """How many scans of a profile hosts still have to do: pkgpaths, and one for the lists."""
        if catalog.profile.scans != "hosts":
            return 0
        lists = self.lists(catalog)["lists_outdated_at"] is not None or self._unlisted(catalog)
        return bool(lists) + sum(1 for _ in self.line.outdated(catalog))

    def _unlisted(self, catalog: Catalog) -> str:
        """A category that the selection names and that no list has said anything of; or empty.

        The top of a tree need not name it. It is looked for once for each selection.
        """
        selection = catalog.profile.selection
        if not selection or self._listed.get(catalog.profile.name) == selection:
            return ""
        known = {path.partition("/")[0] for path in catalog.paths}
        names = (entry.partition("/")[0] for entry in selection)
        return next((n for n in names if n not in known and is_directory_name(n)), "")

    def job(self, catalog: Catalog) -> Job:
        """A scan of a profile, for matching."""
        return Job(catalog.profile.name, 0, LISTS, catalog.profile.platform)

    # ---- granting

    def grant(
        self, dispatcher: str, offers: Sequence[Offer], slots: int, builds: bool
    ) -> list[ScanLease]:
        """Leases for free slots of a dispatcher, which the offers then have no more.

        `slots` are those of all hosts, `builds` whether any build is open: then one slot
        is left to builds, or every other turn of the only one.
        """
        most = sum(offer.slots for offer in offers if offer.ready)
        if builds and most == 1 and dispatcher in self._alternate:
            self._alternate.discard(dispatcher)
            return []
        if builds and most > 1:
            most -= 1
        most -= sum(lease.dispatcher == dispatcher for lease in self.leases)
        granted: list[ScanLease] = []
        for catalog in self.profiles():
            if not catalog.settling and most > len(granted):
                granted += self._grant(dispatcher, catalog, offers, slots, most - len(granted))
        if granted and builds:
            self._alternate.add(dispatcher)
        return granted

    def _grant(
        self, dispatcher: str, catalog: Catalog, offers: Sequence[Offer], slots: int, most: int
    ) -> list[ScanLease]:
        job = self.job(catalog)
        fit = [offer for offer in offers if offer.free > 0 and not refusal(job, offer)]
        free = min(most, sum(offer.free for offer in fit))
        if free <= 0:
            return []
        wanted: list[list[Pkgpath]] = [[]] if self._lists_wanted(catalog) else []
        name = catalog.profile.name
        line = self.line.line(
            catalog,
            lambda path: not self.leases.holder(name, path),
            lambda place: self._returns(catalog, place.path).times,
        )
        for batch in batches(line, free - len(wanted), slots):
            wanted.append([catalog.paths[one.pkgpath] for one in batch])
        if not wanted:
            return []
        now = self.ledger.clock()
        with self.ledger.transaction():
            granted = [
                self._write(dispatcher, catalog, batch, _least_loaded(fit), now) for batch in wanted
            ]
        for lease in granted:
            self.leases.add(lease, now)
            if not lease.pkgpaths:
                self._listed[name] = catalog.profile.selection
        return granted

    def _lists_wanted(self, catalog: Catalog) -> bool:
        if self.leases.holder(catalog.profile.name, LISTS):
            return False
        outdated = self.lists(catalog)["lists_outdated_at"] is not None
        if not outdated and (category := self._unlisted(catalog)):
            self.outdate_lists(catalog.profile.name, f"the selection names {category}")
            outdated = True
        return outdated and self._returns(catalog, LISTS).times < MOST_RETURNS

    def _write(
        self, dispatcher: str, catalog: Catalog, batch: list[Pkgpath], offer: Offer, now: float
    ) -> ScanLease:
        self._fence += 1
        lease = ScanLease(
            profile=catalog.profile.name,
            attempt=self._new_id(),
            fence=self._fence,
            dispatcher=dispatcher,
            host=offer.host,
            granted=now,
            pkgpaths=tuple(place.path for place in batch),
            generation=self.line.generation(catalog, batch),
        )
        self.ledger.store.run(
            "add_scan_attempt",
            {
                "attempt": lease.attempt,
                "profile_id": catalog.profile.id,
                "fence": lease.fence,
                "dispatcher": dispatcher,
                "host": offer.host,
                "granted_at": now,
                "generation": lease.generation,
                "enumerate": not batch,
                "pkgpaths": json.dumps(lease.pkgpaths),
            },
        )
        self._event(lease, "scan-granted")
        return lease

    def _event(self, lease: ScanLease, kind: str, cause: str = "", **detail: object) -> None:
        self.ledger.event(
            lease.profile,
            kind,
            lease.pkgpaths[0] if len(lease.pkgpaths) == 1 else lease.profile,
            cause,
            attempt=lease.attempt,
            host=lease.host,
            pkgpaths=len(lease.pkgpaths),
            enumerate=not lease.pkgpaths,
            **detail,
        )

    def message(self, lease: ScanLease) -> pb.ScanGrant:
        """The grant of a lease, with the time until which it lasts now."""
        now = self.leases.of_attempt(lease.attempt) or lease
        return pb.ScanGrant(
            attempt=lease.attempt,
            fence=lease.fence,
            host=lease.host,
            expires=now.expires,
            profile=profile_message(self.ledger.catalogs[lease.profile].profile),
            pkgpaths=lease.pkgpaths,
            generation=lease.generation,
            time_limit=TIME_LIMIT,
            enumerate=not lease.pkgpaths,
        )

    def lost(self, dispatcher: str, listed: Iterable[str], ready: Iterable[str]) -> list[ScanLease]:
        """Leases that a dispatcher does not list, on hosts that could work on them now."""
        known, hosts = set(listed), set(ready)
        return [
            lease
            for lease in self.leases
            if lease.dispatcher == dispatcher
            and lease.attempt not in known
            and lease.host in hosts
            and lease.profile in self.ledger.catalogs
        ]

    # ---- holding, lapsing

    def knows(self, attempt: str) -> bool:
        """Whether an attempt is one of ours."""
        return self.ledger.store.row("scan_attempt", (attempt,)) is not None

    def hold(self, dispatcher: str, attempt: str, fence: int, now: float) -> None:
        """Its holder still works on it: renewed, or taken up again. Raises Refused."""
        lease = self.leases.of_attempt(attempt)
        if lease is not None and (lease.fence, lease.dispatcher) == (fence, dispatcher):
            if lease.profile not in self.ledger.catalogs:
                self.leases.end(attempt)
                raise Refused(AttemptState.CANCELLED, AttemptEvent.HELD)
            self.leases.renew(attempt, now)
            return
        row = self._row(attempt, fence)
        found = self._lapsed(row)
        if found is None or row is None or row["dispatcher"] != dispatcher:
            raise Refused(AttemptState.CANCELLED if row else None, AttemptEvent.HELD)
        with self.ledger.transaction():
            self.ledger.store.run("resume_scan_attempt", (attempt,))
            self._event(found, "adopted", "its holder is back, and nobody else had been granted it")
        self.leases.add(found, now)

    def _row(self, attempt: str, fence: int) -> Row | None:
        row = self.ledger.store.row("scan_attempt", (attempt,))
        return row if row is not None and row["fence"] == fence else None

    def _lapsed(self, row: Row | None) -> ScanLease | None:
        """The lease that lapsed and nobody else was granted anything of since."""
        if row is None or row["outcome"] != "lapsed":
            return None
        catalog = self._catalog(row)
        if catalog is None:
            return None
        lease = _lease(row, catalog.profile.name)
        taken = [p for p in lease.pkgpaths or (LISTS,) if self.leases.holder(lease.profile, p)]
        if any(path in taken for path in self._unanswered(catalog, lease) or taken):
            return None
        return replace(lease, pkgpaths=tuple(p for p in lease.pkgpaths if p not in taken))

    def _catalog(self, row: Row) -> Catalog | None:
        ids = (c for c in self.ledger.catalogs.values() if c.profile.id == row["profile_id"])
        return next(ids, None)

    def expire(self) -> int:
        """Leases whose time is over lapse: what was not answered is granted again."""
        lapsed = self.leases.expired(self.ledger.clock())
        for lease in lapsed:
            why = f"{lease.dispatcher} did not renew the lease for {self.leases.seconds:.0f} s"
            self._end(lease, "lapsed", "", why, "scan-lapsed")
            self._count(lease, why)
        return len(lapsed)

    def _end(self, lease: ScanLease, outcome: str, blame: str, why: str, kind: str) -> None:
        now = self.ledger.clock()
        catalog = self.ledger.catalogs.get(lease.profile)
        with self.ledger.transaction():
            row = (now, outcome, blame, why, lease.attempt)
            self.ledger.store.run("end_scan_attempt", row)
            if catalog is not None:
                answered = len(lease.pkgpaths) - len(self._unanswered(catalog, lease))
                self._event(lease, kind, why, blame=blame, answered=answered)
        self.leases.end(lease.attempt)

    def _unanswered(self, catalog: Catalog, lease: ScanLease) -> list[str]:
        """Pkgpaths of a lease, or the lists, of which nothing was said since it was granted."""
        if not lease.pkgpaths:
            outdated = self.lists(catalog)["lists_outdated_at"]
            return [LISTS] if outdated is not None and outdated <= lease.granted else []
        places = (catalog.paths.get(path) for path in lease.pkgpaths)
        return [p.path for p in places if p is not None and p.scanned_at < lease.granted]

    # ---- what is given back

    def _returns(self, catalog: Catalog, path: str) -> _Returned:
        """How often a scan was given back since its pkgpath, or the lists, were outdated."""
        if path == LISTS:
            at = self.lists(catalog)["lists_outdated_at"]
        else:
            at = catalog.paths[path].outdated_at
        known = self._returned.get((catalog.profile.name, path))
        if known is None or known.outdated_at != at:
            return _Returned(at or 0.0)
        return known

    def _count(self, lease: ScanLease, why: str) -> None:
        """A lease ended before its work was done, and not because somebody wanted it."""
        catalog = self.ledger.catalogs.get(lease.profile)
        for path in () if catalog is None else self._unanswered(catalog, lease):
            assert catalog is not None
            before = self._returns(catalog, path)
            if before.outdated_at <= lease.granted:
                counted = replace(before, times=before.times + 1, why=why)
                self._returned[lease.profile, path] = counted

    def hopeless(self) -> dict[str, dict[str, str]]:
        """By profile: pkgpaths that hosts have given back so often that they fail, and why."""
        found: dict[str, dict[str, str]] = {}
        for (name, path), returned in list(self._returned.items()):
            catalog = self.ledger.catalogs.get(name)
            known = catalog is not None and (path == LISTS or path in catalog.paths)
            if catalog is None or not known or self._returns(catalog, path).times == 0:
                del self._returned[name, path]
            elif returned.times >= MOST_RETURNS:
                why = f"hosts gave it back {returned.times} times: {returned.why}"
                if path == LISTS:
                    self._lists_done(catalog, why)
                    del self._returned[name, path]
                elif not self.leases.holder(name, path):
                    found.setdefault(name, {})[path] = why
        return found

    # ---- what comes of it

    def admit(self, delivery: Delivery) -> None:
        """What a scan brings is taken if nobody else was granted it since. Raises Fault."""
        header = delivery.header
        if not header.attempt:
            return
        row = self._row(header.attempt, header.fence)
        catalog = self.ledger.catalog(header.profile)
        if row is None or row["profile_id"] != catalog.profile.id:
            raise Fault(Kind.INTERRUPTED, f"the attempt {header.attempt} is not known")
        if row["outcome"] not in (None, "lapsed"):
            raise Fault(Kind.INTERRUPTED, f"the attempt {header.attempt} is {row['outcome']}")
        mine = set(json.loads(row["pkgpaths"]))
        for path in delivery.scans:
            if path not in mine:
                raise Fault(Kind.DATA, f"{path} is none of the pkgpaths of {header.attempt}")
            if self.leases.holder(catalog.profile.name, path) not in ("", header.attempt):
                what = f"{path} was granted to somebody else since"
                raise Fault(Kind.INTERRUPTED, what, "end the attempt, and drop what it brought")
        delivery.began = row["granted_at"]

    def taken_in(self, name: str, delivery: Delivery) -> None:
        """A delivery was written: the lists may be known now, and the profile complete."""
        catalog = self.ledger.catalog(name)
        self.line.delivered(catalog)
        if delivery.end is not None and (delivery.end.enumeration or delivery.replaces):
            outdated = self.lists(catalog)["lists_outdated_at"]
            if outdated is not None and outdated <= delivery.began:
                self._lists_done(catalog, "")
        self._complete(catalog)

    def report(self, result: pb.ScanResult) -> pb.Verdict:
        """What is made of the end of a scan."""
        row = self._row(result.attempt, result.fence)
        if row is None or row["outcome"] == "cancelled":
            return _verdict(result, pb.Verdict.KIND_REFUSED, "the attempt is not known")
        if row["outcome"] in ("done", "returned"):
            return _verdict(result, pb.Verdict.KIND_DUPLICATE, "it was recorded before")
        if not result.done and result.blame not in _BLAMES:
            return _verdict(result, pb.Verdict.KIND_REFUSED, "it is not done, and blame is missing")
        lease = self.leases.of_attempt(result.attempt) or self._lapsed(row)
        if lease is None or lease.profile not in self.ledger.catalogs:
            return _verdict(result, pb.Verdict.KIND_REFUSED, "another lease replaced it")
        self._conclude(lease, result)
        return _verdict(result, pb.Verdict.KIND_ACCEPTED, "")

    def _conclude(self, lease: ScanLease, result: pb.ScanResult) -> None:
        catalog = self.ledger.catalogs[lease.profile]
        done, message = result.done, result.message
        if done and not lease.pkgpaths:
            self._lists_done(catalog, message)
        left = self._unanswered(catalog, lease)
        counted = result.blame in _COUNTED
        if done and left:
            done, counted = False, True
            message = f"said to be done, but nothing was said of {left[0]}"
        blame = "" if done else _BLAMES.get(result.blame, "infrastructure")
        word, kind = ("done", "scan-done") if done else ("returned", "scan-returned")
        if counted and not done:
            self._count(lease, message)
        self._end(lease, word, blame, message, kind)
        self._complete(catalog)

    def _lists_done(self, catalog: Catalog, error: str) -> None:
        """The lists are as known as they can be; `error` is what is wrong with them."""
        with self.ledger.transaction():
            self.ledger.store.run("lists_done", (error, catalog.profile.id))
            if error:
                name = catalog.profile.name
                self.ledger.event(name, "scan-failed", name, error)

    def _complete(self, catalog: Catalog) -> None:
        """The first time that all was scanned, the profile is complete: builds may begin."""
        profile = catalog.profile
        if profile.complete or profile.scans != "hosts" or catalog.settling:
            return
        if self.lists(catalog)["lists_outdated_at"] is not None:
            return
        if any(not place.scanned_at for place in self.line.outdated(catalog)):
            return
        with self.ledger.transaction():
            self.ledger.store.run("set_complete", (True, "", profile.id))
            self.ledger.event(profile.name, "complete", profile.name, "all was scanned once")
        catalog.profile = self.ledger.stored_profile(profile.name)


def _lease(row: Row, profile: str) -> ScanLease:
    """A lease as the table says it; how long it lasts is up to whoever takes it up."""
    return ScanLease(
        profile=profile,
        attempt=row["id"],
        fence=row["fence"],
        dispatcher=row["dispatcher"],
        host=row["host"],
        granted=row["granted_at"],
        pkgpaths=tuple(json.loads(row["pkgpaths"])),
        generation=row["generation"],
    )


def _least_loaded(offers: Sequence[Offer]) -> Offer:
    """The offer with most of its slots free, of which one is taken."""
    best = max(
        (offer for offer in offers if offer.free > 0), key=lambda offer: offer.free / offer.slots
    )
    best.free -= 1
    return best


def _verdict(result: pb.ScanResult, kind: pb.Verdict.Kind, why: str) -> pb.Verdict:
    return pb.Verdict(attempt=result.attempt, kind=kind, why=why)
