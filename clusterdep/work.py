"""The exchange of work: results in, verdicts and grants out."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import Artifact, Catalog, runtime_patterns
from clusterdep.core import leases as rules
from clusterdep.core.graph import State
from clusterdep.core.leases import AttemptEvent, AttemptState, Lease, Refused
from clusterdep.core.schedule import Job, Offer, Platform, match, refusal
from clusterdep.ledger import Ledger
from clusterdep.render import grant_message
from clusterdep.store.database import Row

log = logging.getLogger("clusterdep.work")

LONGEST_WAIT = 60.0
BLAMES = {
    pb.BLAME_PACKAGE: "package",
    pb.BLAME_HOST: "host",
    pb.BLAME_INFRASTRUCTURE: "infrastructure",
    pb.BLAME_OPERATOR: "operator",
}
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class Dispatcher:
    """What one dispatcher said last."""

    name: str
    offers: list[Offer] = field(default_factory=list)
    calls: int = 0  # exchanges so far; only the newest is answered


class Work:
    """Grants jobs to dispatchers and takes their results."""

    def __init__(self, ledger: Ledger, renew_seconds: float, new_id: Callable[[], str]) -> None:
        self.ledger = ledger
        self.dispatchers: dict[str, Dispatcher] = {}
        self._renew_seconds = renew_seconds
        self._new_id = new_id
        self._stopping = False

    def stop(self) -> None:
        """Answers every waiting exchange at once."""
        self._stopping = True
        self.ledger.changes.set()

    # ---- the call

    async def exchange(self, request: pb.ExchangeRequest) -> pb.ExchangeResponse:
        """See Work.Exchange in the contract."""
        if not request.dispatcher:
            raise Fault(Kind.DATA, "dispatcher is empty", "give each dispatcher a name of its own")
        dispatcher = self.dispatchers.setdefault(request.dispatcher, Dispatcher(request.dispatcher))
        dispatcher.calls += 1
        mine = dispatcher.calls
        self.ledger.changes.set()  # an older call of the same dispatcher gives up
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(max(request.wait_seconds, 0.0), LONGEST_WAIT)
        verdicts = [self.report(dispatcher.name, result) for result in request.results]
        listed = {holding.attempt: holding.fence for holding in request.holding}
        while dispatcher.calls == mine:
            answer = pb.ExchangeResponse(
                verdicts=verdicts,
                lease_seconds=self.ledger.leases.seconds,
                renew_seconds=self._renew_seconds,
            )
            answer.cancellations.extend(self._renew(dispatcher.name, listed))
            again = self._lost_grants(dispatcher.name, set(listed))
            dispatcher.offers = _offers(request, again)
            for lease in again:
                answer.grants.append(self._grant_of(lease))
            answer.grants.extend(self._grant(dispatcher))
            left = deadline - loop.time()
            if answer.verdicts or answer.grants or answer.cancellations:
                return answer
            if left <= 0 or self._stopping:
                return answer
            await self.ledger.changes.wait(left)
        raise Fault(Kind.INTERRUPTED, f"a newer exchange of {dispatcher.name} replaced this one")

    # ---- leases

    def _renew(self, dispatcher: str, listed: dict[str, int]) -> list[pb.Cancellation]:
        """Renews what is listed; what can not be renewed is to be ended."""
        ended: list[pb.Cancellation] = []
        now = self.ledger.clock()
        for attempt, fence in listed.items():
            try:
                self._hold(dispatcher, attempt, fence, now)
            except Refused as refused:
                ended.append(pb.Cancellation(attempt=attempt, why=str(refused)))
        return ended

    def _hold(self, dispatcher: str, attempt: str, fence: int, now: float) -> None:
        leases = self.ledger.leases
        lease = leases.of_attempt(attempt)
        if lease is not None and (lease.fence, lease.dispatcher) == (fence, dispatcher):
            leases.renew(attempt, now)
            return
        row = self.ledger.store.row("attempt", (attempt,))
        state = self._state_of(row, fence)
        rules.advance(state, AttemptEvent.HELD)
        assert row is not None
        if row["dispatcher"] != dispatcher:
            raise Refused(None, AttemptEvent.HELD)
        self._take_up_again(row, now)

    def _state_of(self, row: Row | None, fence: int) -> AttemptState | None:
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
        found = self._find(row["package_id"])
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
        found = self._find(row["package_id"])
        assert found is not None
        catalog, package = found
        lease = Lease(
            profile=catalog.profile.name,
            package=row["package_id"],
            attempt=row["id"],
            fence=row["fence"],
            dispatcher=row["dispatcher"],
            host=row["host"],
            granted=row["granted_at"],
            renewed=now,
            expires=now,
            input_key=row["input_key"],
        )
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
        self.ledger.store.run(
            "add_lease",
            {
                "package_id": lease.package,
                "attempt": lease.attempt,
                "fence": lease.fence,
                "dispatcher": lease.dispatcher,
                "host": lease.host,
                "granted_at": lease.granted,
            },
        )

    def _lost_grants(self, dispatcher: str, listed: set[str]) -> list[Lease]:
        return rules.lost_grants(self.ledger.leases.of_dispatcher(dispatcher), listed)

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

    def _find(self, package_id: int) -> tuple[Catalog, int] | None:
        for catalog in self.ledger.catalogs.values():
            package = catalog.index.get(package_id)
            if package is not None:
                return catalog, package
        return None

    # ---- grants

    def _jobs(self) -> Iterator[Job]:
        """Open jobs of all profiles; of each the most urgent first, profiles in turn."""
        lines = [
            (catalog, iter(catalog.ready))
            for catalog in self.ledger.catalogs.values()
            if catalog.profile.complete
        ]
        try:
            while lines:
                for line in list(lines):
                    catalog, ready = line
                    package = next(ready, None)
                    if package is None:
                        lines.remove(line)
                    else:
                        yield catalog.job(package)
        finally:
            for _, ready in lines:
                ready.close()

    def _grant(self, dispatcher: Dispatcher) -> list[pb.Grant]:
        if self._stopping or not any(o.ready and o.free > 0 for o in dispatcher.offers):
            return []
        busy = {(lease.profile, self._pkgpath(lease)) for lease in self.ledger.leases}
        chosen = match(self._jobs(), dispatcher.offers, busy)
        if not chosen:
            return []
        now = self.ledger.clock()
        granted: list[Lease] = []
        with self.ledger.transaction():
            for job, offer in chosen:
                granted.append(self._write_grant(dispatcher.name, job, offer, now))
        for lease in granted:
            catalog = self.ledger.catalogs[lease.profile]
            package = catalog.index[lease.package]
            catalog.entries[package].fence = lease.fence
            self.ledger.leases.add(lease, now)
            catalog.take(package)
        return [self._grant_of(lease) for lease in granted]

    def _pkgpath(self, lease: Lease) -> str:
        catalog = self.ledger.catalogs[lease.profile]
        package = catalog.index.get(lease.package)
        return "" if package is None else catalog.entries[package].pkgpath

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

    def _grant_of(self, lease: Lease) -> pb.Grant:
        found = self.ledger.leases.of_attempt(lease.attempt) or lease
        return grant_message(self.ledger, found)

    def list_leases(self, dispatcher: str) -> pb.ListLeasesResponse:
        """See Work.ListLeases in the contract."""
        answer = pb.ListLeasesResponse()
        for lease in self.ledger.leases:
            if dispatcher in ("", lease.dispatcher):
                answer.leases.add(
                    grant=self._grant_of(lease),
                    dispatcher=lease.dispatcher,
                    granted=lease.granted,
                    renewed=lease.renewed,
                )
        return answer

    # ---- results

    def report(self, dispatcher: str, result: pb.Result) -> pb.Verdict:
        """What is made of the result of an attempt."""
        wrong = _invalid(result)
        if wrong:
            return _verdict(result, pb.Verdict.KIND_REFUSED, wrong)
        row = self.ledger.store.row("attempt", (result.attempt,))
        state = self._state_of(row, result.fence)
        event = rules.reported(result.built, result.blame == pb.BLAME_PACKAGE)
        if state in (AttemptState.BUILT, AttemptState.FAILED, AttemptState.RETURNED):
            return _verdict(result, pb.Verdict.KIND_DUPLICATE, "it was recorded before")
        try:
            after = rules.advance(state, event)
        except Refused as refused:
            return _verdict(result, pb.Verdict.KIND_REFUSED, str(refused))
        assert row is not None
        if result.built and result.artifact.pkgname != row["pkgname"]:
            why = f"the artifact is {result.artifact.pkgname}, not {row['pkgname']}"
            return _verdict(result, pb.Verdict.KIND_REFUSED, why)
        if after is AttemptState.LAPSED:
            return _verdict(result, pb.Verdict.KIND_ACCEPTED, "the job is open again already")
        return self._record(row, result, after)

    def _record(self, row: Row, result: pb.Result, after: AttemptState) -> pb.Verdict:
        store, now = self.ledger.store, self.ledger.clock()
        found = self._find(row["package_id"])
        name = self._profile_of(row, found)
        blame = "" if result.built else BLAMES[result.blame]
        ending = {
            "attempt": row["id"],
            "ended_at": now,
            "outcome": after.value,
            "blame": blame,
            "stage": result.stage,
            "message": result.message,
            "make_jobs": result.make_jobs,
            "peak_memory": result.peak_memory,
            "disk": result.disk,
            "log": result.log,
        }
        with self.ledger.transaction():
            store.run("drop_lease", (row["package_id"], row["id"], row["fence"]))
            store.run("end_attempt", ending)
            store.run_many(
                "add_stage",
                [
                    (row["id"], position, s.stage, s.wall, s.cpu, s.exit)
                    for position, s in enumerate(result.stages)
                ],
            )
            if result.built:
                store.run("add_artifact", _artifact_row(row, result.artifact, now))
            self.ledger.event(
                name,
                after.value,
                row["pkgname"],
                result.message,
                attempt=row["id"],
                host=row["host"],
                blame=blame,
                stage=result.stage,
                seconds=round(sum(s.wall for s in result.stages), 3),
                log=result.log,
            )
        return self._apply(row, result, ending, found)

    def _profile_of(self, row: Row, found: tuple[Catalog, int] | None) -> str:
        if found is not None:
            return found[0].profile.name
        lease = self.ledger.leases.of_attempt(row["id"])
        return "" if lease is None else lease.profile

    def _apply(
        self,
        row: Row,
        result: pb.Result,
        ending: dict[str, object],
        found: tuple[Catalog, int] | None,
    ) -> pb.Verdict:
        lease = self.ledger.leases.of_attempt(row["id"])
        if lease is not None:
            self.ledger.leases.end(lease.attempt)
        if found is None:
            return _verdict(result, pb.Verdict.KIND_STALE, "the tree has the package no more")
        catalog, package = found
        catalog.note_attempt(
            package, {**ending, **{k: row[k] for k in ("id", "input_key", "host")}}
        )
        if result.built:
            catalog.note_artifact(package, _artifact(row, result.artifact, ending))
            catalog.note_seconds(package, sum(s.wall for s in result.stages))
        else:
            catalog.graph.refresh(package)
        if lease is not None:
            catalog.release(lease)
        if result.built and catalog.graph.state[package] is not State.BUILT:
            why = "what it was built from has changed meanwhile"
            return _verdict(result, pb.Verdict.KIND_STALE, why)
        return _verdict(result, pb.Verdict.KIND_ACCEPTED, "")

    # ---- what could run

    def offers(self) -> list[Offer]:
        """All hosts of all dispatchers, as they were offered last."""
        return [offer for d in self.dispatchers.values() for offer in d.offers]

    def could_ever_run(self, job: Job) -> bool:
        """Whether some known host could take the job in its best state.

        With no host known yet nothing is ruled out: the absence of a host never
        decides anything about a package.
        """
        offers = self.offers()
        return not offers or any(not refusal(job, offer.at_best()) for offer in offers)

    @staticmethod
    def why_not(job: Job, offer: Offer) -> str:
        """Why a host does not take the job now; empty if it could."""
        return refusal(job, offer) or ("" if offer.free > 0 else "has no free slot")


def _offers(request: pb.ExchangeRequest, again: Sequence[Lease]) -> list[Offer]:
    """The hosts of a request; what is granted again takes its slot."""
    offers = []
    for host in request.hosts:
        free = host.free_slots - sum(lease.host == host.name for lease in again)
        offers.append(
            Offer(
                dispatcher=request.dispatcher,
                host=host.name,
                slots=host.slots,
                free=max(0, min(free, host.slots)),
                ready=host.state == pb.HOST_STATE_READY,
                platform=Platform(host.opsys, host.os_version, host.machine_arch),
                reason=host.reason or pb.HostState.Name(host.state)[11:].lower(),
                profiles=frozenset(host.profiles),
                make_jobs=max(1, host.cores // host.slots) if host.cores and host.slots else 0,
            )
        )
    return offers


def _invalid(result: pb.Result) -> str:
    """What is wrong with a result, if something is."""
    if not result.built:
        return "" if result.blame in BLAMES else "it was not built, and blame is not given"
    artifact = result.artifact
    if not _HEX.fullmatch(artifact.sha256):
        return "artifact.sha256 is not 64 hexadecimal digits"
    if artifact.size <= 0:
        return "artifact.size is not positive"
    return ""


def _verdict(result: pb.Result, kind: pb.Verdict.Kind, why: str) -> pb.Verdict:
    return pb.Verdict(attempt=result.attempt, kind=kind, why=why)


def _artifact_row(row: Row, artifact: pb.Artifact, now: float) -> dict[str, object]:
    return {
        "package_id": row["package_id"],
        "attempt_id": row["id"],
        "pkgname": artifact.pkgname,
        "sha256": artifact.sha256,
        "size": artifact.size,
        "suffix": artifact.suffix or ".tgz",
        "content_digest": artifact.content_digest or artifact.sha256,
        "input_key": row["input_key"],
        "summary": artifact.summary,
        "built_at": now,
    }


def _artifact(row: Row, artifact: pb.Artifact, ending: dict[str, object]) -> Artifact:
    return Artifact(
        pkgname=artifact.pkgname,
        sha256=artifact.sha256,
        size=artifact.size,
        suffix=artifact.suffix or ".tgz",
        content_digest=artifact.content_digest or artifact.sha256,
        input_key=row["input_key"],
        built_at=float(str(ending["ended_at"])),
        attempt=row["id"],
        runtime=runtime_patterns(artifact.summary),
    )
