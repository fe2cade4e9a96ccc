"""Answers: what is there, what is open, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from clusterdep import naming, origins
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import Catalog
from clusterdep.core.graph import DEAD, State
from clusterdep.core.status import Evidence, Status, explain
from clusterdep.follow import Follow
from clusterdep.ledger import Ledger
from clusterdep.outdated import most_needed_first
from clusterdep.render import (
    STATUSES,
    collision_messages,
    cycle_text,
    difference_messages,
    package_message,
    profile_message,
    scan_failure_message,
    sentence,
)
from clusterdep.store.database import Row
from clusterdep.work import Work

MOST_FAILURES = 100
#: Why an artifact is current, by policy.
_CURRENT = {
    "inputs": ", and what it is made from is the same",
    "version": ", and that is its version; whether it would be made of the same is not asked",
    "exists": "; that there is one is enough",
}
_PROFILES_OF_BLAME = {
    "package": pb.BLAME_PACKAGE,
    "host": pb.BLAME_HOST,
    "infrastructure": pb.BLAME_INFRASTRUCTURE,
    "operator": pb.BLAME_OPERATOR,
}


class Questions:
    """Reads the ledger; changes nothing."""

    def __init__(self, ledger: Ledger, work: Work, follow: Follow) -> None:
        self.ledger = ledger
        self._work = work
        self._follow = follow

    def profiles(self) -> list[pb.Profile]:
        """All profiles by name."""
        return [profile_message(c.profile) for _, c in sorted(self.ledger.catalogs.items())]

    def summary(self, name: str) -> pb.SummaryResponse:
        """Counts of a profile, and whether there is anything left to do."""
        catalog = self.ledger.catalog(name)
        every, needed, selected = catalog.count()
        leases = sum(lease.profile == catalog.profile.name for lease in self.ledger.leases)
        # All jobs of a profile ask for the same platform: one speaks for all.
        first = next(iter(catalog.ready), None)
        possible = first is not None and self._work.could_ever_run(catalog.job(first))
        startable = len(catalog.ready) if possible else 0
        scans = self._work.scans
        scanning = scans.leases.of_profile(catalog.profile.name)
        to_scan = self._to_scan(catalog)
        lists_error = scans.lists(catalog)["lists_error"]
        answer = pb.SummaryResponse(
            profile=profile_message(catalog.profile),
            pkgpaths=len(catalog.paths),
            scan_failures=len(catalog.scan_failures) + bool(lists_error),
            leases=leases + len(scanning),
            startable=startable,
            idle=catalog.profile.complete
            and not catalog.settling
            and not (leases or startable or scanning or to_scan),
            outdated=len(scans.outdated(catalog)),
            scanning=sum(len(lease.pkgpaths) for lease in scanning),
            last_event=self.last_event(),
            missing_selection=catalog.missing_selection,
            unwritable=self.ledger.store.stopped,
            now=self.ledger.clock(),
            following=self._follow.standing(catalog.profile.name),
            enumerate=scans.lists(catalog)["lists_outdated_why"],
        )
        for status in Status:
            if every[status]:
                answer.counts.add(
                    status=STATUSES[status],
                    all=every[status],
                    needed=needed[status],
                    selected=selected[status],
                )
        if lists_error:
            answer.failures.append(scan_failure_message("", lists_error))
        for pkgpath, error in list(catalog.scan_failures.items())[:MOST_FAILURES]:
            answer.failures.append(scan_failure_message(pkgpath, error))
        answer.differences.extend(difference_messages(catalog, MOST_FAILURES))
        answer.collisions.extend(collision_messages(catalog, MOST_FAILURES))
        return answer

    def _to_scan(self, catalog: Catalog) -> bool:
        """Whether hosts have scans to do, and some known host could."""
        scans = self._work.scans
        return bool(scans.left(catalog)) and self._work.could_ever_run(scans.job(catalog))

    def last_event(self) -> int:
        """Sequence number of the newest event."""
        row = self.ledger.store.row("event_bounds")
        return int(row[1]) if row else 0

    def pkgpaths(self, name: str, only_outdated: bool = False) -> Iterator[pb.Pkgpath]:
        """Directories in scan order, and how their last scans went.

        Or only those that are to be scanned again, most needed first.
        """
        catalog = self.ledger.catalog(name)
        places = sorted(catalog.paths.values(), key=lambda place: place.position)
        if only_outdated:
            wanted = [place for place in places if place.outdated_at is not None]
            places = most_needed_first(catalog, wanted)
        for place in places:
            yield pb.Pkgpath(
                path=place.path,
                revision=place.revision,
                scanned=place.scanned_at,
                seconds=place.seconds,
                error=place.error,
                outdated=place.outdated_why,
                outdated_since=place.outdated_at or 0.0,
            )

    def package(self, request: pb.PackageRequest) -> pb.PackageDetail:
        """One package with its record."""
        catalog, package = self.find(request)
        entry = catalog.entries[package]
        row = self.ledger.store.row("record_text", (entry.id,))
        detail = pb.PackageDetail(
            package=package_message(catalog, package, depth=True),
            record=row["text"] if row else b"",
            requirements=self.requirements(catalog, package),
            scan_error=catalog.scan_failures.get(entry.pkgpath, ""),
            held=package in catalog.held,
        )
        stored = self.ledger.store.row("artifact_of", (entry.id,))
        if stored is not None:
            detail.artifact.CopyFrom(_artifact(catalog, package, stored))
        detail.stale.extend(self._stale(catalog, package))
        return detail

    def _stale(self, catalog: Catalog, package: int) -> list[str]:
        if catalog.graph.state[package] is State.BUILT:
            return []
        return origins.why_stale(self.ledger.store, catalog, package)

    def find(self, request: pb.PackageRequest) -> tuple[Catalog, int]:
        """The one package that is asked about. Raises Fault."""
        if not request.package:
            raise Fault(Kind.DATA, "no package is named")
        catalog = self.ledger.catalog(request.profile)
        return catalog, naming.find(catalog, request.package, request.variant)

    def requirements(self, catalog: Catalog, package: int) -> list[pb.Requirement]:
        """The patterns of a package, and what each was resolved to."""
        found = []
        for row in self.ledger.store.rows("requirements", (catalog.entries[package].id,)):
            required = catalog.index.get(row["required_id"])
            found.append(
                pb.Requirement(
                    pattern=row["pattern"],
                    pkgpath=row["location"],
                    pkgname="" if required is None else catalog.entries[required].pkgname,
                    status=pb.STATUS_UNSPECIFIED
                    if required is None
                    else STATUSES[catalog.status(required)],
                )
            )
        return found

    def why(self, request: pb.PackageRequest) -> Evidence:
        """Why a package has the status it has."""
        catalog, package = self.find(request)
        evidence = explain(
            package,
            lambda p: catalog.entries[p].pkgname,
            catalog.status,
            lambda p: self._why_sentence(catalog, p),
            lambda p: _causes(catalog, p),
        )
        artifact = catalog.artifacts.get(package)
        subject = "its artifact" if artifact is None else f"artifact {artifact.pkgname}"
        stale = (Evidence(subject, evidence.status, text) for text in self._stale(catalog, package))
        return replace(evidence, causes=(*stale, *evidence.causes))

    def _why_sentence(self, catalog: Catalog, package: int) -> str:
        status = catalog.status(package)
        if status is Status.OPEN:
            return self._why_open(catalog, package)
        if status is Status.BUILT:
            return f"built {catalog.artifacts[package].pkgname}{_CURRENT[catalog.profile.policy]}"
        if status is Status.WAITING:
            return f"a requirement is still to be built: {sentence(catalog, package)}"
        if status is Status.BLOCKED and catalog.graph.state[package] is not State.CYCLE:
            return "a requirement can not be built"
        if status is Status.BLOCKED:
            return f"it requires itself: {cycle_text(catalog, package)}"
        return sentence(catalog, package)

    def _why_open(self, catalog: Catalog, package: int) -> str:
        if package not in catalog.needed:
            return "it could be built, but is not selected and nothing selected requires it"
        if not catalog.profile.complete:
            return "it could be built; the scan of its profile is not complete"
        lease = next(
            (
                lease
                for other in catalog.entries[package].place.packages
                if (lease := catalog.lease(other)) is not None
            ),
            None,
        )
        if lease is not None:
            return "another variant of its pkgpath is being built"
        offers = self._work.offers()
        if not offers:
            return "it could be built, and no dispatcher has offered a host"
        job = catalog.job(package)
        reasons = [self._work.why_not(job, offer) for offer in offers]
        free = [reason for reason in reasons if not reason]
        if free:
            return "it could be built now"
        named = "; ".join(
            f"{offer.host} {reason}" for offer, reason in zip(offers, reasons, strict=True)
        )
        return f"it could be built, but {named}"

    def history(self, request: pb.HistoryRequest) -> Iterator[pb.Attempt]:
        """Attempts, newest first."""
        profile_id = package_id = 0
        if request.profile or request.package:
            catalog = self.ledger.catalog(request.profile)
            profile_id = catalog.profile.id
            if request.package:
                package_id = catalog.entries[naming.find(catalog, request.package)].id
        if request.limit < 0:
            raise Fault(Kind.DATA, f"limit is {request.limit}", "0 means 100")
        values = {
            "profile_id": profile_id,
            "package_id": package_id,
            "limit": request.limit or 100,
        }
        for row in list(self.ledger.store.rows("history", values)):
            yield self._attempt(row)

    def _attempt(self, row: Row) -> pb.Attempt:
        attempt = pb.Attempt(
            attempt=row["id"],
            profile=row["profile"],
            pkgpath=row["pkgpath"],
            variant=row["variant"],
            pkgname=row["pkgname"],
            dispatcher=row["dispatcher"],
            host=row["host"],
            granted=row["granted_at"],
            ended=row["ended_at"] or 0,
            outcome=row["outcome"] or "",
            blame=_PROFILES_OF_BLAME.get(row["blame"], pb.BLAME_UNSPECIFIED),
            stage=row["stage"],
            message=row["message"],
            log=row["log"],
            make_jobs=row["make_jobs"],
        )
        for stage in self.ledger.store.rows("stages", (row["id"],)):
            attempt.stages.add(
                stage=stage["stage"], wall=stage["wall"], cpu=stage["cpu"], exit=stage["exit"]
            )
        return attempt

    def artifacts(self, name: str) -> Iterator[tuple[int, pb.ArtifactRecord]]:
        """The newest artifact of each package that has one, with the package."""
        catalog = self.ledger.catalog(name)
        newest: dict[int, Row] = {}
        for row in self.ledger.store.rows("artifacts", (catalog.profile.id,)):
            package = catalog.index.get(row["package_id"])
            if package is not None:
                newest[package] = row
        for package, row in newest.items():
            yield package, _artifact(catalog, package, row)


def _causes(catalog: Catalog, package: int) -> list[int]:
    """Packages whose state is why a package has its own."""
    state = catalog.graph.state
    if state[package] is State.BLOCKED:
        return [p for p in catalog.graph.requires[package] if state[p] in DEAD]
    if state[package] is State.WAITING:
        return [p for p in catalog.graph.requires[package] if state[p] is not State.BUILT]
    return []


def _artifact(catalog: Catalog, package: int, row: Row) -> pb.ArtifactRecord:
    entry = catalog.entries[package]
    return pb.ArtifactRecord(
        artifact=pb.Artifact(
            pkgname=row["pkgname"],
            sha256=row["sha256"],
            size=row["size"],
            content_digest=row["content_digest"],
            summary=row["summary"],
            suffix=row["suffix"],
        ),
        pkgpath=entry.pkgpath,
        variant=entry.variant,
        current=catalog.graph.state[package] is State.BUILT,
        built=row["built_at"],
        attempt=row["attempt_id"] or "",
        dispatcher=row["dispatcher"],
    )
