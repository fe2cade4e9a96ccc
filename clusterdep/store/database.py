"""The database file: opening, checking, transactions, and statements by name.

There is one writer, the daemon's event loop: what is decided, written and applied
happens without anybody seeing a state in between. Everything a client is told is
done was committed with synchronous=FULL before it was told.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import sqlite_utils

from clusterdep.api.errors import Fault, Kind
from clusterdep.store.schema import migrations

Row = sqlite3.Row
Values = Sequence[Any] | Mapping[str, Any]


@cache
def statements() -> dict[str, str]:
    """The statements of queries.sql by name."""
    text = resources.files("clusterdep.store").joinpath("queries.sql").read_text()
    parts = re.split(r"^-- (\w+): .*$", text, flags=re.MULTILINE)
    return {
        name: body.strip().rstrip(";") for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }


class Store:
    """An open database file. Not for several threads at once."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file at `path` and brings its schema up to date.

        Raises Fault if the directory cannot be written, the file is no database of
        ours, is damaged, or comes from a newer version.
        """
        self.path = path
        self._connection = _open(path)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise _fault(error, path) from error

    def _prepare(self) -> None:
        connection = self._connection
        connection.row_factory = sqlite3.Row
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "busy_timeout = 5000",
            "cache_size = -32768",
        ):
            connection.execute(f"PRAGMA {pragma}")
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if tables and migrations.migrations_table not in tables:
            raise Fault(
                Kind.DATA,
                f"{self.path} is a database, but not one of clusterdep",
                "name another state directory",
            )
        database = sqlite_utils.Database(connection)
        # On an empty database every migration we have is pending.
        ours = {m.name for m in migrations.pending(sqlite_utils.Database(memory=True))}
        newer = sorted({m.name for m in migrations.applied(database)} - ours)
        if newer:
            raise Fault(
                Kind.DATA,
                f"{self.path} was written by a newer clusterdep (it has {', '.join(newer)})",
                "install that version, or restore a backup",
            )
        migrations.apply(database)
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise Fault(
                Kind.DATA,
                f"{self.path} is damaged: {verdict}",
                "restore a backup: copy it over the file while the daemon is stopped",
            )

    def close(self) -> None:
        """Closes the file; the write-ahead log is folded into it."""
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Raises Fault UNAVAILABLE if it cannot be written: nothing was."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._rollback()
            raise _fault(error, self.path) from error
        except BaseException:
            self._rollback()
            raise

    def _rollback(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def run(self, name: str, values: Values = ()) -> int:
        """Executes the statement `name`; returns how many rows it changed."""
        return self._connection.execute(statements()[name], values).rowcount

    def run_many(self, name: str, rows: Iterable[Values]) -> None:
        """Executes the statement `name` for each of `rows`."""
        self._connection.executemany(statements()[name], rows)

    def rows(self, name: str, values: Values = ()) -> Iterator[Row]:
        """Rows of the query `name`."""
        return self._connection.execute(statements()[name], values)

    def row(self, name: str, values: Values = ()) -> Row | None:
        """The first row of the query `name`, if there is one."""
        found: Row | None = self._connection.execute(statements()[name], values).fetchone()
        return found

    @property
    def utils(self) -> sqlite_utils.Database:
        """The same connection as a sqlite-utils database, for tables by name."""
        return sqlite_utils.Database(self._connection)

    def check(self) -> list[str]:
        """What a full check of the file finds wrong; empty if nothing."""
        findings = [str(row[0]) for row in self._connection.execute("PRAGMA integrity_check(20)")]
        findings = [] if findings == ["ok"] else findings
        for row in self._connection.execute("PRAGMA foreign_key_check"):
            findings.append(f"table {row[0]}, row {row[1]}: refers to a row of {row[2]} not there")
        return findings

    def backup(self, target: Path) -> int:
        """Copies the database to `target`, whole and consistent; returns its size, bytes.

        Raises Fault if the file exists or cannot be written.
        """
        if target.exists():
            raise Fault(Kind.EXISTS, f"{target} exists", "name a file that does not")
        partial = target.with_name(target.name + ".partial")
        try:
            partial.unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(partial)) as copy:
                self._connection.backup(copy)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.rename(target)
        except (OSError, sqlite3.Error) as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise Fault(
                Kind.CANNOT_CREATE, f"the backup {target} cannot be written: {error}"
            ) from error
        return target.stat().st_size


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # isolation_level None: transactions are ours to begin.
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        why = os.strerror(errno.EACCES) if isinstance(error, PermissionError) else str(error)
        raise Fault(
            Kind.CANNOT_CREATE,
            f"the database {path} cannot be opened: {why}",
            "make its directory writable for this user, or name another with --state DIR",
        ) from error


def _fault(error: sqlite3.DatabaseError, path: Path) -> Fault:
    """What an error of SQLite means for a person."""
    text = str(error)
    if "full" in text or "disk I/O" in text:
        return Fault(
            Kind.UNAVAILABLE,
            f"the database {path} cannot be written: {text}",
            "free some space on its file system; nothing that was acknowledged is lost",
        )
    if "locked" in text:
        return Fault(
            Kind.UNAVAILABLE,
            f"the database {path} is locked by another program",
            "end the program that writes to it",
        )
    if "readonly" in text or "unable to open" in text:
        return Fault(
            Kind.CANNOT_CREATE,
            f"the database {path} cannot be written: {text}",
            "make it and its directory writable for this user",
        )
    if "not a database" in text or "malformed" in text:
        return Fault(
            Kind.DATA,
            f"{path} is damaged or no database: {text}",
            "restore a backup: copy it over the file while the daemon is stopped",
        )
    return Fault(Kind.INTERNAL, f"the database {path}: {text}")
