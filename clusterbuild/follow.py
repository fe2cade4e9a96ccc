"""Follows a run: shows every job that ends, until nothing is left to do or nothing can go on."""

from __future__ import annotations

import asyncio
import contextlib
import time

import grpc

from clusterbuild.api.v1 import clusterbuild_pb2 as bpb
from clusterbuild.calls import Calls
from clusterbuild.progress import JOB_EVENTS, Progress, counts
from clusterdep.api.errors import Kind, fault_of
from clusterdep.api.v1 import clusterdep_pb2 as pb

#: How often it is looked whether anything is left to do, seconds.
STEP = 1.0
#: How long no event must have come for all to have been shown, seconds.
QUIET = 0.3
#: How long nothing must have been able to go on before a run is given up, seconds: as long as
#: no host could build yet, and after that. Hosts and links come back, and disks are cleared.
STALL_SECONDS, LOST_SECONDS = 30.0, 1800.0


class Follower:
    """Watches one profile. `built` are the packages that were built meanwhile, in order."""

    def __init__(self, calls: Calls, profile: str, progress: Progress) -> None:
        self.built: list[str] = []
        self._calls = calls
        self._profile = profile
        self._progress = progress
        self._stalled_since = 0.0
        self._began = False  # some host could build
        self._changed = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._shown = 0  # packages that have come to an end, as far as was shown

    async def __aenter__(self) -> Follower:
        """Begins to show what happens from now on."""
        summary = await self._calls.summary(self._profile)
        self._shown = counts(summary)[0]
        self._watching = asyncio.create_task(self._watch(summary.last_event))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        self._progress.close()

    async def until_idle(self) -> str:
        """Ends when nothing is left to do; or when nothing can go on, and then says why."""
        self._shown = counts(await self._calls.summary(self._profile))[0]
        while not (summary := await self._calls.summary(self._profile)).idle:
            why = await self._step(summary)
            if why:
                return why
        self._progress.scanning(summary)
        await self._rest_of_events()
        return ""

    async def for_ever(self) -> None:
        """Goes on showing what happens until it is cancelled."""
        while True:
            await self._step(await self._calls.summary(self._profile))

    async def _step(self, summary: pb.SummaryResponse) -> str:
        status = await self._calls.status()
        self._progress.hosts(status)
        self._progress.scanning(summary)
        self._progress.live(status, *counts(summary))
        self._began = self._began or any(works(host) for host in status.hosts)
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), STEP)
        if self._watching is not None and self._watching.done():
            self._watching.result()
        return self._stalls(summary, status)

    async def _rest_of_events(self) -> None:
        """Waits until what was committed before nothing was left has been shown."""
        with contextlib.suppress(TimeoutError):
            while True:
                self._changed.clear()
                await asyncio.wait_for(self._changed.wait(), QUIET)

    async def _watch(self, after: int) -> None:
        """Shows every event after a sequence number, across restarts of the daemon."""
        while True:
            request = pb.WatchRequest(after=after, profile=self._profile, follow=True)
            try:
                async for event in self._calls.query.Watch(request):
                    after = event.sequence
                    await self._show(event)
                    self._changed.set()
            except grpc.RpcError as error:
                fault = fault_of(error, "clusterdep", "clusterdep")
                if fault.kind is Kind.BEHIND:
                    after = (await self._calls.summary(self._profile)).last_event
                elif fault.kind not in (Kind.UNAVAILABLE, Kind.INTERRUPTED):
                    raise fault from error
            await asyncio.sleep(QUIET)

    async def _show(self, event: pb.Event) -> None:
        if event.kind == "built":
            self.built.append(event.subject)
        if event.kind in JOB_EVENTS:
            # The summary may be ahead of the event: others have ended since.
            done, total = counts(await self._calls.summary(self._profile))
            self._shown = min(done, self._shown + (event.kind in ("built", "failed")))
            self._progress.event(event, self._shown, total)
        else:
            self._progress.event(event, 0, 0)

    def _stalls(self, summary: pb.SummaryResponse, status: bpb.StatusResponse) -> str:
        """Why nothing has been able to go on for a while; empty if something has."""
        now = time.monotonic()
        why = stalled(summary, status)
        if not why:
            if not (self._stalled_since and being_probed(status)):
                self._stalled_since = 0.0
            return ""
        self._stalled_since = self._stalled_since or now
        limit = LOST_SECONDS if self._began else STALL_SECONDS
        return why if now - self._stalled_since >= limit else ""


def works(host: bpb.Host) -> bool:
    """Whether a host can build now."""
    return host.state == "ready" and bool(host.busy or not host.reason)


def being_probed(status: bpb.StatusResponse) -> bool:
    """Whether no host works, and it is being looked whether one does."""
    states = {host.state for host in status.hosts}
    return "probing" in states and not any(map(works, status.hosts))


def stalled(summary: pb.SummaryResponse, status: bpb.StatusResponse) -> str:
    """Why nothing can go on although something is left to do; empty if it can."""
    scans = summary.profile.scans == "hosts"
    waits = not summary.profile.complete and not scans  # for whoever scans here
    if summary.idle or summary.leases or waits or status.stopping:
        return ""
    reasons = []
    for host in status.hosts:
        if works(host) or host.state in ("unknown", "probing"):
            return ""
        reasons.append(f"host {host.name} is {host.state}: {host.reason}")
    return "; ".join(reasons) or "there is no host"
