"""Records in: from a scan or a file, through resolving, into the database."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import key_line
from clusterdep.core import inputs, resolve, scanindex
from clusterdep.ledger import Ledger

log = logging.getLogger("clusterdep.feed")

LONGEST_ERROR = 64 * 1024
MOST_REFUSALS = 1000

_ALL_DEPENDS = re.compile(rb"^ALL_DEPENDS=(.*)$", re.MULTILINE)

Identity = tuple[str, str]  # pkgpath, variant


@dataclass(frozen=True, slots=True)
class Staged:
    """A record on its way into the database."""

    pkgname: str
    number: int
    skip_reason: str
    fail_reason: str
    weight: int
    digest: bytes
    text: bytes
    depends: tuple[bytes, ...]


@dataclass(slots=True)
class Scan:
    """What came of scanning one pkgpath."""

    error: str = ""
    inputs_digest: str = ""
    seconds: float = 0.0
    records: dict[str, Staged] = field(default_factory=dict)  # by variant


@dataclass(slots=True)
class Delivery:
    """Everything one call of PutRecords brings, before any of it is written."""

    header: pb.PutHeader
    scans: dict[str, Scan] = field(default_factory=dict)  # by pkgpath, in order
    refused: list[pb.Refusal] = field(default_factory=list)
    refused_count: int = 0
    end: pb.PutEnd | None = None
    _splitter: scanindex.Splitter = field(default_factory=scanindex.Splitter)

    def take(self, part: pb.PutRecordsRequest) -> None:
        """One message of the stream."""
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
        if scan.error:
            return
        before = self.refused_count
        splitter = scanindex.Splitter()
        self._records([*splitter.feed(scan.records), *splitter.finish()], pkgpath)
        if self.refused_count > before and not found.records:
            found.error = f"what make printed was refused: {self.refused[-1].why}"

    def _records(
        self, texts: Iterable[scanindex.Text | scanindex.Refusal], pkgpath: bytes | None
    ) -> None:
        for text in texts:
            record = text if isinstance(text, scanindex.Refusal) else scanindex.read(text, pkgpath)
            if isinstance(record, scanindex.Refusal):
                self._refuse(record.where, record.why)
                continue
            path, variant = record.pkgpath.decode(), b" ".join(record.variant).decode()
            scan = self.scans.setdefault(path, Scan())
            if variant in scan.records:
                where = f"{record.pkgname.decode()} ({path})"
                again = f"with {variant}" if variant else "without MULTI_VERSION"
                self._refuse(where, f"{path} has a record {again} already")
                continue
            scan.records[variant] = self._stage(record, len(scan.records))

    def _stage(self, record: scanindex.Record, number: int) -> Staged:
        text = record.brief
        return Staged(
            pkgname=record.pkgname.decode(),
            number=number,
            skip_reason=record.skip_reason.decode(errors="backslashreplace"),
            fail_reason=record.fail_reason.decode(errors="backslashreplace"),
            weight=record.weight,
            digest=inputs.record_digest(text),
            text=text,
            depends=record.depends,
        )

    def _refuse(self, where: str, why: str) -> None:
        self.refused_count += 1
        if len(self.refused) < MOST_REFUSALS:
            self.refused.append(pb.Refusal(where=where, why=why))


@dataclass(slots=True)
class Plan:
    """What has to be written, and in what order the tree has its pkgpaths."""

    positions: dict[str, int] = field(default_factory=dict)
    dropped_paths: list[int] = field(default_factory=list)
    put: list[tuple[int, str, Staged, bool]] = field(
        default_factory=list
    )  # id, pkgpath, record, dup
    dropped: list[int] = field(default_factory=list)
    duplicates: dict[int, bool] = field(default_factory=dict)  # whose mark changed
    requirements: dict[int, list[tuple[int, int, str, str, int | None, str]]] = field(
        default_factory=dict
    )
    added: int = 0
    changed: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """A record as the database has it."""

    pkgpath: str
    variant: str
    number: int
    pkgname: str
    digest: bytes
    text: bytes
    duplicate: bool


class Feed:
    """Puts deliveries into the database; one at a time for each profile."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._locks: dict[str, asyncio.Lock] = {}

    async def put_records(
        self, stream: AsyncIterator[pb.PutRecordsRequest]
    ) -> pb.PutRecordsResponse:
        """See Feed.PutRecords in the contract."""
        delivery: Delivery | None = None
        created = False
        async for part in stream:
            if delivery is None:
                created = self._open(part)
                delivery = Delivery(part.header)
            elif delivery.end is not None:
                raise Fault(Kind.DATA, "a message came after the end of the stream")
            else:
                delivery.take(part)
        if delivery is None or delivery.end is None:
            raise Fault(
                Kind.INTERRUPTED,
                "the stream ended before its last message; nothing was changed",
                "send it again",
            )
        lock = self._locks.setdefault(delivery.header.profile, asyncio.Lock())
        async with lock:
            answer = await self._apply(delivery)
        answer.created_profile = created
        return answer

    def _open(self, part: pb.PutRecordsRequest) -> bool:
        """Looks at the header; whether the profile was made."""
        if part.WhichOneof("part") != "header":
            raise Fault(Kind.DATA, "the first message of the stream is not the header")
        header = part.header
        if header.mode not in (pb.PutHeader.MODE_REPLACE, pb.PutHeader.MODE_MERGE):
            raise Fault(Kind.DATA, "header.mode is neither REPLACE nor MERGE")
        if header.profile in self.ledger.catalogs or not header.create:
            self.ledger.catalog(header.profile)
            return False
        self.ledger.create_profile(pb.Profile(name=header.profile))
        return True

    async def _apply(self, delivery: Delivery) -> pb.PutRecordsResponse:
        name = delivery.header.profile
        profile_id = self.ledger.catalog(name).profile.id
        ids = self._identities(profile_id, delivery)
        # Reads here, on the loop; the long part, which only computes, in a thread.
        standing = self._standing(profile_id)
        paths = {
            str(row["path"]): int(row["id"])
            for row in self.ledger.store.rows("pkgpaths", (profile_id,))
        }
        plan = await asyncio.to_thread(make_plan, delivery, ids, standing, paths)
        self._write(name, profile_id, delivery, plan)
        self.ledger.reload(name)
        return pb.PutRecordsResponse(
            records=sum(len(scan.records) for scan in delivery.scans.values()),
            pkgpaths=len(delivery.scans),
            added=plan.added,
            changed=plan.changed,
            removed=len(plan.dropped),
            refused=delivery.refused,
            refused_count=delivery.refused_count,
        )

    def _identities(self, profile_id: int, delivery: Delivery) -> dict[Identity, int]:
        store = self.ledger.store
        with store.transaction():
            store.run_many(
                "put_package",
                [
                    (profile_id, path, variant)
                    for path, scan in delivery.scans.items()
                    for variant in scan.records
                ],
            )
        return {
            (row["pkgpath"], row["variant"]): row["id"]
            for row in store.rows("package_ids", (profile_id,))
        }

    def _standing(self, profile_id: int) -> dict[int, Standing]:
        return {
            row["package_id"]: Standing(
                row["pkgpath"],
                row["variant"],
                row["number"],
                row["pkgname"],
                row["digest"],
                row["text"],
                bool(row["duplicate"]),
            )
            for row in self.ledger.store.rows("record_texts", (profile_id,))
        }

    def _write(self, name: str, profile_id: int, delivery: Delivery, plan: Plan) -> None:
        store = self.ledger.store
        now = self.ledger.clock()
        with self.ledger.transaction():
            store.run_many(
                "put_pkgpath",
                (
                    {
                        "profile_id": profile_id,
                        "path": path,
                        "position": plan.positions[path],
                        "scanned_at": now,
                        "seconds": scan.seconds,
                        "revision": delivery.header.revision,
                        "error": scan.error,
                        "inputs_digest": scan.inputs_digest,
                    }
                    for path, scan in delivery.scans.items()
                ),
            )
            for path, scan in delivery.scans.items():
                if scan.error:
                    self.ledger.event(name, "scan-failed", path, key_line(scan.error))
            path_ids = {r["path"]: r["id"] for r in store.rows("pkgpaths", (profile_id,))}
            store.run_many(
                "place_pkgpath",
                [(at, path_ids[path]) for path, at in plan.positions.items() if path in path_ids],
            )
            store.run_many("drop_record", [(package,) for package in plan.dropped])
            store.run_many("put_record", (_row(*item, path_ids) for item in plan.put))
            store.run_many("drop_pkgpath", [(path,) for path in plan.dropped_paths])
            store.run_many("mark_duplicate", [(d, p) for p, d in plan.duplicates.items()])
            touched = list(plan.requirements) + plan.dropped
            store.run_many("drop_requirements", [(package,) for package in touched])
            store.run_many(
                "put_requirement", (row for rows in plan.requirements.values() for row in rows)
            )
            complete = delivery.end is not None and delivery.end.complete
            if complete or delivery.header.revision:
                store.run("set_complete", (complete, delivery.header.revision, profile_id))
            self.ledger.event(
                name,
                "records",
                name,
                "scanned" if delivery.header.mode == pb.PutHeader.MODE_MERGE else "loaded",
                pkgpaths=len(delivery.scans),
                added=plan.added,
                changed=plan.changed,
                removed=len(plan.dropped),
                refused=delivery.refused_count,
                complete=complete,
                revision=delivery.header.revision,
            )


def _row(
    package: int, path: str, record: Staged, duplicate: bool, path_ids: dict[str, int]
) -> dict[str, object]:
    return {
        "package_id": package,
        "pkgpath_id": path_ids[path],
        "number": record.number,
        "pkgname": record.pkgname,
        "skip_reason": record.skip_reason,
        "fail_reason": record.fail_reason,
        "duplicate": duplicate,
        "weight": record.weight,
        "digest": record.digest,
        "text": record.text,
    }


def make_plan(
    delivery: Delivery,
    ids: dict[Identity, int],
    standing: dict[int, Standing],
    paths: dict[str, int],
) -> Plan:
    """What a delivery changes, given the records and pkgpaths (in scan order) there are."""
    plan = Plan()
    _place(plan, delivery, paths)
    incoming = {
        ids[path, variant]: (path, record)
        for path, scan in delivery.scans.items()
        for variant, record in scan.records.items()
    }
    gone = _gone(plan, delivery, standing, set(incoming))
    before = _resolver(
        standing,
        {
            s.pkgpath: plan.positions.get(s.pkgpath, paths.get(s.pkgpath, 0))
            for s in standing.values()
        },
    )
    changed = {
        package
        for package, (_, record) in incoming.items()
        if (old := standing.get(package)) is None
        or (old.text, old.number) != (record.text, record.number)
    }
    touched = before.apply(
        [
            resolve.Package(
                package,
                (plan.positions[incoming[package][0]], incoming[package][1].number),
                incoming[package][1].pkgname.encode(),
                incoming[package][1].depends,
            )
            for package in changed
        ],
        gone,
    )
    plan.dropped = sorted(gone)
    plan.added = sum(package not in standing for package in changed)
    plan.changed = len(changed) - plan.added
    doubles = {key for key, _ in before.duplicates()}
    for package in sorted(changed):
        path, record = incoming[package]
        plan.put.append((package, path, record, package in doubles))
    for package, old in standing.items():
        if package not in gone and package not in changed and old.duplicate != (package in doubles):
            plan.duplicates[package] = package in doubles
    texts = _Texts()
    for package in (touched | changed) - gone:
        plan.requirements[package] = list(_requirements(before, package, texts))
    return plan


def _place(plan: Plan, delivery: Delivery, paths: dict[str, int]) -> None:
    """Positions: the enumeration's, if there is one; else known ones stay and new ones follow."""
    assert delivery.end is not None
    enumeration = list(delivery.end.enumeration)
    replace = delivery.header.mode == pb.PutHeader.MODE_REPLACE
    order = enumeration or ([] if replace else list(paths))
    known = dict.fromkeys(order)
    known.update(dict.fromkeys(delivery.scans))
    plan.positions = {path: at for at, path in enumerate(known)}
    plan.dropped_paths = (
        [number for path, number in paths.items() if path not in plan.positions]
        if replace or enumeration
        else []
    )


def _gone(
    plan: Plan, delivery: Delivery, standing: dict[int, Standing], incoming: set[int]
) -> set[int]:
    """Packages whose record is no more: not in the new scan of their pkgpath, or path dropped."""
    return {
        package
        for package, old in standing.items()
        if package not in incoming
        and (
            old.pkgpath not in plan.positions
            or (old.pkgpath in delivery.scans and not delivery.scans[old.pkgpath].error)
        )
    }


def _resolver(standing: dict[int, Standing], positions: dict[str, int]) -> resolve.Resolver:
    return resolve.Resolver(
        resolve.Package(
            package,
            (positions[old.pkgpath], old.number),
            old.pkgname.encode(),
            _tokens(old.text),
        )
        for package, old in standing.items()
    )


def _tokens(text: bytes) -> tuple[bytes, ...]:
    """The dependency tokens of a stored record."""
    found = _ALL_DEPENDS.search(text)
    return tuple(found[1].split()) if found else ()


class _Texts:
    """Pattern and location of dependency tokens as the database has them, each made once."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[bytes, str, str]] = {}

    def of(self, token: bytes) -> tuple[bytes, str, str]:
        """(pattern, pattern as text, location as text)."""
        known = self._known.get(token)
        if known is None:
            parsed = resolve.parse_token(token)
            known = self._known[token] = (
                parsed.pattern,
                (parsed.pattern or token).decode(errors="backslashreplace"),
                parsed.pkgpath.decode(errors="backslashreplace"),
            )
        return known


def _requirements(
    resolver: resolve.Resolver, package: int, texts: _Texts
) -> Iterable[tuple[int, int, str, str, int | None, str]]:
    """Rows of the table requirement: one for each distinct dependency token of the package."""
    resolution = resolver.resolution(package)
    if resolution is None:
        return
    problems = {problem.subject: problem for problem in resolution.problems}
    tokens = resolver.package(package).depends
    choices = dict(zip(reversed(tokens), reversed(resolution.choices), strict=True))
    for position, token in enumerate(dict.fromkeys(tokens)):
        pattern, text, location = texts.of(token)
        required = choices[token]
        problem = None if required is not None else problems.get(pattern) or problems.get(token)
        yield package, position, text, location, required, "" if not problem else str(problem)
