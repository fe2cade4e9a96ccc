"""Runs a program within bounds of time and output, and leaves nothing of it behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Bytes of standard error that are kept: the last ones.
MOST_SAID = 64 << 10
#: Seconds to wait for what was killed.
_GRACE = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may take."""

    seconds: float
    output: int  # bytes of standard output


@dataclass(frozen=True, slots=True)
class Ended:
    """How it went."""

    fault: str  # in one sentence; empty: it exited with 0
    out: bytes
    said: bytes  # the end of its standard error
    seconds: float  # wall time


async def run(
    words: Sequence[str], directory: Path, environment: Mapping[str, str], limits: Limits
) -> Ended:
    """Runs a program in a directory, in a session of its own; standard input is empty.

    Whatever is left of its process group when it exits, when a limit is passed, or
    when the caller is cancelled is killed. A directory that can not be entered is a
    fault; raises OSError if the program can not be started.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        transport, output = await loop.subprocess_exec(
            lambda: _Output(limits.output),
            *words,
            cwd=str(directory),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        if error.filename != str(directory):
            raise
        return Ended(f"{directory}: {error.strerror}", b"", b"", loop.time() - started)
    late = False
    try:
        async with asyncio.timeout(limits.seconds):
            await output.ended.wait()
    except TimeoutError:
        late = True
    finally:
        await _end(transport, output)
    if late:
        fault = f"it was ended because it took longer than {limits.seconds:g} s"
    elif output.excess:
        fault = f"it was ended because it printed more than {limits.output} bytes"
    else:
        fault = _exit_fault(transport.get_returncode())
    return Ended(fault, bytes(output.out), bytes(output.said[-MOST_SAID:]), loop.time() - started)


class _Output(asyncio.SubprocessProtocol):
    """Collects what a program prints."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.out = bytearray()
        self.said = bytearray()
        self.excess = False
        self.ended = asyncio.Event()  # it exited, or it should be ended
        self.closed = asyncio.Event()  # and nobody has its pipes open any more

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd != 1:
            self.said += data
            if len(self.said) > 2 * MOST_SAID:
                del self.said[:-MOST_SAID]
        elif len(self.out) + len(data) <= self._most:
            self.out += data
        else:
            self.excess = True
            self.ended.set()

    def process_exited(self) -> None:
        self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


async def _end(transport: asyncio.SubprocessTransport, output: _Output) -> None:
    """Kills what is left of the process group, and reads what is left in the pipes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(transport.get_pid(), signal.SIGKILL)
    with contextlib.suppress(TimeoutError):  # one that left the group may hold the pipes
        async with asyncio.timeout(_GRACE):
            await output.closed.wait()
    transport.close()


def _exit_fault(status: int | None) -> str:
    if status is None:
        return "it could not be ended"
    if status < 0:
        return f"it was killed by signal {-status} ({signal.strsignal(-status)})"
    return f"it exited with status {status}" if status else ""
