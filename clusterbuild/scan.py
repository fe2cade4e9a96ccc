"""Runs the scan helper of clusterdep with the prefix that builds see: nothing but the kit in it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from clusterbuild.calls import Calls
from clusterbuild.engines import EngineError
from clusterbuild.engines.local import clean_prefix_command, local_engine
from clusterbuild.kit import Kit
from clusterbuild.progress import printable
from clusterbuild.snapshots import Snapshot
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
    snapshot: Snapshot
    jobs: int = 0  # 0: as many as the helper thinks right
    moved: bool = False  # the tree is another than the last time
    alone: bool = True  # jobs run on this machine, and nowhere else


async def scan(calls: Calls, what: Scan, pin: Callable[[], Awaitable[None]]) -> None:
    """Scans; raises Fault with what the helper said.

    `pin` is called before, when no job can begin any more that is not of what is scanned.
    """
    sandbox = await (_sandbox(calls) if what.alone else _own_sandbox(what.base))
    status, said = os.EX_OK, [""]
    async with _quiet(calls, what, sandbox):
        await pin()
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


async def _own_sandbox(base: Path) -> str:
    """The best sandbox this machine has, which is none of the hosts. Raises Fault."""
    try:
        facts = await local_engine(base).probe()
    except EngineError as error:
        raise Fault(FaultKind.UNAVAILABLE, str(error)) from error
    if not facts.sandboxes:
        raise Fault(FaultKind.UNAVAILABLE, "there is no clean prefix to be had on this machine")
    return facts.sandboxes[0]


@contextlib.asynccontextmanager
async def _quiet(calls: Calls, what: Scan, sandbox: str) -> AsyncIterator[None]:
    """While it lasts no job begins that would be built from another tree than was scanned.

    Without a sandbox none runs on this machine either: all use one prefix.
    """
    crowded = what.alone and sandbox == "none"
    if not what.moved and not crowded:
        yield
        return
    while await calls.stop(now=False) and crowded:  # noqa: ASYNC110  nobody tells us
        await asyncio.sleep(1.0)
    try:
        yield
    finally:
        await calls.resume()


async def _command(sandbox: str, what: Scan) -> list[str]:
    jobs = ("--jobs", str(what.jobs)) if what.jobs else ()
    revision = await asyncio.to_thread(_revision, what)
    words = program(
        "clusterdep", "scan", "--address", what.address, *jobs,
        "--tree", str(what.snapshot.path), "--revision", revision, what.profile, *what.words,
    )  # fmt: skip
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


def _revision(what: Scan) -> str:
    """Names all that a scan depends on: the tree, and the kit with its settings."""
    kit = hashlib.sha256(what.kit.path.read_bytes())
    kit.update("\n".join(os.uname()[2:]).encode())
    return f"snapshot:{what.snapshot.digest}+{kit.hexdigest()[:16]}"


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
