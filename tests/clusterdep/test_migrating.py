"""From the schema of every released version to today's: whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import old_database
import pytest
from dep_daemon import Daemon

from clusterdep.api.errors import Fault, Kind
from clusterdep.store import migrating
from clusterdep.store.database import Store
from clusterdep.store.schema import migrations

SIZE = int(os.environ.get("TEST_SIZE", "1"))


def names() -> list[str]:
    """All migrations there are."""
    import sqlite_utils

    return [m.name for m in migrations.pending(sqlite_utils.Database(memory=True))]


@pytest.mark.parametrize("version", old_database.RELEASED)
async def test_a_released_database_is_brought_up_to_date(tmp_path: Path, version: str) -> None:
    path = tmp_path / "clusterdep.db"
    old_database.make(path, version, 50)
    before = old_database.facts(path)
    dep = Daemon(tmp_path)
    await dep.start()
    statuses = await dep.statuses()
    await dep.stop()
    assert len(statuses) == 50
    assert old_database.applied(path) == names()
    assert old_database.facts(path) == before
    # What the older version needs to go on is beside it.
    kept = migrating.kept(path, old_database.RELEASED[version])
    assert old_database.facts(kept) == before
    assert old_database.RELEASED[version] not in old_database.applied(kept)
    assert kept.stat().st_mode & 0o077 == 0
    # And the new file can give pages back, as if it had been made today.
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone()[0] == 2


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "clusterdep.db"
    old_database.make(path, "0.1", 20)
    before = old_database.facts(path)
    with sqlite3.connect(path) as connection:  # what the migration is about to make
        connection.execute("CREATE TABLE token (name TEXT)")
    with pytest.raises(Fault) as fault:
        Store(path)
    assert "token already exists" in str(fault.value)
    assert old_database.applied(path) == ["first"]
    assert old_database.facts(path) == before
    with sqlite3.connect(path) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(profile)")]
        assert "resolver" not in columns
        connection.execute("DROP TABLE token")
    Store(path).close()
    assert old_database.facts(path) == before


def test_a_row_that_refers_to_nothing_stops_it(tmp_path: Path) -> None:
    path = tmp_path / "clusterdep.db"
    old_database.make(path, "0.1", 5)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM package WHERE id = 3")
    with pytest.raises(Fault) as fault:
        Store(path)
    assert "can not be brought up to date" in str(fault.value)
    assert old_database.applied(path) == ["first"]


def test_no_room_for_the_copy_is_said_before_anything_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "clusterdep.db"
    old_database.make(path, "0.1", 5)
    migrating.kept(path, "followed").mkdir()  # no file can have that name
    with pytest.raises(Fault) as fault:
        Store(path)
    assert fault.value.kind is Kind.CANNOT_CREATE
    assert "clusterdep.db.before-followed cannot be written" in str(fault.value)
    assert old_database.applied(path) == ["first"]


def test_a_newer_schema_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "clusterdep.db"
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('clusterdep', 'tomorrow', '2030-01-01')"
        )
    content = path.read_bytes()
    with pytest.raises(Fault) as fault:
        Store(path)
    assert "newer clusterdep (it has tomorrow)" in str(fault.value)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["clusterdep.db"]


@pytest.mark.timeout(1200)
def test_killed_in_mid_migration(tmp_path: Path) -> None:
    """The old state or the new one, and the next start goes on from there."""
    rng = random.Random(os.environ.get("TEST_SEED", "1"))
    pristine = tmp_path / "pristine.db"
    old_database.make(pristine, "0.1", 3000)
    before = old_database.facts(pristine)
    path = tmp_path / "state" / "clusterdep.db"
    path.parent.mkdir()
    lengths = [_migrate(pristine, path, None)]
    seen = set()
    for _ in range(6 * SIZE):
        _migrate(pristine, path, rng.uniform(0, lengths[0]))
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        state = tuple(old_database.applied(path))
        assert state in (("first",), tuple(names()))
        assert old_database.facts(path) == before
        seen.add(state)
        if rng.random() < 0.3:  # killed again on the way
            _migrate(None, path, rng.uniform(0, lengths[0]))
            assert old_database.facts(path) == before
        Store(path).close()
        assert old_database.applied(path) == names()
        assert old_database.facts(path) == before
    assert ("first",) in seen


def _migrate(pristine: Path | None, path: Path, kill_after: float | None) -> float:
    """Opens a copy of `pristine` in a process of its own; returns how long that took."""
    if pristine is not None:
        for old in path.parent.iterdir():
            old.unlink()
        shutil.copy(pristine, path)
    command = [sys.executable, old_database.__file__, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begins\n"
        started = time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            process.kill()
        process.wait()
    assert kill_after is not None or process.returncode == 0
    return time.monotonic() - started
