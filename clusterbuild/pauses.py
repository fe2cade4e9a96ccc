"""Trying again what may work later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from clusterbuild.engines import EngineError, Kind

#: First and longest pause between two tries, seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 15.0
#: Troubles that may be over when it is tried again.
PASSING = frozenset({Kind.UNREACHABLE, Kind.FULL})
#: How long a start may wait for a slot on the host that should be free, seconds.
ROOM_SECONDS = 60.0


async def pauses() -> AsyncIterator[None]:
    """Begins at once, then again after pauses that grow."""
    pause = FIRST_PAUSE
    while True:
        yield
        await asyncio.sleep(pause)
        pause = min(LONGEST_PAUSE, pause * 2)


async def when_there_is_room(start: Callable[[], Awaitable[None]]) -> None:
    """Starts a job; what was left on the host by somebody else may hold a slot until it is
    cleaned. Raises EngineError."""
    give_up = asyncio.get_running_loop().time() + ROOM_SECONDS
    async for _ in pauses():
        try:
            await start()
            return
        except EngineError as error:
            late = asyncio.get_running_loop().time() > give_up
            if error.kind is not Kind.BUSY or late:
                raise
