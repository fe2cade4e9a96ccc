"""Talks to clusterdep: adopts after a start, then exchanges work for as long as the daemon runs."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress

import grpc

from clusterbuild.dispatcher import Dispatcher
from clusterbuild.messages import artifact_of, known_of
from clusterbuild.repository import Known
from clusterbuild.rules import Connection
from clusterdep.api.client import Link, fault_of
from clusterdep.api.errors import Fault
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.api.v1 import clusterdep_pb2_grpc as rpc

log = logging.getLogger("clusterbuild.exchange")

#: How long the first call waits; then clusterdep says how often it wants to hear of us.
FIRST_WAIT = 20.0
LONGEST_WAIT = 60.0
#: What a call may take beyond the time it was asked to wait, seconds.
GRACE = 20.0
#: What is new within this time is told in one call, seconds.
GATHER = 0.01
#: First and longest pause after a failed call, seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
#: Pause after an answer that came early and said nothing new, seconds.
IDLE_PAUSE = 1.0
#: How long a question may take, seconds.
QUESTION_SECONDS = 60.0
TAKE_OVER_SECONDS = 600.0
#: How long it may take until what scans found is recorded, seconds.
PUT_SECONDS = 300.0
#: So many refusals of one call are logged.
MOST_REFUSALS = 20


class Exchange:
    """The one conversation with clusterdep."""

    def __init__(
        self,
        link: Link,
        jitter: Callable[[], float] = random.random,
        name: str = "",
    ) -> None:
        """`jitter` gives numbers from 0 to 1, so that many dispatchers do not call at once.

        `name` is the dispatcher's: artifacts of others are not missed here.
        """
        self._name = name
        self.connection = Connection(link.address)
        self._link = link
        self._connect()
        self._jitter = jitter
        self._pause = FIRST_PAUSE
        self._wait = FIRST_WAIT

    def _connect(self) -> None:
        self._work = rpc.WorkStub(self._link.channel)
        self._query = rpc.QueryStub(self._link.channel)
        self._feed = rpc.FeedStub(self._link.channel)

    # -- what the archive asks ------------------------------------------------

    async def list_artifacts(self, profile: str) -> list[Known]:
        """What is recorded for a profile; raises Fault."""
        request = pb.ListArtifactsRequest(profile=profile)
        try:
            stream = self._query.ListArtifacts(request, timeout=QUESTION_SECONDS)
            return [known_of(record, self._name) async for record in stream]
        except grpc.RpcError as error:
            raise await self._fault(error) from error

    async def declare_missing(self, profile: str, sha256s: list[str]) -> None:
        """Artifacts of a profile that are not here; raises Fault."""
        request = pb.DeclareArtifactsRequest(
            profile=profile, missing=sha256s, dispatcher=self._name
        )
        try:
            await self._feed.DeclareArtifacts(request, timeout=QUESTION_SECONDS)
        except grpc.RpcError as error:
            raise await self._fault(error) from error

    # -- what an import asks ---------------------------------------------------

    async def packages(self, profile: str) -> dict[str, tuple[str, str]]:
        """(pkgpath, variant) of a profile's packages by pkgname: the first stands. Raises Fault."""
        request = pb.ListPackagesRequest(profile=profile)
        found: dict[str, tuple[str, str]] = {}
        try:
            async for page in self._query.ListPackages(request, timeout=QUESTION_SECONDS):
                for package in page.packages:
                    found.setdefault(package.pkgname, (package.pkgpath, package.variant))
        except grpc.RpcError as error:
            raise await self._fault(error) from error
        return found

    async def take_over(self, profile: str, by: str, kept: list[Known]) -> pb.TakeOverResponse:
        """Has artifacts recorded that somebody else built and that are kept here; raises Fault."""
        header = pb.TakeOverHeader(profile=profile, by=by, dispatcher=self._name)

        def parts() -> Iterator[pb.TakeOverRequest]:
            yield pb.TakeOverRequest(header=header)
            for known in kept:
                yield pb.TakeOverRequest(artifact=artifact_of(known))
            yield pb.TakeOverRequest(end=pb.TakeOverEnd())

        try:
            call = self._feed.TakeOver(parts(), timeout=TAKE_OVER_SECONDS)
            answer: pb.TakeOverResponse = await call
        except grpc.RpcError as error:
            raise await self._fault(error) from error
        return answer

    # -- what scans tell ------------------------------------------------------

    async def put_scans(
        self, header: pb.PutHeader, scans: Sequence[pb.PutScan], end: pb.PutEnd
    ) -> None:
        """What scans found; raises Fault."""

        async def parts() -> AsyncIterator[pb.PutRecordsRequest]:
            yield pb.PutRecordsRequest(header=header)
            for scan in scans:
                yield pb.PutRecordsRequest(scan=scan)
            yield pb.PutRecordsRequest(end=end)

        try:
            answer = await self._feed.PutRecords(parts(), timeout=PUT_SECONDS)
        except grpc.RpcError as error:
            raise await self._fault(error) from error
        for refusal in answer.refused[:MOST_REFUSALS]:
            log.warning("scan of %s: %s: %s", header.profile, refusal.where, refusal.why)

    async def known_pkgpaths(self, profile: str) -> list[str]:
        """The pkgpaths of a profile in scan order; raises Fault."""
        request = pb.ListPkgpathsRequest(profile=profile)
        try:
            stream = self._query.ListPkgpaths(request, timeout=QUESTION_SECONDS)
            return [pkgpath.path async for pkgpath in stream]
        except grpc.RpcError as error:
            raise await self._fault(error) from error

    async def _fault(self, error: grpc.RpcError) -> Fault:
        return await asyncio.to_thread(
            fault_of, error, self._link.address, "clusterdep", self._link.access
        )

    # -- the conversation -------------------------------------------------------

    async def adopt(self, dispatcher: Dispatcher) -> None:
        """Waits for clusterdep, opens the repositories, and takes on what was granted before.

        Until that is done no host is touched: what runs there may be leased to us.
        """
        while True:
            try:
                await self._adopt(dispatcher)
            except grpc.RpcError as error:
                await self._failed(await self._fault(error))
            except Fault as fault:
                await self._failed(fault)
            except OSError as error:
                dispatcher.set_trouble(f"the repository cannot be used: {error}")
                await asyncio.sleep(LONGEST_PAUSE)
            else:
                self._answered()
                return

    async def _adopt(self, dispatcher: Dispatcher) -> None:
        profiles = await self._query.ListProfiles(
            pb.ListProfilesRequest(), timeout=QUESTION_SECONDS
        )
        for profile in profiles.profiles:
            await dispatcher.archive.repository(profile.name)
        request = pb.ListLeasesRequest(dispatcher=dispatcher.rules.dispatcher)
        leases = await self._work.ListLeases(request, timeout=QUESTION_SECONDS)
        dispatcher.adopt(leases.leases)
        if leases.leases:
            log.info("%d jobs that were granted before are taken up again", len(leases.leases))

    async def run(self, dispatcher: Dispatcher) -> None:
        """Exchanges until it is cancelled. Whatever fails is said, and tried again."""
        while True:
            try:
                await self._exchange(dispatcher)
            except grpc.RpcError as error:
                await self._failed(await self._fault(error))
            except Exception:
                log.exception("an exchange failed in a way that should not happen")
                self.connection.errors += 1
                await asyncio.sleep(LONGEST_PAUSE)

    async def _exchange(self, dispatcher: Dispatcher) -> None:
        """One call; it is given up, and made anew, when there is more to say."""
        await asyncio.sleep(GATHER)
        # After a failure an answer at once, which says that all is well again.
        wait = self._wait if self.connection.connected else 0.0
        request = dispatcher.request(wait)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        call = self._work.Exchange(request, timeout=wait + GRACE)
        answer = await self._answer_or_news(call, dispatcher.news)
        if answer is None:
            return
        self._answered()
        if answer.renew_seconds > 0:
            self._wait = min(LONGEST_WAIT, answer.renew_seconds)
        new = dispatcher.take(answer)
        if not new and not dispatcher.news.is_set() and loop.time() - begun < IDLE_PAUSE:
            # It repeats itself: a grant for a host that is lost, say.
            with suppress(TimeoutError):
                await asyncio.wait_for(dispatcher.news.wait(), IDLE_PAUSE)

    async def _answer_or_news(
        self,
        call: grpc.aio.UnaryUnaryCall[pb.ExchangeRequest, pb.ExchangeResponse],
        news: asyncio.Event,
    ) -> pb.ExchangeResponse | None:
        answered = asyncio.ensure_future(_answer(call))
        told = asyncio.ensure_future(news.wait())
        try:
            await asyncio.wait({answered, told}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
            if not answered.done():
                call.cancel()
                await asyncio.wait({answered})
        return None if answered.cancelled() else answered.result()

    def _answered(self) -> None:
        if not self.connection.connected:
            log.info("connected to clusterdep at %s", self.connection.address)
        self.connection.exchanges += 1
        self.connection.connected = True
        self.connection.problem = ""
        self._pause = FIRST_PAUSE

    async def _failed(self, fault: Fault) -> None:
        """Says what is wrong once, and waits a little longer each time."""
        self.connection.errors += 1
        if fault.what != self.connection.problem:
            log.warning("%s; what runs goes on, and it is tried again", fault.what)
        self.connection.connected = False
        self.connection.problem = fault.what
        await asyncio.sleep(self._pause * (0.5 + self._jitter()))
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        try:
            if self._link.renewed():
                self._connect()
        except Fault as unusable:
            log.warning("%s", unusable.what)


async def _answer(
    call: grpc.aio.UnaryUnaryCall[pb.ExchangeRequest, pb.ExchangeResponse],
) -> pb.ExchangeResponse:
    return await call
