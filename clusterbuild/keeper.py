"""Keeps one host: probes it, follows what runs there, and comes back when it was lost."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from clusterbuild.core.hosts import Event, State
from clusterbuild.dispatcher import Dispatcher
from clusterbuild.engines import Engine, EngineError, Kind

log = logging.getLogger("clusterbuild.keeper")

#: How often a host that is well is probed again, for what changes of itself, seconds.
PROBE_SECONDS = 300.0
#: How often it is looked at whether something is due, seconds.
STEP_SECONDS = 1.0


class Keeper:
    """The task of one host. It never ends by itself."""

    def __init__(self, dispatcher: Dispatcher, engine: Engine) -> None:
        self._dispatcher = dispatcher
        self._engine = engine
        self._name = engine.name
        self._probe_at = 0.0
        self._answers = False  # to a probe; a host that does not has nothing to tell of its jobs

    async def run(self) -> None:
        """Probes and follows until it is cancelled."""
        while True:
            try:
                if await self._probe():
                    await self._follow()
                else:
                    await asyncio.sleep(STEP_SECONDS / 4)
            except Exception:
                log.exception("host %s: this should not have happened", self._name)
                self._missed("an error of the dispatcher; see its log")
                await asyncio.sleep(STEP_SECONDS)

    def probe_soon(self) -> None:
        """Probes the host again, well or not: what it is to offer may have changed."""
        self._probe_at = 0.0

    @property
    def _state(self) -> State:
        return self._dispatcher.hosts[self._name].state

    def _due(self) -> bool:
        """Whether it is time to probe."""
        now, due = self._dispatcher.monotonic(), self._dispatcher.hosts[self._name].due
        if due:
            return now >= due
        return self._state is State.UNKNOWN or now >= self._probe_at

    async def _probe(self) -> bool:
        """Probes the host if that is due; whether it can be followed."""
        if not self._due():
            return self._answers and self._state not in (State.LOST, State.UNKNOWN)
        dispatcher = self._dispatcher
        if self._state not in (State.READY, State.DRAINING):
            dispatcher.host_happen(self._name, Event.PROBE)
        self._probe_at = dispatcher.monotonic() + PROBE_SECONDS
        self._answers = False
        try:
            facts = await self._engine.probe()
        except EngineError as error:
            if error.kind in (Kind.UNREACHABLE, Kind.ABSENT):
                self._missed(error.why)
            else:
                dispatcher.host_happen(self._name, Event.UNFIT, error.why)
        else:
            self._answers = True
            dispatcher.probed(self._name, facts)
        return self._answers

    def _missed(self, why: str) -> None:
        if self._state not in (State.UNKNOWN, State.LOST):
            self._dispatcher.host_happen(self._name, Event.MISSED, why)

    async def _follow(self) -> None:
        """Looks at the host once and is told of changes, until the connection breaks."""
        watcher = asyncio.create_task(self._watch())
        try:
            while not watcher.done():
                await asyncio.wait({watcher}, timeout=STEP_SECONDS)
                if not watcher.done() and not await self._probe():
                    return
            await watcher
        except EngineError as error:
            self._missed(error.why)
            log.info("host %s: %s", self._name, error)
            await asyncio.sleep(STEP_SECONDS / 4)
        finally:
            watcher.cancel()
            with suppress(asyncio.CancelledError, EngineError):
                await watcher

    async def _watch(self) -> None:
        dispatcher = self._dispatcher
        expected = dispatcher.expected(self._name)
        states = await self._engine.look()
        for attempt in dispatcher.looked(self._name, expected, states):
            await self._sweep(attempt)
        async for state in self._engine.watch():
            dispatcher.seen(self._name, state)

    async def _sweep(self, attempt: str) -> None:
        """Ends and removes what nobody has leased to us."""
        log.info("host %s: attempt %s is nobody's, and is ended", self._name, attempt)
        try:
            await self._engine.clean(attempt)
        except EngineError as error:
            log.warning("%s", error)
