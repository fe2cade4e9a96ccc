"""The daemon's disk is full: it says so, loses nothing, and goes on when there is room."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from dep_daemon import Daemon, built, host, record

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


async def test_a_full_disk_stops_writing_and_nothing_else(small_disk: Path) -> None:
    dep = Daemon(small_disk / "state")
    await dep.start()
    await dep.load(record("liba-1.0"), record("libb-1.0"))
    grants = list((await dep.exchange()).grants)
    await dep.exchange(results=[built(grants[0])], holding=[], hosts=[host(free=0)])
    before = await dep.statuses()

    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    # One of these does not fit any more.
    with pytest.raises(grpc.RpcError) as error:
        for number in range(2000):
            await dep.load(record(f"p{number}-1.0", COMMENT="x" * 2000), merge=True)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "cannot be written" in str(error.value.details())
    assert "free some space" in str(error.value.details())
    with pytest.raises(grpc.RpcError):
        await dep.exchange(results=[built(grants[1])], hosts=[host(free=0)])
    # It still answers, and what it says is what was acknowledged.
    now = await dep.statuses()
    assert {name: now[name] for name in before} == before

    filler.unlink()
    answer = await dep.exchange(results=[built(grants[1])], hosts=[host(free=0)])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_ACCEPTED
    check = await dep.caller.admin.CheckDatabase(pb.CheckDatabaseRequest())
    assert check.sound, check.findings
    await dep.stop()
    await dep.start()
    assert (await dep.statuses())["libb-1.0"] == "built"
    await dep.stop()
