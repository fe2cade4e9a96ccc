"""Large files to and from a host by OpenSSH's own ssh as child processes.

They cost a fraction of the CPU that it takes in Python, and are not in the way of commands.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from clusterbuild.engines import Kind
from clusterbuild.engines.runner import Completed, RunnerError
from clusterbuild.ssh_config import Way

#: Exit status of ssh itself where the connection failed or broke.
BROKEN = 255
#: A transfer in which nothing moves for so long is given up, seconds.
STALL_SECONDS = 180.0
#: How often it is looked at how far it is, seconds.
STEP_SECONDS = 0.2
#: Bytes of error output that are kept.
ERROR_LIMIT = 1 << 16


class Bulk:
    """Transfers over one way, a few at once. Methods raise RunnerError."""

    def __init__(self, way: Way, at_once: int) -> None:
        self._way = way
        self._room = asyncio.Semaphore(at_once)

    async def send(self, argv: Sequence[str], source: Path, offset: int) -> Completed:
        """Runs a command there that reads the file `source` from `offset` on.

        Its standard output is dropped.
        """
        with source.open("rb", buffering=0) as file:
            file.seek(offset)
            # The child moves on in the same open file.
            return await self._run(argv, file.fileno(), asyncio.subprocess.DEVNULL, file.tell)

    async def receive(self, argv: Sequence[str], target: Path, most: int) -> Completed:
        """Runs a command there, and appends what it prints to `target`.

        BROKEN as soon as `target` has more than `most` bytes.
        """
        with target.open("ab", buffering=0) as file:

            def size() -> int:
                found = os.fstat(file.fileno()).st_size
                if found > most:
                    raise RunnerError(Kind.BROKEN, f"it sends more than {most} bytes")
                return found

            done = await self._run(argv, asyncio.subprocess.DEVNULL, file.fileno(), size)
            size()
            return done

    async def _run(
        self, argv: Sequence[str], stdin: int, stdout: int, progress: Callable[[], int]
    ) -> Completed:
        async with self._room:
            words = ["ssh", *self._way.options(), "--", self._way.address, shlex.join(argv)]
            try:
                process = await asyncio.create_subprocess_exec(
                    *words,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=asyncio.subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as problem:
                why = f"OpenSSH's ssh cannot be run here: {problem.strerror}"
                raise RunnerError(Kind.REFUSED, why) from None
            try:
                err = await _watched(process, progress)
            finally:
                _kill(process)
                await process.wait()
            if process.returncode == BROKEN or (process.returncode or 0) < 0:
                raise _trouble(err)
            return Completed(process.returncode or 0, b"", err)


async def _watched(process: asyncio.subprocess.Process, progress: Callable[[], int]) -> bytes:
    """What it says until its end; raises RunnerError when nothing moves any more."""
    loop = asyncio.get_running_loop()
    ended = asyncio.ensure_future(_said(process))
    at, since = progress(), loop.time()
    try:
        while not ended.done():
            await asyncio.wait({ended}, timeout=STEP_SECONDS)
            now = progress()
            if now != at:
                at, since = now, loop.time()
            elif loop.time() - since > STALL_SECONDS:
                why = f"nothing moved for {STALL_SECONDS:.0f} seconds"
                raise RunnerError(Kind.UNREACHABLE, why)
        return ended.result()
    finally:
        ended.cancel()


async def _said(process: asyncio.subprocess.Process) -> bytes:
    assert process.stderr is not None
    said = bytearray()
    while piece := await process.stderr.read(1 << 12):
        said += piece[: ERROR_LIMIT - len(said)]
    await process.wait()
    return bytes(said)


def _kill(process: asyncio.subprocess.Process) -> None:
    """Ends it, and the ssh that it may have started to jump over another host."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _trouble(err: bytes) -> RunnerError:
    text = err.decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip(" @\r")]
    why = lines[-1][:500] if lines else "ssh ended and said nothing"
    final = "Host key verification failed" in text or "Permission denied (" in text
    kind = Kind.REFUSED if final else Kind.UNREACHABLE
    return RunnerError(kind, f"the transfer broke: {''.join(c for c in why if c.isprintable())}")
