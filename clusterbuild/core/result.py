"""What a host says of a job that is over: values, with no judgement of whose fault it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

#: The stages of a build, in order.
STAGES = (
    "pre-clean",
    "depends",
    "checksum",
    "configure",
    "build",
    "install",
    "package",
    "deinstall",
    "clean",
)


#: What stands for a stage while a host scans.
SCAN = "scan"


class Outcome(Enum):
    """How a job came to its end on its host."""

    BUILT = "built"  # there is a package file
    SCANNED = "scanned"  # the scan is through; not every pkgpath need have had its turn
    FAILED = "failed"  # a stage failed, or was ended by a limit
    ENDED = "ended"  # it was told to end, or killed from outside, before it was through
    UNABLE = "unable"  # the host could not run it: no stage, or not all of one, had a chance


class Evidence(Enum):
    """What was seen when a job was not built. Several may hold at once.

    clusterbuild/on_host/README.md says how each is found; `JobResult.facts` has the details
    named here.
    """

    EXIT = "exit"  # the command of the stage ended by itself with a status other than 0
    SIGNAL = "signal"  # it was killed by a signal that we did not send; SIGNAL: its number
    TIME_LIMIT = "time-limit"  # the whole job took too long and was ended; LIMIT: seconds
    STAGE_TIME_LIMIT = "stage-time-limit"  # the stage did; LIMIT: seconds
    LOG_LIMIT = "log-limit"  # the log of the stage grew too large; LIMIT: bytes
    NO_SPACE = "no-space"  # the disk, or the quota, of the host is full
    MEMORY = "memory"  # memory ran out, or the kernel killed for it
    DISK_ERROR = "disk-error"  # an input or output error, or a file system gone read-only
    FETCH = "fetch"  # a distfile could not be had; DISTFILE, SITES
    CHECKSUM = "checksum"  # a distfile is not the one wanted; DISTFILE, SITES
    REQUIREMENT = "requirement"  # a requirement could not be installed; REQUIREMENT
    DAMAGED = "damaged"  # the file of a requirement is damaged
    UNLISTED = "unlisted"  # the package asks for a requirement it did not list; REQUIREMENT
    NO_PACKAGE = "no-package"  # all stages passed, but there is no package file
    SANDBOX = "sandbox"  # the sandbox could not be set up
    KIT = "kit"  # the kit is missing, damaged, or holds what it may not
    TREE = "tree"  # the package directory is not there or can not be read
    TOOL = "tool"  # a tool the host ought to have is missing; TOOL
    BAD_JOB = "bad-job"  # the job file was refused
    ORDER = "order"  # it was told to end


@dataclass(frozen=True)
class StageTime:
    """One stage that was run: seconds, and the exit status (128+n for signal n)."""

    stage: str
    wall: float
    cpu: float  # user and system, of processes the stage waited for; 0: unknown
    exit: int


@dataclass(frozen=True)
class PackageFile:
    """A package file in the job's out/ directory, as the host says."""

    name: str  # a plain file name, "PKGNAME.tgz"
    size: int  # bytes
    sha256: str  # hex


@dataclass(frozen=True)
class JobResult:
    """What the host says of a job that is over."""

    attempt: str
    outcome: Outcome
    stage: str = ""  # the stage it ended in; empty: before any stage
    exit: int = 0  # exit status of that stage, 128+n for signal n
    message: str = ""  # one line, printable, said by the host
    evidence: frozenset[Evidence] = frozenset()
    facts: Mapping[str, str] = field(default_factory=dict)  # details of the evidence, by name
    package: PackageFile | None = None  # set if and only if outcome is BUILT
    summary: bytes = b""  # pkg_info -X of the package file; empty: could not be had
    stages: tuple[StageTime, ...] = ()  # in the order they ended
    slot: int = 0
    sandbox: str = ""  # the kind used
    started: float = 0.0  # seconds since 1970 on the host's clock
    finished: float = 0.0  # the same
