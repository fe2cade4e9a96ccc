"""The daemon with a fake engine and a fake clusterdep over real gRPC."""

import asyncio
import contextlib
import gzip
import os
import signal
from dataclasses import replace

import grpc
import pytest
from build_fakes import FACTS, FakeClusterdep, FakeEngine, FakeHost, Running, soon, until
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clusterbuild import keeper
from clusterbuild.api.v1 import clusterbuild_pb2 as bpb
from clusterbuild.api.v1 import clusterbuild_pb2_grpc as brpc
from clusterbuild.config import Settings
from clusterbuild.core import hosts as host_rules
from clusterbuild.core.result import Evidence, Outcome
from clusterbuild.daemon import serve
from clusterbuild.engines import EngineError, Kind, Life
from clusterdep.api import client
from clusterdep.api.errors import Fault
from clusterdep.api.v1 import clusterdep_pb2 as pb


async def test_a_job_from_grant_to_repository(world, build):
    grant = world.clusterdep.offer("foo-1.0", make_jobs=2, make_variables=["A=b"])
    await until(lambda: world.host.running("foo-1.0"))
    job = world.host.of("foo-1.0")
    assert (job.spec.make_jobs, job.spec.variables, job.spec.slots) == (2, ("A=b",), 2)
    assert job.spec.time_limit == 8 * 3600
    world.host.change(job, stage="build", log_size=10)
    job.logs = {"build": b"compiling\n", "package": b"packing\n"}
    await until(lambda: world.clusterdep.requests)
    status = await world.status()
    shown = [(j.pkgname, j.phase, j.stage, j.log_size, j.pid) for j in status.jobs]
    assert shown == [("foo-1.0", "building", "build", 10, 4711)]
    assert (status.hosts[0].state, status.hosts[0].busy, status.hosts[0].slots) == ("ready", 1, 2)
    assert status.connected
    build(job)
    result = await world.result_of(grant)
    assert result.built
    assert (result.fence, result.artifact.pkgname) == (grant.fence, "foo-1.0")
    assert [stage.stage for stage in result.stages] == ["build", "package"]
    assert result.make_jobs == 2
    await until(lambda: world.host.cleaned == [grant.attempt])
    assert world.names("All")[0] == "foo-1.0.tgz"
    assert world.names("pool") == [f"{result.artifact.sha256}.tgz"]
    assert (world.settings.state / "logs/test/foo-1.0" / grant.attempt / "build.log").read_bytes()
    status = await world.status()
    assert (status.built, status.failed, status.returned, len(status.jobs)) == (1, 0, 0, 0)
    await world.stop()
    packed = world.settings.state / "packages/test/All/pkg_summary.gz"
    assert gzip.decompress(packed.read_bytes()).startswith(b"PKGNAME=foo-1.0\n")


async def test_a_failure_of_the_package(world):
    grant = world.clusterdep.offer("foo-1.0")
    await until(lambda: world.host.running("foo-1.0"))
    world.host.fail(world.host.of("foo-1.0"))
    result = await world.result_of(grant)
    assert (result.built, result.blame) == (False, pb.BLAME_PACKAGE)
    assert (result.stage, result.message) == ("build", "exit status 1")
    assert await world.log("foo-1.0", stage="build") == b"cc: something is wrong\n"
    assert result.log == str(world.settings.state / "logs/test/foo-1.0" / grant.attempt)


async def test_never_more_jobs_than_slots_and_no_slot_idle(world, build):
    grants = [world.clusterdep.offer(f"p{n}-1.0") for n in range(5)]
    most = 0
    for grant in grants:
        await until(lambda g=grant: g.attempt in world.host.jobs)
        runs = [j for j in world.host.jobs.values() if j.state.life is Life.RUNNING]
        most = max(most, len(runs))
        build(world.host.jobs[grant.attempt])
    for grant in grants:
        await world.result_of(grant)
    assert most == 2
    await until(lambda: world.clusterdep.host().free_slots == 2)
    assert all(0 <= host.free_slots <= 2 for r in world.clusterdep.requests for host in r.hosts)


async def test_requirements_come_from_the_repository(world, build):
    bar = world.clusterdep.offer("bar-1.0")
    await until(lambda: world.host.running("bar-1.0"))
    build(world.host.of("bar-1.0"))
    made = (await world.result_of(bar)).artifact
    needed = pb.GrantRequirement(
        pkgname="bar-1.0", sha256=made.sha256, size=made.size, suffix=".tgz", direct=True
    )
    world.clusterdep.offer("foo-1.0", [needed])
    await until(lambda: world.host.running("foo-1.0"))
    [file] = world.host.of("foo-1.0").spec.requirements
    assert (file.pkgname, file.sha256, file.direct) == ("bar-1.0", made.sha256, True)


async def test_a_requirement_that_is_gone_is_declared(world):
    needed = pb.GrantRequirement(pkgname="bar-1.0", sha256="0" * 64, size=3, suffix=".tgz")
    grant = world.clusterdep.offer("foo-1.0", [needed])
    result = await world.result_of(grant)
    assert result.blame == pb.BLAME_INFRASTRUCTURE
    assert "requirement bar-1.0 is not in the repository" in result.message
    assert world.clusterdep.missing == ["0" * 64]
    assert world.host.started == []


class TestTheExchange:
    async def test_a_lost_answer_does_no_harm(self, world, build):
        world.clusterdep.lose_answers = 2
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        assert world.host.started == [grant.attempt]
        world.clusterdep.lose_answers = 1
        build(world.host.of("foo-1.0"))
        await world.result_of(grant)
        await until(lambda: world.host.cleaned == [grant.attempt])
        times = [result.attempt for result in world.clusterdep.results]
        assert times == [grant.attempt] * 2, "the verdict was lost, so it was told again"
        assert world.names("All")[0] == "foo-1.0.tgz"

    async def test_results_are_repeated_until_there_is_a_verdict(self, world, build):
        world.clusterdep.give_verdicts = False
        world.clusterdep.renew = 0.05
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        build(world.host.of("foo-1.0"))
        await until(lambda: len(world.clusterdep.results) >= 3)
        held = [h.attempt for h in world.clusterdep.last.holding]
        assert held == [grant.attempt], "its lease is renewed until then"
        assert "foo-1.0.tgz" not in world.names("All")
        world.clusterdep.give_verdicts = True
        await until(lambda: "foo-1.0.tgz" in world.names("All"))

    async def test_a_refused_result_is_dropped(self, world, build):
        grant = world.clusterdep.offer("foo-1.0")
        world.clusterdep.verdict[grant.attempt] = pb.Verdict.KIND_REFUSED
        await until(lambda: world.host.running("foo-1.0"))
        build(world.host.of("foo-1.0"))
        await until(lambda: world.host.cleaned == [grant.attempt])
        await until(lambda: world.names("pool") == [])
        assert "foo-1.0.tgz" not in world.names("All")

    async def test_a_stale_result_is_kept(self, world, build):
        grant = world.clusterdep.offer("foo-1.0")
        world.clusterdep.verdict[grant.attempt] = pb.Verdict.KIND_STALE
        await until(lambda: world.host.running("foo-1.0"))
        build(world.host.of("foo-1.0"))
        await until(lambda: "foo-1.0.tgz" in world.names("All"))

    async def test_a_cancelled_job_is_ended_and_nothing_reported(self, world):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        world.clusterdep.cancel.append(grant.attempt)
        await until(lambda: world.clusterdep.last.holding)
        world.clusterdep.poke()
        await until(lambda: world.host.cleaned == [grant.attempt])
        assert world.host.ended == [grant.attempt]
        assert world.clusterdep.results == []
        await until(lambda: world.clusterdep.host().free_slots == 2)

    async def test_news_do_not_wait_for_the_long_poll(self, world, build):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        await until(lambda: world.clusterdep.last.holding)
        build(world.host.of("foo-1.0"))
        await world.result_of(grant)
        assert world.clusterdep.aborted >= 1, "the call under way was given up for it"

    async def test_leases_are_renewed(self, world):
        world.clusterdep.renew = 0.05
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))

        def renewals():
            held = [[h.attempt for h in r.holding] for r in world.clusterdep.requests]
            return held.count([grant.attempt])

        await until(lambda: renewals() >= 3)

    async def test_clusterdep_goes_away_and_comes_back(self, tmp_path, monkeypatch, sample):
        monkeypatch.setattr(keeper, "STEP_SECONDS", 0.05)
        clusterdep = FakeClusterdep()
        world = Running(tmp_path, FakeHost(), clusterdep)
        await world.start()
        try:

            async def away():
                status = await world.status()
                assert not status.connected or world.host.jobs
                return not status.connected and "does not answer at" in status.clusterdep

            await soon(away)
            assert world.host.probes == 0, "until leases are known no host is touched"
            async with clusterdep.at(tmp_path / "clusterdep.sock"):
                grant = clusterdep.offer("foo-1.0")
                await until(lambda: world.host.running("foo-1.0"))
                assert (await world.status()).connected
            job = world.host.of("foo-1.0")
            world.host.build(job, tmp_path / "made", sample())

            async def kept():
                return [j.phase for j in (await world.status()).jobs] == ["reporting"]

            await soon(kept)
            await soon(away)
            assert world.names("pool") != []
            async with clusterdep.at(tmp_path / "clusterdep.sock"):
                await world.result_of(grant)
                await until(lambda: "foo-1.0.tgz" in world.names("All"))
        finally:
            await world.stop()


class TestRestart:
    async def test_running_builds_are_adopted(self, world, build):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        await world.kill()
        await world.start()
        await until(lambda: world.clusterdep.last.holding)
        assert world.host.started == [grant.attempt]

        async def busy():
            return (await world.status()).hosts[0].busy == 1

        await soon(busy)
        build(world.host.of("foo-1.0"))
        await world.result_of(grant)
        assert world.host.started == [grant.attempt], "it was not built twice"
        await until(lambda: "foo-1.0.tgz" in world.names("All"))

    async def test_what_ended_meanwhile_is_fetched(self, world, build):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        await world.stop()
        build(world.host.of("foo-1.0"))
        await world.start()
        assert (await world.result_of(grant)).built

    async def test_what_was_killed_meanwhile_is_given_back(self, world):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        await world.stop()
        world.host.vanish(world.host.of("foo-1.0"), "rebooted")
        await world.start()
        result = await world.result_of(grant)
        assert (result.blame, result.message) == (pb.BLAME_HOST, "the host was rebooted")

    async def test_what_never_began_is_started(self, world):
        await world.stop()
        grant = world.clusterdep.offer("foo-1.0", host="localhost")
        world.clusterdep.leases[grant.attempt] = world.clusterdep.open.pop()
        await world.start()
        await until(lambda: world.host.running("foo-1.0"))

    async def test_what_nobody_leases_is_ended_and_cleaned(self, world):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        await world.stop()
        world.clusterdep.leases.clear()
        await world.start()
        await until(lambda: world.host.jobs == {})
        assert world.host.cleaned == [grant.attempt]
        assert world.clusterdep.results == []

    async def test_a_lease_for_a_host_that_is_configured_no_more(self, world):
        await world.stop()
        grant = world.clusterdep.offer("foo-1.0", host="gone")
        world.clusterdep.leases[grant.attempt] = world.clusterdep.open.pop()
        await world.start()
        result = await world.result_of(grant)
        assert "host 'gone' is not configured" in result.message
        assert result.blame == pb.BLAME_OPERATOR, "it must not count against the package"

    async def test_a_verdict_that_was_lost_with_the_daemon(self, world, build):
        world.clusterdep.give_verdicts = False
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        build(world.host.of("foo-1.0"))
        await until(lambda: world.clusterdep.results)
        world.clusterdep._record(world.clusterdep.results[0])
        await world.kill()
        world.clusterdep.leases.clear()
        world.clusterdep.give_verdicts = True
        assert "foo-1.0.tgz" not in world.names("All")
        await world.start()
        await until(lambda: "foo-1.0.tgz" in world.names("All"), what="linked again")
        await until(lambda: world.host.cleaned == [grant.attempt])

    async def test_missing_artifacts_are_declared(self, world, build):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        build(world.host.of("foo-1.0"))
        sha256 = (await world.result_of(grant)).artifact.sha256
        await world.stop()
        (world.settings.state / "packages/test/pool" / f"{sha256}.tgz").unlink()
        await world.start()
        await until(lambda: world.clusterdep.missing == [sha256])
        await until(lambda: "foo-1.0.tgz" not in world.names("All"))


class TestHosts:
    async def test_a_lost_host_and_its_jobs_come_back(self, world, build):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        world.host.go_down()
        await until(lambda: world.clusterdep.host().state == pb.HOST_STATE_LOST)
        assert "the connection broke" in world.clusterdep.requests[-1].hosts[0].reason
        assert not world.clusterdep.last.holding, "so its lease may lapse"
        status = await world.status()
        assert [job.phase for job in status.jobs] == ["lost"]
        calls = len(world.clusterdep.requests)
        await asyncio.sleep(0.3)
        assert len(world.clusterdep.requests) < calls + 10, "granted again and again, not hot"
        world.host.down = False
        await until(lambda: world.clusterdep.host().state == pb.HOST_STATE_READY)
        build(world.host.of("foo-1.0"))
        assert (await world.result_of(grant)).built

    async def test_a_job_that_finished_while_its_host_was_lost(self, world, build):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        world.host.go_down()
        await until(lambda: world.clusterdep.host().state == pb.HOST_STATE_LOST)
        build(world.host.of("foo-1.0"))
        world.host.down = False
        assert (await world.result_of(grant)).built

    async def test_a_job_that_vanished(self, world):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        world.host.of("foo-1.0").logs["build"] = b"half a li"
        world.host.vanish(world.host.of("foo-1.0"))
        result = await world.result_of(grant)
        assert result.blame == pb.BLAME_HOST
        assert result.message == "it was killed on the host and left no result"
        assert await world.log(grant.attempt) == b"half a li"

    async def test_a_host_that_keeps_failing_is_quarantined_and_comes_back(
        self, world, monkeypatch
    ):
        monkeypatch.setitem(host_rules.PAUSES, host_rules.State.QUARANTINED, (0.5, 1.0))

        def full(job):
            world.host.fail(job, Evidence.NO_SPACE)

        world.host.at_once = full
        grants = [world.clusterdep.offer(f"p{n}-1.0") for n in range(8)]
        await until(lambda: world.clusterdep.host().state == pb.HOST_STATE_QUARANTINED)
        assert "jobs failed in a row" in world.clusterdep.host().reason
        assert "the disk of the host is full" in world.clusterdep.host().reason
        assert len(world.host.started) < len(grants)
        world.host.at_once = world.host.fail
        await until(lambda: len(world.clusterdep.recorded) == len(grants))
        blames = {result.blame for result in world.clusterdep.recorded.values()}
        # What was granted before clusterdep knew that the host is looked at never began.
        assert blames - {pb.BLAME_OPERATOR} == {pb.BLAME_HOST, pb.BLAME_PACKAGE}

    async def test_a_host_that_cannot_start_a_job(self, world):
        error = EngineError("localhost", "start foo-1.0", "the disk is full", Kind.FULL)
        world.host.next_error["start"] = error
        grant = world.clusterdep.offer("foo-1.0")
        result = await world.result_of(grant)
        assert result.blame == pb.BLAME_HOST
        assert "could not start foo-1.0: the disk is full" in result.message
        await until(lambda: world.clusterdep.host().free_slots == 2)

    async def test_a_slot_that_is_held_for_a_moment_is_waited_for(self, world):
        error = EngineError("localhost", "start foo-1.0", "no free slot", Kind.BUSY)
        world.host.next_error["start"] = error
        world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        assert world.clusterdep.results == []

    async def test_a_host_without_the_sandbox_is_refused(self, tmp_path):
        clusterdep = FakeClusterdep()
        world = Running(tmp_path, FakeHost(facts=replace(FACTS, sandboxes=())), clusterdep)
        async with clusterdep.at(tmp_path / "clusterdep.sock"):
            await world.start()
            await until(lambda: clusterdep.requests and clusterdep.host().reason)
            assert clusterdep.host().state == pb.HOST_STATE_REFUSED
            assert "those that do: none at all" in clusterdep.host().reason
            await world.stop()

    async def test_a_full_host_is_refused_until_there_is_room(self, world):
        await until(lambda: world.clusterdep.requests and world.clusterdep.host().free_slots == 2)
        world.host.facts = replace(FACTS, disk_free=2**20)
        world.host.at_once = lambda job: world.host.fail(job, Evidence.NO_SPACE)
        world.clusterdep.offer("foo-1.0")
        await until(lambda: world.clusterdep.host().state == pb.HOST_STATE_REFUSED)
        why = "its disk is full: 1 MiB are free where it builds, not 64"
        assert world.clusterdep.host().reason == why
        started = len(world.host.started)
        world.clusterdep.offer("bar-1.0")
        world.host.facts = FACTS
        world.host.at_once = None
        await asyncio.sleep(0.1)
        assert len(world.host.started) == started, "it gets nothing meanwhile"
        await brpc.ControlStub(world.channel).Resume(bpb.ResumeRequest())
        await until(lambda: world.host.running("bar-1.0"))

    async def test_a_host_that_does_not_let_us_in_stays_refused(self, tmp_path):
        class Closed(FakeEngine):
            def _check(self, what):
                raise EngineError("localhost", what, "its host key has changed", Kind.REFUSED)

        clusterdep = FakeClusterdep()
        world = Running(tmp_path, FakeHost(), clusterdep)
        world._engines = lambda: {"localhost": Closed(world.host)}
        async with clusterdep.at(tmp_path / "clusterdep.sock"):
            await world.start()
            await until(lambda: clusterdep.requests and clusterdep.host().reason)
            await asyncio.sleep(0.5)
            assert clusterdep.host().state == pb.HOST_STATE_REFUSED
            assert clusterdep.host().reason == "its host key has changed"
            await world.stop()

    async def test_without_a_sandbox_for_each_there_is_one_slot(self, tmp_path):
        clusterdep = FakeClusterdep()
        world = Running(tmp_path, FakeHost(facts=replace(FACTS, sandboxes=("none",))), clusterdep)
        async with clusterdep.at(tmp_path / "clusterdep.sock"):
            await world.start()
            await until(lambda: clusterdep.requests and clusterdep.host().slots)
            await until(lambda: clusterdep.host().state == pb.HOST_STATE_READY)
            assert (clusterdep.host().slots, clusterdep.host().free_slots) == (1, 1)
            await world.stop()

    async def test_sighup_reads_again(self, world):
        world.settings = replace(world.settings, slots=5)
        await until(lambda: world.clusterdep.requests)
        await until(lambda: world.clusterdep.host().state == pb.HOST_STATE_READY)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: world.clusterdep.host().slots == 5)


class TestArtifacts:
    @pytest.mark.parametrize(
        ("changes", "blame", "part"),
        [
            ({"pkgname": "bar-1.0"}, pb.BLAME_PACKAGE, "it is bar-1.0, and foo-1.0 was asked for"),
            ({"files": {"+INSTALL": b" " * 2**21}}, pb.BLAME_PACKAGE, "its +INSTALL is larger"),
        ],
    )
    async def test_what_is_not_what_was_asked_for(self, world, build, changes, blame, part):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        build(world.host.of("foo-1.0"), **changes)
        result = await world.result_of(grant)
        assert (result.built, result.blame) == (False, blame)
        assert part in result.message
        await until(lambda: world.host.cleaned == [grant.attempt])
        assert world.names("pool") == []

    async def test_a_file_damaged_on_its_way(self, world, build):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        job = world.host.of("foo-1.0")
        job_of = world.host.build

        def damaged(*args):
            job_of(*args)
            job.package = job.package[:-1] + b"x"

        world.host.build = damaged
        build(job)
        result = await world.result_of(grant)
        assert result.blame == pb.BLAME_INFRASTRUCTURE
        assert "SHA-256" in result.message

    async def test_a_file_of_another_name(self, world, tmp_path, sample):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        world.host.build(world.host.of("foo-1.0"), tmp_path / "m", sample(), "../../foo-1.0.tgz")
        result = await world.result_of(grant)
        assert (result.built, result.blame) == (False, pb.BLAME_PACKAGE)

    async def test_the_disk_here_is_full_for_a_while(self, world, build, monkeypatch):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        full = True

        def sync(path):
            if full:
                raise OSError(28, "No space left on device", str(path))

        monkeypatch.setattr("clusterbuild.repository.sync_file", sync)
        monkeypatch.setattr("clusterbuild.archive.Archive.trouble", lambda self: "full" * full)
        build(world.host.of("foo-1.0"))
        await until(lambda: world.clusterdep.host().reason != "")
        assert world.clusterdep.host().free_slots == 0, "nothing more is taken"
        assert (await world.status()).hosts[0].reason
        full = False
        assert (await world.result_of(grant)).built
        await until(lambda: world.clusterdep.host().free_slots == 2)


class TestControl:
    async def test_stop_lets_jobs_finish(self, world, build):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        control = brpc.ControlStub(world.channel)
        assert (await control.Stop(bpb.StopRequest())).running == 1
        await until(lambda: world.clusterdep.host().state == pb.HOST_STATE_DRAINING)
        world.clusterdep.offer("bar-1.0")
        build(world.host.of("foo-1.0"))
        assert (await world.result_of(grant)).built
        status = await world.status()
        assert (status.stopping, len(status.jobs)) == (True, 0)
        await control.Stop(bpb.StopRequest())
        await control.Resume(bpb.ResumeRequest())
        await until(lambda: world.host.running("bar-1.0"))

    async def test_stop_now_gives_jobs_back(self, world):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        await brpc.ControlStub(world.channel).Stop(bpb.StopRequest(now=True))
        result = await world.result_of(grant)
        assert (result.blame, result.message) == (pb.BLAME_OPERATOR, "stopped by an operator")
        assert world.host.ended == [grant.attempt]
        await until(lambda: world.host.cleaned == [grant.attempt])
        assert (await world.status()).hosts[0].state == "draining"

    async def test_health_and_reflection(self, world):
        health = health_pb2_grpc.HealthStub(world.channel)
        for name in ("", "clusterbuild.v1.Status", "clusterbuild.v1.Logs"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

    async def test_the_socket_is_private(self, world):
        mode = (world.settings.state / "clusterbuild.sock").stat().st_mode
        assert mode & 0o777 == 0o600
        assert world.settings.state.stat().st_mode & 0o777 == 0o700


class TestLogs:
    async def test_following_a_running_job(self, world, build):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        job = world.host.of("foo-1.0")
        job.logs["configure"] = b"checking\n"
        world.host.change(job, stage="build")
        reading = asyncio.create_task(world.log("foo-1.0", follow=True))
        job.logs["build"] = b"one\n"
        await asyncio.sleep(0.4)
        assert not reading.done()
        job.logs["build"] += b"two\n"
        build(job)
        assert await reading == b"checking\none\ntwo\n"
        await world.result_of(grant)
        assert await world.log(grant.attempt, stage="build", offset=4) == b"two\n"

    async def test_offsets_count_through_all_stages(self, world):
        grant = world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        job = world.host.of("foo-1.0")
        job.logs = {"configure": b"abc", "build": b"defg", "install": b"hi"}
        assert await world.log("foo-1.0") == b"abcdefghi"
        for offset in range(11):
            assert await world.log(grant.attempt, offset=offset) == b"abcdefghi"[offset:]

    @pytest.mark.parametrize(
        ("fields", "code"),
        [
            ({"attempt": "nosuch-1.0"}, grpc.StatusCode.NOT_FOUND),
            ({"attempt": ""}, grpc.StatusCode.NOT_FOUND),
            ({"attempt": "../../etc"}, grpc.StatusCode.NOT_FOUND),
            ({"attempt": "x", "stage": "cooking"}, grpc.StatusCode.INVALID_ARGUMENT),
        ],
    )
    async def test_what_is_not_there(self, world, fields, code):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await world.log(**fields)
        assert caught.value.code() is code


async def test_jobs_that_are_overdue_are_given_back(world, monkeypatch):
    monkeypatch.setattr("clusterbuild.dispatcher.GRACE", 0.0)
    grant = world.clusterdep.offer("foo-1.0", time_limit=0.1)
    result = await world.result_of(grant)
    assert result.blame == pb.BLAME_HOST
    assert result.message == "building took longer than 0 s"
    assert world.host.ended == [grant.attempt]


async def test_a_grant_that_cannot_be_a_file_name(world):
    grant = world.clusterdep.offer("../foo-1.0")
    result = await world.result_of(grant)
    assert result.blame == pb.BLAME_INFRASTRUCTURE
    assert "is no package name" in result.message


async def test_unable_is_told_with_its_reason(world):
    grant = world.clusterdep.offer("foo-1.0")
    await until(lambda: world.host.running("foo-1.0"))
    job = world.host.of("foo-1.0")
    world.host.fail(job, Evidence.SANDBOX, stage="", outcome=Outcome.UNABLE)
    result = await world.result_of(grant)
    assert (result.blame, result.message) == (pb.BLAME_HOST, "the sandbox could not be set up")


class TestStarting:
    async def test_two_daemons_on_one_state(self, world):
        with pytest.raises(Fault, match=r"another 'clusterbuild' \(pid \d+\) uses the state"):
            await serve(None, world.settings, lambda: world.settings, lambda *_: {})

    async def test_a_state_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_text("")
        settings = Settings(state=tmp_path / "file" / "state")
        with pytest.raises(Fault, match="cannot be written: Not a directory"):
            await serve(None, settings, lambda: settings, lambda *_: {})

    async def test_a_metrics_port_in_use(self, tmp_path):
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings = Settings(state=tmp_path / "state", metrics=f"127.0.0.1:{port}")
        with pytest.raises(Fault, match=f"127.0.0.1:{port}: Address already in use"):
            await serve(None, settings, lambda: settings, lambda *_: {})
        server.close()

    async def test_a_socket_of_a_daemon_that_was_killed(self, tmp_path):
        settings = Settings(state=tmp_path / "state", clusterdep=f"unix:{tmp_path}/none.sock")
        settings.state.mkdir()
        dead = await asyncio.start_unix_server(
            lambda r, w: None, settings.state / "clusterbuild.sock"
        )
        dead.close()
        await dead.wait_closed()
        running = Running(tmp_path, FakeHost(), FakeClusterdep())
        await running.start()
        await running.status()
        await running.stop()

    async def test_a_long_state_directory(self, tmp_path):
        running = Running(tmp_path, FakeHost(), FakeClusterdep())
        deep = tmp_path / ("x" * 60) / ("y" * 60)
        running.settings = replace(running.settings, state=deep)
        task = asyncio.create_task(
            serve(None, running.settings, lambda: running.settings, lambda *_: {})
        )
        socket = client.socket_path(deep, "clusterbuild.sock")
        assert len(str(socket)) < 108
        await until(lambda: socket.exists() or task.done())
        async with client.connect(running.settings.address) as channel:
            await brpc.StatusStub(channel).Get(bpb.GetRequest())
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        os.kill(os.getpid(), signal.SIGTERM)
        await task
        socket.parent.chmod(0o755)
        with pytest.raises(Fault, match="is not ours alone"):
            await serve(None, running.settings, lambda: running.settings, lambda *_: {})
        with contextlib.suppress(OSError):
            socket.parent.rmdir()
