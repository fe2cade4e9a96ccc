"""What takes time in an attempt's life: each step is carried out here and says what came of it.

A step that can only wait (a host out of reach, a full disk here) tries again until the
dispatcher ends it, because its phase is overdue or something else happened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from clusterbuild.archive import Archive
from clusterbuild.attempt import Attempt
from clusterbuild.core.blame import Case, EngineTrouble, Flaw, FlawedFile, Gone, NotKept, Step
from clusterbuild.core.job import Event, Instruction
from clusterbuild.core.result import JobResult, Outcome, PackageFile
from clusterbuild.engines import Engine, EngineError, Kind
from clusterbuild.logs import ORDER, LogTree
from clusterbuild.messages import MissingRequirementError, Sandbox, spec_of
from clusterbuild.package_file import PackageFileError, valid_suffix
from clusterbuild.pauses import PASSING, pauses, when_there_is_room
from clusterbuild.repository import Expected
from clusterbuild.rules import Rules
from clusterbuild.trees import Trees
from clusterdep.api.errors import Fault

log = logging.getLogger("clusterbuild.steps")

#: What a step ends with: the event, and the case that says why if something failed.
Outcomes = tuple[Event, Case | None]

#: How long logs of a job that is given back may take to be saved, seconds.
SAVE_SECONDS = 30.0
#: Bytes of a log read at once, and kept of one stage where no limit is set.
PIECE = 1 << 20
LOG_LIMIT = 1 << 30


class Steps:
    """Carries out instructions for attempts, with the engine of their host."""

    def __init__(
        self,
        rules: Callable[[], Rules],
        engines: Mapping[str, Engine],
        archive: Archive,
        logs: LogTree,
        trees: Trees,
        *,
        troubled: Callable[[str], None],
    ) -> None:
        """`troubled` is told when the dispatcher itself cannot write."""
        self._rules = rules
        self._engines = engines
        self._archive = archive
        self._logs = logs
        self._trees = trees
        self._troubled = troubled
        self._sandboxes: dict[str, tuple[Sandbox, int]] = {}
        self._ways: dict[Instruction, Callable[[Attempt], Awaitable[Outcomes | None]]] = {
            Instruction.START: self._start,
            Instruction.FETCH: self._fetch,
            Instruction.STORE: self._store,
            Instruction.SAVE_LOGS: self._save_what_there_is,
            Instruction.END: self._end,
            Instruction.PUBLISH: self._publish,
            Instruction.DROP: self._drop,
            Instruction.CLEAN: self._clean,
        }

    def prepared(self, host: str, sandbox: Sandbox, slots: int) -> None:
        """A host was probed: what its jobs get from now on."""
        self._sandboxes[host] = (sandbox, slots)

    def sandbox_of(self, host: str) -> tuple[Sandbox, int]:
        """What the jobs of a host get, and how many slots it has."""
        return self._sandboxes[host]

    async def carry_out(self, instruction: Instruction, attempt: Attempt) -> Outcomes | None:
        """Does it; the event it ends with, None where nobody waits for one."""
        return await self._ways[instruction](attempt)

    def _engine(self, attempt: Attempt) -> Engine:
        """The engine of its host, which may have been taken out of the configuration."""
        engine = self._engines.get(attempt.host)
        if engine is None:
            raise EngineError(attempt.host, "reach it", "it is not configured", Kind.ABSENT)
        return engine

    # -- the way there --------------------------------------------------------

    async def _start(self, attempt: Attempt) -> Outcomes:
        profile = attempt.grant.profile.name
        sandbox, slots = self._sandboxes[attempt.host]
        try:
            snapshot = await self._trees.of(profile, Path(attempt.grant.profile.tree))
        except Fault as error:
            return Event.NOT_STARTED, EngineTrouble(Step.START, Kind.ABSENT.value, str(error))
        try:
            repository = await self._archive.repository(profile)
            rules = self._rules().of(attempt.host)
            spec = spec_of(
                attempt.grant, repository, rules, sandbox=sandbox, slots=slots, snapshot=snapshot
            )
            engine = self._engine(attempt)
            await when_there_is_room(lambda: engine.start(spec))
        except MissingRequirementError as error:
            await self._archive.missing(profile, [error.case.sha256])
            return Event.NOT_STARTED, error.case
        except EngineError as error:
            return Event.NOT_STARTED, EngineTrouble(Step.START, error.kind.value, str(error))
        except (OSError, Fault) as error:
            return Event.NOT_STARTED, NotKept(str(error))
        return Event.STARTED, None

    # -- the way back ---------------------------------------------------------

    async def _fetch(self, attempt: Attempt) -> Outcomes:
        engine = self._engine(attempt)
        async for _ in pauses():
            try:
                attempt.result = await engine.result(attempt.name)
                outcome, _ = await asyncio.gather(
                    self._fetch_package(engine, attempt, attempt.result),
                    self._save_logs(attempt, attempt.result),
                )
                return outcome
            except EngineError as error:
                if error.kind is Kind.FULL:
                    self._troubled(str(error))
                if error.kind not in PASSING:
                    return Event.NOT_FETCHED, _not_fetched(attempt, error)
            except (OSError, Fault) as error:
                self._troubled(str(error))
        raise AssertionError("pauses never end")

    async def _fetch_package(self, engine: Engine, attempt: Attempt, result: JobResult) -> Outcomes:
        package = result.package
        if result.outcome is not Outcome.BUILT or package is None:
            return Event.FETCHED_LOGS, result
        suffix = package.name.removeprefix(attempt.grant.pkgname)
        if suffix == package.name or not valid_suffix(suffix):
            text = f"its name is {package.name!r:.220}, and not {attempt.grant.pkgname}.tgz"
            return Event.FETCHED_LOGS, FlawedFile(Flaw.FOREIGN, text)
        repository = await self._archive.repository(attempt.grant.profile.name)
        target = repository.incoming(attempt.name)
        await engine.fetch(attempt.name, package.name, target, package.size, package.sha256)
        return Event.FETCHED, None

    async def _store(self, attempt: Attempt) -> Outcomes:
        repository = await self._archive.repository(attempt.grant.profile.name)
        expected = _expected(attempt)
        async for _ in pauses():
            try:
                attempt.kept = await asyncio.to_thread(
                    repository.keep, attempt.name, expected, attempt.package
                )
            except PackageFileError as error:
                return Event.NOT_STORED, FlawedFile(error.flaw, str(error))
            except FileNotFoundError as error:
                return Event.NOT_STORED, NotKept(f"{error.filename} has vanished")
            except OSError as error:
                self._troubled(f"{repository.root} cannot be written: {error.strerror}")
            else:
                return Event.STORED, None
        raise AssertionError("pauses never end")

    # -- logs -----------------------------------------------------------------

    async def _save_what_there_is(self, attempt: Attempt) -> None:
        """Logs of a job that is given back: nice to have, and not waited for long."""
        try:
            async with asyncio.timeout(SAVE_SECONDS):
                await self._save_logs(attempt, None)
        except (TimeoutError, EngineError, OSError) as error:
            log.info("logs of %s are not saved: %s", attempt.name, error)

    async def _save_logs(self, attempt: Attempt, result: JobResult | None) -> None:
        grant = attempt.grant
        directory = self._logs.directory(grant.profile.name, grant.pkgname, attempt.name)
        for stage in _logged_stages(attempt, result):
            await self._save_log(attempt, stage, directory)
        await asyncio.to_thread(self._logs.prune, directory.parent, self._rules().log_attempts)

    async def _save_log(self, attempt: Attempt, stage: str, directory: Path) -> None:
        engine = self._engine(attempt)
        limit = (self._rules().log_limit or LOG_LIMIT) + PIECE
        offset = 0
        while offset < limit:
            data = await engine.read_log(attempt.name, stage, offset, PIECE)
            if data:
                await asyncio.to_thread(self._logs.append, directory, stage, offset, data)
            offset += len(data)
            if len(data) < PIECE:
                return

    # -- the end --------------------------------------------------------------

    async def _end(self, attempt: Attempt) -> Outcomes:
        async for _ in pauses():
            try:
                await self._engine(attempt).end(attempt.name)
            except EngineError as error:
                if error.kind is not Kind.ABSENT:
                    log.warning("%s", error)
                    continue
            return Event.ENDED, None
        raise AssertionError("pauses never end")

    async def _publish(self, attempt: Attempt) -> None:
        if attempt.kept is not None:
            await self._archive.publish(attempt.grant.profile.name, attempt.kept)

    async def _drop(self, attempt: Attempt) -> None:
        repository = self._archive.opened().get(attempt.grant.profile.name)
        if repository is not None:
            await asyncio.to_thread(repository.discard, attempt.name)
            if attempt.kept is not None:
                await asyncio.to_thread(repository.drop, attempt.kept)

    async def _clean(self, attempt: Attempt) -> None:
        """What cannot be cleaned now is found when the host is looked at again."""
        repository = self._archive.opened().get(attempt.grant.profile.name)
        if repository is not None:
            await asyncio.to_thread(repository.discard, attempt.name)
        try:
            await self._engine(attempt).clean(attempt.name)
        except EngineError as error:
            log.info("%s", error)


def _logged_stages(attempt: Attempt, result: JobResult | None) -> list[str]:
    """The stages that may have a log: those that ran, and what came before them."""
    if result is None:
        return list(ORDER)
    ran = {time.stage for time in result.stages} | {result.stage, attempt.stage}
    if result.outcome is Outcome.UNABLE or not result.stages:
        ran.add("sandbox")
    return [stage for stage in ORDER if stage in ran]


def _expected(attempt: Attempt) -> Expected:
    package: PackageFile | None = attempt.result.package if attempt.result else None
    if package is None:
        raise AssertionError(f"{attempt.name} is stored without a package file")
    suffix = package.name.removeprefix(attempt.grant.pkgname)
    return Expected(attempt.grant.pkgname, package.sha256, package.size, suffix)


def _not_fetched(attempt: Attempt, error: EngineError) -> Case:
    if error.kind is Kind.ABSENT and attempt.result is None:
        return Gone()
    return EngineTrouble(Step.FETCH, error.kind.value, str(error))
