"""One connection to a host that is kept open: commands with a deadline, and streams of lines.

Fabric opens it; commands run on channels of its transport, because they take and give bytes.
What blocks runs in a few threads of the link's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import select
import shlex
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import paramiko

from clusterbuild.connect import Opened, open_connection
from clusterbuild.engines import Kind
from clusterbuild.engines.runner import Completed, RunnerError
from clusterbuild.ssh_config import Way, resolve

Answer = TypeVar("Answer")

#: Commands at once over one connection: sshd allows 10 sessions, and the watcher has one.
SESSIONS = 7
#: First and longest pause after a failed connection, in which none is tried, seconds.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
#: How long opening a session may take, seconds; a link that is gone is noticed before.
SESSION_SECONDS = 20.0
#: Longest line that is read whole, and bytes of error output that are kept.
LINE_LIMIT, ERROR_LIMIT = 1 << 16, 1 << 16
PIECE = 1 << 16
#: How often a command looks whether anybody still waits for it, seconds.
STEP_SECONDS = 1.0


class Link:
    """The way to one host. Methods raise RunnerError, and may run at the same time."""

    def __init__(self, way: Way, name: str) -> None:
        self._way = way
        self._opened: Opened | None = None
        self._opening = asyncio.Lock()
        self._sessions = asyncio.Semaphore(SESSIONS)
        self._threads = ThreadPoolExecutor(SESSIONS + 2, thread_name_prefix=f"ssh-{name}")
        self._failures = 0
        self._not_before = 0.0
        self._failure: RunnerError | None = None
        self._closed = False

    # -- the connection -----------------------------------------------------------

    async def _connected(self) -> Opened:
        """The connection, opened if need be; soon after a failure, the same failure."""
        async with self._opening:
            if self._closed:
                raise RunnerError(Kind.UNREACHABLE, "it was closed here")
            if self._opened is not None and self._opened.alive:
                return self._opened
            await self._drop(self._opened)
            if self._failure is not None and time.monotonic() < self._not_before:
                raise RunnerError(self._failure.kind, self._failure.why)
            try:
                self._opened = await self._in_thread(lambda: _open(self._way))
            except RunnerError as failure:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._failures)
                self._failures = min(self._failures + 1, 10)
                self._not_before = time.monotonic() + pause * random.uniform(0.5, 1.0)
                self._failure = failure
                raise
            self._failures, self._failure = 0, None
            return self._opened

    async def _drop(self, opened: Opened | None) -> None:
        """Closes a connection that is of no more use; others may have opened a new one."""
        if opened is not None:
            if self._opened is opened:
                self._opened = None
            await self._in_thread(opened.close)

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def close(self) -> None:
        """Closes the connection. What was started over it goes on if it is detached."""
        self._closed = True
        if self._opened is not None:
            await self._drop(self._opened)
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- commands -------------------------------------------------------------------

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float, limit: int = 1 << 20
    ) -> Completed:
        """See Runner.run."""
        deadline = time.monotonic() + timeout
        async with self._sessions:
            opened = await self._connected()
            command = _Command(opened.transport, shlex.join(argv), deadline)
            try:
                return await self._in_thread(lambda: command.run(stdin, limit))
            except RunnerError as error:
                if error.kind is Kind.UNREACHABLE and (command.overdue or not opened.alive):
                    await self._drop(opened)
                raise
            finally:
                command.unwanted = True

    async def lines(self, argv: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """See Runner.lines. Takes no thread while nothing is said."""
        opened = await self._connected()
        deadline = time.monotonic() + SESSION_SECONDS
        command = _Command(opened.transport, shlex.join(argv), deadline)
        loop = asyncio.get_running_loop()
        said = asyncio.Event()
        watched = -1
        try:
            channel = await self._in_thread(command.begin)
            watched = channel.fileno()
            loop.add_reader(watched, said.set)
            rest = b""
            while True:
                *whole, rest = (rest + _available(channel)).split(b"\n")
                for line in whole:
                    yield line
                if len(rest) > LINE_LIMIT:
                    raise RunnerError(Kind.BROKEN, "a line has no end")
                if not channel.recv_ready():
                    if channel.eof_received or channel.closed:
                        break
                    said.clear()
                    await said.wait()
            if rest:
                yield rest
            done = await self._in_thread(lambda: command.ended(b""))
            if done.status:
                why = done.err.decode("utf-8", "replace").strip()
                raise RunnerError(Kind.UNREACHABLE, why or f"status {done.status}")
        finally:
            command.unwanted = True
            if watched >= 0:
                loop.remove_reader(watched)
            if not self._closed:
                self._threads.submit(command.close)


def _open(way: Way) -> Opened:
    return open_connection(resolve(way), way.connect_timeout)


def _available(channel: paramiko.Channel) -> bytes:
    return channel.recv(PIECE) if channel.recv_ready() else b""


class _Command:
    """One command on a channel of its own, in one thread. Its methods block."""

    def __init__(self, transport: paramiko.Transport, text: str, deadline: float) -> None:
        self._transport = transport
        self._text = text
        self._deadline = deadline
        self._channel: paramiko.Channel | None = None
        self._err = bytearray()
        self.overdue = False
        self.unwanted = False  # set by whoever does not wait for it any more

    def _left(self) -> float:
        """Seconds until the deadline, or until it is looked again whether anybody still waits."""
        left = self._deadline - time.monotonic()
        if self.unwanted:
            raise RunnerError(Kind.UNREACHABLE, "nobody waits for it any more")
        if left <= 0:
            self.overdue = True
            raise RunnerError(Kind.UNREACHABLE, "it did not answer in time")
        return min(left, STEP_SECONDS)

    def begin(self) -> paramiko.Channel:
        """Starts it."""
        try:
            channel = self._session()
            channel.settimeout(SESSION_SECONDS)
            channel.exec_command(self._text)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self._broken(error) from None
        return channel

    def _session(self) -> paramiko.Channel:
        """A channel; where the server allows only few, as soon as one is free."""
        while True:
            try:
                self._channel = self._transport.open_session(timeout=SESSION_SECONDS)
                return self._channel
            except paramiko.ChannelException as error:
                if not self._transport.is_active():
                    raise
                self._busy(error)

    def _busy(self, error: paramiko.ChannelException) -> None:
        try:
            time.sleep(min(0.1, self._left()))
        except RunnerError:
            why = f"it opens no session: {error.text} (is MaxSessions of its sshd too low?)"
            raise RunnerError(Kind.UNREACHABLE, why) from None

    def run(self, stdin: bytes, limit: int) -> Completed:
        """Runs it to its end."""
        out = bytearray()
        try:
            channel = self.begin()
            poller = select.poll()
            poller.register(channel.fileno(), select.POLLIN)
            self._feed(channel, stdin, out, limit)
            while not (channel.eof_received or channel.closed):
                poller.poll(self._left() * 1000)
                self._read(channel, out, limit)
            self._read(channel, out, limit)
            return self.ended(out)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self._broken(error) from None
        finally:
            self.close()

    def _feed(self, channel: paramiko.Channel, stdin: bytes, out: bytearray, limit: int) -> None:
        sent = 0
        while sent < len(stdin):
            channel.settimeout(self._left())
            try:
                sent += channel.send(stdin[sent : sent + PIECE])
            except TimeoutError:
                continue
            except OSError:
                return  # it has ended, or does not read any more: what it says tells why
            self._read(channel, out, limit)
        channel.shutdown_write()

    def _read(self, channel: paramiko.Channel, out: bytearray, limit: int) -> None:
        while channel.recv_ready():
            out += channel.recv(PIECE)
            if len(out) > limit:
                raise RunnerError(Kind.BROKEN, f"it said more than {limit} bytes")
        while channel.recv_stderr_ready():
            self._err += channel.recv_stderr(PIECE)[: ERROR_LIMIT - len(self._err)]

    def ended(self, out: bytes | bytearray) -> Completed:
        """Its exit status and what it said; an end without a status is a broken connection."""
        assert self._channel is not None
        while not self._channel.status_event.wait(self._left()):
            pass
        self._read(self._channel, bytearray(), ERROR_LIMIT)
        if self._channel.exit_status < 0:
            raise self._broken(None)
        return Completed(self._channel.exit_status, bytes(out), bytes(self._err))

    def _broken(self, error: Exception | None) -> RunnerError:
        if isinstance(error, TimeoutError):
            self.overdue = True
            return RunnerError(Kind.UNREACHABLE, "it did not answer in time")
        if self._transport.is_active() and error is None:
            return RunnerError(Kind.UNREACHABLE, "the command was killed there")
        return RunnerError(Kind.UNREACHABLE, "the connection broke")

    def close(self) -> None:
        """Lets go of it."""
        if self._channel is not None:
            with contextlib.suppress(Exception):
                self._channel.close()
