"""A host and a clusterdep to test the dispatcher against; both can misbehave on request."""

import asyncio
import hashlib
import os
import signal
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc

from clusterbuild.api.v1 import clusterbuild_pb2 as bpb
from clusterbuild.api.v1 import clusterbuild_pb2_grpc as brpc
from clusterbuild.config import Settings
from clusterbuild.core.result import Evidence, JobResult, Outcome, PackageFile, StageTime
from clusterbuild.daemon import serve
from clusterbuild.engines import (
    Engine,
    EngineError,
    HostFacts,
    JobSpec,
    JobState,
    Kind,
    Life,
)
from clusterdep.api import client
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.api.v1 import clusterdep_pb2_grpc as rpc

#: A tree, whatever is in it.
TREE = Path(__file__).parent

FACTS = HostFacts(
    opsys="Linux",
    os_version="6.1",
    machine_arch="x86_64",
    cores=2,
    memory=2**32,
    disk_free=2**36,
    sandboxes=("mount", "none"),
    tools={},
    boot_id="boot",
    clock=0.0,
    user="root",
)


async def until(condition, seconds=10.0, what=""):
    """Waits for a condition that something else brings about."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  whoever brings it about knows nothing of us
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never came: {what or condition}") from None


async def soon(question, seconds=10.0):
    """Asks again and again until the answer, which it returns, is true."""
    async with asyncio.timeout(seconds):
        while not (answer := await question()):  # noqa: ASYNC110  it is not told when
            await asyncio.sleep(0.02)
    return answer


@dataclass
class FakeJob:
    spec: JobSpec
    state: JobState
    result: JobResult | None = None
    package: bytes = b""
    logs: dict = field(default_factory=dict)
    scanned: list = field(default_factory=list)


class FakeHost:
    """What is on a host: it outlives engines, as a real one outlives the dispatcher."""

    def __init__(self, name="localhost", facts=FACTS):
        self.name = name
        self.facts = facts
        self.jobs: dict[str, FakeJob] = {}
        self.down = False
        self.started: list[str] = []
        self.ended: list[str] = []
        self.cleaned: list[str] = []
        self.next_error: dict[str, EngineError] = {}
        self.at_once = None  # what to do with a job as soon as it starts
        self.probes = 0
        self._watchers: list[asyncio.Queue] = []

    def of(self, pkgname) -> FakeJob:
        """The newest job of a package."""
        return [job for job in self.jobs.values() if job.spec.pkgname == pkgname][-1]

    def running(self, *pkgnames):
        """Whether these and no others run."""
        names = [j.spec.pkgname for j in self.jobs.values() if j.state.life is Life.RUNNING]
        return sorted(names) == sorted(pkgnames)

    def tell(self, job):
        for watcher in self._watchers:
            watcher.put_nowait(job.state)

    def change(self, job, **changes):
        job.state = replace(job.state, **changes)
        self.tell(job)

    def build(self, job, path, sample, name=None):
        """The job ends with a package file, made of `sample` through `path`."""
        sample.write(path)
        job.package = path.read_bytes()
        digest = hashlib.sha256(job.package).hexdigest()
        file = PackageFile(name or f"{job.spec.pkgname}.tgz", len(job.package), digest)
        stages = (StageTime("build", 1.5, 1.0, 0), StageTime("package", 0.5, 0.1, 0))
        self.end(job, Outcome.BUILT, package=file, stages=stages, stage="clean")

    def fail(self, job, *evidence, stage="build", outcome=Outcome.FAILED, **facts):
        job.logs[stage] = b"cc: something is wrong\n"
        stages = (StageTime(stage, 1.0, 0.5, 1),)
        self.end(
            job,
            outcome,
            stage=stage,
            exit=1,
            evidence=frozenset(evidence or (Evidence.EXIT,)),
            facts=facts,
            stages=stages,
        )

    def end(self, job, outcome, **values):
        values.setdefault("facts", {})
        job.result = JobResult(job.spec.attempt, outcome, **values)
        self.change(job, life=Life.ENDED, stage=values.get("stage", ""))

    def vanish(self, job, reason="died"):
        self.change(job, life=Life.GONE, reason=reason)

    def go_down(self):
        self.down = True
        for watcher in self._watchers:
            watcher.put_nowait(None)


class FakeEngine(Engine):
    """The way to a FakeHost."""

    def __init__(self, host: FakeHost):
        self.host = host
        self.name = host.name

    def _check(self, what):
        if self.host.down:
            raise EngineError(self.name, what, "no route to host", Kind.UNREACHABLE)
        error = self.host.next_error.pop(what, None)
        if error is not None:
            raise error

    def _job(self, attempt, what):
        job = self.host.jobs.get(attempt)
        if job is None:
            raise EngineError(self.name, what, "no such job", Kind.ABSENT)
        return job

    async def probe(self):
        self._check("probe")
        self.host.probes += 1
        return self.host.facts

    async def start(self, job):
        await asyncio.sleep(0)
        self._check("start")
        for needed in job.requirements:
            assert hashlib.sha256(needed.path.read_bytes()).hexdigest() == needed.sha256
        if job.attempt in self.host.jobs:
            return
        state = JobState(job.attempt, Life.RUNNING, "pre-clean", pid=4711)
        made = self.host.jobs[job.attempt] = FakeJob(job, state)
        self.host.started.append(job.attempt)
        self.host.tell(made)
        if self.host.at_once is not None:
            self.host.at_once(made)

    async def watch(self):
        self._check("watch")
        queue = asyncio.Queue()
        self.host._watchers.append(queue)
        try:
            for job in list(self.host.jobs.values()):
                yield job.state
            while (state := await queue.get()) is not None:
                yield state
            raise EngineError(self.name, "watch", "the connection broke", Kind.UNREACHABLE)
        finally:
            self.host._watchers.remove(queue)

    async def look(self):
        self._check("look")
        return [job.state for _, job in sorted(self.host.jobs.items())]

    async def result(self, attempt):
        self._check("result")
        found = self._job(attempt, "result").result
        if found is None:
            raise EngineError(self.name, "result", "it has none", Kind.ABSENT)
        return found

    async def fetch(self, attempt, name, target, size, sha256):
        self._check("fetch")
        job = self._job(attempt, "fetch")
        assert (job.result.package.name, job.result.package.size) == (name, size)
        target.write_bytes(job.package)

    async def read_log(self, attempt, stage, offset=0, limit=1 << 20):
        self._check("read_log")
        return self._job(attempt, "read_log").logs.get(stage, b"")[offset : offset + limit]

    async def scanned(self, attempt, after, most=1 << 20):
        self._check("scanned")
        found = self._job(attempt, "scanned").scanned
        return str(TREE), [one for one in found if one.number > after][:2]

    async def end(self, attempt):
        self._check("end")
        job = self._job(attempt, "end")
        self.host.ended.append(attempt)
        if job.state.life is Life.RUNNING:
            self.host.fail(job, Evidence.ORDER, outcome=Outcome.ENDED)

    async def clean(self, attempt):
        self._check("clean")
        if self.host.jobs.pop(attempt, None) is not None:
            self.host.cleaned.append(attempt)

    async def close(self):
        pass


class FakeClusterdep(rpc.WorkServicer, rpc.QueryServicer, rpc.FeedServicer):
    """Grants what is in `open`, once, and notes what it is told."""

    def __init__(self):
        self.profile = pb.Profile(name="test", tree=str(TREE), prefix="/usr/pkg", complete=True)
        self.open: list[pb.Grant | pb.ScanGrant] = []
        self.leases: dict[str, pb.Grant] = {}
        self.artifacts: dict[str, pb.ArtifactRecord] = {}
        self.packages: list[str] = []
        self.taken_over: list[pb.TakeOverHeader] = []
        self.requests: list[pb.ExchangeRequest] = []
        self.results: list[pb.Result] = []
        self.puts: list[list[pb.PutRecordsRequest]] = []
        self.put_error = None  # a status that refuses what scans found
        self.verdict: dict[str, int] = {}  # for an attempt, else ACCEPTED
        self.recorded: dict[str, pb.Result] = {}
        self.cancel: list[str] = []
        self.missing: list[str] = []
        self.lose_answers = 0
        self.give_verdicts = True
        self.renew = 30.0
        self.aborted = 0
        self._changed = asyncio.Event()
        self._count = 0

    def offer(self, pkgname, requirements=(), **fields):
        """A job to be granted to whoever has a slot."""
        self._count += 1
        grant = pb.Grant(
            attempt=f"attempt-{self._count}",
            fence=self._count,
            profile=self.profile,
            pkgname=pkgname,
            pkgpath=f"devel/{pkgname.rpartition('-')[0]}",
            requirements=requirements,
            **fields,
        )
        self.open.append(grant)
        self.poke()
        return grant

    def offer_scan(self, *pkgpaths, **fields):
        """A scan to be granted; of the tree's lists if no pkgpath is named."""
        self._count += 1
        grant = pb.ScanGrant(
            attempt=f"attempt-{self._count}",
            fence=self._count,
            profile=self.profile,
            pkgpaths=pkgpaths,
            enumerate=not pkgpaths,
            generation="g",
            time_limit=100.0,
            **fields,
        )
        self.open.append(grant)
        self.poke()
        return grant

    async def PutRecords(self, request_iterator, context):
        parts = [part async for part in request_iterator]
        if self.put_error is not None:
            await context.abort(self.put_error, "not now")
        self.puts.append(parts)
        return pb.PutRecordsResponse(pkgpaths=len(parts) - 2)

    def told(self) -> list[pb.PutScan]:
        """What scans have found, as far as it was told."""
        return [part.scan for put in self.puts for part in put if part.HasField("scan")]

    async def ListPkgpaths(self, request, context):
        for path in ("broken/old", "devel/gone"):
            yield pb.Pkgpath(path=path)

    def poke(self):
        self._changed.set()

    @property
    def last(self) -> pb.ExchangeRequest:
        return self.requests[-1] if self.requests else pb.ExchangeRequest()

    def host(self, name="localhost") -> pb.HostOffer:
        """What was said last of a host."""
        return next((host for host in self.last.hosts if host.name == name), pb.HostOffer())

    async def Exchange(self, request, context):
        self.requests.append(request)
        answer = pb.ExchangeResponse(lease_seconds=self.renew * 4, renew_seconds=self.renew)
        self._take_results(request, answer)
        try:
            async with asyncio.timeout(request.wait_seconds):
                while not self._say(request, answer):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        if self.lose_answers:
            self.lose_answers -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
        return answer

    def _take_results(self, request, answer):
        self.results += request.results
        every = (*request.results, *request.scan_results)
        for result in every if self.give_verdicts else ():
            kind = self.verdict.get(result.attempt, pb.Verdict.KIND_ACCEPTED)
            if result.attempt in self.recorded:
                kind = pb.Verdict.KIND_DUPLICATE
            if kind != pb.Verdict.KIND_REFUSED:
                self._record(result)
            self.leases.pop(result.attempt, None)
            answer.verdicts.add(attempt=result.attempt, kind=kind, why="because")

    def _record(self, result):
        self.recorded[result.attempt] = result
        grant = self.leases.get(result.attempt)
        if isinstance(result, pb.Result) and result.built and grant is not None:
            self.artifacts[result.artifact.sha256] = pb.ArtifactRecord(
                artifact=result.artifact, pkgpath=grant.pkgpath, current=True, built=1.0
            )

    def _say(self, request, answer):
        held = {holding.attempt for holding in request.holding}
        for attempt in [a for a in self.cancel if a in held]:
            self.cancel.remove(attempt)
            self.leases.pop(attempt, None)
            answer.cancellations.add(attempt=attempt, why="the tree moved on")
        again = [grant for name, grant in self.leases.items() if name not in held]
        for grant in again:
            self._grant(answer, grant)
        for host in request.hosts:
            free = host.free_slots if host.state == pb.HOST_STATE_READY else 0
            while free > len(again) and self.open:
                grant = self.open.pop(0)
                grant.host = host.name
                self.leases[grant.attempt] = grant
                self._grant(answer, grant)
                free -= 1
        return bool(answer.verdicts or answer.cancellations or answer.grants or answer.scans)

    @staticmethod
    def _grant(answer, grant):
        (answer.scans if isinstance(grant, pb.ScanGrant) else answer.grants).append(grant)

    async def ListLeases(self, request, context):
        answer = pb.ListLeasesResponse()
        for grant in self.leases.values():
            what = {"scan" if isinstance(grant, pb.ScanGrant) else "grant": grant}
            answer.leases.add(dispatcher=request.dispatcher, **what)
        return answer

    async def ListProfiles(self, request, context):
        return pb.ListProfilesResponse(profiles=[self.profile])

    async def ListArtifacts(self, request, context):
        for record in list(self.artifacts.values()):
            yield record

    async def DeclareArtifacts(self, request, context):
        self.missing += request.missing
        for sha256 in request.missing:
            self.artifacts.pop(sha256, None)
        return pb.DeclareArtifactsResponse(forgotten=len(request.missing))

    async def ListPackages(self, request, context):
        page = pb.Packages()
        for pkgname in self.packages:
            page.packages.add(pkgname=pkgname, pkgpath=f"devel/{pkgname.rpartition('-')[0]}")
        yield page

    async def TakeOver(self, stream, context):
        answer = pb.TakeOverResponse()
        async for part in stream:
            kind = part.WhichOneof("part")
            if kind == "header":
                header = part.header
            elif kind == "artifact":
                answer.artifacts += 1
                record = pb.ArtifactRecord(
                    artifact=part.artifact,
                    pkgpath=f"devel/{part.artifact.pkgname.rpartition('-')[0]}",
                    current=True,
                    dispatcher=header.dispatcher,
                )
                self.artifacts[part.artifact.sha256] = record
        self.taken_over.append(header)
        return answer

    @asynccontextmanager
    async def at(self, path):
        """Serves at a Unix socket for as long as the block lasts."""
        server = grpc.aio.server()
        rpc.add_WorkServicer_to_server(self, server)
        rpc.add_QueryServicer_to_server(self, server)
        rpc.add_FeedServicer_to_server(self, server)
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)
            with suppress(FileNotFoundError):
                path.unlink()


class Running:
    """A daemon, its host, its clusterdep, and a client of it."""

    def __init__(self, tmp_path, host, clusterdep):
        self.tmp_path = tmp_path
        self.host = host
        self.clusterdep = clusterdep
        self.settings = Settings(
            state=tmp_path / "state",
            dispatcher="farm",
            clusterdep=f"unix:{tmp_path}/clusterdep.sock",
        )
        self.task = None
        self.channel = None

    async def start(self):
        self.task = asyncio.create_task(
            serve(None, self.settings, lambda: self.settings, lambda *_: self._engines())
        )
        socket = self.settings.state / "clusterbuild.sock"
        await until(lambda: socket.exists() or self.task.done(), what="socket")
        if self.task.done():
            self.task.result()
        self.channel = client.connect(self.settings.address)

    def _engines(self):
        return {self.host.name: FakeEngine(self.host)}

    async def stop(self):
        """As SIGTERM does."""
        if self.task is not None:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(self.task, 10)
            await self.channel.close()
            self.task = None

    async def kill(self):
        """Ends it in the middle of whatever it does."""
        self.task.cancel()
        await asyncio.wait({self.task})
        await self.channel.close()
        self.task = None

    async def status(self):
        return await brpc.StatusStub(self.channel).Get(bpb.GetRequest())

    async def log(self, attempt, **fields):
        stream = brpc.LogsStub(self.channel).Read(bpb.ReadRequest(attempt=attempt, **fields))
        return b"".join([piece.data async for piece in stream])

    def names(self, directory):
        root = self.settings.state / "packages" / "test" / directory
        return sorted(entry.name for entry in os.scandir(root))

    async def result_of(self, grant):
        await until(lambda: grant.attempt in self.clusterdep.recorded, what="result")
        return self.clusterdep.recorded[grant.attempt]
