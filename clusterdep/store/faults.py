"""What an error of SQLite means for a person."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from clusterdep.api.errors import Fault, Kind

#: Primary result codes (the low byte of an extended one) that mean: it cannot be written now.
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_READ_ONLY = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)

RESTORE = "restore a backup with 'clusterdep db restore FILE' while the daemon is stopped"


def code_of(error: sqlite3.Error) -> int:
    """The primary result code of an error; 0 if it has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def no_room(error: sqlite3.Error) -> bool:
    """Whether the file system refused to take what was written."""
    return code_of(error) in _NO_ROOM


def full(path: Path, text: str) -> Fault:
    """The file system takes no more."""
    return Fault(
        Kind.UNAVAILABLE,
        f"the database {path} cannot be written: {text}",
        "free some space on its file system; nothing that was acknowledged is lost",
    )


def damaged(path: Path, verdict: str) -> Fault:
    """The file is not what SQLite wrote."""
    return Fault(Kind.DATA, f"{path} is damaged: {verdict}", RESTORE)


def fault(error: sqlite3.Error, path: Path) -> Fault:
    """What an error of SQLite on the file at `path` means for a person."""
    text, code = str(error), code_of(error)
    if code in _NO_ROOM:
        return full(path, text)
    if code in _LOCKED:
        return Fault(
            Kind.UNAVAILABLE,
            f"the database {path} is locked by another program",
            "end the program that writes to it",
        )
    if code in _READ_ONLY:
        return Fault(
            Kind.CANNOT_CREATE,
            f"the database {path} cannot be written: {text}",
            "make it and its directory writable for this user",
        )
    if code in _DAMAGED:
        return Fault(Kind.DATA, f"{path} is damaged or no database: {text}", RESTORE)
    return Fault(Kind.INTERNAL, f"the database {path}: {text}")
