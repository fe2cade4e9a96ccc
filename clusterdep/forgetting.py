"""Forgetting: whole profiles, what the tree has no more, and what is too old to matter.

Much is deleted some rows at a time, so that nobody waits; what was begun is finished
after a restart. Files are not touched: those that nothing names any more are told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import Catalog
from clusterdep.feed import Feed
from clusterdep.ledger import Ledger
from clusterdep.store.database import Reader, Row

#: Rows that are deleted at a time.
STEP = 50
DAY = 86400.0
#: Attempts of each package that are kept however old: what counts against it is in them.
KEPT = 3
#: Files that are named in an answer.
MOST_FILES = 10_000
#: In this order: what refers to others goes before them.
_PARTS = ("forget_requirements", "forget_packages", "forget_pkgpaths", "forget_scan_attempts")


@dataclass(slots=True)
class Old:
    """What can be forgotten."""

    attempts: list[Row] = field(default_factory=list)
    artifacts: list[Row] = field(default_factory=list)


class Forgetting:
    """Deletes rows; each deed is an event."""

    def __init__(self, ledger: Ledger, feed: Feed) -> None:
        self.ledger = ledger
        self._feed = feed
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- profiles

    async def forget(self, request: pb.ForgetRequest) -> int:
        """A profile, or what is left of packages the tree has no more; returns how many packages.

        Raises Fault if something of the profile is leased.
        """
        name = self.ledger.catalog(request.profile).profile.name
        async with self._feed.lock(name):  # no delivery comes in between
            catalog = self.ledger.catalog(name)
            if not request.whole:
                return await self._forget_gone(catalog, request.dry_run)
            leased = self.ledger.store.row("leased", {"profile_id": catalog.profile.id})
            if leased is not None:
                raise Fault(
                    Kind.PRECONDITION,
                    f"something of profile {name} is leased ({leased['what']})",
                    "stop what works on it, and wait until its leases are over",
                )
            row = self.ledger.store.row("count_packages", (catalog.profile.id,))
            if not request.dry_run:
                self._strike(catalog)
        if not request.dry_run:
            task = asyncio.get_running_loop().create_task(self._finish(catalog.profile.id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.shield(task)
        return int(row[0]) if row else 0

    def _strike(self, catalog: Catalog) -> None:
        """From here on there is no such profile, whatever happens."""
        profile = catalog.profile
        with self.ledger.transaction():
            self.ledger.store.run("strike_profile", (profile.id,))
            self.ledger.event(profile.name, "forgotten", profile.name, "by order")
        del self.ledger.catalogs[profile.name]
        self._feed.forget(catalog)

    async def finish(self) -> None:
        """Deletes what is left of profiles whose forgetting was cut off."""
        for row in list(self.ledger.store.rows("stricken_profiles")):
            await self._finish(row["id"])

    async def _finish(self, profile_id: int) -> None:
        for part in _PARTS:
            await self._delete_all(part, profile_id)
        self._delete("forget_profile", (profile_id,))

    async def _forget_gone(self, catalog: Catalog, dry_run: bool) -> int:
        name, number = catalog.profile.name, catalog.profile.id
        if dry_run:
            row = self.ledger.store.row("count_gone", (number,))
            return int(row[0]) if row else 0
        total = await self._delete_all("forget_gone", number)
        if total:
            with self.ledger.transaction():
                cause = "the tree has them no more"
                self.ledger.event(name, "forgotten", name, cause, packages=total)
        return total

    async def _delete_all(self, query: str, profile_id: int) -> int:
        """Some rows at a time; returns how many there were."""
        total = 0
        while count := self._delete(query, (profile_id, STEP)):
            total += count
            await asyncio.sleep(0)
        return total

    def _delete(self, query: str, values: Sequence[int]) -> int:
        with self.ledger.store.transaction():
            return self.ledger.store.run(query, values)

    # ---- what is old

    async def prune(self, request: pb.PruneRequest) -> pb.PruneResponse:
        """Forgets old attempts and artifacts that were replaced; says which files those had."""
        if request.attempts_days < 0 or request.keep_attempts < 0:
            raise Fault(Kind.DATA, "attempts_days and keep_attempts are not negative")
        names = [self.ledger.catalog(request.profile).profile.name] if request.profile else None
        answer = pb.PruneResponse()
        for name in names or list(self.ledger.catalogs):
            if name not in self.ledger.catalogs:
                continue  # forgotten meanwhile
            old = await self._old(name, request)
            if request.dry_run:
                _tell(answer, old.attempts, old.artifacts)
            else:
                await self._prune_attempts(name, old.attempts, answer)
                await self._prune_artifacts(name, old.artifacts, answer)
        return answer

    async def _old(self, name: str, request: pb.PruneRequest) -> Old:
        """What can be forgotten of a profile, found in a thread."""
        profile_id = self.ledger.catalogs[name].profile.id
        keep = max(request.keep_attempts, KEPT)

        def find(reader: Reader) -> Old:
            old = Old()
            if request.attempts_days:
                before = self.ledger.clock() - request.attempts_days * DAY
                values = {"profile_id": profile_id, "before": before, "keep": keep}
                old.attempts = list(reader.rows("old_attempts", values))
            if request.artifacts:
                old.artifacts = list(reader.rows("old_artifacts", (profile_id,)))
            return old

        return await self.ledger.store.read(find)

    async def _prune_attempts(
        self, name: str, attempts: Sequence[Row], answer: pb.PruneResponse
    ) -> None:
        store = self.ledger.store
        for at in range(0, len(attempts), STEP):
            part = attempts[at : at + STEP]
            with self.ledger.transaction():
                store.run_many("forget_attempt", [(row["id"],) for row in part])
                logs = [row["log"] for row in part if row["log"]]
                self._event(name, {"attempts": len(part), "logs": logs})
            self._learn_again(name, {row["package_id"] for row in part})
            _tell(answer, part, ())
            await asyncio.sleep(0)

    def _learn_again(self, name: str, packages: set[int]) -> None:
        """Predictions are made of what is kept, in memory as after a restart."""
        catalog = self.ledger.catalogs.get(name)
        for number in packages if catalog is not None else ():
            package = catalog.index.get(number) if catalog is not None else None
            if catalog is not None and package is not None:
                rows = self.ledger.store.rows("seconds_of", (number,))
                catalog.learn_again(package, [float(row["seconds"]) for row in rows])

    async def _prune_artifacts(
        self, name: str, artifacts: Sequence[Row], answer: pb.PruneResponse
    ) -> None:
        store = self.ledger.store
        for at in range(0, len(artifacts), STEP):
            part = artifacts[at : at + STEP]
            with self.ledger.transaction():
                # One that became the newest again meanwhile is kept.
                gone = [row for row in part if store.run("forget_artifact", (row["id"],))]
                files = [row for row in gone if not store.row("artifact_named", (row["sha256"],))]
                digests = [row["sha256"] for row in files]
                self._event(name, {"artifacts": len(gone), "sha256": digests})
            _tell(answer, (), gone, files)
            await asyncio.sleep(0)

    def _event(self, name: str, detail: Mapping[str, object]) -> None:
        self.ledger.event(name, "pruned", name, "what is old is forgotten", **detail)


def _tell(
    answer: pb.PruneResponse,
    attempts: Sequence[Row],
    artifacts: Sequence[Row],
    files: Sequence[Row] | None = None,
) -> None:
    """Adds what was forgotten, or would be, to the answer."""
    answer.attempts += len(attempts)
    answer.artifacts += len(artifacts)
    answer.bytes += sum(row["size"] for row in artifacts if row["missing_at"] is None)
    logs = [row["log"] for row in attempts if row["log"]]
    answer.logs.extend(logs[: MOST_FILES - len(answer.logs)])
    digests = [row["sha256"] for row in (artifacts if files is None else files)]
    answer.sha256.extend(digests[: MOST_FILES - len(answer.sha256)])
