"""The exchange of work: results in, verdicts and grants out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.attempts import Attempts
from clusterdep.catalog import Catalog
from clusterdep.core.leases import Lease, Refused, lost_grants
from clusterdep.core.scanqueue import ScanLease
from clusterdep.core.schedule import Job, Offer, Platform, match, refusal
from clusterdep.ledger import Ledger
from clusterdep.render import grant_message
from clusterdep.results import Results
from clusterdep.scans import Scans

#: Longest that an exchange waits, seconds.
LONGEST_WAIT = 60.0


@dataclass(slots=True)
class Dispatcher:
    """What one dispatcher said last."""

    name: str
    offers: list[Offer] = field(default_factory=list)
    calls: int = 0  # exchanges so far; only the newest is answered
    takes_scans: bool = False


class Work:
    """Grants jobs to dispatchers and takes their results."""

    def __init__(
        self, ledger: Ledger, scans: Scans, renew_seconds: float, new_id: Callable[[], str]
    ) -> None:
        self.ledger = ledger
        self.scans = scans
        self.dispatchers: dict[str, Dispatcher] = {}
        self.attempts = Attempts(ledger, new_id)
        self._results = Results(ledger, self.attempts)
        self._renew_seconds = renew_seconds
        self._stopping = False

    def stop(self) -> None:
        """Answers every waiting exchange at once."""
        self._stopping = True
        self.ledger.changes.set()

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
        verdicts = [self._results.report(result) for result in request.results]
        verdicts += [self.scans.report(result) for result in request.scan_results]
        listed = {holding.attempt: holding.fence for holding in request.holding}
        while dispatcher.calls == mine:
            answer = pb.ExchangeResponse(
                verdicts=verdicts,
                lease_seconds=self.ledger.leases.seconds,
                renew_seconds=self._renew_seconds,
            )
            answer.cancellations.extend(self._renew(dispatcher.name, listed))
            again = self._lost_grants(request, set(listed))
            rescans = self._lost_scans(request, listed) if request.takes_scans else []
            dispatcher.takes_scans = request.takes_scans
            hosts = [lease.host for lease in again] + [scan.host for scan in rescans]
            dispatcher.offers = _offers(request, hosts)
            for lease in again:
                answer.grants.append(self._message(lease))
            for scan in (*rescans, *self._grant_scans(dispatcher)):
                answer.scans.append(self.scans.message(scan))
            answer.grants.extend(self._grant(dispatcher))
            left = deadline - loop.time()
            if answer.verdicts or answer.grants or answer.scans or answer.cancellations:
                return answer
            if left <= 0 or self._stopping:
                return answer
            await self.ledger.changes.wait(left)
        raise Fault(Kind.INTERRUPTED, f"a newer exchange of {dispatcher.name} replaced this one")

    def _lost_grants(self, request: pb.ExchangeRequest, listed: set[str]) -> list[Lease]:
        """Leases the dispatcher does not list, on hosts that could work on them now."""
        ready = {host.name for host in request.hosts if host.state == pb.HOST_STATE_READY}
        held = self.ledger.leases.of_dispatcher(request.dispatcher)
        return [lease for lease in lost_grants(held, listed) if lease.host in ready]

    def _lost_scans(self, request: pb.ExchangeRequest, listed: Iterable[str]) -> list[ScanLease]:
        """The same of scans."""
        ready = [host.name for host in request.hosts if host.state == pb.HOST_STATE_READY]
        return self.scans.lost(request.dispatcher, listed, ready)

    def _grant_scans(self, dispatcher: Dispatcher) -> list[ScanLease]:
        """Scans come before builds: they are short, and say what there is to build.

        But builds go on meanwhile with what is known.
        """
        if self._stopping or not dispatcher.takes_scans:
            return []
        if not any(offer.ready and offer.free > 0 for offer in dispatcher.offers):
            return []
        slots = sum(
            offer.slots
            for other in self.dispatchers.values()
            if other.takes_scans
            for offer in other.offers
            if offer.ready
        )
        builds = any(
            catalog.profile.complete and not catalog.settling and len(catalog.ready)
            for catalog in self.ledger.catalogs.values()
        )
        return self.scans.grant(dispatcher.name, dispatcher.offers, slots, builds)

    def _renew(self, dispatcher: str, listed: dict[str, int]) -> list[pb.Cancellation]:
        """Renews what is listed; what can not be renewed is to be ended."""
        ended: list[pb.Cancellation] = []
        now = self.ledger.clock()
        for attempt, fence in listed.items():
            try:
                holder = self.scans if self.scans.knows(attempt) else self.attempts
                holder.hold(dispatcher, attempt, fence, now)
            except Refused as refused:
                ended.append(pb.Cancellation(attempt=attempt, why=str(refused)))
        return ended

    def _jobs(self) -> Iterator[Job]:
        """Open jobs of all profiles; of each the most urgent first, profiles in turn."""
        lines = [
            (catalog, iter(catalog.ready), self._waits(catalog))
            for catalog in self.ledger.catalogs.values()
            if catalog.profile.complete and not catalog.settling
        ]
        try:
            while lines:
                for line in list(lines):
                    catalog, ready, waits = line
                    package = next((p for p in ready if not waits(p)), None)
                    if package is None:
                        lines.remove(line)
                    else:
                        yield catalog.job(package)
        finally:
            for _, ready, _ in lines:
                ready.close()

    def _waits(self, catalog: Catalog) -> Callable[[int], bool]:
        """Whether a build waits until its own pkgpath is scanned again by hosts.

        That takes a moment, and else it may be built from a Makefile that nobody has read
        yet. Where very much is outdated, builds go on with what is known.
        """
        soon = frozenset[str]()
        if any(other.takes_scans for other in self.dispatchers.values()):
            soon = self.scans.soon(catalog)
        return lambda package: catalog.entries[package].pkgpath in soon

    def _grant(self, dispatcher: Dispatcher) -> list[pb.Grant]:
        if self._stopping or not any(o.ready and o.free > 0 for o in dispatcher.offers):
            return []
        busy = {(lease.profile, self.attempts.pkgpath(lease)) for lease in self.ledger.leases}
        chosen = match(self._jobs(), dispatcher.offers, busy)
        if not chosen:
            return []
        granted = self.attempts.grant(dispatcher.name, chosen)
        return [self._message(lease) for lease in granted]

    def _message(self, lease: Lease) -> pb.Grant:
        """The grant of a lease, with the time until which it lasts now."""
        return grant_message(self.ledger, self.ledger.leases.of_attempt(lease.attempt) or lease)

    def list_leases(self, dispatcher: str) -> pb.ListLeasesResponse:
        """See Work.ListLeases in the contract."""
        answer = pb.ListLeasesResponse()
        for lease in self.ledger.leases:
            if dispatcher in ("", lease.dispatcher):
                answer.leases.add(
                    grant=self._message(lease),
                    dispatcher=lease.dispatcher,
                    granted=lease.granted,
                    renewed=lease.renewed,
                )
        for scan in self.scans.leases:
            if dispatcher in ("", scan.dispatcher) and scan.profile in self.ledger.catalogs:
                answer.leases.add(
                    scan=self.scans.message(scan),
                    dispatcher=scan.dispatcher,
                    granted=scan.granted,
                    renewed=scan.renewed,
                )
        return answer

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


def _offers(request: pb.ExchangeRequest, again: Sequence[str]) -> list[Offer]:
    """The hosts of a request; what is granted again, on these hosts, takes its slot."""
    offers = []
    for host in request.hosts:
        free = host.free_slots - again.count(host.name)
        offers.append(
            Offer(
                dispatcher=request.dispatcher,
                host=host.name,
                slots=host.slots,
                free=max(0, min(free, host.slots)),
                ready=host.state == pb.HOST_STATE_READY,
                platform=Platform(host.opsys, host.os_version, host.machine_arch),
                reason=host.reason or _state_word(host.state),
                profiles=frozenset(host.profiles),
                make_jobs=max(1, host.cores // host.slots) if host.cores and host.slots else 0,
            )
        )
    return offers


def _state_word(state: int) -> str:
    """The word for the state of a host, also for one that only newer dispatchers know."""
    known = state in pb.HostState.values()
    return pb.HostState.Name(pb.HostState.ValueType(state))[11:].lower() if known else "unknown"
