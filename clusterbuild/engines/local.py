"""The engine for this machine: the same scripts, with no connection in between."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import signal
import stat
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path

from clusterbuild.engines import EngineError, Kind
from clusterbuild.engines.files import digest_of, local_trouble, pack
from clusterbuild.engines.host import INSTALL, ON_HOST, HostEngine
from clusterbuild.engines.runner import Completed, RunnerError

#: Longest line that a watcher may say.
LINE_LIMIT = 1 << 16
#: Bytes of error output that are kept.
ERROR_LIMIT = 1 << 16


class LocalRunner:
    """Runs commands as child processes, and links files instead of sending them."""

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float, limit: int = 1 << 20
    ) -> Completed:
        """See Runner.run."""
        process = await _spawn(argv)
        ended = False
        try:
            async with asyncio.timeout(timeout):
                out, err, _ = await asyncio.gather(
                    _read(process.stdout, limit, exact=True),
                    _read(process.stderr, ERROR_LIMIT, exact=False),
                    _feed(process.stdin, stdin),
                )
                status = await process.wait()
            ended = True
        except TimeoutError:
            why = f"it took more than {timeout:.0f} seconds"
            raise RunnerError(Kind.UNREACHABLE, why) from None
        finally:
            # Once it has ended, its group is left alone: where there is no setsid(1), a job
            # was started in it.
            if not ended:
                await _kill(process)
        return Completed(status if status >= 0 else 128 - status, out, err)

    async def lines(self, argv: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """See Runner.lines."""
        process = await _spawn(argv)
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                yield line.rstrip(b"\n")
            said = await _read(process.stderr, ERROR_LIMIT, exact=False)
            if await process.wait():
                raise RunnerError(Kind.UNREACHABLE, said.decode("utf-8", "replace").strip())
        except ValueError:
            raise RunnerError(Kind.BROKEN, "a line has no end") from None
        finally:
            await _kill(process)

    async def put(self, source: Path, target: str, sha256: str) -> None:
        """See Runner.put. The file is linked where it can be, as those here never change."""
        try:
            if await asyncio.to_thread(digest_of, source) != sha256:
                raise RunnerError(Kind.BROKEN, f"{source} is damaged: its SHA256 is not {sha256}")
            await asyncio.to_thread(_link, source, Path(target))
        except OSError as problem:
            raise local_trouble(problem) from None

    async def get(self, source: str, target: Path, size: int) -> None:
        """See Runner.get."""
        await asyncio.to_thread(_copy, source, target, size)

    async def close(self) -> None:
        """Nothing is held."""


def local_engine(
    base: Path, name: str = "local", shell: str = "sh", base_dir: str = ""
) -> HostEngine:
    """The engine for this machine, building below `base`, which is made if need be.

    `base` must be absolute, of letters, digits and ./+@,~_- only. `base_dir` as of HostEngine.
    """
    return HostEngine(name, LocalRunner(), str(base), shell, base_dir)


def clean_prefix_command(
    command: Sequence[str], *, base: Path, kind: str, prefix: str, pkgdb: str, kit: Path | None
) -> list[str]:
    """The words that run `command` with nothing but the kit in the prefix it sees.

    Puts the scripts below `base` first. `kind` is one of HostFacts.sandboxes. The exit status
    is that of the command, 125 if there is no clean prefix to be had. To end it, signal the
    process group. Raises EngineError.
    """
    version, packed = pack(ON_HOST)
    argv = ["sh", "-c", INSTALL, "install", str(base), version]
    done = subprocess.run(argv, input=packed, capture_output=True, check=False, timeout=60)
    if done.returncode:
        why = done.stderr.decode("utf-8", "replace").strip()
        raise EngineError("local", f"put the scripts into {base}", why, Kind.REFUSED)
    script = base / "on_host" / version / "clean-prefix"
    room = base / f"room.{secrets.token_hex(6)}"
    words = [kind, str(room), prefix, pkgdb or f"{prefix}/pkgdb", str(kit or "")]
    return ["sh", str(script), *words, *command]


async def _spawn(argv: Sequence[str]) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
            limit=LINE_LIMIT,
            start_new_session=True,
        )
    except OSError as problem:
        raise RunnerError(Kind.REFUSED, f"could not run {argv[0]}: {problem}") from None


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Ends a command, with whatever it has started that did not leave its process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    # Its pipes too, which asyncio leaves open as long as there is something unread in them.
    process._transport.close()  # type: ignore[attr-defined]


async def _feed(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    assert stream is not None
    with suppress(ConnectionError):
        stream.write(data)
        await stream.drain()
    stream.close()


async def _read(stream: asyncio.StreamReader | None, limit: int, *, exact: bool) -> bytes:
    """All there is to read; more than `limit` is an error if `exact`, else dropped."""
    assert stream is not None
    data = bytearray()
    while piece := await stream.read(1 << 16):
        if len(data) + len(piece) > limit:
            if exact:
                raise RunnerError(Kind.BROKEN, f"it said more than {limit} bytes")
            piece = piece[: limit - len(data)]
        data += piece
    return bytes(data)


def _link(source: Path, target: Path) -> None:
    """Makes `target` a link to `source`, or a copy where that cannot be. Raises OSError."""
    part = target.with_name(f".{target.name}.{os.getpid()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
    try:
        part.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, part)
    part.replace(target)


def _copy(source: str, target: Path, size: int) -> None:
    """Copies a plain file of exactly `size` bytes, whoever has put it there. RunnerError."""
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        absent = problem.errno in (errno.ENOENT, errno.ENOTDIR)
        kind = Kind.ABSENT if absent else Kind.BROKEN
        raise RunnerError(kind, f"{source}: {problem.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise RunnerError(Kind.BROKEN, f"{source} is no plain file of {size} bytes")
        with os.fdopen(descriptor, "rb", closefd=False) as file, target.open("wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
    except OSError as problem:
        raise local_trouble(problem) from None
    finally:
        os.close(descriptor)
