"""The gRPC services of clusterdep: they only translate. A Fault becomes the call's status."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.api.v1 import clusterdep_pb2_grpc as rpc
from clusterdep.feed import Feed
from clusterdep.follow import Follow
from clusterdep.forgetting import Forgetting
from clusterdep.keyring import Keyring
from clusterdep.lists import Lists
from clusterdep.orders import Orders
from clusterdep.questions import Questions
from clusterdep.render import evidence_message
from clusterdep.steering import Steering
from clusterdep.takeover import TakeOver
from clusterdep.upkeep import Upkeep
from clusterdep.watching import Watching
from clusterdep.work import Work

Context = grpc.aio.ServicerContext[Any, Any]


class FeedService(rpc.FeedServicer):
    """What the tree contains."""

    def __init__(self, feed: Feed, takeover: TakeOver, follow: Follow, orders: Orders) -> None:
        self._feed = feed
        self._follow = follow
        self._takeover = takeover
        self._orders = orders

    async def PutRecords(
        self, request_iterator: AsyncIterator[pb.PutRecordsRequest], context: Context
    ) -> pb.PutRecordsResponse:
        return await self._feed.put_records(request_iterator)

    async def TakeOver(
        self, request_iterator: AsyncIterator[pb.TakeOverRequest], context: Context
    ) -> pb.TakeOverResponse:
        return await self._takeover.take(request_iterator)

    async def TreeChanged(
        self, request: pb.TreeChangedRequest, context: Context
    ) -> pb.TreeChangedResponse:
        return await self._follow.tree_changed(request)

    async def DeclareArtifacts(
        self, request: pb.DeclareArtifactsRequest, context: Context
    ) -> pb.DeclareArtifactsResponse:
        forgotten = self._orders.lose_artifacts(
            request.profile, list(request.missing), request.dispatcher
        )
        return pb.DeclareArtifactsResponse(forgotten=forgotten)


class WorkService(rpc.WorkServicer):
    """Leases."""

    def __init__(self, work: Work, keyring: Keyring) -> None:
        self._work = work
        self._keyring = keyring

    async def Exchange(self, request: pb.ExchangeRequest, context: Context) -> pb.ExchangeResponse:
        return await self._work.exchange(request)

    async def ListLeases(
        self, request: pb.ListLeasesRequest, context: Context
    ) -> pb.ListLeasesResponse:
        return self._work.list_leases(request.dispatcher)

    async def WatchTokens(
        self, request: pb.WatchTokensRequest, context: Context
    ) -> AsyncIterator[pb.KnownTokens]:
        async for known in self._keyring.watch():
            yield known


class QueryService(rpc.QueryServicer):
    """Read only."""

    def __init__(self, questions: Questions, lists: Lists, watching: Watching) -> None:
        self._questions = questions
        self._lists = lists
        self._watching = watching

    async def ListProfiles(
        self, request: pb.ListProfilesRequest, context: Context
    ) -> pb.ListProfilesResponse:
        return pb.ListProfilesResponse(profiles=self._questions.profiles())

    async def Summary(self, request: pb.SummaryRequest, context: Context) -> pb.SummaryResponse:
        return self._questions.summary(request.profile)

    async def ListPkgpaths(
        self, request: pb.ListPkgpathsRequest, context: Context
    ) -> AsyncIterator[pb.Pkgpath]:
        for pkgpath in self._questions.pkgpaths(request.profile, request.outdated):
            yield pkgpath

    async def ListOpenJobs(
        self, request: pb.ListOpenJobsRequest, context: Context
    ) -> AsyncIterator[pb.Packages]:
        for page in self._lists.open_jobs(request.profile, request.limit):
            yield page

    async def ListPackages(
        self, request: pb.ListPackagesRequest, context: Context
    ) -> AsyncIterator[pb.Packages]:
        for page in self._lists.packages(request):
            yield page

    async def GetPackage(self, request: pb.PackageRequest, context: Context) -> pb.PackageDetail:
        return self._questions.package(request)

    async def Requires(
        self, request: pb.PackageRequest, context: Context
    ) -> AsyncIterator[pb.Requirements]:
        for page in self._lists.requires(request):
            yield page

    async def RequiredBy(
        self, request: pb.PackageRequest, context: Context
    ) -> AsyncIterator[pb.Packages]:
        for page in self._lists.required_by(request):
            yield page

    async def Breaks(
        self, request: pb.PackageRequest, context: Context
    ) -> AsyncIterator[pb.Packages]:
        for page in self._lists.breaks(request):
            yield page

    async def Search(
        self, request: pb.SearchRequest, context: Context
    ) -> AsyncIterator[pb.Packages]:
        async for page in self._lists.search(request):
            yield page

    async def Why(self, request: pb.PackageRequest, context: Context) -> pb.Evidence:
        return evidence_message(self._questions.why(request))

    async def History(
        self, request: pb.HistoryRequest, context: Context
    ) -> AsyncIterator[pb.Attempt]:
        for attempt in self._questions.history(request):
            yield attempt

    async def ListArtifacts(
        self, request: pb.ListArtifactsRequest, context: Context
    ) -> AsyncIterator[pb.ArtifactRecord]:
        for _, artifact in self._questions.artifacts(request.profile):
            if artifact.current or not request.current:
                yield artifact

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.Event]:
        async for event in self._watching.watch(request):
            yield event


class AdminService(rpc.AdminServicer):
    """Orders."""

    def __init__(
        self,
        orders: Orders,
        steering: Steering,
        forgetting: Forgetting,
        upkeep: Upkeep,
        keyring: Keyring,
    ) -> None:
        self._orders = orders
        self._steering = steering
        self._forgetting = forgetting
        self._upkeep = upkeep
        self._keyring = keyring

    async def PutProfile(self, request: pb.PutProfileRequest, context: Context) -> pb.Profile:
        return await self._orders.put_profile(request.profile)

    async def Select(self, request: pb.SelectRequest, context: Context) -> pb.SelectResponse:
        return self._orders.select(request.profile, list(request.selection))

    async def Retry(self, request: pb.RetryRequest, context: Context) -> pb.RetryResponse:
        return pb.RetryResponse(retried=self._orders.retry(request.profile, list(request.packages)))

    async def Hold(self, request: pb.HoldRequest, context: Context) -> pb.HoldResponse:
        return pb.HoldResponse(changed=self._steering.hold(request))

    async def Rebuild(self, request: pb.RebuildRequest, context: Context) -> pb.RebuildResponse:
        return pb.RebuildResponse(rebuilt=await self._steering.rebuild(request))

    async def Rescan(self, request: pb.RescanRequest, context: Context) -> pb.RescanResponse:
        return pb.RescanResponse(pkgpaths=await self._steering.rescan(request))

    async def Forget(self, request: pb.ForgetRequest, context: Context) -> pb.ForgetResponse:
        return pb.ForgetResponse(packages=await self._forgetting.forget(request))

    async def Prune(self, request: pb.PruneRequest, context: Context) -> pb.PruneResponse:
        return await self._forgetting.prune(request)

    async def CheckDatabase(
        self, request: pb.CheckDatabaseRequest, context: Context
    ) -> pb.CheckDatabaseResponse:
        findings = await self._upkeep.check()
        return pb.CheckDatabaseResponse(sound=not findings, findings=findings)

    async def Backup(self, request: pb.BackupRequest, context: Context) -> pb.BackupResponse:
        path = Path(request.path)
        if not path.is_absolute():
            raise Fault(Kind.DATA, f"the backup's path '{request.path}' is not absolute")
        return pb.BackupResponse(size=await self._upkeep.backup(path))

    async def Compact(self, request: pb.CompactRequest, context: Context) -> pb.CompactResponse:
        before, after = await self._upkeep.compact()
        return pb.CompactResponse(before=before, after=after)

    async def AddToken(self, request: pb.AddTokenRequest, context: Context) -> pb.AddTokenResponse:
        return self._keyring.add(request.name, request.role, request.lasts)

    async def ListTokens(
        self, request: pb.ListTokensRequest, context: Context
    ) -> pb.ListTokensResponse:
        return self._keyring.all()

    async def RevokeToken(
        self, request: pb.RevokeTokenRequest, context: Context
    ) -> pb.RevokeTokenResponse:
        return pb.RevokeTokenResponse(revoked=self._keyring.revoke(request.name))
