"""Whole copies of the database file: backups, and putting one back."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from clusterdep.api.errors import Fault, Kind
from clusterdep.store import faults

PARTIAL = ".partial"


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that can only read, for any one thread at a time. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def copy(source: Path, target: Path, *, replace: bool = False) -> int:
    """Copies the database at `source`, whole and as it is at one moment; returns its size, bytes.

    The daemon may write meanwhile. The copy is checked, synced, and only then called
    `target`. Raises Fault if that exists (unless `replace`), or can not be written.
    """
    if target.exists() and not replace:
        raise _exists(target)
    partial = target.with_name(target.name + PARTIAL)
    try:
        partial.unlink(missing_ok=True)
        # It has all that the original has: nobody else may read it.
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _copy(source, partial)
        sync(partial)
        if replace:
            partial.replace(target)
        else:
            _name(partial, target)
        sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise Fault(
            Kind.CANNOT_CREATE,
            f"the copy {target} cannot be written: {error}",
            "make its directory writable, with room for the whole database, or name another",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return target.stat().st_size


def _exists(target: Path) -> Fault:
    return Fault(Kind.EXISTS, f"{target} exists", "name a file that does not")


def _name(partial: Path, target: Path) -> None:
    """Gives the copy its name, unless somebody else took it meanwhile."""
    try:
        os.link(partial, target)
    except FileExistsError as error:
        raise _exists(target) from error
    except OSError:  # a file system without hard links
        if target.exists():
            raise _exists(target) from None
        partial.rename(target)


def _copy(source: Path, partial: Path) -> None:
    with (
        contextlib.closing(open_to_read(source)) as there,
        contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as here,
    ):
        # In one step, which lets go of the interpreter: a copy in steps begins again
        # whenever the daemon writes.
        there.backup(here)
        here.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
        verdict = here.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if verdict != "ok":
            raise faults.damaged(source, verdict)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a directory, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
