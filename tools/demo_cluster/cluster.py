"""What both kinds of clusters share: keys, the files beside them, and ssh."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

#: Longest that anything here may take, seconds.
PATIENCE = 20.0


class ClusterError(Exception):
    """Something could not be done to a host; says what and why."""


class Unsupported(ClusterError):
    """This kind of cluster cannot do that."""


@dataclass(frozen=True)
class Process:
    """A process that runs on a host."""

    pid: int  # as this machine sees it
    inner: int  # as the host sees it
    command: str


@dataclass(frozen=True)
class Address:
    """Where the sshd of a host is, and how hosts.toml and ssh_config tell of it."""

    host: str
    port: int
    user: str


def start_time(pid: int) -> str:
    """When a process started, in ticks since boot; empty if there is none with this pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def note_process(file: Path, pid: int) -> None:
    """Writes down a process so that others can find it, safe from reused pids."""
    file.write_text(f"{pid} {start_time(pid)}\n")


def noted_process(file: Path) -> int:
    """The process that was written down, if it still runs; else 0."""
    try:
        pid, _, started = file.read_text().strip().partition(" ")
    except OSError:
        return 0
    return int(pid) if started and start_time(int(pid)) == started else 0


def run(argv: Sequence[str], **more: object) -> str:
    """Runs a command that has to succeed; returns what it printed. Raises ClusterError."""
    try:
        done = subprocess.run(
            list(argv), capture_output=True, text=True, timeout=PATIENCE, check=False, **more
        )  # type: ignore[call-overload]
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise ClusterError(f"{shlex.join(argv)}: {problem}") from None
    if done.returncode:
        raise ClusterError(f"{shlex.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")
    return str(done.stdout)


def sshd_program() -> str:
    """Where sshd is, which refuses to be run by a relative path."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which("sshd", path=path)
    if not found:
        raise ClusterError("there is no sshd; install openssh-server")
    return found


class Cluster(ABC):
    """Some hosts with real sshd, and the files that are needed to use them, in `directory`.

    `ssh_config`, `known_hosts`, `key` and `hosts.toml` are ready once it is started; what belongs
    to one host is in a directory of its name. Whoever starts a cluster owns it: it is gone when
    it is closed or its process ends, however that may happen. Other processes may make the same
    object of the same directory, and do anything but start it.
    """

    def __init__(self, directory: Path, names: Sequence[str], *, slots: int = 1) -> None:
        self.directory = directory.absolute()
        self.names = tuple(names)
        self._slots = slots

    @property
    def ssh_config(self) -> Path:
        """The configuration for ssh, scp and sftp."""
        return self.directory / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        """The host keys as they were when the cluster was started, or last trusted."""
        return self.directory / "known_hosts"

    @property
    def hosts_file(self) -> Path:
        """For `clusterbuild run --hosts`."""
        return self.directory / "hosts.toml"

    def home(self, name: str) -> Path:
        """Where things of one host are kept on our side. Raises ClusterError."""
        if name not in self.names:
            raise ClusterError(f"there is no host {name}; there are {', '.join(self.names)}")
        return self.directory / name

    # -- from start to end

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Makes keys and files, and switches every host on. Raises ClusterError."""
        if self.running():
            raise ClusterError(f"a cluster runs in {self.directory} already")
        self.remove()
        self.directory.mkdir(parents=True, mode=0o700)
        _make_key(self.directory / "key", "demo-cluster")
        for name in self.names:
            self.home(name).mkdir()
            _make_key(self.home(name) / "host_key", name)
        self.begin()
        self._write_files()
        for name in self.names:
            self.trust(name)
            self.power_on(name)

    def remove(self) -> None:
        """Removes the directory of a cluster that does not run. Raises ClusterError."""
        if not self.directory.exists() or not any(self.directory.iterdir()):
            return
        if not (self.directory / "key").exists():
            raise ClusterError(f"{self.directory} is not empty, and no cluster's directory")
        shutil.rmtree(self.directory)

    @abstractmethod
    def running(self) -> bool:
        """Whether the cluster, whoever owns it, is there."""

    @abstractmethod
    def begin(self) -> None:
        """Makes what all hosts share; ends what an owner that was killed has left."""

    @abstractmethod
    def close(self) -> None:
        """Ends every process of every host, and forgets what was on their disks."""

    # -- files

    @abstractmethod
    def address(self, name: str) -> Address:
        """Where the sshd of a host is."""

    @abstractmethod
    def base(self, name: str) -> str:
        """The directory a host builds in, as the host sees it."""

    def _write_files(self) -> None:
        config, hosts = [], ["# Made for the hosts of a demo cluster; see tools/demo-cluster."]
        hosts += ["[defaults]", f'ssh_config = "{self.ssh_config}"', f"slots = {self._slots}"]
        for name in self.names:
            at = self.address(name)
            config += [f"Host {name}", f"    HostName {at.host}", f"    Port {at.port}"]
            config += [f"    User {at.user}", f"    HostKeyAlias {name}"]
            hosts += ["", "[[host]]", f'name = "{name}"', f'base = "{self.base(name)}"']
        config += [
            "Host *",
            f"    IdentityFile {self.directory / 'key'}",
            f"    UserKnownHostsFile {self.known_hosts}",
            "    GlobalKnownHostsFile /dev/null",
            "    IdentitiesOnly yes",
            "    StrictHostKeyChecking yes",
            "    BatchMode yes",
        ]
        self.ssh_config.write_text("\n".join(config) + "\n")
        self.hosts_file.write_text("\n".join(hosts) + "\n")

    def trust(self, name: str) -> None:
        """Puts the host's key, as it is now, into known_hosts."""
        kind, key = (self.home(name) / "host_key.pub").read_text().split()[:2]
        old = self.known_hosts.read_text() if self.known_hosts.exists() else ""
        lines = [line for line in old.splitlines() if line.split()[0] != name]
        fresh = self.known_hosts.with_suffix(".new")
        fresh.write_text("\n".join([*lines, f"{name} {kind} {key}"]) + "\n")
        fresh.replace(self.known_hosts)

    # -- going there

    def enter(self, *argv: str) -> list[str]:
        """The words that run a command where the hosts can be reached."""
        return list(argv)

    def entered(self, path: Path) -> Path:
        """A file as commands see it that are run by `enter`, for us to look at."""
        return path

    def ssh_command(self, name: str, *command: str) -> list[str]:
        """The words that run a command on a host by ssh; a shell, if there is none."""
        self.home(name)
        words = ["ssh", "-F", str(self.ssh_config), "-o", "ConnectTimeout=5", name]
        return self.enter(*words, *([shlex.join(command)] if command else []))

    def ssh(
        self, name: str, *command: str, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on a host by ssh. subprocess.TimeoutExpired if it does not end."""
        return subprocess.run(
            self.ssh_command(name, *command),
            capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    @abstractmethod
    def path(self, name: str, inner: str) -> Path:
        """A file of a host, as it can be reached from here without ssh while the host is on."""

    @abstractmethod
    def processes(self, name: str) -> list[Process]:
        """What runs on a host."""

    # -- what can be done to a host

    @abstractmethod
    def power_on(self, name: str) -> None:
        """Starts a host that is off, with what it had on its disk, and waits for its sshd."""

    @abstractmethod
    def kill(self, name: str) -> None:
        """Ends all processes of a host at once. Who is connected to it sees a reset."""

    @abstractmethod
    def power_off(self, name: str) -> None:
        """Pulls the plug. Who is connected to it sees nothing at all, if it can be done."""

    @abstractmethod
    def restart_sshd(self, name: str) -> None:
        """Ends the sshd of a host and all connections to it, and starts it again."""

    def change_host_key(self, name: str) -> None:
        """Gives a host another key, which known_hosts does not have."""
        key = self.home(name) / "host_key"
        key.unlink()
        key.with_suffix(".pub").unlink()
        _make_key(key, name)
        self.restart_sshd(name)

    def cut(self, name: str) -> None:
        """Cuts the link of a host: nothing comes through, and nobody is told."""
        raise self._unsupported("cut a link")

    def restore(self, name: str) -> None:
        """Mends the link of a host."""
        raise self._unsupported("cut a link")

    def slow(self, name: str, rate: float = 0.0, latency: float = 0.0) -> None:
        """Makes the link slow: `rate` in bytes a second, 0 for any; `latency` seconds each way."""
        raise self._unsupported("slow a link down")

    def fast(self, name: str) -> None:
        """Makes the link of a host as fast as it was."""
        raise self._unsupported("slow a link down")

    def fill_disk(self, name: str, leave: int = 0) -> None:
        """Leaves that many bytes free on the disk of a host."""
        raise self._unsupported("fill a disk")

    def free_disk(self, name: str) -> None:
        """Makes room again."""
        raise self._unsupported("fill a disk")

    def _unsupported(self, what: str) -> Unsupported:
        return Unsupported(f"hosts of this kind have no way to {what}: it takes root, and Linux")

    def _await(self, name: str, what: str, there: Callable[[], bool]) -> None:
        """Waits until something is so on a host. Raises ClusterError if that takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not there():
            if time.monotonic() > deadline:
                raise self._failed(name, f"there is no {what} after {PATIENCE:.0f} seconds")
            time.sleep(0.01)

    def _failed(self, name: str, what: str) -> ClusterError:
        """An error that tells the end of the host's log."""
        log = self.home(name) / "log"
        said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
        return ClusterError(f"host {name}: {what}\n{said}".rstrip())


def _make_key(file: Path, comment: str) -> None:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(file)])
