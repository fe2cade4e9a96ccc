"""Putting a backup in the place of the database, while no daemon has it open."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

from clusterdep.api.errors import Fault, Kind
from clusterdep.store import copying, faults, migrating

#: Where nobody knows what numbers events had, those after a restore begin so much higher.
GAP = 1_000_000


def restore(backup: Path, path: Path, now: float, stamp: str) -> Path | None:
    """Makes `backup` the database at `path`; returns where the old one is kept, if there was one.

    `stamp` ends that file's name. The backup is looked at in full before anything is
    changed. Raises Fault, and nothing is changed.
    """
    if not backup.is_file():
        raise Fault(Kind.NO_INPUT, f"there is no file {backup}")
    if path.exists() and backup.samefile(path):
        raise Fault(Kind.USAGE, f"{backup} is the database itself")
    fresh = path.with_name(path.name + ".restoring")
    try:
        _look_at(backup)
        copying.copy(backup, fresh, replace=True)
        _begin_anew(fresh, backup, now, _last_event(path))
        aside = _keep(path, path.with_name(f"{path.name}.before-restore-{stamp}"))
        fresh.replace(path)
        copying.sync(path.parent)
    except sqlite3.Error as error:
        raise faults.fault(error, backup) from error
    except OSError as error:
        raise Fault(Kind.CANNOT_CREATE, f"{path} can not be replaced: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
    return aside


def _look_at(backup: Path) -> None:
    with contextlib.closing(copying.open_to_read(backup)) as there:
        migrating.check(there, backup)


def _last_event(path: Path) -> int:
    """Number of the last event of the database that is replaced; 0 if that is not known."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(copying.open_to_read(path)) as old:
        found = old.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
        return int(found[0]) if found else 0
    return 0


def _begin_anew(fresh: Path, backup: Path, now: float, last: int) -> None:
    """The first event after a restore says so, and its number was never given before."""
    with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as there:
        there.execute("BEGIN IMMEDIATE")
        found = there.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
        restored = int(found[0]) if found else 0
        number = max(last, restored) + 1 if last else restored + GAP
        there.execute(
            "INSERT INTO event (sequence, time, profile, kind, subject, cause)"
            " VALUES (?, ?, '', 'restored', ?, 'by order')",
            (number, now, str(backup)),
        )
        there.execute("COMMIT")
    copying.sync(fresh)


def _keep(path: Path, aside: Path) -> Path | None:
    """Gives the old file a second name, and leaves nothing that belongs to it alone.

    A write-ahead log beside another file than its own would destroy that one.
    """
    if not path.exists():
        return None
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as old:
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    log = path.with_name(path.name + "-wal")
    _link(path, aside)
    if log.exists() and log.stat().st_size:  # damaged: it could not be folded in
        _link(log, aside.with_name(aside.name + "-wal"))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return aside


def _link(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        shutil.copy2(path, other)
