"""What one call of PutRecords brings, read before any of it is written."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from clusterdep import origins
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.core import inputs, scanindex
from clusterdep.core.files import Paths, Reads

LONGEST_ERROR = 64 * 1024
MOST_REFUSALS = 1000

Identity = tuple[str, str]  # pkgpath, variant


@dataclass(frozen=True, slots=True)
class Staged:
    """A record on its way into the database."""

    pkgname: str
    number: int  # in the scan of its pkgpath
    skip_reason: str
    fail_reason: str
    weight: int
    digest: bytes  # of what a build depends on
    text: bytes  # without SCAN_DEPENDS
    depends: tuple[bytes, ...]


@dataclass(slots=True)
class Scan:
    """What came of scanning one pkgpath."""

    error: str = ""
    inputs_digest: str = ""
    seconds: float = 0.0
    listing: bytes = b""  # the files behind the digest, packed; empty: unknown
    records: dict[str, Staged] = field(default_factory=dict)  # by variant
    reads: list[Reads] = field(default_factory=list)  # what each record read


@dataclass(slots=True)
class Delivery:
    """The messages of one call so far."""

    header: pb.PutHeader
    paths: Paths = field(default_factory=Paths)  # that scans read
    tree: str = ""  # where the tree is
    scans: dict[str, Scan] = field(default_factory=dict)  # by pkgpath, in order
    refused: list[pb.Refusal] = field(default_factory=list)
    refused_count: int = 0
    end: pb.PutEnd | None = None
    #: When the tree was looked at: what was found outdated since then, still is.
    began: float = math.inf
    _splitter: scanindex.Splitter = field(default_factory=scanindex.Splitter)
    _tokens: dict[bytes, bytes] = field(default_factory=dict)  # most stand in many records

    @property
    def replaces(self) -> bool:
        """Whether its records are all the profile has."""
        return self.header.mode == pb.PutHeader.MODE_REPLACE

    @property
    def count(self) -> int:
        """How many records it has."""
        return sum(len(scan.records) for scan in self.scans.values())

    def take(self, part: pb.PutRecordsRequest) -> None:
        """One message of the stream. Raises Fault where it can not be one."""
        if self.end is not None:
            raise Fault(Kind.DATA, "a message came after the end of the stream")
        kind = part.WhichOneof("part")
        if kind == "records":
            self._records(self._splitter.feed(part.records), None)
        elif kind == "scan":
            self._scan(part.scan)
        elif kind == "end":
            self._records(self._splitter.finish(), None)
            self.end = part.end
        else:
            raise Fault(Kind.DATA, "a second header, or an empty message, in the stream")

    def _scan(self, scan: pb.PutScan) -> None:
        pkgpath = scan.pkgpath.encode()
        if not scanindex.is_pkgpath(pkgpath):
            self._refuse(f"scan of '{scan.pkgpath}'", "it is not of the form category/package")
            return
        found = self.scans[scan.pkgpath] = Scan(
            scan.error[:LONGEST_ERROR], scan.inputs_digest, scan.seconds
        )
        if scan.inputs and not scan.error:
            files = {file.path: file.digest for file in scan.inputs}
            found.inputs_digest = scan.inputs_digest or inputs.files_digest(files)
            found.listing = origins.pack(inputs.write_listing(files))
        if scan.error:
            return
        splitter = scanindex.Splitter()
        unreadable = self._records([*splitter.feed(scan.records), *splitter.finish()], pkgpath)
        if unreadable:
            # A record that is left out would be missed by its dependents, and nobody could say why.
            found.error = f"make pbulk-index: {unreadable}"
            found.records.clear()
            found.reads.clear()

    def _records(
        self, texts: Iterable[scanindex.Text | scanindex.Refusal], pkgpath: bytes | None
    ) -> str:
        """Takes records in; why the first that can not be read can not."""
        unreadable = ""
        for text in texts:
            record = text if isinstance(text, scanindex.Refusal) else scanindex.read(text, pkgpath)
            if isinstance(record, scanindex.Refusal):
                self._refuse(record.where, record.why)
                unreadable = unreadable or str(record)
                continue
            path, variant = record.pkgpath.decode(), b" ".join(record.variant).decode()
            scan = self.scans.setdefault(path, Scan())
            if variant in scan.records:
                where = f"{record.pkgname.decode()} ({path})"
                again = f"with {variant}" if variant else "without MULTI_VERSION"
                self._refuse(where, f"{path} has a record {again} already")
                continue
            scan.records[variant] = self._stage(record, len(scan.records))
            scan.reads.append(self.paths.reads(path, record.scan_depends, self.tree))
        return unreadable

    def _stage(self, record: scanindex.Record, number: int) -> Staged:
        text = record.brief
        intern = self._tokens.setdefault
        return Staged(
            pkgname=record.pkgname.decode(),
            number=number,
            skip_reason=record.skip_reason.decode(errors="backslashreplace"),
            fail_reason=record.fail_reason.decode(errors="backslashreplace"),
            weight=record.weight,
            digest=inputs.record_digest(text),
            text=text,
            depends=tuple([intern(token, token) for token in record.depends]),
        )

    def _refuse(self, where: str, why: str) -> None:
        self.refused_count += 1
        if len(self.refused) < MOST_REFUSALS:
            self.refused.append(pb.Refusal(where=where, why=why))
