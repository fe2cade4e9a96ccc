"""The daemon's disk is full: it says so, loses nothing, and goes on when there is room."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from dep_daemon import Daemon, built, host, record
from grpc_health.v1 import health_pb2, health_pb2_grpc
from test_dep_cli import ask

from clusterdep.api import client
from clusterdep.api.v1 import clusterdep_pb2 as pb


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of thirty-two MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@contextlib.contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Not a page is left for as long as the block lasts."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    yield
    filler.unlink()


async def fail_to_load(dep: Daemon) -> str:
    """Loads until one does not fit any more; what is said then."""
    with pytest.raises(grpc.RpcError) as error:
        for number in range(2000):
            await dep.load(record(f"p{number}-1.0", COMMENT="x" * 2000), merge=True)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    return str(error.value.details())


async def health(dep: Daemon, service: str) -> bool:
    channel = client.connect(f"unix:{dep.state}/clusterdep.sock")
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    await channel.close()
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def until_it_is_said(dep: Daemon) -> list[pb.Event]:
    """The events of a full disk, when there are any."""
    for _ in range(100):
        request = pb.WatchRequest(after=0)
        events = [e async for e in dep.caller.query.Watch(request) if e.kind == "disk-full"]
        if events:
            return events
        await asyncio.sleep(0.1)
    raise AssertionError("nothing was said")


async def test_a_full_disk_stops_writing_and_nothing_else(small_disk: Path) -> None:
    dep = Daemon(small_disk / "state")
    await dep.start()
    await dep.load(record("liba-1.0"), record("libb-1.0"))
    grants = list((await dep.exchange()).grants)
    await dep.exchange(results=[built(grants[0])], holding=[], hosts=[host(free=0)])
    before = await dep.statuses()

    with filled(small_disk):
        said = await fail_to_load(dep)
        assert "cannot be written" in said and "free some space" in said
        with pytest.raises(grpc.RpcError):
            await dep.exchange(results=[built(grants[1])], hosts=[host(free=0)])
        # It still answers, and what it says is what was acknowledged.
        now = await dep.statuses()
        assert {name: now[name] for name in before} == before

    answer = await dep.exchange(results=[built(grants[1])], hosts=[host(free=0)])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_ACCEPTED
    check = await dep.caller.admin.CheckDatabase(pb.CheckDatabaseRequest())
    assert check.sound, check.findings
    await dep.stop()
    await dep.start()
    assert (await dep.statuses())["libb-1.0"] == "built"
    await dep.stop()


async def test_it_says_so_wherever_somebody_looks(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    free = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = free.sockets[0].getsockname()[1]
    free.close()
    await free.wait_closed()
    dep = Daemon(small_disk / "state")
    await dep.start(metrics=f"127.0.0.1:{port}")

    async def metrics() -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        return text

    await dep.load(record("liba-1.0"))
    assert await health(dep, "") and await health(dep, "clusterdep.v1.Work")
    assert "clusterdep_writable 1.0" in await metrics()
    with filled(small_disk):
        await fail_to_load(dep)
        await asyncio.sleep(1.5)  # what the daemon does by itself goes on
        for service in ("", *(f"clusterdep.v1.{name}" for name in ("Feed", "Work", "Admin"))):
            assert not await health(dep, service), service
        assert await health(dep, "clusterdep.v1.Query")
        assert "clusterdep_writable 0.0" in await metrics()
        summary = await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))
        assert "full" in summary.unwritable
        code, out, _ = await ask(dep, "status")
        assert code == 0 and "nothing can be recorded: " in out
    (event,) = await until_it_is_said(dep)
    assert "nothing acknowledged is lost" in event.cause
    assert json.loads(event.detail)["seconds"] >= 1.5
    assert await health(dep, "") and await health(dep, "clusterdep.v1.Work")
    assert "clusterdep_writable 1.0" in await metrics()
    # Said once when it began and once when it was over, and not every second.
    said = [r.getMessage() for r in caplog.records if r.name == "clusterdep.upkeep"]
    assert len([text for text in said if "nothing can be written" in text]) == 1
    assert len([text for text in said if "can be written again" in text]) == 1
    await dep.stop()


async def test_leases_do_not_end_while_nothing_can_be_written(small_disk: Path) -> None:
    """Who could not be told that a lease was renewed does not lose it."""
    dep = Daemon(small_disk / "state")
    await dep.start(lease_seconds=1.0, renew_seconds=0.4)
    await dep.load(record("liba-1.0"))
    (grant,) = (await dep.exchange()).grants
    with filled(small_disk):
        await fail_to_load(dep)
        for _ in range(3):
            with pytest.raises(grpc.RpcError):
                await dep.exchange(results=[built(grant)], hosts=[])
            await asyncio.sleep(0.5)
        assert (await dep.statuses())["liba-1.0"] == "leased"
    answer = await dep.exchange(results=[built(grant)], hosts=[])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_ACCEPTED
    kinds = [e.kind async for e in dep.caller.query.Watch(pb.WatchRequest(after=0))]
    assert "lapsed" not in kinds
    await dep.stop()
