"""What was seen of a tree: values that all ways of seeing share, and how they are kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import zstandard

from clusterdep.core.changes import Kind

_FORMAT = "clusterdep-listing 1"


class TreeError(Exception):
    """It cannot be seen now what changed: the message says why, and how to mend it."""


class Mark(NamedTuple):
    """What tells whether a file is the same: its content, and what is known without reading it."""

    content: str  # a digest, or what it is instead of a file
    size: int = -1
    mtime_ns: int = 0
    inode: int = 0


@dataclass(frozen=True)
class Listing:
    """A tree at one moment: a revision, and marks of files, relative to it."""

    revision: str = ""
    marks: Mapping[str, Mark] = field(default_factory=dict)
    taken: float = 0.0  # seconds since 1970
    #: Files that differ from the revision, where a revision control system knows the others.
    dirty: Mapping[str, Mark] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """The tree now, and what changed since a listing."""

    listing: Listing
    changes: Mapping[str, Kind]
    remarks: tuple[str, ...] = ()  # what people should know of how it was found
    everything: bool = False  # it is not known what changed


class Tree(Protocol):
    """One way of seeing what changes in a directory."""

    def look(self, before: Listing | None) -> Seen:
        """What changed since `before`; None: look for the first time. Raises TreeError."""
        ...


def differences(before: Mapping[str, Mark], now: Mapping[str, Mark]) -> dict[str, Kind]:
    """The files whose content differs."""
    changes = {path: Kind.GONE for path in before.keys() - now.keys()}
    for path, mark in now.items():
        old = before.get(path)
        if old is None:
            changes[path] = Kind.NEW
        elif old is not mark and old.content != mark.content:
            changes[path] = Kind.CHANGED
    return changes


def summary(marks: Mapping[str, Mark]) -> str:
    """A short digest of marks."""
    digest = hashlib.sha256()
    for path in sorted(marks):
        digest.update(os.fsencode(f"{path}\0{marks[path].content}\0"))
    return digest.hexdigest()[:16]


def content(path: Path) -> str:
    """What a file holds: a digest; where a link leads; or that there is none."""
    try:
        if path.is_symlink():
            return f"-> {path.readlink()}".replace("\t", "\\t")
        if not path.is_file():
            return "no file"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError as error:
        return f"unreadable: {error.strerror}"


# --- kept in a file ---------------------------------------------------------------------------


def save(listing: Listing, path: Path) -> None:
    """Keeps a listing, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("wb") as file, zstandard.ZstdCompressor(3).stream_writer(file) as packed:
        head = f"{_FORMAT}\t{listing.revision}\t{listing.taken!r}\t{len(listing.marks)}\0"
        packed.write(head.encode(errors="surrogateescape"))
        for marks in (listing.marks, listing.dirty):
            packed.write(b"".join(_lines(marks)))
    fresh.replace(path)


def _lines(marks: Mapping[str, Mark]) -> Iterator[bytes]:
    for path, mark in marks.items():
        line = f"{mark.content}\t{mark.size}\t{mark.mtime_ns}\t{mark.inode}\t{path}\0"
        yield line.encode(errors="surrogateescape")


def load(path: Path) -> Listing | None:
    """The listing that was kept; None if there is none, or none that can be read."""
    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as packed:
            lines = packed.read().decode(errors="surrogateescape").split("\0")
        form, revision, taken, count = lines[0].split("\t")
        whole = int(count) + 1
        if form != _FORMAT or len(lines) < whole + 1 or lines[-1]:
            return None
        return Listing(
            revision, dict(_marks(lines[1:whole])), float(taken), dict(_marks(lines[whole:-1]))
        )
    except (OSError, ValueError, zstandard.ZstdError):
        return None


def _marks(lines: Iterable[str]) -> Iterator[tuple[str, Mark]]:
    for line in lines:
        content, size, mtime_ns, inode, path = line.split("\t", 4)
        yield path, Mark(content, int(size), int(mtime_ns), int(inode))
