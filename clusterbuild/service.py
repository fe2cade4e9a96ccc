"""The gRPC services of clusterbuild: they only translate. A Fault becomes the call's status."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from clusterbuild.api.v1 import clusterbuild_pb2 as pb
from clusterbuild.api.v1 import clusterbuild_pb2_grpc as rpc
from clusterbuild.attempt import Attempt
from clusterbuild.core.job import Phase
from clusterbuild.dispatcher import Dispatcher
from clusterbuild.engines import HostFacts
from clusterbuild.importing import Importer
from clusterbuild.log_reader import LogReader
from clusterbuild.rules import Connection

Context = grpc.aio.ServicerContext[Any, Any]

#: What people see of phases that the contract has one word for.
PHASES = {Phase.RETURNING: "ending"}


class StatusService(rpc.StatusServicer):
    """Hosts, jobs and what is wrong, at one moment."""

    def __init__(self, dispatcher: Dispatcher, connection: Connection) -> None:
        self._dispatcher = dispatcher
        self._connection = connection

    async def Get(self, request: pb.GetRequest, context: Context) -> pb.StatusResponse:
        dispatcher, connection = self._dispatcher, self._connection
        wrong = f": {connection.problem}" if connection.problem else ""
        answer = pb.StatusResponse(
            dispatcher=dispatcher.rules.dispatcher,
            time=dispatcher.clock(),
            clusterdep=f"{connection.address}{wrong}",
            connected=connection.connected,
            stopping=dispatcher.stopping,
            built=dispatcher.tally.built,
            failed=dispatcher.tally.failed,
            returned=dispatcher.tally.returned,
        )
        for name, host in dispatcher.hosts.items():
            facts = dispatcher.facts.get(name)
            answer.hosts.add(
                name=name,
                engine=dispatcher.engines[name].way,
                state=host.state.value,
                reason=dispatcher.trouble or host.reason,
                slots=host.slots,
                busy=len(host.claims),
                platform=_platform(facts),
                cores=facts.cores if facts else 0,
                memory=facts.memory if facts else 0,
                disk_free=facts.disk_free if facts else 0,
                sandbox=dispatcher.sandboxes.get(name, ""),
            )
        answer.jobs.extend(_job(attempt) for attempt in dispatcher.attempts.values())
        return answer


def _platform(facts: HostFacts | None) -> str:
    if facts is None:
        return ""
    return f"{facts.opsys}-{facts.os_version}-{facts.machine_arch}"


def _job(attempt: Attempt) -> pb.Job:
    seen = attempt.seen
    return pb.Job(
        attempt=attempt.name,
        profile=attempt.grant.profile.name,
        pkgname=attempt.grant.pkgname,
        pkgpath=attempt.grant.pkgpath,
        host=attempt.host,
        phase=PHASES.get(attempt.phase, attempt.phase.value),
        stage=attempt.stage,
        started=attempt.begun,
        stage_started=attempt.stage_since,
        expected_seconds=attempt.grant.expected_seconds,
        log_size=seen.log_size if seen else 0,
        pid=seen.pid if seen else 0,
    )


class ControlService(rpc.ControlServicer):
    """Orders to the dispatcher."""

    def __init__(self, dispatcher: Dispatcher, importer: Importer) -> None:
        self._dispatcher = dispatcher
        self._importer = importer

    async def Stop(self, request: pb.StopRequest, context: Context) -> pb.StopResponse:
        return pb.StopResponse(running=self._dispatcher.stop(request.now))

    async def Resume(self, request: pb.ResumeRequest, context: Context) -> pb.ResumeResponse:
        self._dispatcher.resume()
        return pb.ResumeResponse()

    async def Import(
        self, request: pb.ImportRequest, context: Context
    ) -> AsyncIterator[pb.ImportResponse]:
        async for answer in self._importer.run(request):
            yield answer


class LogsService(rpc.LogsServicer):
    """Logs, also while they grow."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader

    async def Read(
        self, request: pb.ReadRequest, context: Context
    ) -> AsyncIterator[pb.ReadResponse]:
        source = await self._reader.find(request.attempt, request.stage)
        async for offset, data in self._reader.read(source, request.offset, request.follow):
            yield pb.ReadResponse(data=data, offset=offset)
