"""From the schema of any released version to today's, or not at all.

All that is missing is one transaction: a migration that fails or is killed leaves the
file as it was. Before it begins, the file is copied: what an older version needs to go
on is kept beside it.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

import sqlite_utils

from clusterdep.api.errors import Fault, Kind
from clusterdep.store import copying
from clusterdep.store.schema import migrations

log = logging.getLogger("clusterdep.store")


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether nothing was ever made in the file."""
    return not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raises Fault if the file is no database of ours, or from a newer version."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if migrations.migrations_table not in tables:
        raise Fault(
            Kind.DATA,
            f"{path} is a database, but not one of clusterdep",
            "name another state directory",
        )
    # On an empty database every migration we have is pending.
    ours = {m.name for m in migrations.pending(sqlite_utils.Database(memory=True))}
    newer = sorted(set(applied(connection)) - ours)
    if newer:
        raise Fault(
            Kind.DATA,
            f"{path} was written by a newer clusterdep (it has {', '.join(newer)})",
            "install that version, or restore a backup",
        )


def applied(connection: sqlite3.Connection) -> list[str]:
    """Names of the migrations that the file has had."""
    return [m.name for m in migrations.applied(sqlite_utils.Database(connection))]


def kept(path: Path, migration: str) -> Path:
    """Where the copy is that was made before `migration`."""
    return path.with_name(f"{path.name}.before-{migration}")


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Brings the schema up to date. Raises Fault, and the file is as it was."""
    database = sqlite_utils.Database(connection)
    pending = [m.name for m in migrations.pending(database)]
    if not pending:
        return
    old = bool(applied(connection))
    if old:
        copy = kept(path, pending[0])
        log.info("the schema is brought up to date; a copy of the old one is kept as %s", copy)
        copying.copy(path, copy, replace=True)
    # Tables that are made anew are referred to meanwhile.
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("BEGIN IMMEDIATE")
    try:
        migrations.apply(database)
        broken = connection.execute("PRAGMA foreign_key_check").fetchone()
        if broken is not None:
            raise Fault(
                Kind.DATA,
                f"{path} can not be brought up to date: a row of {broken[0]} refers to one of "
                f"{broken[2]} that is not there",
                "install the version that wrote it, and run its 'clusterdep db check'",
            )
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise
    if old:
        _allow_shrinking(connection)


def _allow_shrinking(connection: sqlite3.Connection) -> None:
    """Files of version 0.1 could not give pages back: that takes writing them anew, once."""
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != 2:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")
