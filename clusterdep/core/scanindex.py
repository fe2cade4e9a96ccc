"""Scan records: the text that `bmake pbulk-index` prints, read and written as bytes.

A record begins at a `PKGNAME=` at the start of a line and ends where the next
one begins; make prints nothing between them. Lines are `KEY=value`. Lines that
are not, and keys that nobody knows, are kept and mean nothing. Where a key
stands twice in a record the first counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

#: Bounds: longer records and names are refused. The longest of pkgsrc have 18.7 kB and 68 bytes;
#: a name becomes a file name.
LONGEST_RECORD = 1 << 20
LONGEST_NAME = 200

DEFAULT_WEIGHT = 100

_START = b"PKGNAME="
_MARK = b"\n" + _START


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record, or what should have been one, that was not taken."""

    where: str  # "record 17 (devel/foo)"
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


class Text(NamedTuple):
    """The text of one record, not looked into, and where it stands."""

    number: int  # of the record, from 1
    start: int  # bytes before it
    raw: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """What the scan said about one package. Values are stripped of surrounding blanks."""

    pkgname: bytes
    pkgpath: bytes
    depends: tuple[bytes, ...]  # the words of ALL_DEPENDS, "pattern:../../category/package"
    skip_reason: bytes
    fail_reason: bytes
    make_variables: tuple[bytes, ...]  # the words of MULTI_VERSION, in its order
    variant: tuple[bytes, ...]  # the same, sorted: what tells variants of one pkgpath apart
    bootstrap: bool
    usergroup_phase: bytes
    use_destdir: bytes
    no_bin_on_ftp: bytes
    restricted: bytes
    categories: tuple[bytes, ...]
    maintainer: bytes
    weight: int
    make_jobs_safe: bool
    resolved: tuple[bytes, ...] | None  # the words of DEPENDS, if there is such a line
    raw: bytes  # the whole text, PKG_LOCATION in it

    @property
    def scan_depends(self) -> bytes:
        """The value of SCAN_DEPENDS: the makefiles that were read, separated by blanks."""
        start, end = _line(self.raw, b"SCAN_DEPENDS")
        return self.raw[start:end].removeprefix(b"SCAN_DEPENDS=").strip()

    @property
    def brief(self) -> bytes:
        """The text without the SCAN_DEPENDS line, which is most of it."""
        start, end = _line(self.raw, b"SCAN_DEPENDS")
        return self.raw[:start] + self.raw[end:]


def _line(raw: bytes, key: bytes) -> tuple[int, int]:
    """Where the first line with that key begins and the next one does; (0, 0) if it has none."""
    start = raw.find(b"\n" + key + b"=") + 1
    return (start, raw.find(b"\n", start) + 1 or len(raw)) if start else (0, 0)


# --- cutting a stream into records ----------------------------------------------------------


class Splitter:
    """Cuts text that comes in pieces of any length into the texts of records.

    It never holds more than one record and the piece it was fed, however long a
    record is. What it says does not depend on where the text was cut.
    """

    def __init__(self) -> None:
        self._rest = bytearray(b"\n")  # so that a mark is found at the very beginning, too
        self._searched = 0  # up to here there is no mark in it
        self._number = 0  # of the record that it belongs to; 0: before the first one
        self._offset = -1  # of `_rest` in the text, without the line end above
        self._strayed = False  # there is text before the first record
        self._refused = False  # the record it belongs to is too long, and that was said

    def feed(self, piece: bytes) -> list[Text | Refusal]:
        """The records that `piece` completes, in order."""
        self._rest += piece
        found: list[Text | Refusal] = []
        start = 0
        at = self._rest.find(_MARK, self._searched)
        while at >= 0:
            found += self._take(start, at + 1)
            self._number += 1
            self._refused = False
            start = at + 1
            at = self._rest.find(_MARK, start)
        del self._rest[:start]
        excess = len(self._rest) - len(_MARK)
        if excess > LONGEST_RECORD:
            found += self._take(0, excess)
            self._refused = True
            del self._rest[:excess]
        self._searched = max(0, len(self._rest) - len(_MARK) + 1)
        return found

    def finish(self) -> list[Text | Refusal]:
        """The last record, when there is no more text to come."""
        found = self._take(0, len(self._rest))
        if self._number == 0 and self._strayed:
            return [Refusal("line 1", "there is no record: no line begins with PKGNAME=")]
        match found:
            case [Text() as text] if not text.raw.endswith(b"\n"):
                return [Refusal(_where(text), "its last line has no end: the record was cut off")]
        return found

    def _take(self, start: int, end: int) -> list[Text | Refusal]:
        """What came before a mark, before the end, or is too much to be held."""
        with memoryview(self._rest) as view:
            text = Text(self._number, self._offset, bytes(view[start:end]))
        self._offset += end - start
        if not text.number:
            self._strayed = self._strayed or bool(text.raw.strip())
        if not text.number or self._refused:
            return []
        if len(text.raw) > LONGEST_RECORD:
            return [Refusal(_where(text), f"it is longer than {LONGEST_RECORD} bytes")]
        return [text]


def split(pieces: Iterable[bytes]) -> Iterator[Text | Refusal]:
    """The texts of all records in `pieces`, which together are the whole of it."""
    splitter = Splitter()
    for piece in pieces:
        yield from splitter.feed(piece)
    yield from splitter.finish()


# --- reading a record -----------------------------------------------------------------------

_NAME = re.compile(rb"[!-.0-~]+")
_PKGPATH = re.compile(rb"(?!\.{1,2}/)[\w.+][\w.+-]*/(?!\.{1,2}$)[\w.+][\w.+-]*", re.ASCII)
_ASSIGNMENT = re.compile(rb"[A-Za-z_][\w.-]*=[!-~]*", re.ASCII)
_WEIGHT = re.compile(rb"-?[0-9]{1,9}")


def is_pkgpath(text: bytes) -> bool:
    """Whether `text` is `category/package`, with nothing in it that leads elsewhere."""
    return len(text) <= LONGEST_NAME and _PKGPATH.fullmatch(text) is not None


#: The values of a record that was found to be in order, by key.
Fields = dict[bytes, bytes]


def check(text: Text, pkgpath: bytes | None = None) -> Fields | Refusal:
    """The values of the record in `text`, with blanks around them, if nothing is wrong with it.

    `pkgpath` is the directory it was scanned in: PKG_LOCATION must be the same or missing.
    """
    fields: Fields = {}
    for line in reversed(text.raw.split(b"\n")):
        key, equals, value = line.partition(b"=")
        if equals:
            fields[key] = value
    why = _fault(text, fields, pkgpath)
    return Refusal(_where(text, pkgpath), why) if why else fields


def read(text: Text, pkgpath: bytes | None = None) -> Record | Refusal:
    """The record in `text`, if nothing is wrong with it; see `check`.

    A missing PKG_LOCATION is put into `raw` as the second line, where pbulk has it.
    """
    fields = check(text, pkgpath)
    if isinstance(fields, Refusal):
        return fields
    raw = text.raw
    if b"PKG_LOCATION" not in fields and pkgpath is not None:
        fields[b"PKG_LOCATION"] = pkgpath
        raw = raw.replace(b"\n", b"\nPKG_LOCATION=" + pkgpath + b"\n", 1)
    return _record(fields, raw)


def _record(fields: Fields, raw: bytes) -> Record:
    def value(key: bytes) -> bytes:
        return fields.get(key, b"").strip()

    words = tuple(value(b"MULTI_VERSION").split())
    weight = value(b"PBULK_WEIGHT")
    return Record(
        pkgname=fields[b"PKGNAME"],
        pkgpath=fields[b"PKG_LOCATION"],
        depends=tuple(fields[b"ALL_DEPENDS"].split()),
        skip_reason=value(b"PKG_SKIP_REASON"),
        fail_reason=value(b"PKG_FAIL_REASON"),
        make_variables=words,
        variant=tuple(sorted(words)),
        bootstrap=value(b"BOOTSTRAP_PKG") == b"yes",
        usergroup_phase=value(b"USERGROUP_PHASE"),
        use_destdir=value(b"USE_DESTDIR"),
        no_bin_on_ftp=value(b"NO_BIN_ON_FTP"),
        restricted=value(b"RESTRICTED"),
        categories=tuple(value(b"CATEGORIES").split()),
        maintainer=value(b"MAINTAINER"),
        weight=int(weight) if _WEIGHT.fullmatch(weight) else DEFAULT_WEIGHT,
        make_jobs_safe=value(b"MAKE_JOBS_SAFE") != b"no",
        resolved=tuple(fields[b"DEPENDS"].split()) if b"DEPENDS" in fields else None,
        raw=raw,
    )


def _fault(text: Text, fields: Fields, pkgpath: bytes | None) -> str:
    """What is wrong with a record, or nothing."""
    location = fields.get(b"PKG_LOCATION", pkgpath)
    if b"\0" in text.raw:
        return "there is a NUL byte in it"
    why = _name_fault(fields[b"PKGNAME"])
    if why:
        return why
    if location is None:
        return "it has no PKG_LOCATION line, so nobody knows which directory it is from"
    if not is_pkgpath(location):
        return f"PKG_LOCATION {_shown(location)} is not of the form category/package"
    if pkgpath is not None and location != pkgpath:
        return f"PKG_LOCATION is {_shown(location)}, but it was scanned in {_shown(pkgpath)}"
    if b"ALL_DEPENDS" not in fields:
        return "it has no ALL_DEPENDS line"
    for word in fields.get(b"MULTI_VERSION", b"").split():
        if not _ASSIGNMENT.fullmatch(word):
            return f"MULTI_VERSION has {_shown(word)}, which is not of the form VARIABLE=value"
    return ""


def _name_fault(name: bytes) -> str:
    if not name:
        return "PKGNAME is empty"
    if len(name) > LONGEST_NAME:
        return f"PKGNAME has {len(name)} bytes, more than the {LONGEST_NAME} allowed"
    if len(name) < 4:
        return f"PKGNAME {_shown(name)} has less than 4 bytes"
    if not _NAME.fullmatch(name):
        return f"PKGNAME {_shown(name)} has something else in it than printable ASCII, or a /"
    base, _, version = name.rpartition(b"-")
    if not base or not version:
        return f"PKGNAME {_shown(name)} is not of the form name-version"
    if base[:1] in b"-.":
        return f"PKGNAME {_shown(name)} begins with {_shown(base[:1])}"
    return ""


_HEAD = 4096
_SHOWN = re.compile(rb"^(PKGNAME|PKG_LOCATION)=(.*)$", re.MULTILINE)


def _where(text: Text, pkgpath: bytes | None = None) -> str:
    fields = dict(reversed(_SHOWN.findall(text.raw, 0, _HEAD)))
    subject = pkgpath or fields.get(b"PKG_LOCATION") or fields.get(b"PKGNAME")
    named = f"({_shown(subject)})" if subject else f"after {text.start} bytes"
    return f"record {text.number} {named}"


def _shown(text: bytes) -> str:
    return text[:100].decode(errors="backslashreplace")


# --- writing --------------------------------------------------------------------------------


def with_depends(raw: bytes, names: Iterable[bytes]) -> bytes:
    """The record with the names of what it requires in a DEPENDS line at its end, if any.

    It takes the place of a DEPENDS line that the record has already.
    """
    start, end = _line(raw, b"DEPENDS")
    depends = b" ".join(names)
    kept = raw[:start] + raw[end:] if end else raw
    return kept + b"DEPENDS=" + depends + b"\n" if depends else kept


def with_fail_reason(raw: bytes, reasons: Iterable[bytes]) -> bytes:
    """The record with `reasons` after its own fail reason, each in double quotes as make does.

    A reason that stands there already is not written twice.
    """
    start, end = _line(raw, b"PKG_FAIL_REASON")
    value = raw[start:end].removeprefix(b"PKG_FAIL_REASON=").strip()
    for reason in reasons:
        quoted = b'"' + reason + b'"'
        if quoted not in value:
            value += b" " * bool(value) + quoted
    line = b"PKG_FAIL_REASON=" + value + b"\n"
    return raw[:start] + line + raw[end:] if end else raw + line
