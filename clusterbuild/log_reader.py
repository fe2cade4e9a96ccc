"""Reads the log of an attempt, running or over, as one text that may still grow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from clusterbuild.attempt import Attempt
from clusterbuild.core.job import Phase
from clusterbuild.core.result import STAGES
from clusterbuild.dispatcher import Dispatcher
from clusterbuild.engines import Engine, EngineError, Kind
from clusterbuild.logs import ORDER, LogTree
from clusterdep.api.errors import Fault
from clusterdep.api.errors import Kind as FaultKind

#: Bytes sent at once, and how often a growing log is read, seconds.
PIECE = 1 << 18
STEP = 0.3
#: Phases in which the host's own copy of the logs is the newest.
ON_HOST = frozenset({Phase.GRANTED, Phase.SENDING, Phase.BUILDING, Phase.LOST, Phase.FETCHING})


@dataclass(frozen=True)
class Source:
    """What is read: the attempt's name, where its logs are kept, and the stages wanted."""

    attempt: str
    directory: Path
    stages: tuple[str, ...]


class LogReader:
    """Reads from the host while a job is there, and from the kept logs after that."""

    def __init__(
        self, dispatcher: Dispatcher, engines: Mapping[str, Engine], logs: LogTree
    ) -> None:
        self._dispatcher = dispatcher
        self._engines = engines
        self._logs = logs

    async def find(self, what: str, stage: str) -> Source:
        """The log of an attempt or of the newest attempt of a pkgname; raises Fault."""
        if stage and stage not in ORDER:
            raise Fault(
                FaultKind.DATA, f"there is no stage '{stage}'", f"stages: {', '.join(STAGES)}"
            )
        stages = (stage,) if stage else ORDER
        running = self._running(what)
        if running is not None:
            grant = running.grant
            directory = self._logs.directory(grant.profile.name, grant.pkgname, running.name)
            return Source(running.name, directory, stages)
        directory_found = await asyncio.to_thread(self._logs.find, what)
        if directory_found is None:
            raise Fault(
                FaultKind.NOT_FOUND,
                f"there is no log of '{what}'",
                "name an attempt, or a package with its version; 'clusterbuild jobs' lists "
                "what runs",
            )
        if stage and stage not in self._logs.stages(directory_found):
            raise Fault(FaultKind.NOT_FOUND, f"'{what}' has no log of stage {stage}")
        return Source(directory_found.name, directory_found, stages)

    def _running(self, what: str) -> Attempt | None:
        attempts = self._dispatcher.attempts
        named = attempts.get(what)
        if named is not None:
            return named
        same = [attempt for attempt in attempts.values() if attempt.grant.pkgname == what]
        return max(same, key=lambda attempt: attempt.begun, default=None)

    async def read(
        self, source: Source, offset: int, follow: bool
    ) -> AsyncIterator[tuple[int, bytes]]:
        """Pieces of the log from `offset` on, each with its own offset.

        With `follow` it goes on until the attempt is over. Offsets count through all the
        stages wanted. Raises Fault.
        """
        place = 0  # where the stage begins
        for stage in source.stages:
            within = 0
            while True:
                over = not follow or self._is_past(source.attempt, stage)
                skip = max(0, offset - place - within)
                data = await self._piece(source, stage, within + skip)
                if data:
                    yield place + within + skip, data
                    within += skip + len(data)
                elif over:
                    break
                else:
                    await asyncio.sleep(STEP)
            place += within if within else await self._size(source, stage)

    def _is_past(self, name: str, stage: str) -> bool:
        """Whether the log of a stage grows no more."""
        attempt = self._dispatcher.attempts.get(name)
        if attempt is None or attempt.phase not in ON_HOST or attempt.phase is Phase.FETCHING:
            return True
        now = attempt.stage or ORDER[0]
        return now in ORDER and ORDER.index(stage) < ORDER.index(now)

    async def _piece(self, source: Source, stage: str, offset: int) -> bytes:
        attempt = self._dispatcher.attempts.get(source.attempt)
        if attempt is not None and attempt.phase in ON_HOST and attempt.host in self._engines:
            try:
                return await self._engines[attempt.host].read_log(
                    source.attempt, stage, offset, PIECE
                )
            except EngineError as error:
                if error.kind is not Kind.ABSENT:
                    raise Fault(FaultKind.UNAVAILABLE, str(error)) from error
        return await asyncio.to_thread(self._logs.read, source.directory, stage, offset, PIECE)

    async def _size(self, source: Source, stage: str) -> int:
        """The length of a stage's log of which nothing was read, because it was skipped."""
        size = 0
        while data := await self._piece(source, stage, size):
            size += len(data)
        return size
