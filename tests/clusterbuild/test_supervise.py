"""Daemons as children of a run: real ones."""

import asyncio
import os
import signal

import pytest
from build_fakes import until

from clusterbuild import supervise
from clusterbuild.supervise import Child
from clusterdep.api.errors import Fault
from clusterdep.api.serving import only_one


@pytest.fixture
async def child(tmp_path):
    """A clusterdep that is not begun yet, and ends with the test."""
    said = []
    made = Child("clusterdep", tmp_path / "state", [], said.append)
    made.state.mkdir()
    made.heard = said
    yield made
    await made.stop()


async def test_begin_and_stop(child):
    assert not await child.serves()
    await child.begin()
    assert child.ours
    assert await child.serves()
    assert (child.state / "clusterdep.started").read_text().strip() == str(child.pid)
    assert os.getsid(child.pid) == child.pid, "a session of its own: Ctrl-C does not reach it"
    await child.stop()
    assert not await child.serves()
    assert not (child.state / "clusterdep.started").exists()
    assert "serving at" in child.log.read_text()


async def test_one_that_dies_is_started_again(child):
    await child.begin()
    keeping = asyncio.create_task(child.keep())
    first = child.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.pid != first)
    await until(lambda: child.heard)
    assert child.heard == [f"clusterdep (pid {first}) was killed by signal 9 and is started again"]
    await until(lambda: child.log.read_text().count("serving at") == 2)
    assert await child.serves()
    keeping.cancel()


async def test_one_that_keeps_dying_is_given_up(child, monkeypatch):
    monkeypatch.setattr(supervise, "MOST_STARTS", 1)
    await child.begin()
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(Fault, match=r"clusterdep ended 1 times in 300 s; the end of ") as caught:
        await child.keep()
    assert "serving at" in caught.value.what, "the end of its log is shown"
    assert caught.value.exit_code == os.EX_SOFTWARE


async def test_one_that_cannot_start(child, tmp_path):
    with only_one(tmp_path / "state", "x"):
        (tmp_path / "state" / "clusterdep.db").write_text("this is no database" * 100)
        with pytest.raises(Fault, match=r"clusterdep could not be started \(exit status") as caught:
            await child.begin()
    assert caught.value.exit_code == os.EX_UNAVAILABLE


async def test_one_that_an_earlier_run_started_is_taken_over(child, tmp_path):
    await child.begin()
    other = Child("clusterdep", child.state, [], child.said)
    await other.begin()
    assert (other.pid, other.ours, other.process) == (child.pid, True, None)
    assert child.heard == [f"clusterdep runs already (pid {child.pid}) and is used"]
    await other.stop()
    assert not await child.serves()


async def test_one_that_somebody_else_started_is_left_alone(child):
    await child.begin()
    (child.state / "clusterdep.started").unlink()
    other = Child("clusterdep", child.state, [], child.said)
    await other.begin()
    assert not other.ours
    await other.stop()
    assert await child.serves()
