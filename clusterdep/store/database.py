"""The database file: opening, checking, transactions, and statements by name.

There is one writer, the daemon's event loop: what is decided, written and applied
happens without anybody seeing a state in between. Everything a client is told is
done was committed with synchronous=FULL before it was told. What takes long and
only reads has a connection of its own, in a thread of its own: it sees the file as it
was when it began, and neither waits for the writer nor makes it wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import sqlite_utils

from clusterdep.api.errors import Fault, Kind
from clusterdep.store import copying, faults, migrating

Row = sqlite3.Row
Result = TypeVar("Result")
Values = Sequence[Any] | Mapping[str, Any]

#: After the disk was full, writing goes on when there is so much room again, bytes.
ROOM = 4 << 20


@cache
def statements() -> dict[str, str]:
    """The statements of queries.sql by name."""
    text = resources.files("clusterdep.store").joinpath("queries.sql").read_text()
    parts = re.split(r"^-- (\w+): .*$", text, flags=re.MULTILINE)
    return {
        name: body.strip().rstrip(";") for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }


class Reader:
    """Queries by name over one connection. Not for several threads at once."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        connection.row_factory = sqlite3.Row

    def rows(self, name: str, values: Values = ()) -> Iterator[Row]:
        """Rows of the query `name`."""
        return self._connection.execute(statements()[name], values)

    def row(self, name: str, values: Values = ()) -> Row | None:
        """The first row of the query `name`, if there is one."""
        found: Row | None = self._connection.execute(statements()[name], values).fetchone()
        return found

    def check(self) -> list[str]:
        """What a full check of the file finds wrong; empty if nothing."""
        findings = [str(row[0]) for row in self._connection.execute("PRAGMA integrity_check(20)")]
        findings = [] if findings == ["ok"] else findings
        for row in self._connection.execute("PRAGMA foreign_key_check"):
            findings.append(f"table {row[0]}, row {row[1]}: refers to a row of {row[2]} not there")
        return findings

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


class Store(Reader):
    """An open database file, and the only writer of it."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file at `path` and brings its schema up to date.

        Raises Fault if the directory cannot be written, the file is no database of
        ours, is damaged, or comes from a newer version.
        """
        super().__init__(path, _open(path))
        #: Why nothing can be written now; empty if it can.
        self.stopped = ""
        #: Told when writing stops or goes on.
        self.on_change: Callable[[], None] = lambda: None
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise faults.fault(error, path) from error
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        connection = self._connection
        fresh = migrating.is_empty(connection)
        if fresh:  # can only be chosen before there is a table
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "busy_timeout = 5000",
            "cache_size = -32768",
            "journal_size_limit = 16777216",
        ):
            connection.execute(f"PRAGMA {pragma}")
        if not fresh:
            migrating.check(connection, self.path)
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise faults.damaged(self.path, verdict)
        migrating.migrate(connection, self.path)
        connection.execute("PRAGMA foreign_keys = ON")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Raises Fault UNAVAILABLE if it cannot be written: nothing was."""
        with self._writing():
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Rolls back what did not come to its end, and says why as a Fault."""
        if self.stopped and self.room() < ROOM:
            raise faults.full(self.path, self.stopped)
        try:
            yield
        except sqlite3.Error as error:
            self._rollback()
            if faults.no_room(error):
                self._stop(str(error))
            raise faults.fault(error, self.path) from error
        except BaseException:
            self._rollback()
            raise
        self._stop("")

    def _rollback(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _stop(self, why: str) -> None:
        """Writing stopped because of `why`, or goes on if it is empty."""
        changed = bool(why) != bool(self.stopped)
        self.stopped = why
        if changed:
            self.on_change()

    @property
    def version(self) -> int:
        """Another number after every row that was written."""
        return self._connection.total_changes

    def room(self) -> int:
        """Bytes that are free on the file system for this user."""
        there = os.statvfs(self.path.parent)
        return there.f_bavail * there.f_frsize

    def run(self, name: str, values: Values = ()) -> int:
        """Executes the statement `name`; returns how many rows it changed."""
        return self._connection.execute(statements()[name], values).rowcount

    def run_many(self, name: str, rows: Iterable[Values]) -> None:
        """Executes the statement `name` for each of `rows`."""
        self._connection.executemany(statements()[name], rows)

    @property
    def utils(self) -> sqlite_utils.Database:
        """The same connection as a sqlite-utils database, for tables by name."""
        return sqlite_utils.Database(self._connection)

    def reader(self) -> Reader:
        """A connection that sees the file as it is at this moment. The caller closes it."""
        try:
            connection = copying.open_to_read(self.path)
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM profile LIMIT 1").fetchone()
        except sqlite3.Error as error:
            raise faults.fault(error, self.path) from error
        return Reader(self.path, connection)

    async def read(self, use: Callable[[Reader], Result]) -> Result:
        """What `use` makes of the file as it is at this moment; it runs in a thread.

        The thread closes its connection, and nobody else: whoever waits may be
        cancelled, and then it still runs.
        """
        reader = self.reader()

        def work() -> Result:
            with contextlib.closing(reader):
                return use(reader)

        return await asyncio.to_thread(work)

    def checkpoint(self, *, truncate: bool = False) -> None:
        """Folds the write-ahead log into the file, on a connection of its own: for any thread.

        The writer waits at most for what was written meanwhile. With `truncate` the
        log is empty afterwards, unless somebody reads.
        """
        with contextlib.closing(_open(self.path)) as connection:
            connection.execute("PRAGMA busy_timeout = 200")
            for mode in ("PASSIVE", "TRUNCATE") if truncate else ("PASSIVE",):
                connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()

    def sizes(self) -> tuple[int, int]:
        """Bytes of the file and its write-ahead log, and bytes in it that are free."""
        wal = self.path.with_name(self.path.name + "-wal")
        size = sum(p.stat().st_size for p in (self.path, wal) if p.exists())
        free, page = (
            int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("freelist_count", "page_size")
        )
        return size, free * page

    def give_back(self, pages: int) -> int:
        """Moves at most `pages` pages to the end of the file and cuts them off.

        Returns how many free pages are left. Raises Fault as `transaction` does.
        """
        with self._writing():
            # A script, because `execute` would do one step of it, which is one page.
            self._connection.executescript(
                f"BEGIN IMMEDIATE; PRAGMA incremental_vacuum({pages}); COMMIT"
            )
        return int(self._connection.execute("PRAGMA freelist_count").fetchone()[0])


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
