"""The stored facts of a profile as values, as memory holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clusterdep.core.schedule import Platform


@dataclass(frozen=True, slots=True)
class Overlay:
    """A tree that is laid over the tree of a profile."""

    at: str  # its name in the top directory
    tree: str  # empty: what is there
    follow: str  # empty: as the profile
    followed: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """A row of the table profile, and its selection."""

    id: int
    name: str
    tree: str
    prefix: str
    pkgdb: str
    kit: str
    make: str
    opsys: str
    os_version: str
    machine_arch: str
    distdir: str
    policy: str
    parent: str
    toolchain: str
    revision: str
    resolver: str
    follow: str
    follow_seconds: float
    followed: str
    scans: str
    complete: bool
    unsettled: bool  # a delivery was not written to its end
    selection: tuple[str, ...]
    overlays: tuple[Overlay, ...] = ()

    @property
    def platform(self) -> Platform:
        """What its packages are for."""
        return Platform(self.opsys, self.os_version, self.machine_arch)


@dataclass(slots=True)
class Pkgpath:
    """A directory of the tree, and what came of its last scan."""

    id: int
    path: str
    position: int  # in the enumeration of the tree
    scanned_at: float = 0.0  # 0: never
    seconds: float = 0.0
    error: str = ""  # what make said, if the last scan failed
    inputs_digest: str = ""
    revision: str = ""
    outdated_at: float | None = None  # it is to be scanned (again)
    outdated_why: str = ""
    packages: list[int] = field(default_factory=list, compare=False)  # numbers in the catalog


@dataclass(slots=True)
class Entry:
    """A package and its record, without the long texts."""

    id: int
    place: Pkgpath
    variant: str
    number: int  # of the record in the scan of its pkgpath
    pkgname: str
    skip_reason: str
    record_fails: str  # the fail reason of its record
    duplicate: bool
    weight: int
    digest: bytes
    fence: int = 0
    held: str | None = None  # why, if an operator holds it

    @property
    def pkgpath(self) -> str:
        """Where it is in the tree."""
        return self.place.path

    @property
    def order(self) -> tuple[int, int]:
        """Its place in scan order."""
        return self.place.position, self.number

    @property
    def pkgbase(self) -> str:
        """The name without the version."""
        return self.pkgname.rpartition("-")[0]

    @property
    def fail_reason(self) -> str:
        """Its own, or what the last scan of its pkgpath said."""
        if self.place.error and not self.record_fails:
            return f"the last scan of {self.place.path} failed: {key_line(self.place.error)}"
        return self.record_fails


@dataclass(frozen=True, slots=True)
class Artifact:
    """The newest artifact of a package."""

    pkgname: str
    sha256: str
    size: int
    suffix: str
    content_digest: str
    input_key: str
    built_at: float
    attempt: str
    runtime: tuple[bytes, ...]  # the patterns it needs when it runs
    dispatcher: str = ""  # in whose repository it is; empty: unknown


@dataclass(slots=True)
class Change:
    """What a delivery changes of a profile, after it was written. Packages by their ids."""

    profile: Profile
    paths: list[Pkgpath] = field(default_factory=list)  # new or changed; without packages
    dropped_paths: list[str] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)  # of pkgpaths that moved
    #: New or changed records: the entry (with its pkgpath in `place`).
    records: list[Entry] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    #: For packages whose requirements changed: ids of those, and what is unresolved.
    requirements: dict[int, tuple[Sequence[int], str]] = field(default_factory=dict)
    duplicates: dict[int, bool] = field(default_factory=dict)
    #: Artifacts that were taken over, and are of the files that are known now.
    rekeyed: dict[int, Artifact] = field(default_factory=dict)
    #: What is stored of packages that were gone and are back.
    artifacts: dict[int, Artifact] = field(default_factory=dict)
    attempts: dict[int, list[Any]] = field(default_factory=dict)  # rows, oldest first


def key_line(error: str) -> str:
    """A scan's error in one line: what went wrong, and the first that make said of it."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return ": ".join(lines[:2]) or "no reason given"


def runtime_patterns(summary: bytes) -> tuple[bytes, ...]:
    """The patterns in a pkg_summary entry's DEPENDS lines."""
    return tuple(
        line[len(b"DEPENDS=") :].strip()
        for line in summary.splitlines()
        if line.startswith(b"DEPENDS=")
    )
