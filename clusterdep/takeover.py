"""Takes over what another system built, or failed to build, of the very records there are."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field

from clusterdep import origins
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import Catalog
from clusterdep.core.graph import State
from clusterdep.facts import Artifact, runtime_patterns
from clusterdep.feed import Feed
from clusterdep.ledger import Ledger, in_steps
from clusterdep.results import flaw_of
from clusterdep.writing import batches

#: Artifacts that are recorded in one commit.
COMMIT = 80
MOST_REFUSALS = 1000
LONGEST_MESSAGE = 2000


@dataclass(slots=True)
class Claims:
    """The messages of one call, by the names of packages."""

    header: pb.TakeOverHeader
    artifacts: dict[str, pb.Artifact] = field(default_factory=dict)
    failures: dict[str, pb.TakenFailure] = field(default_factory=dict)
    ended: bool = False

    def take(self, part: pb.TakeOverRequest) -> None:
        """One message after the header. Raises Fault."""
        kind = part.WhichOneof("part")
        if self.ended or kind not in ("artifact", "failure", "end"):
            raise Fault(Kind.DATA, "a second header, an empty message, or one after the end")
        if kind == "artifact":
            self.artifacts[part.artifact.pkgname] = part.artifact
        elif kind == "failure":
            self.failures[part.failure.pkgname] = part.failure
        else:
            self.ended = True


class TakeOver:
    """Records claims of other systems; one call at a time for each profile."""

    def __init__(self, ledger: Ledger, feed: Feed) -> None:
        self.ledger = ledger
        self._feed = feed

    async def take(self, stream: AsyncIterator[pb.TakeOverRequest]) -> pb.TakeOverResponse:
        """See Feed.TakeOver in the contract."""
        claims: Claims | None = None
        async for part in stream:
            if claims is not None:
                claims.take(part)
            elif part.WhichOneof("part") == "header":
                claims = Claims(part.header)
                self.ledger.catalog(part.header.profile)
            else:
                raise Fault(Kind.DATA, "the first message of the stream is not the header")
        if claims is None or not claims.ended:
            raise Fault(
                Kind.INTERRUPTED,
                "the stream ended before its last message; nothing was recorded",
                "send it again",
            )
        name = self.ledger.catalog(claims.header.profile).profile.name
        async with self._feed.lock(name):
            return await self._record(self.ledger.catalog(name), claims)

    async def _record(self, catalog: Catalog, claims: Claims) -> pb.TakeOverResponse:
        answer = pb.TakeOverResponse()
        wanted: dict[int, pb.Artifact] = {}
        coming: dict[int, Artifact] = {}
        await in_steps(_claimed(catalog, claims.artifacts.values(), wanted, answer))
        catalog.settling = True  # nothing is granted that is about to be there
        try:
            await in_steps(self._keys(catalog, claims.header.dispatcher, wanted, coming))
            for some in batches(list(coming), COMMIT):
                self._write(catalog, {package: coming[package] for package in some}, wanted, coming)
                await asyncio.sleep(0)
                await in_steps(_noted(catalog, {package: coming[package] for package in some}))
                await asyncio.sleep(0)
            answer.artifacts = len(coming)
            self._fail(catalog, claims, answer)
        finally:
            catalog.settling = False
            self.ledger.changes.set()
        return answer

    def _keys(
        self,
        catalog: Catalog,
        dispatcher: str,
        wanted: dict[int, pb.Artifact],
        coming: dict[int, Artifact],
    ) -> Iterator[None]:
        """Makes artifacts of what is wanted: each key is made of those of its requirements."""
        order: list[int] = []
        yield from _requirements_first(catalog, wanted, order)
        now = self.ledger.clock()
        for package in order:
            key = catalog.key(package, coming)
            coming[package] = _artifact(wanted[package], key, now, dispatcher)
            yield

    def _write(
        self,
        catalog: Catalog,
        some: dict[int, Artifact],
        wanted: dict[int, pb.Artifact],
        coming: dict[int, Artifact],
    ) -> None:
        store = self.ledger.store
        rows = [
            {
                "package_id": catalog.entries[package].id,
                "attempt_id": None,
                "pkgname": artifact.pkgname,
                "sha256": artifact.sha256,
                "size": artifact.size,
                "suffix": artifact.suffix,
                "content_digest": artifact.content_digest,
                "input_key": artifact.input_key,
                "summary": wanted[package].summary,
                "built_at": artifact.built_at,
                "dispatcher": artifact.dispatcher,
            }
            | origins.current(store, catalog, package, coming).columns()
            for package, artifact in some.items()
        ]
        with self.ledger.transaction():
            store.run_many("add_artifact", rows)

    def _fail(self, catalog: Catalog, claims: Claims, answer: pb.TakeOverResponse) -> None:
        """Records failures, and the event of it all."""
        store, now, by = self.ledger.store, self.ledger.clock(), claims.header.by
        rows = []
        for package, failure in self._failures(catalog, claims, answer):
            entry = catalog.entries[package]
            key = catalog.key(package)
            row = {
                "attempt": _name_of(by, entry.id, key),
                "package_id": entry.id,
                "pkgname": entry.pkgname,
                "fence": entry.fence,
                "input_key": key,
                "dispatcher": by,
                "host": "",
                "granted_at": now,
                "ended_at": now,
                "outcome": "failed",
                "blame": "package",
                "stage": failure.stage,
                "message": failure.message[:LONGEST_MESSAGE] or f"it failed for {by}",
                "log": failure.log,
                "make_jobs": 0,
                "peak_memory": 0,
                "disk": 0,
            }
            if store.row("attempt", (row["attempt"],)) is None:
                rows.append((package, row))
            else:
                answer.known += 1
        answer.failures = len(rows)
        with self.ledger.transaction():
            for _, row in rows:
                store.run("add_attempt", row)
                store.run("end_attempt", row)
            name = catalog.profile.name
            counts = {"artifacts": answer.artifacts, "failures": answer.failures}
            self.ledger.event(name, "taken-over", name, f"from {by}", known=answer.known, **counts)
        for package, row in rows:
            catalog.note_attempt(package, row | {"id": row["attempt"]})
            catalog.graph.refresh(package)

    def _failures(
        self, catalog: Catalog, claims: Claims, answer: pb.TakeOverResponse
    ) -> Iterator[tuple[int, pb.TakenFailure]]:
        for pkgname, failure in claims.failures.items():
            package = _standing(catalog, pkgname)
            if package is None:
                _refuse(answer, pkgname, "no record of the profile has this name")
            elif catalog.graph.state[package] is State.BUILT:
                _refuse(answer, pkgname, "it is built")
            else:
                yield package, failure


def _standing(catalog: Catalog, pkgname: str) -> int | None:
    """The package of that name that stands, if there is one."""
    found = (p for p in catalog.by_name.get(pkgname, ()) if not catalog.entries[p].duplicate)
    return next(found, None)


def _noted(catalog: Catalog, some: dict[int, Artifact]) -> Iterator[None]:
    """Artifacts that were recorded, into memory."""
    for package, artifact in some.items():
        if package in catalog.entries:
            catalog.note_artifact(package, artifact)
        yield


def _claimed(
    catalog: Catalog,
    artifacts: Iterable[pb.Artifact],
    wanted: dict[int, pb.Artifact],
    answer: pb.TakeOverResponse,
) -> Iterator[None]:
    """Finds the artifacts that are to be recorded, by package."""
    for artifact in artifacts:
        yield
        package, flaw = _standing(catalog, artifact.pkgname), flaw_of(artifact)
        known = None if package is None else catalog.artifacts.get(package)
        if flaw:
            _refuse(answer, artifact.pkgname, flaw)
        elif package is None:
            _refuse(answer, artifact.pkgname, "no record of the profile has this name")
        elif known is not None and known.sha256 == artifact.sha256:
            answer.known += 1
        elif catalog.graph.state[package] is State.BUILT:
            _refuse(answer, artifact.pkgname, "there is an artifact of it that is current")
        else:
            wanted[package] = artifact


def _refuse(answer: pb.TakeOverResponse, where: str, why: str) -> None:
    answer.refused_count += 1
    if len(answer.refused) < MOST_REFUSALS:
        answer.refused.add(where=where, why=why)


def _requirements_first(
    catalog: Catalog, packages: Iterable[int], order: list[int]
) -> Iterator[None]:
    """Orders packages, none before those of them that it requires; members of cycles come last."""
    among = set(packages)
    left: dict[int, int] = {}
    for package in among:
        left[package] = sum(other in among for other in catalog.graph.requires[package])
        yield
    order += sorted(package for package, count in left.items() if not count)
    for package in order:
        for dependent in catalog.graph.dependents[package]:
            if dependent in among:
                left[dependent] -= 1
                if not left[dependent]:
                    order.append(dependent)
        yield
    order += sorted(among - set(order))


def _artifact(claimed: pb.Artifact, key: str, now: float, dispatcher: str) -> Artifact:
    return Artifact(
        pkgname=claimed.pkgname,
        sha256=claimed.sha256,
        size=claimed.size,
        suffix=claimed.suffix or ".tgz",
        content_digest=claimed.content_digest or claimed.sha256,
        input_key=key,
        built_at=now,
        attempt="",
        runtime=runtime_patterns(claimed.summary),
        dispatcher=dispatcher,
    )


def _name_of(by: str, package_id: int, key: str) -> str:
    """The attempt of a failure: the same for the same, so that it is recorded once."""
    return hashlib.blake2b(f"{by} {package_id} {key}".encode(), digest_size=16).hexdigest()
