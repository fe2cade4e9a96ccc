"""A tree whose builds wait to be let go, and runs of `clusterbuild run --hosts` on it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from sshd_hosts import ROOT, Cluster, eventually

#: Bytes of the file in gates/large, which do not get smaller when packed.
LARGE = 2_000_000

MAKEFILE = """\
DISTNAME=	{name}-1.0
CATEGORIES=	gates
DISTFILES=	# empty
MAINTAINER=	gates@example.org
COMMENT=	Is built when its gate on the host is open
LICENSE=	public-domain
{depends}INSTALLATION_DIRS=	share/gates
.include "../../mk/bsd.pkg.mk"
"""
BUILD = """\
all:
	mkdir -p {gates}
	echo {name} >>{gates}/begun
	while [ ! -e {gates}/{name} ]; do sleep 0.1; done
	echo {name} >>{gates}/ended
	[ -e blob ] || echo {name} >blob

install:
	cp blob $(DESTDIR)$(PREFIX)/share/gates/{name}
"""
ATTEMPTS = """
import json, sys, sqlite_utils
print(json.dumps(list(sqlite_utils.Database(sys.argv[1])["attempts"].rows_where(
    order_by="granted_at"))))
"""
#: The packages of the category, and what each requires.
GATES = {"large": (), "gated": (), "last": ("large", "gated")}


class GatedTree:
    """The example tree and the category gates, in a directory of its own."""

    def __init__(self, room: Path) -> None:
        self.path = room / "tree"
        self.gates = f"/var/tmp/gates.{room.name}"
        shutil.copytree(ROOT / "examples/pkgsrc", self.path)
        category = self.path / "gates"
        category.mkdir()
        lines = ["COMMENT=	Packages that wait", *(f"SUBDIR+=	{name}" for name in GATES)]
        (category / "Makefile").write_text(
            "\n".join([*lines, '.include "../mk/bsd.pkg.subdir.mk"', ""])
        )
        for name, required in GATES.items():
            self._package(category / name, name, required)
        blob = random.Random(1).randbytes(LARGE)
        (category / "large/files/blob").write_bytes(blob)

    def _package(self, directory: Path, name: str, required: tuple[str, ...]) -> None:
        (directory / "files").mkdir(parents=True)
        depends = "".join(f"DEPENDS+=	{one}-[0-9]*:../../gates/{one}\n" for one in required)
        (directory / "Makefile").write_text(MAKEFILE.format(name=name, depends=depends))
        (directory / "files/Makefile").write_text(BUILD.format(name=name, gates=self.gates))
        (directory / "DESCR").write_text("It waits.\n")
        (directory / "PLIST").write_text(f"share/gates/{name}\n")


class Session:
    """A state directory, and the runs that use it with the hosts of a cluster."""

    def __init__(self, cluster: Cluster, room: Path) -> None:
        self.cluster = cluster
        self.state = room / "var"
        self.tree = GatedTree(room)
        self._screen = room / "screen"
        self._runs: list[subprocess.Popen[bytes]] = []

    # -- running

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Begins `clusterbuild run`."""
        words = [
            sys.executable, "-m", "clusterbuild", "run", "--state", str(self.state),
            "--tree", str(self.tree.path), "--profile", "example", "--once",
            "--hosts", str(self.cluster.hosts_file), *options,
        ]  # fmt: skip
        return self._spawn(words)

    def serve(self, daemon: str, *options: str) -> None:
        """Starts a daemon that runs then find there."""
        words = [sys.executable, "-m", daemon, "serve", "--state", str(self.state), *options]
        self.state.mkdir(mode=0o700, exist_ok=True)
        self._spawn(words)

    def _spawn(self, words: list[str]) -> subprocess.Popen[bytes]:
        with self._screen.open("ab") as screen:
            process = subprocess.Popen(
                self.cluster.enter(*words), stdin=subprocess.DEVNULL, stdout=screen, stderr=screen
            )
        self._runs.append(process)
        return process

    def ends(self, process: subprocess.Popen[bytes], seconds: float = 120.0) -> int:
        """The exit code of a run that has to end."""
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end:\n{self.story()}") from None
        assert "Traceback" not in self.screen, self.story()
        return code

    def run(self, *options: str) -> int:
        """A run from start to end."""
        return self.ends(self.start(*options))

    def close(self) -> None:
        """Ends everything that was started here."""
        for process in self._runs:
            process.kill()
            process.wait()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not self.processes(), "the end of all daemons")

    def processes(self) -> list[int]:
        """Whatever runs here with the state directory on its command line."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.state).encode() in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
        return found

    def pid(self, daemon: str) -> int:
        """Of a daemon that runs, else 0."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.seen / f"{daemon}.lock").read_text())
            if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
        return 0

    # -- what is to be seen

    @property
    def seen(self) -> Path:
        """The state directory, which may be on a disk that only the dispatcher has."""
        return self.cluster.entered(self.state)

    @property
    def screen(self) -> str:
        """What all runs have said."""
        return self._screen.read_text(errors="replace") if self._screen.exists() else ""

    def story(self) -> str:
        """Everything that tells what went on, for a test that fails."""
        parts = [f"== screen\n{self.screen}"]
        for log in sorted(self.seen.glob("*.log")):
            parts.append(f"== {log.name}\n{log.read_text(errors='replace')[-5000:]}")
        with contextlib.suppress(AssertionError):
            parts.append("== attempts\n" + "\n".join(map(str, self.attempts())))
        with contextlib.suppress(AssertionError):
            status = self._ask("status")
            parts.append("== status\n" + "\n".join(json.dumps(line) for line in status))
        return "\n".join(parts)

    def _ask(self, what: str) -> list[dict[str, Any]]:
        words = ["-m", "clusterbuild", what, "--json", "--state", str(self.state)]
        done = subprocess.run(
            self.cluster.enter(sys.executable, *words),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode == os.EX_UNAVAILABLE:
            return []  # not there yet, or being started again
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def resume(self) -> None:
        """Lets the dispatcher look at once at hosts that it would look at later."""
        words = ["-m", "clusterbuild", "resume", "--state", str(self.state)]
        subprocess.run(self.cluster.enter(sys.executable, *words), timeout=60, check=True)

    def host(self, name: str) -> dict[str, Any]:
        """What the dispatcher says of a host; empty if it says nothing."""
        return next((host for host in self._ask("hosts") if host["name"] == name), {})

    def job(self, pkgname: str) -> dict[str, Any]:
        """What it says of the job of a package; empty if there is none."""
        return next((job for job in self._ask("jobs") if job["pkgname"] == pkgname), {})

    def attempts(self) -> list[dict[str, Any]]:
        """All that clusterdep knows of attempts, in their order."""
        words = [sys.executable, "-c", ATTEMPTS, str(self.state / "clusterdep.db")]
        done = subprocess.run(
            self.cluster.enter(*words), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def built(self) -> Counter[str]:
        """How often each package was built."""
        return Counter(one["pkgname"] for one in self.attempts() if one["outcome"] == "built")

    def packages(self) -> set[str]:
        """What is in the repository."""
        return {p.stem for p in (self.seen / "packages/example/All").glob("*.tgz")}

    # -- gates

    def _gates(self, name: str) -> Path:
        return self.cluster.path(name, self.tree.gates)

    def builds_on(self, name: str, word: str = "begun") -> list[str]:
        """The names of gated packages whose build has begun, or ended, on a host."""
        with contextlib.suppress(OSError):
            return (self._gates(name) / word).read_text().split()
        return []

    def waits(self, package: str, hosts: tuple[str, ...] = ()) -> str:
        """The host on which a build of a package stands before its gate, once it does."""

        def look() -> str:
            names = (n for n in hosts or self.cluster.names if package in self.builds_on(n))
            return next(names, "")

        try:
            return eventually(look, f"{package} is being built", 90)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.story()}") from None

    def open(self, package: str, *hosts: str) -> None:
        """Lets builds of a package go on, or not even wait."""
        for name in hosts or self.cluster.names:
            self._gates(name).mkdir(parents=True, exist_ok=True)
            (self._gates(name) / package).touch()

    def eventually(self, look: Any, what: str, seconds: float = 60.0) -> Any:
        """As sshd_hosts.eventually; tells all there is to tell if it does not come to be."""
        try:
            return eventually(look, what, seconds, every=0.2)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.story()}") from None
