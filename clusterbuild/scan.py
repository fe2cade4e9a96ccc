"""Runs the scan helper of clusterdep with the prefix that builds see: nothing but the kit in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from clusterbuild.calls import Calls
from clusterbuild.engines import EngineError
from clusterbuild.engines.local import clean_prefix_command
from clusterbuild.kit import Kit
from clusterbuild.progress import printable
from clusterbuild.supervise import program
from clusterdep.api.errors import Fault
from clusterdep.api.errors import Kind as FaultKind

#: A scan that lost its daemon is tried so often.
TRIES = 3
#: Exit status of the wrapper if there is no clean prefix to be had.
NO_PREFIX = 125
#: How much of what a failed scan said people are shown, lines.
TAIL = 15
#: Longest line that is read whole, bytes.
LINE_LIMIT = 1 << 20


@dataclass(frozen=True)
class Scan:
    """What is scanned. `base` is a directory on this machine that the wrapper works in."""

    profile: str
    words: tuple[str, ...]  # pkgpaths, categories, patterns; none: all
    address: str  # of clusterdep
    kit: Kit
    base: Path
    log: Path
    jobs: int = 0  # 0: as many as the helper thinks right


async def scan(calls: Calls, what: Scan) -> None:
    """Scans; raises Fault with what the helper said."""
    sandbox = await _sandbox(calls)
    status, said = os.EX_OK, [""]
    async with _quiet_host(calls, sandbox):
        for _ in range(TRIES):
            status, said = await _once(sandbox, what)
            if status != os.EX_UNAVAILABLE:
                break
    if status == os.EX_OK:
        return
    tail = "\n".join(said[-TAIL:])
    away = status in (NO_PREFIX, os.EX_UNAVAILABLE)
    raise Fault(
        FaultKind.UNAVAILABLE if away else FaultKind.DATA,
        f"the tree could not be scanned (exit status {status}):\n{tail}",
        f"all that was said is in {what.log}",
    )


async def _sandbox(calls: Calls) -> str:
    """What sandbox this machine has; waits until it was probed. Raises Fault."""
    while True:
        for host in (await calls.status()).hosts:
            if host.state in ("ready", "draining"):
                return str(host.sandbox)
            if host.state == "refused":
                raise Fault(FaultKind.UNAVAILABLE, f"{host.name} cannot build: {host.reason}")
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def _quiet_host(calls: Calls, sandbox: str) -> AsyncIterator[None]:
    """Without a sandbox, builds and scans use one prefix, and must not do so at once."""
    if sandbox != "none":
        yield
        return
    while await calls.stop(now=False):  # noqa: ASYNC110  nobody tells us when they have ended
        await asyncio.sleep(1.0)
    try:
        yield
    finally:
        await calls.resume()


async def _command(sandbox: str, what: Scan) -> list[str]:
    jobs = ("--jobs", str(what.jobs)) if what.jobs else ()
    words = program(
        "clusterdep", "scan", "--address", what.address, *jobs, what.profile, *what.words
    )
    try:
        return await asyncio.to_thread(
            clean_prefix_command,
            words,
            base=what.base,
            kind=sandbox,
            prefix=what.kit.prefix,
            pkgdb=what.kit.pkgdb,
            kit=what.kit.path,
        )
    except EngineError as error:
        raise Fault(FaultKind.UNAVAILABLE, str(error)) from error


async def _once(sandbox: str, what: Scan) -> tuple[int, list[str]]:
    """Exit status and what was said on standard error, which is kept in the log, too."""
    process = await asyncio.create_subprocess_exec(
        *await _command(sandbox, what),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=LINE_LIMIT,
        start_new_session=True,
    )
    assert process.stderr is not None
    said: list[str] = []
    try:
        with what.log.open("wb") as log:
            while line := await process.stderr.readline():
                log.write(line)
                said.append(printable(line.decode(errors="backslashreplace").rstrip("\n")))
        return await process.wait(), said
    except ValueError as error:
        raise Fault(FaultKind.DATA, f"the scan helper said a line without end: {error}") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            await process.wait()
