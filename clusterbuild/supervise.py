"""Runs the two daemons as children for `clusterbuild run`, or finds them running."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clusterdep.api import client
from clusterdep.api.errors import Fault, Kind

#: How often a daemon that ended is started again, in how many seconds.
MOST_STARTS, IN_SECONDS = 5, 300.0
#: How long a daemon may take to serve, and to stop, seconds.
START_SECONDS, STOP_SECONDS = 60.0, 30.0
#: How often it is looked at, seconds.
STEP = 0.1
#: The lock file of each daemon, in its state directory.
LOCKS = {"clusterdep": "clusterdep.lock", "clusterbuild": "clusterbuild.lock"}
#: How much of a daemon's log people are shown when it fails, lines.
TAIL = 15


def program(name: str, *words: str) -> list[str]:
    """The command line of one of our programs, run by this Python whatever PATH says."""
    return [sys.executable, "-P", "-m", name, *words]


@dataclass
class Child:
    """A daemon that is to run as long as we do: ours, or one that was running before."""

    name: str
    state: Path
    words: list[str]  # of its command line, after `serve --state STATE`
    said: Callable[[str], None]  # told what people should know
    pid: int = 0
    ours: bool = False
    process: asyncio.subprocess.Process | None = None
    starts: deque[float] = field(default_factory=deque)

    @property
    def address(self) -> str:
        """Where it serves."""
        return client.default_address(self.name, self.state)

    @property
    def log(self) -> Path:
        """What it writes."""
        return self.state / f"{self.name}.log"

    @property
    def _lock(self) -> Path:
        """What it holds while it runs, with its pid in it."""
        return self.state / f"{self.name}.lock"

    @property
    def _mark(self) -> Path:
        """Says which pid a `run` has started, so that the next one may stop it."""
        return self.state / f"{self.name}.started"

    async def begin(self) -> None:
        """Attaches to it if it serves, else starts it, and waits until it serves. Raises Fault."""
        if await self.serves():
            self.pid = _read_number(self._lock)
            self.ours = bool(self.pid) and _read_number(self._mark) == self.pid
            self.said(f"{self.name} runs already (pid {self.pid or 'unknown'}) and is used")
        else:
            await self._start()

    async def _start(self) -> None:
        now = time.monotonic()
        self.starts.append(now)
        while self.starts and self.starts[0] < now - IN_SECONDS:
            self.starts.popleft()
        if len(self.starts) > MOST_STARTS:
            raise Fault(
                Kind.INTERNAL,
                f"{self.name} ended {MOST_STARTS} times in {IN_SECONDS:.0f} s; "
                f"the end of {self.log}:\n{self.tail()}",
            )
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *program(self.name, "serve", "--state", str(self.state), *self.words),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid, self.ours = self.process.pid, True
        self._mark.write_text(f"{self.pid}\n")
        await self._wait_until_it_serves()

    async def _wait_until_it_serves(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await self.serves():
                    if self.process is not None and self.process.returncode is not None:
                        raise Fault(
                            Kind.UNAVAILABLE,
                            f"{self.name} could not be started "
                            f"(exit status {self.process.returncode}):\n{self.tail()}",
                        )
                    await asyncio.sleep(STEP)
        except TimeoutError:
            raise Fault(
                Kind.UNAVAILABLE,
                f"{self.name} does not serve after {START_SECONDS:.0f} s; see {self.log}",
            ) from None

    async def serves(self) -> bool:
        """Whether it answers that it serves."""
        async with client.connect(self.address) as channel:
            try:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5.0)
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def keep(self) -> None:
        """Starts it again whenever it ends. Raises Fault when that happens too often."""
        while True:
            how = await self._ended()
            self.said(f"{self.name} (pid {self.pid}) {how} and is started again")
            await self._start()

    async def _ended(self) -> str:
        if self.process is not None:
            status = await self.process.wait()
            return f"was killed by signal {-status}" if status < 0 else f"ended with {status}"
        while _held(self._lock):  # noqa: ASYNC110  it is not our child
            await asyncio.sleep(STEP * 5)
        return "has ended"

    async def stop(self) -> None:
        """Stops it, if it is ours, and waits for its end; kills it if that takes too long."""
        if not self.ours or not self.pid:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._gone()
            except TimeoutError:
                continue
            break
        self._mark.unlink(missing_ok=True)

    async def _gone(self) -> None:
        if self.process is not None:
            await self.process.wait()
            return
        while _held(self._lock):  # noqa: ASYNC110  it is not our child
            await asyncio.sleep(STEP)

    def tail(self) -> str:
        """The last lines of its log."""
        try:
            with self.log.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - 16384))
                lines = file.read().decode(errors="backslashreplace").splitlines()
        except OSError as error:
            return f"(its log cannot be read: {error})"
        return "\n".join(lines[-TAIL:])


def _read_number(path: Path) -> int:
    try:
        return int(path.read_text().strip() or 0)
    except (OSError, ValueError):
        return 0


def _held(path: Path) -> bool:
    """Whether a daemon holds its lock file. A pid may be somebody else's, or a zombie's."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
