"""Hosts as namespaces: each with its own network, processes, name and file system. Takes root.

All of it hangs on one process, the lab: init of a pid namespace in which everything else lives,
and holder of the network namespace with the bridge. It ends when its standard input does, which
only the owner of the cluster has the other end of. Nothing of a cluster is to be seen outside:
no interface, no mount, no name below /run/netns; so nothing can be left over.

The owner's programs reach the hosts from within the lab's network (`enter`), where it is 10.77.0.1.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from functools import cache
from pathlib import Path

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
    start_time,
)

HERE = Path(__file__).resolve().parent
NETWORK = "10.77.0"
#: Where hosts build.
BASE = "/var/tmp/clusterbuild"
#: Size of a host's disk, bytes. It is in memory, of which it takes what is used.
DISK = 4 * 2**30

#: Of the user of a host who is not root.
UID = 1999
#: Files of /etc and the line that each has for him.
ACCOUNT = {
    "passwd": f"{{0}}:x:{UID}:{UID}::/home/{{0}}:/bin/sh",
    "group": f"{{0}}:x:{UID}:",
    "shadow": "{0}:*:19000:0:99999:7:::",
}

UNSHARE = ["unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child"]

LAB = """
ip link set lo up && ip link add lab type bridge && ip link set lab up &&
ip address add "$1.1/24" dev lab && read -r pid rest </proc/self/stat && echo $pid && read -r end
"""

SSHD_CONFIG = """\
HostKey /etc/ssh/host_key
PidFile /run/sshd.pid
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
Subsystem sftp internal-sftp
"""


class NamespaceCluster(Cluster):
    """Hosts that share nothing with us or each other but the system's programs, read only.

    A host sees copies on write of /usr, /etc and their like, and nothing else of ours. `user` is
    whom its sshd lets in; another one than root is made on it.
    """

    def __init__(
        self,
        directory: Path,
        names: Sequence[str],
        *,
        slots: int = 1,
        user: str = "root",
        disk: int = DISK,
    ) -> None:
        super().__init__(directory, names, slots=slots)
        self._user = user
        self._disk = disk
        self._lab: subprocess.Popen[str] | None = None
        self._started: list[subprocess.Popen[str]] = []

    @staticmethod
    @cache
    def obstacle() -> str:
        """Why there can be no such hosts here; empty if there can."""
        if sys.platform != "linux" or os.geteuid() != 0:
            return "it takes root, and Linux"
        script = (
            "mount -t tmpfs none /mnt && mkdir /mnt/u /mnt/w /mnt/m && mount -t overlay -o "
            "lowerdir=/usr,upperdir=/mnt/u,workdir=/mnt/w none /mnt/m && "
            "ip link add lab type bridge"
        )
        try:
            run(["unshare", "--mount", "--net", "--pid", "--uts", "--fork", "sh", "-c", script])
        except ClusterError as problem:
            return str(problem)
        return ""

    # -- from start to end

    @property
    def _lab_file(self) -> Path:
        return self.directory / "lab.pid"

    def _lab_pid(self) -> int:
        pid = noted_process(self._lab_file)
        if not pid:
            raise ClusterError(f"no cluster runs in {self.directory}")
        return pid

    def running(self) -> bool:
        """See Cluster.running."""
        return bool(noted_process(self._lab_file))

    def begin(self) -> None:
        """Makes the lab. An owner that was killed leaves nothing."""
        words = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
        self._lab = subprocess.Popen(
            [*words, "sh", "-c", LAB, "demo-cluster", NETWORK],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert self._lab.stdout is not None
        said = self._lab.stdout.readline().strip()
        if not said:
            raise ClusterError(f"the network could not be made: exit {self._lab.wait()}")
        note_process(self._lab_file, int(said))

    def close(self) -> None:
        """See Cluster.close."""
        if self._lab is not None and self._lab.stdin is not None:
            self._lab.stdin.close()
        for process in (self._lab, *self._started):
            if process is not None:
                process.wait(PATIENCE)
        self._started.clear()
        if self._lab is not None and self._lab.stdout is not None:
            self._lab.stdout.close()
            self._lab = None
            shutil.rmtree(self.directory, ignore_errors=True)

    # -- where things are

    def address(self, name: str) -> Address:
        """See Cluster.address."""
        number = 11 + self.names.index(name)
        return Address(f"{NETWORK}.{number}", 22, self._user)

    def base(self, name: str) -> str:
        """See Cluster.base."""
        return BASE if self._user == "root" else f"/home/{self._user}/clusterbuild"

    def enter(self, *argv: str) -> list[str]:
        """See Cluster.enter. Mounts that the command makes are the lab's, and end with it."""
        words = ["nsenter", "--net", "--mount", f"--target={self._lab_pid()}", "--"]
        return [*words, "sh", "-c", 'cd "$0" && exec "$@"', str(Path.cwd()), *argv]

    def entered(self, path: Path) -> Path:
        """See Cluster.entered."""
        return Path(f"/proc/{self._lab_pid()}/root{path}")

    def path(self, name: str, inner: str) -> Path:
        """See Cluster.path."""
        return Path(f"/proc/{self._init(name)}/root") / inner.lstrip("/")

    def disk(self, name: str) -> Path:
        """The disk of a host, as it can be reached from here also while the host is off."""
        return self.entered(self.home(name) / "disk")

    def _init(self, name: str) -> int:
        pid = noted_process(self.home(name) / "init.pid")
        if not pid:
            raise ClusterError(f"host {name} is off")
        return pid

    def is_on(self, name: str) -> bool:
        """Whether the host runs."""
        return bool(noted_process(self.home(name) / "init.pid"))

    def inside(self, name: str, *argv: str) -> list[str]:
        """The words that run a command on a host that is on, without ssh: also with no link."""
        words = ["--mount", "--uts", "--ipc", "--net", "--pid", f"--target={self._init(name)}"]
        return ["nsenter", *words, "--", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *argv]

    def processes(self, name: str) -> list[Process]:
        """See Cluster.processes. Its init is not listed."""
        space = Path(f"/proc/{self._init(name)}/ns/uts").readlink()
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (directory / "ns/uts").readlink() != space:
                    continue
                status = (directory / "status").read_text()
                # Our pid, the lab's, the host's, and that in a sandbox if it is in one.
                pids = status.partition("\nNSpid:")[2].partition("\n")[0].split()
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if len(pids) > 2 and pids[2] != "1" and command:
                    found.append(Process(int(pids[0]), int(pids[2]), command.strip()))
        return sorted(found, key=lambda process: process.pid)

    # -- power

    def power_on(self, name: str) -> None:
        """See Cluster.power_on."""
        if self.is_on(name):
            raise ClusterError(f"host {name} is on already")
        home, lab = self.home(name), self._lab_pid()
        if not (home / "disk").exists():
            self._make_disk(name)
        with (home / "log").open("ab") as log:
            host = subprocess.Popen(
                ["nsenter", "--net", "--mount", "--pid", f"--target={lab}", "--", *UNSHARE,
                 "sh", str(HERE / "host-init"), name, str(home / "disk"), str(uuid.uuid4())],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip
        self._started.append(host)
        assert host.stdin is not None and host.stdout is not None
        with host.stdin, host.stdout:
            pid = host.stdout.readline().strip()
            if pid:
                self._plug_in(name, pid)
                host.stdin.write(f"{self.address(name).host}/24\n")
                host.stdin.flush()
            if host.stdout.readline() != "ready\n":
                raise self._failed(name, "it does not start")
        note_process(home / "init.pid", int(pid))
        self._start_sshd(name)

    def _plug_in(self, name: str, pid: str) -> None:
        # The same machine has the same hardware address, or others would look for the old one.
        hardware = f"02:00:00:00:00:{11 + self.names.index(name):02x}"
        peer = ["peer", "name", "eth0", "address", hardware, "netns", pid]
        # The link of a host that has just died may not have gone yet.
        subprocess.run(self.enter("ip", "link", "delete", name), capture_output=True, check=False)
        run(self.enter("ip", "link", "add", name, "type", "veth", *peer))
        run(self.enter("ip", "link", "set", name, "master", "lab", "up"))

    def _make_disk(self, name: str) -> None:
        """A disk with what makes the system a host of its own."""
        (self.home(name) / "disk").mkdir()
        size = f"size={self._disk},mode=755"
        run(self.enter("mount", "-t", "tmpfs", "-o", size, name, str(self.home(name) / "disk")))
        disk = self.disk(name)
        etc, home, uid = disk / "upper/etc", disk / "root/root", 0
        (etc / "ssh").mkdir(parents=True)
        if self._user != "root":
            home, uid = disk / "root/home" / self._user, UID
            for file, line in ACCOUNT.items():
                old = (Path("/etc") / file).read_text().rstrip()
                (etc / file).write_text(f"{old}\n{line.format(self._user)}\n")
        (home / ".ssh").mkdir(parents=True)
        shutil.copy(self.directory / "key.pub", home / ".ssh/authorized_keys")
        for path in (home, home / ".ssh", home / ".ssh/authorized_keys"):
            os.chown(path, uid, uid)
        addresses = [f"{self.address(other).host} {other}" for other in self.names]
        (etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", *addresses]) + "\n")
        (etc / "ssh/sshd_config").write_text(SSHD_CONFIG)

    def kill(self, name: str) -> None:
        """See Cluster.kill."""
        os.kill(self._init(name), signal.SIGKILL)
        self._await(name, "end", lambda: not self.is_on(name))

    def power_off(self, name: str) -> None:
        """See Cluster.power_off."""
        self.cut(name)
        self.kill(name)

    # -- sshd

    def _start_sshd(self, name: str) -> None:
        key = self.path(name, "/etc/ssh/host_key")
        shutil.copy(self.home(name) / "host_key", key)
        key.chmod(0o600)
        run(self.inside(name, sshd_program(), "-E", "/var/log/sshd.log"))
        self._await(name, "sshd", lambda: self.path(name, "/run/sshd.pid").exists())

    def restart_sshd(self, name: str) -> None:
        """See Cluster.restart_sshd."""
        for process in self.processes(name):
            if process.command.startswith("sshd:"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        self.path(name, "/run/sshd.pid").unlink(missing_ok=True)
        self._start_sshd(name)

    # -- link

    def cut(self, name: str) -> None:
        """See Cluster.cut."""
        self._init(name)
        run(self.enter("ip", "link", "set", name, "down"))

    def restore(self, name: str) -> None:
        """See Cluster.restore."""
        self._init(name)
        run(self.enter("ip", "link", "set", name, "up"))

    def traffic(self, name: str) -> tuple[int, int]:
        """Bytes that went to the host, and that came from it, since it was switched on."""
        self._init(name)
        said = json.loads(run(self.enter("ip", "-s", "-j", "link", "show", name)))
        counts = said[0]["stats64"]
        return counts["tx"]["bytes"], counts["rx"]["bytes"]

    def slow(self, name: str, rate: float = 0.0, latency: float = 0.0) -> None:
        """See Cluster.slow."""
        self.fast(name)
        words = [sys.executable, str(HERE / "wire.py"), name, "lab", str(rate), str(latency)]
        with (self.home(name) / "log").open("ab") as log:
            wire = subprocess.Popen(
                ["nsenter", "--net", "--pid", f"--target={self._lab_pid()}", "--", *words],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip
        self._started.append(wire)
        assert wire.stdout is not None
        with wire.stdout:
            said = wire.stdout.readline()
        if not said:
            raise self._failed(name, "its link cannot be slowed down")
        note_process(self.home(name) / "wire.pid", int(said))

    def fast(self, name: str) -> None:
        """See Cluster.fast."""
        self._init(name)
        if pid := noted_process(self.home(name) / "wire.pid"):
            os.kill(pid, signal.SIGKILL)
            self._await(name, "end of the wire", lambda: not start_time(pid))
        run(self.enter("ip", "link", "set", name, "master", "lab"))

    # -- disk

    def fill_disk(self, name: str, leave: int = 0) -> None:
        """See Cluster.fill_disk."""
        space = os.statvfs(self.disk(name))
        used = (space.f_blocks - space.f_bfree) * space.f_frsize
        self._resize(name, used + leave)

    def free_disk(self, name: str) -> None:
        """See Cluster.free_disk."""
        self._resize(name, self._disk)

    def _resize(self, name: str, size: int) -> None:
        run(self.enter("mount", "-o", f"remount,size={size}", str(self.home(name) / "disk")))
