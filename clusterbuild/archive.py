"""The repositories of all profiles: opened when first needed, and compared with clusterdep."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from clusterbuild.repository import Known, Reconciled, Repository
from clusterdep.api.errors import Fault

log = logging.getLogger("clusterbuild.archive")

#: What clusterdep has recorded for a profile; raises Fault.
ListArtifacts = Callable[[str], Awaitable[list[Known]]]
#: Tells clusterdep which files of a profile (by sha256) are not here; raises Fault.
DeclareMissing = Callable[[str, list[str]], Awaitable[None]]

#: How long pkg_summary.gz may be behind All, and how long nothing must have changed, seconds.
SUMMARY_LATEST = 30.0
SUMMARY_QUIET = 2.0
#: How often all files are looked for, and how often all of them are read, seconds.
CHECK_SECONDS = 3600.0
READ_SECONDS = 7 * 86400.0
#: Below this the disk counts as full, bytes.
LEAST_FREE = 32 * 2**20


class Archive:
    """Repositories below `root`, one directory for each profile."""

    def __init__(self, root: Path, listed: ListArtifacts, declare: DeclareMissing) -> None:
        self.root = root
        self._listed = listed
        self._declare = declare
        self._open: dict[str, Repository] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._due: dict[str, tuple[float, float]] = {}  # first and last change, loop time
        self._unpublished: dict[str, tuple[str, Known]] = {}
        self._checks: dict[str, tuple[float, float]] = {}  # when to look for all, and to read all
        self._tasks: set[asyncio.Task[object]] = set()

    def opened(self) -> dict[str, Repository]:
        """Repositories that are open, by profile."""
        return dict(self._open)

    async def repository(self, profile: str) -> Repository:
        """The repository of a profile, reconciled. Raises OSError or Fault."""
        async with self._locks.setdefault(profile, asyncio.Lock()):
            if profile not in self._open:
                self._open[profile] = await self._reconciled(profile)
        return self._open[profile]

    async def _reconciled(self, profile: str) -> Repository:
        repository = Repository(self.root / profile)
        await asyncio.to_thread(repository.prepare)
        records = await self._listed(profile)
        found = await asyncio.to_thread(repository.reconcile, records)
        if found.missing:
            await self._declare(profile, list(found.missing))
        self._say(profile, found)
        if repository.summary_due:
            self._changed(profile)
        if not found.checked:
            self._begin(self._scrub(profile, repository, records))
        now = asyncio.get_running_loop().time()
        self._checks[profile] = (now + CHECK_SECONDS, now + READ_SECONDS)
        return repository

    def _say(self, profile: str, found: Reconciled) -> None:
        if found.missing or found.linked or found.unlinked or found.removed:
            log.info(
                "repository of %s reconciled: %d artifacts missing or damaged, %d links made, "
                "%d links and %d files removed",
                profile,
                len(found.missing),
                found.linked,
                found.unlinked,
                found.removed,
            )

    def _begin(self, work: Awaitable[object]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin_checks(self) -> None:
        now = asyncio.get_running_loop().time()
        for profile, (look_at, read_at) in list(self._checks.items()):
            if now < look_at:
                continue
            read = now >= read_at
            self._checks[profile] = (now + CHECK_SECONDS, now + READ_SECONDS if read else read_at)
            self._begin(self.check(profile, read))

    async def check(self, profile: str, read: bool = False) -> int:
        """Compares a repository with what is recorded, while everything goes on.

        Tells clusterdep what is gone, or of the wrong size, and with `read` what is damaged;
        makes visible what should be. Returns how many files were gone or damaged.
        """
        repository = self._open[profile]
        try:
            records = await self._listed(profile)
            gone = await asyncio.to_thread(repository.absent, records)
            for sha256 in gone:
                repository.forget(sha256)
            for known in await asyncio.to_thread(repository.unseen, records):
                await self.publish(profile, known)
        except (OSError, Fault) as error:
            log.warning("the repository of %s was not checked: %s", profile, error)
            return 0
        if gone:
            log.warning("%d files of the repository of %s are gone", len(gone), profile)
            self._changed(profile)
            await self.missing(profile, gone)
        bad = await self._scrub(profile, repository, records) if read else 0
        return len(gone) + bad

    async def _scrub(self, profile: str, repository: Repository, records: list[Known]) -> int:
        """Reads every file, one at a time: a disk may have spoilt some. Returns how many."""
        bad: list[str] = []
        for known in records:
            if not known.own:
                continue
            try:
                found = await asyncio.to_thread(repository.damaged, [known])
            except OSError as error:
                log.warning("the file of %s cannot be read: %s", known.pkgname, error)
                continue
            for sha256 in found:
                log.warning("the file of %s in the repository is damaged", known.pkgname)
                repository.forget(sha256)
                bad.append(sha256)
        if bad:
            self._changed(profile)
            await self.missing(profile, bad)
        return len(bad)

    async def missing(self, profile: str, sha256s: list[str]) -> None:
        """Tells clusterdep that files are gone; it may be away, then the next start finds them."""
        try:
            await self._declare(profile, sha256s)
        except Fault as fault:
            log.warning("clusterdep could not be told of missing artifacts: %s", fault)

    # -- publishing ---------------------------------------------------------

    async def publish(self, profile: str, known: Known) -> None:
        """Makes an accepted artifact visible; where that fails now, `settle` tries again."""
        repository = await self.repository(profile)
        try:
            await asyncio.to_thread(repository.publish, known)
        except FileNotFoundError:
            await self.missing(profile, [known.sha256])
        except OSError as error:
            log.error("%s cannot be published: %s", known.pkgname, error)
            self._unpublished[known.sha256] = (profile, known)
        else:
            self._unpublished.pop(known.sha256, None)
            self._changed(profile)

    def _changed(self, profile: str) -> None:
        now = asyncio.get_running_loop().time()
        first, _ = self._due.get(profile, (now, now))
        self._due[profile] = (first, now)

    async def settle(self, everything: bool = False) -> None:
        """Writes what summaries are due, or `everything` that is behind. Raises OSError.

        Begins the checks that are due, too.
        """
        if not everything:
            self._begin_checks()
        for profile, known in list(self._unpublished.values()):
            await self.publish(profile, known)
        now = asyncio.get_running_loop().time()
        for profile, (first, last) in list(self._due.items()):
            if everything or now - last >= SUMMARY_QUIET or now - first >= SUMMARY_LATEST:
                del self._due[profile]
                try:
                    await asyncio.to_thread(self._open[profile].write_summary)
                except OSError:
                    self._due[profile] = (first, last)
                    raise

    def trouble(self) -> str:
        """Why nothing can be kept now, if so: writes a little to find out."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.root).free
            with tempfile.TemporaryFile(dir=self.root) as file:
                file.write(b"\0" * 4096)
                file.flush()
        except OSError as error:
            return f"{self.root} cannot be written: {error.strerror}"
        if free < LEAST_FREE:
            return f"the disk of {self.root} is full: {free >> 20} MiB are free"
        return ""

    async def close(self) -> None:
        """Ends what goes on in the background and writes what is due."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self.settle(everything=True)
        except OSError as error:
            log.error("pkg_summary.gz cannot be written: %s", error)
