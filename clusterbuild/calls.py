"""Stubs of both daemons for `clusterbuild run`, patient while one is started again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc

from clusterbuild.api.v1 import clusterbuild_pb2 as bpb
from clusterbuild.api.v1 import clusterbuild_pb2_grpc as brpc
from clusterdep.api.errors import Kind, fault_of
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.api.v1 import clusterdep_pb2_grpc as rpc

Answer = TypeVar("Answer")

#: How long a daemon that is started again may not answer, seconds.
PATIENCE = 90.0
#: Deadline of one call, and pause between two tries, seconds.
DEADLINE, PAUSE = 60.0, 0.2
#: Deadline of one that may look at everything there is, seconds.
LONG_DEADLINE = 600.0


class Calls:
    """What a run asks of both daemons. Every method raises Fault."""

    def __init__(self, clusterdep: grpc.aio.Channel, clusterbuild: grpc.aio.Channel) -> None:
        self.query: Any = rpc.QueryStub(clusterdep)
        self.feed: Any = rpc.FeedStub(clusterdep)
        self.admin: Any = rpc.AdminStub(clusterdep)
        self._status: Any = brpc.StatusStub(clusterbuild)
        self._control: Any = brpc.ControlStub(clusterbuild)

    async def patiently(self, call: Callable[[], Awaitable[Answer]], name: str) -> Answer:
        """Makes a call that can be repeated until `name` answers. Raises Fault."""
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                return await call()
            except grpc.RpcError as error:
                fault = fault_of(error, name, name)
                if fault.kind is not Kind.UNAVAILABLE or time.monotonic() > give_up:
                    raise fault from error
            await asyncio.sleep(PAUSE)

    async def status(self) -> bpb.StatusResponse:
        """Hosts and jobs now."""
        request = bpb.GetRequest()
        return await self.patiently(
            lambda: self._status.Get(request, timeout=DEADLINE), "clusterbuild"
        )

    async def stop(self, now: bool) -> int:
        """Takes no more work, and ends what runs if `now`; how many jobs are left."""
        request = bpb.StopRequest(now=now)
        answer = await self.patiently(
            lambda: self._control.Stop(request, timeout=DEADLINE), "clusterbuild"
        )
        return int(answer.running)

    async def resume(self) -> None:
        """Takes work again."""
        request = bpb.ResumeRequest()
        await self.patiently(
            lambda: self._control.Resume(request, timeout=DEADLINE), "clusterbuild"
        )

    async def summary(self, profile: str) -> pb.SummaryResponse:
        """Counts of a profile."""
        request = pb.SummaryRequest(profile=profile)
        return await self.patiently(
            lambda: self.query.Summary(request, timeout=DEADLINE), "clusterdep"
        )

    async def put_profile(self, profile: pb.Profile, selection: tuple[str, ...]) -> None:
        """Makes or changes a profile, and replaces its selection."""
        put = pb.PutProfileRequest(profile=profile)
        await self.patiently(lambda: self.admin.PutProfile(put, timeout=DEADLINE), "clusterdep")
        select = pb.SelectRequest(profile=profile.name, selection=selection)
        await self.patiently(lambda: self.admin.Select(select, timeout=DEADLINE), "clusterdep")

    async def tree_changed(self, profile: str, files: Sequence[str]) -> None:
        """These files of the tree changed: what reads them is scanned again, without waiting."""
        request = pb.TreeChangedRequest(profile=profile, files=files, at_once=True)
        await self.patiently(
            lambda: self.feed.TreeChanged(request, timeout=LONG_DEADLINE), "clusterdep"
        )

    async def retry(self, profile: str) -> None:
        """Everything that failed in a profile is open again."""
        request = pb.RetryRequest(profile=profile)
        await self.patiently(lambda: self.admin.Retry(request, timeout=DEADLINE), "clusterdep")
