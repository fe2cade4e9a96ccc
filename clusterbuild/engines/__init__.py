"""Where jobs run: the interface of all engines, and the values that cross it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from clusterbuild.core.result import JobResult

__all__ = [
    "OVER",
    "Distfile",
    "Engine",
    "EngineError",
    "HostFacts",
    "JobResult",
    "JobSpec",
    "JobState",
    "Kind",
    "Life",
    "RequiredFile",
    "ScanList",
    "Scanned",
]


class Kind(Enum):
    """What sort of trouble an EngineError tells of."""

    UNREACHABLE = "unreachable"  # no answer in time, or the connection broke: try later
    REFUSED = "refused"  # the host can not or will not do this: wrong sandbox, bad value
    BUSY = "busy"  # no free slot
    FULL = "full"  # no space on the host, or here
    BROKEN = "broken"  # what came back is not what it must be: damaged, forged, or nonsense
    ABSENT = "absent"  # there is no such job, log or file on the host


class EngineError(Exception):
    """A host did not do what was asked of it.

    `what` was asked ("start a build of foo-1.0"), `why` it was not done, with the way out.
    """

    def __init__(self, host: str, what: str, why: str, kind: Kind) -> None:
        super().__init__(host, what, why, kind)
        self.host = host
        self.what = what
        self.why = why
        self.kind = kind

    def __str__(self) -> str:
        return f"host {self.host}: could not {self.what}: {self.why}"


@dataclass(frozen=True)
class HostFacts:
    """What a host says of itself. Sizes are bytes, times seconds; 0 or empty: unknown."""

    opsys: str  # as uname -s says
    os_version: str  # as uname -r says
    machine_arch: str  # as uname -m says
    cores: int
    memory: int
    disk_free: int  # where jobs are built
    sandboxes: tuple[str, ...]  # kinds that work, best first: mount, overlay, chroot, none
    tools: Mapping[str, str]  # of the tools looked for, those there are: name to path
    boot_id: str
    clock: float  # seconds since 1970 on the host's clock, when it answered
    user: str  # whom jobs run as
    no_sandboxes: Mapping[str, str] = field(default_factory=dict)  # other kinds, and why not


@dataclass(frozen=True)
class RequiredFile:
    """A package file that a build needs, whole and checked, on the dispatcher's disk."""

    pkgname: str
    path: Path
    sha256: str
    size: int
    suffix: str = ".tgz"
    direct: bool = True  # installed by name; the others only need to be at hand


@dataclass(frozen=True)
class Distfile:
    """A distfile of a package, on the dispatcher's disk, and what the package wants."""

    name: str  # may have a directory: DIST_SUBDIR/foo-1.0.tar.gz
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class ScanList:
    """What a job scans."""

    pkgpaths: tuple[str, ...]  # one after the other; empty: the lists of the tree instead
    cache: str  # [A-Za-z0-9_-]{1,64}: jobs with the same share an option cache
    time_limit: float  # seconds for each; a job begins no other when it has taken as long
    output_limit: int  # bytes
    categories: tuple[str, ...] = ()  # whose lists are wanted also if the top does not name them


@dataclass(frozen=True)
class Scanned:
    """What make said in one directory of the tree."""

    number: int  # from 1 on, in the order of the job
    path: str  # pkgpath; of lists a category, or "." for the top
    status: int  # exit status, 128+n for signal n
    late: bool  # it was ended because it took too long
    seconds: float
    out: bytes  # whole: if it is longer than the limit, make was ended for that
    said: bytes  # to its standard error


@dataclass(frozen=True)
class JobSpec:
    """Everything a host needs to build one package. Text must be free of control characters.

    A scan says instead of its package for people what it is, and has no pkgpath.
    Paths of type str are paths on the host, those of type Path are on the dispatcher.
    """

    attempt: str  # [A-Za-z0-9_-]{1,64}
    pkgname: str
    pkgpath: str
    tree: Path  # a snapshot, or a tree that does not change while anything is built
    prefix: str
    pkgdb: str = ""  # empty: PREFIX/pkgdb
    kit: Path | None = None
    make: str = ""  # used if the kit brings no bin/bmake; empty: bmake
    distdir: Path | None = None  # None: the tree's own
    variables: tuple[str, ...] = ()  # VAR=value words for every make call
    requirements: tuple[RequiredFile, ...] = ()
    make_jobs: int = 0  # 0: leave it to mk.conf
    bootstrap: bool = False  # part of the kit: no test of installing and deinstalling it
    usergroup_phase: str = ""
    use_destdir: str = "user-destdir"  # or "destdir": then installed as root
    build_user: str = ""  # whom configure and build run as where we are root; empty: ourselves
    sandbox: str = "mount"  # one of HostFacts.sandboxes
    base_dir: str = ""  # of sandbox chroot: a directory on the host to make its root of
    base_file: Path | None = None  # or a tar file here, which is unpacked there once
    layer_size: int = 0  # bytes of memory for what overlay and chroot change; 0: on disk
    slots: int = 1  # of the host, one of which is claimed; none needs 1
    time_limit: float = 0.0  # seconds for the whole job; 0: none
    stage_time_limit: float = 0.0  # seconds for each stage; 0: none
    log_limit: int = 0  # bytes for the log of each stage; 0: none
    snapshot: str = ""  # names the content of the tree; empty: only this machine can use it
    distfiles: tuple[Distfile, ...] = ()  # what a host that has not our distdir is sent
    scan: ScanList | None = None  # if it is no build
    search_path: str = ""  # PATH; empty: PREFIX/bin:PREFIX/sbin:/usr/bin:/bin:/usr/sbin:/sbin


class Life(Enum):
    """Where a job on a host is in its life."""

    STARTING = "starting"  # its directory is there, but it does not run yet
    RUNNING = "running"
    ENDED = "ended"  # there is a result
    GONE = "gone"  # it runs no more and left no result: killed, or the host was rebooted


#: A job in one of these does nothing any more: fetch what there is of it, and clean it.
OVER = frozenset({Life.ENDED, Life.GONE})


@dataclass(frozen=True)
class JobState:
    """One job on a host, at the moment it was looked at."""

    attempt: str
    life: Life
    stage: str = ""  # stage it is in, or ended in; empty: none yet
    stage_seconds: float = 0.0  # how long it has been in that stage, by the host's clock
    log_size: int = 0  # bytes of all its logs together
    pid: int = 0  # of its supervisor; 0: not started
    slot: int = 0  # 0: none
    reason: str = ""  # of GONE: "died" or "rebooted"


class Engine(ABC):
    """One host. Every method may raise EngineError and has a deadline of its own.

    Methods may be called at the same time from several tasks of one event loop. Attempts are
    named by [A-Za-z0-9_-]{1,64}; any other name raises EngineError of kind REFUSED.
    """

    #: Name of the host, for people.
    name: str
    #: How it is reached, for people: local, ssh.
    way: str = "local"

    @abstractmethod
    async def probe(self) -> HostFacts:
        """Prepares the host if need be, and asks it what it is."""

    @abstractmethod
    async def start(self, job: JobSpec) -> None:
        """Sends what the host does not have yet, claims a slot there, and starts the job.

        Idempotent: an attempt that is there already, running or ended, is left alone. The job
        outlives this process and the connection. Kinds: BUSY if no slot is free, FULL,
        REFUSED for what can never work; nothing of the job then runs, `clean` removes what
        is left of it.
        """

    @abstractmethod
    def watch(self) -> AsyncIterator[JobState]:
        """Tells the state of every job there is, then each state that changes, as it happens.

        A job that was cleaned is not told of. Never ends by itself: raises EngineError
        (UNREACHABLE) when the connection breaks or falls silent; call it again then. Close it
        with `aclose()`, or end the task that reads it.
        """

    @abstractmethod
    async def look(self) -> list[JobState]:
        """The state of all jobs on the host now, sorted by attempt."""

    @abstractmethod
    async def result(self, attempt: str) -> JobResult:
        """The result of a job that has ended. ABSENT if it has none (yet)."""

    @abstractmethod
    async def fetch(self, attempt: str, name: str, target: Path, size: int, sha256: str) -> None:
        """Copies the file `name` of the job's out/ directory to `target`, whole or not at all.

        `target` exists afterwards if and only if it has exactly this size and digest: BROKEN
        if the host's file differs, ABSENT if there is none, FULL if there is no space here.
        Its directory must exist; it is written as TARGET.part, synced and renamed.
        """

    @abstractmethod
    async def read_log(
        self, attempt: str, stage: str, offset: int = 0, limit: int = 1 << 20
    ) -> bytes:
        """At most `limit` bytes of the log of a stage from `offset` on; empty at its end.

        `stage` is one of core.result.STAGES, or "sandbox" for what came before them. ABSENT
        if there is no such job; a log that is not there yet is empty.
        """

    @abstractmethod
    async def scanned(
        self, attempt: str, after: int, most: int = 4 << 20
    ) -> tuple[str, list[Scanned]]:
        """Where the host has the tree, and what a scan has found after the number `after`.

        About `most` bytes of it, but one at least if there is one; from a scan that runs, too.
        ABSENT if there is no such job.
        """

    @abstractmethod
    async def end(self, attempt: str) -> None:
        """Ends every process of the job, and sees to it that it has a result. Idempotent.

        Does nothing to a job that has ended. ABSENT if there is no such job.
        """

    @abstractmethod
    async def clean(self, attempt: str) -> None:
        """Ends the job if it runs, and removes all there is of it. Idempotent.

        No error if there is no such job.
        """

    @abstractmethod
    async def close(self) -> None:
        """Lets go of the host. Jobs go on running."""
