"""The database file: checked, copied, put back, compacted, while the daemon works."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from dep_daemon import Daemon, built, record
from test_dep_cli import ask, run

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.feed import Feed
from clusterdep.forgetting import Forgetting
from clusterdep.ledger import Ledger
from clusterdep.scans import Scans
from clusterdep.store import copying, database
from clusterdep.store.database import Reader, Store
from clusterdep.store.restoring import GAP
from clusterdep.upkeep import Retention, Upkeep


def fill(path: Path, events: int) -> None:
    """A database with many events, of which most are forgotten again: free pages."""
    store = Store(path)
    with store.transaction():
        store.run_many(
            "add_event", ((4e9 + n, "p", "x", "s" * 200, "", "{}") for n in range(events))
        )
    with store.transaction():
        store.run("prune_events", (events - events // 10,))
    store.close()


def sound(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok")


@contextlib.asynccontextmanager
async def writing(dep: Daemon) -> AsyncIterator[list[int]]:
    """Merges record after record; how many were acknowledged."""
    done = [0]

    async def write() -> None:
        while True:
            await dep.load(record(f"w{done[0]}-1.0"), merge=True)
            done[0] += 1

    task = asyncio.create_task(write())
    try:
        yield done
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, grpc.RpcError):
            await task


async def more(done: list[int]) -> None:
    """Waits until another record is acknowledged."""
    before = done[0]
    for _ in range(2000):
        if done[0] > before:
            return
        await asyncio.sleep(0.01)


def listed(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


async def test_a_backup_is_whole_while_the_daemon_writes(tmp_path: Path) -> None:
    fill(tmp_path / "state" / "clusterdep.db", 20_000)
    dep = Daemon(tmp_path / "state")
    await dep.start()
    async with writing(dep) as done:
        for number in range(5):
            before = done[0]
            target = tmp_path / f"copy{number}.db"
            answer = await dep.caller.admin.Backup(pb.BackupRequest(path=str(target)))
            assert answer.size == target.stat().st_size
            assert target.stat().st_mode & 0o077 == 0
            with contextlib.closing(sqlite3.connect(target)) as copy:
                count = copy.execute("SELECT count(*) FROM record").fetchone()[0]
            assert before <= count <= done[0] + 1
            assert sound(target)
            await asyncio.wait_for(more(done), 20)  # the writer is not kept waiting for ever
    await dep.stop()
    assert {p.name for p in listed(tmp_path)} == {"state", *(f"copy{n}.db" for n in range(5))}


async def test_a_backup_that_can_not_be_written_leaves_nothing(dep: Daemon, tmp_path: Path) -> None:
    for path, code in (
        (tmp_path / "none" / "copy.db", grpc.StatusCode.FAILED_PRECONDITION),
        (tmp_path, grpc.StatusCode.ALREADY_EXISTS),
        (Path("copy.db"), grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as error:
            await dep.caller.admin.Backup(pb.BackupRequest(path=str(path)))
        assert error.value.code() is code
        assert str(path) in str(error.value.details())
    assert [p.name for p in listed(tmp_path)] == ["state"]


async def test_two_backups_to_one_file(dep: Daemon, tmp_path: Path) -> None:
    request = pb.BackupRequest(path=str(tmp_path / "copy.db"))
    answers = await asyncio.gather(
        *(dep.caller.admin.Backup(request) for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(answer, pb.BackupResponse) for answer in answers) == 1
    assert sound(tmp_path / "copy.db")


async def test_restore_goes_back_and_keeps_what_was(tmp_path: Path) -> None:
    dep = Daemon(tmp_path / "state")
    await dep.start()
    await dep.load(record("liba-1.0"))
    copy = tmp_path / "copy.db"
    assert (await ask(dep, "db", "backup", str(copy)))[0] == 0
    await dep.load(record("libb-1.0"), merge=True)
    summary = await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))

    code, _, err = await ask(dep, "db", "restore", str(copy))
    assert code == os.EX_TEMPFAIL and "uses the state directory" in err
    await dep.stop()
    code, _, err = await ask(dep, "db", "restore", str(copy))
    assert code == 0 and "the old database is kept as" in err
    kept = Path(err.split(" as ")[1].strip())
    assert sound(kept)
    with contextlib.closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT count(*) FROM record").fetchone()[0] == 2

    await dep.start()
    assert set(await dep.statuses()) == {"liba-1.0"}
    # A reader of events is told, and no number means two things.
    request = pb.WatchRequest(after=summary.last_event)
    events = [event async for event in dep.caller.query.Watch(request)]
    assert [event.kind for event in events] == ["restored"]
    assert events[0].sequence == summary.last_event + 1
    await dep.stop()


async def test_what_can_not_be_restored(tmp_path: Path) -> None:
    state = tmp_path / "state"
    Store(state / "clusterdep.db").close()
    before = (state / "clusterdep.db").read_bytes()
    strange = tmp_path / "strange.db"
    with contextlib.closing(sqlite3.connect(strange)) as connection:
        connection.execute("CREATE TABLE recipe (name)")
    (tmp_path / "text").write_text("no database" * 1000)
    damaged = tmp_path / "damaged.db"
    fill(damaged, 3000)
    data = bytearray(damaged.read_bytes())
    data[8192:40960] = os.urandom(32768)
    damaged.write_bytes(data)
    for path, code, said in (
        (strange, os.EX_DATAERR, "not one of clusterdep"),
        (tmp_path / "text", os.EX_DATAERR, "no database"),
        (damaged, os.EX_DATAERR, "damaged"),
        (tmp_path / "nowhere", os.EX_NOINPUT, "there is no file"),
        (state / "clusterdep.db", os.EX_USAGE, "the database itself"),
    ):
        found, _, err = await run("--state", str(state), "db", "restore", str(path))
        assert found == code and said in err, (path, found, err)
        assert (state / "clusterdep.db").read_bytes() == before
    assert {p.name for p in listed(state)} <= {"clusterdep.db", "clusterdep.lock"}


def test_restore_into_an_empty_place_and_over_ruins(tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    Store(copy).close()
    state = tmp_path / "state"
    assert asyncio.run(run("--state", str(state), "db", "restore", str(copy))) == (0, "", "")
    database_file = state / "clusterdep.db"
    assert sound(database_file)
    database_file.write_bytes(b"ruins" * 1000)
    (state / "clusterdep.db-wal").write_bytes(b"more ruins" * 1000)
    code, _, err = asyncio.run(run("--state", str(state), "db", "restore", str(copy)))
    assert code == 0, err
    kept = Path(err.split(" as ")[1].strip())
    assert kept.read_bytes() == b"ruins" * 1000
    assert not (state / "clusterdep.db-wal").exists()
    with contextlib.closing(Store(database_file)) as store:
        (first,) = store.rows("events", (0, 10))  # what came before is not known
        assert (first["kind"], first["sequence"]) == ("restored", GAP)


def test_a_damaged_file_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "clusterdep.db"
    fill(path, 3000)
    data = bytearray(path.read_bytes())
    data[8192:40960] = os.urandom(32768)
    path.write_bytes(data)
    with pytest.raises(Fault) as fault:
        Store(path)
    assert fault.value.kind is Kind.DATA
    assert "damaged" in str(fault.value) and "db restore" in str(fault.value)


async def test_compact_gives_room_back_while_the_daemon_answers(tmp_path: Path) -> None:
    path = tmp_path / "state" / "clusterdep.db"
    fill(path, 30_000)
    dep = Daemon(tmp_path / "state")
    await dep.start()
    await dep.load(record("liba-1.0"))
    async with writing(dep) as done:
        task = asyncio.ensure_future(dep.caller.admin.Compact(pb.CompactRequest()))
        answers = 0
        while not task.done():
            await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))
            answers += 1
        answer = await task
        assert answers and done[0]
    assert answer.before > 4 * answer.after
    code, out, _ = await ask(dep, "db", "compact")
    assert code == 0 and "bytes before" in out
    assert path.stat().st_size < answer.before / 4
    assert (await ask(dep, "db", "check")) == (0, "", "")
    grant = (await dep.exchange()).grants[0]
    await dep.exchange(results=[built(grant)], hosts=[])
    await dep.stop()
    assert sound(path)


async def test_a_check_names_what_is_wrong(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"), record("prog-1.0", ["liba-[0-9]*"]))
    with contextlib.closing(sqlite3.connect(dep.state / "clusterdep.db")) as other:
        other.execute("UPDATE requirement SET required_id = 4711")
        other.commit()
    answer = await dep.caller.admin.CheckDatabase(pb.CheckDatabaseRequest())
    assert not answer.sound
    assert any("requirement" in finding for finding in answer.findings)


def test_writing_begins_again_only_with_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "clusterdep.db")
    told = []
    store.on_change = lambda: told.append(store.stopped)
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL  # type: ignore[attr-defined]
    with pytest.raises(Fault) as fault, store.transaction():
        raise error
    assert fault.value.kind is Kind.UNAVAILABLE
    monkeypatch.setattr(Store, "room", lambda self: database.ROOM - 1)
    for _ in range(2):
        with pytest.raises(Fault), store.transaction():
            raise AssertionError("it was begun")
    monkeypatch.setattr(Store, "room", lambda self: database.ROOM)
    with store.transaction():
        pass
    assert told == ["database or disk is full", ""]
    store.close()


def test_a_reader_sees_one_moment(tmp_path: Path) -> None:
    store = Store(tmp_path / "clusterdep.db")
    reader = store.reader()
    with store.transaction():
        store.run("add_event", (time.time(), "", "x", "", "", "{}"))
    assert not list(reader.rows("events", (0, 10)))
    assert len(list(store.rows("events", (0, 10)))) == 1
    reader.close()
    with pytest.raises(Fault):
        copying.copy(tmp_path / "none.db", tmp_path / "copy.db")
    store.close()


async def test_events_are_forgotten_by_age_and_by_number(tmp_path: Path) -> None:
    now = 4_000_000_000.0
    store = Store(tmp_path / "clusterdep.db")
    with store.transaction():
        for number in range(5000):
            store.run("add_event", (now - 5000 + number, "", "x", "", "", "{}"))
    ledger = Ledger(store, 120.0, lambda: now)

    async def kept(days: float, count: int) -> tuple[int, int]:
        feed = Feed(ledger, Scans(ledger, str))
        retention = Retention(event_days=days, event_count=count)
        await Upkeep(ledger, feed, Forgetting(ledger, feed), retention).tick()
        row = store.row("event_bounds")
        assert row is not None
        return row[0], row[1]

    assert await kept(1.0, 1_000_000) == (1, 5000)
    assert await kept(4000 / 86400, 1_000_000) == (1001, 5000)
    assert await kept(4000 / 86400, 1500) == (3501, 5000)
    assert await kept(0.0, 10) == (0, 5000)  # numbers are not given again
    store.close()


async def test_who_gives_up_on_a_long_reading_harms_nobody(tmp_path: Path) -> None:
    """The thread that reads closes its connection itself, whoever waits for it or does not."""
    fill(tmp_path / "clusterdep.db", 3000)
    store = Store(tmp_path / "clusterdep.db")
    endings = []

    def long(reader: Reader) -> None:
        for _ in range(60):
            assert reader.check() == []
        endings.append("whole")

    for _ in range(5):
        task = asyncio.create_task(store.read(long))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    for _ in range(600):
        if len(endings) == 5:
            break
        await asyncio.sleep(0.1)
    assert endings == ["whole"] * 5
    with store.transaction():
        store.run("prune_events", (1,))
    store.close()
