"""Hosts for those who are not root: an sshd each, run by the user, on a port of 127.0.0.1.

They share the user's file system and processes, so that only so much can be done to them: their
links cannot be cut, nor their disks filled. Each builds below a directory of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from demo_cluster.cluster import (
    PATIENCE,
    Address,
    Cluster,
    ClusterError,
    Process,
    note_process,
    noted_process,
    run,
    sshd_program,
)

GUARD = Path(__file__).resolve().parent / "guard.py"
SSHD_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {home}/host_key
PidFile {home}/pid
AuthorizedKeysFile {directory}/key.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
StrictModes no
Subsystem sftp internal-sftp
"""

#: Programs of ours that may name a host's directory.
CLIENTS = ("ssh", "scp", "sftp")


class PortCluster(Cluster):
    """Hosts that are this one, several times. Takes Linux, for /proc."""

    def __init__(self, directory: Path, names: Sequence[str], *, slots: int = 1) -> None:
        super().__init__(directory, names, slots=slots)
        self._lock: TextIO | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    # -- from start to end

    @property
    def lock_file(self) -> Path:
        """Locked by the owner as long as it lives."""
        return self.directory / "lock"

    def running(self) -> bool:
        """See Cluster.running."""
        with contextlib.suppress(FileNotFoundError), self.lock_file.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def begin(self) -> None:
        """Chooses ports, and sees to it that the hosts end with their owner."""
        self._lock = self.lock_file.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._guard = subprocess.Popen(
            [sys.executable, str(GUARD), str(self.directory), *self.names],
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        for name in self.names:
            (self.home(name) / "port").write_text(f"{_free_port()}\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd wants it; boot makes it

    def close(self) -> None:
        """See Cluster.close."""
        if self._lock is None:
            return
        self._lock.close()  # the guard now ends them
        self._lock = None
        if self._guard is not None:
            self._guard.wait(PATIENCE)
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill_all(self) -> None:
        """Ends all processes of all hosts."""
        for name in self.names:
            self.kill(name)

    # -- where things are

    def address(self, name: str) -> Address:
        """See Cluster.address."""
        port = int((self.home(name) / "port").read_text())
        return Address("127.0.0.1", port, pwd.getpwuid(os.geteuid()).pw_name)

    def base(self, name: str) -> str:
        """See Cluster.base."""
        return str(self.home(name) / "base")

    def path(self, name: str, inner: str) -> Path:
        """See Cluster.path."""
        self.home(name)
        return Path(inner)

    def processes(self, name: str) -> list[Process]:
        """See Cluster.processes. What left its session and does not name the host is not found."""
        parents, commands = _all_processes()
        base = self.base(name)
        roots = {noted_process(self.home(name) / "sshd.pid")}
        for pid, words in commands.items():
            if any(base in word for word in words) and Path(words[0]).name not in CLIENTS:
                roots.add(pid)
        found = {pid for pid in commands if _descends(pid, parents, roots)}
        return [Process(pid, pid, " ".join(commands[pid])) for pid in sorted(found)]

    # -- power and sshd

    def power_on(self, name: str) -> None:
        """See Cluster.power_on."""
        home = self.home(name)
        if noted_process(home / "sshd.pid"):
            raise ClusterError(f"host {name} is on already")
        port = self.address(name).port
        config = SSHD_CONFIG.format(port=port, home=home, directory=self.directory)
        (home / "sshd_config").write_text(config)
        (home / "pid").unlink(missing_ok=True)
        run([sshd_program(), "-f", str(home / "sshd_config"), "-E", str(home / "log")])
        self._await(name, "sshd", lambda: _size(home / "pid") > 0)
        note_process(home / "sshd.pid", int((home / "pid").read_text()))

    def kill(self, name: str) -> None:
        """See Cluster.kill."""
        deadline = time.monotonic() + PATIENCE
        while processes := self.processes(name):
            if time.monotonic() > deadline:
                raise self._failed(name, f"does not end: {processes}")
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.01)

    def power_off(self, name: str) -> None:
        """Like `kill`: there is no link that could be cut first."""
        self.kill(name)

    def restart_sshd(self, name: str) -> None:
        """See Cluster.restart_sshd."""
        for process in self.processes(name):
            if process.command.startswith("sshd:"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        self._await(name, "end of sshd", lambda: not noted_process(self.home(name) / "sshd.pid"))
        self.power_on(name)


def _size(file: Path) -> int:
    """Bytes of a file; 0 if it is not there."""
    return file.stat().st_size if file.exists() else 0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _all_processes() -> tuple[dict[int, int], dict[int, list[str]]]:
    """The parent of every process but our own line, and the words of its command."""
    parents: dict[int, int] = {}
    commands: dict[int, list[str]] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            pid = int(directory.name)
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
            words = (directory / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            if words[0] and fields[0] not in "ZX":
                parents[pid] = int(fields[1])
                commands[pid] = [word for word in words if word]
    ours: int | None = os.getpid()
    while ours := parents.get(ours or 0):
        commands.pop(ours, None)
    commands.pop(os.getpid(), None)
    return parents, commands


def _descends(pid: int, parents: dict[int, int], roots: set[int]) -> bool:
    at: int | None = pid
    while at:
        if at in roots:
            return True
        at = parents.get(at)
    return False
