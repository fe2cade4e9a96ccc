"""Databases as released versions wrote them, made by the code of today.

Migrations are never changed once released: what the first of them make is what those
versions had. As a program, `python old_database.py FILE` opens the file as the daemon does
and says when the migration begins.
"""

from __future__ import annotations

import sqlite3
import sys
import zlib
from pathlib import Path

import sqlite_utils

from clusterdep.store.schema import migrations

#: Of each released schema, the first migration it does not have.
RELEASED = {"0.1": "followed"}


def make(path: Path, version: str, packages: int) -> None:
    """A database of a released version, with one profile, its packages, and what came of them."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    migrations.apply(sqlite_utils.Database(connection), stop_before=RELEASED[version])
    connection.execute("BEGIN")
    connection.execute("INSERT INTO profile (id, name, complete) VALUES (1, 'p', 1)")
    connection.execute("INSERT INTO selection VALUES (1, 0, 'cat')")
    for number in range(1, packages + 1):
        _package(connection, number)
    connection.execute(
        "INSERT INTO event (time, profile, kind, subject) VALUES (4e9, 'p', 'x', 'y')"
    )
    connection.execute("COMMIT")
    connection.close()


def _package(connection: sqlite3.Connection, number: int) -> None:
    run = connection.execute
    name, path = f"p{number}-1.0", f"cat/p{number}"
    text = f"PKGNAME={name}\nPKG_LOCATION={path}\nALL_DEPENDS=\n".encode()
    run(
        "INSERT INTO pkgpath (id, profile_id, path, position, scanned_at) VALUES (?, 1, ?, ?, 1)",
        (number, path, number),
    )
    run("INSERT INTO package (id, profile_id, pkgpath) VALUES (?, 1, ?)", (number, path))
    run(
        "INSERT INTO record (package_id, pkgpath_id, number, pkgname, digest, text, scan_depends)"
        " VALUES (?, ?, 0, ?, ?, ?, ?)",
        (number, number, name, bytes(32), text, zlib.compress(text) * 40),
    )
    if number > 1:
        run(
            "INSERT INTO requirement VALUES (?, 0, 'p1-[0-9]*', '../../cat/p1', 1, '')",
            (number,),
        )
    run(
        "INSERT INTO attempt (id, package_id, pkgname, fence, input_key, dispatcher, host,"
        " granted_at, ended_at, outcome) VALUES (?, ?, ?, 1, 'k', 'd', 'h', 1, 2, 'built')",
        (f"a{number}", number, name),
    )
    run(
        "INSERT INTO artifact (package_id, attempt_id, pkgname, sha256, size, suffix,"
        " content_digest, input_key, summary, built_at)"
        " VALUES (?, ?, ?, ?, 1, '.tgz', 'c', 'k', x'', 2)",
        (number, f"a{number}", name, f"{number:064x}"),
    )


def facts(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """What must be the same before and after a migration."""
    connection = sqlite3.connect(path)
    try:
        return {
            table: connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2").fetchall()
            for table, columns in (
                ("profile", "id, name, complete, policy"),
                ("selection", "position, entry"),
                ("pkgpath", "id, path, position"),
                ("package", "id, pkgpath, fence"),
                ("record", "package_id, pkgname, text"),
                ("requirement", "package_id, position, pattern, required_id"),
                ("attempt", "id, package_id, outcome"),
                ("artifact", "id, sha256, attempt_id"),
                ("event", "sequence, kind"),
            )
        }
    finally:
        connection.close()


def applied(path: Path) -> list[str]:
    """The migrations that a file has had."""
    connection = sqlite3.connect(path)
    try:
        return [m.name for m in migrations.applied(sqlite_utils.Database(connection))]
    finally:
        connection.close()


if __name__ == "__main__":
    from clusterdep.store.database import Store

    sys.stdout.write("begins\n")
    sys.stdout.flush()
    Store(Path(sys.argv[1])).close()
