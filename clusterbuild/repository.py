"""The repository of a profile: package files, checked, kept whole, and made visible.

    pool/SHA256.tgz       every kept file, by what it holds
    pool/.incoming-*      files on their way here
    All/PKGNAME.tgz       hard links to the pool: what users see
    All/pkg_summary.gz    what is in All, for pkgin(1) and pkg_add(1)

A file is written under another name, checked, synced, renamed, and its directory synced:
under its own name it is whole, whatever was killed when.
"""

from __future__ import annotations

import gzip
import os
import shutil
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clusterbuild.core.blame import Flaw
from clusterbuild.package_file import (
    PackageFileError,
    read_package,
    sha256_of,
    summary_entry,
    valid_pkgname,
    valid_suffix,
)

INCOMING = ".incoming-"
TEMPORARY = ".tmp-"
SUMMARY = "pkg_summary.gz"
#: How long a kept file that nobody knows of stays, seconds.
UNKNOWN_KEPT = 7 * 86400.0
#: Bytes whose checksums are compared at once when the repository is reconciled.
CHECK_AT_ONCE = 256 * 2**20


@dataclass(frozen=True)
class Expected:
    """What a file has to be to be kept. `sha256` and `size` are the host's own."""

    pkgname: str
    sha256: str
    size: int
    suffix: str = ".tgz"


@dataclass(frozen=True)
class Known:
    """An artifact that clusterdep has recorded. `package` is its pkgpath and variant."""

    pkgname: str
    sha256: str
    size: int
    suffix: str
    summary: bytes
    package: tuple[str, str]
    content_digest: str = ""
    current: bool = True
    built: float = 0.0
    #: Whether it should be here, and not in the repository of another dispatcher.
    own: bool = True


@dataclass(frozen=True)
class Reconciled:
    """What reconciling found and did.

    `missing` are the sha256 of files that are not here or are not what they should be;
    `checked` is whether all were compared by checksum, or else only by size.
    """

    missing: tuple[str, ...]
    linked: int
    unlinked: int
    removed: int
    checked: bool = True


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Makes a file's bytes durable; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Repository:
    """One profile's repository below `root`. Its methods block: they are for threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pool = root / "pool"
        self.all = root / "All"
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._visible: dict[str, Known] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._summary_due = False

    def prepare(self) -> None:
        """Makes the directories and removes what was on its way when somebody was killed."""
        for directory in (self.pool, self.all):
            directory.mkdir(parents=True, exist_ok=True)
            for name in _temporary_names(directory):
                (directory / name).unlink(missing_ok=True)

    def incoming(self, attempt: str) -> Path:
        """Where the package file of an attempt is written while it is fetched."""
        return self.pool / f"{INCOMING}{attempt}"

    def path_of(self, sha256: str, suffix: str) -> Path:
        """Where a kept file is."""
        return self.pool / f"{sha256}{suffix}"

    # -- keeping -----------------------------------------------------------

    def keep(self, attempt: str, expected: Expected, package: tuple[str, str]) -> Known:
        """Checks the file fetched for `attempt` and keeps it, durably.

        Raises PackageFileError if it is not what it should be, and nothing is left of it
        then; OSError where it could not be kept now, and it can be tried again.
        """
        path = self.incoming(attempt)
        try:
            known = _checked(path, expected, package)
        except PackageFileError:
            self.discard(attempt)
            raise
        path.chmod(0o644)
        sync_file(path)
        path.replace(self.path_of(known.sha256, known.suffix))
        sync_directory(self.pool)
        return known

    def adopt(
        self, source: Path, pkgname: str, package: tuple[str, str], link: bool = False
    ) -> Known:
        """Keeps a copy of a package file that was not built here, or a hard link to it.

        Raises PackageFileError if it is not whole or another package, OSError if it cannot
        be read or kept.
        """
        name = f"adopted-{pkgname}"
        path = self.incoming(name)
        try:
            if link:
                path.unlink(missing_ok=True)
                path.hardlink_to(source)
            else:
                shutil.copyfile(source, path)
            suffix = source.name.removeprefix(pkgname)
            expected = Expected(pkgname, sha256_of(path), path.stat().st_size, suffix)
            return self.keep(name, expected, package)
        except OSError:
            self.discard(name)
            raise

    def discard(self, attempt: str) -> None:
        """Removes what was fetched for an attempt, if it is there."""
        with suppress(OSError):
            self.incoming(attempt).unlink(missing_ok=True)

    def drop(self, known: Known) -> None:
        """Removes a kept file that was not accepted, unless it is another artifact, too."""
        with self._lock:
            if known.sha256 not in self._known:
                self.path_of(known.sha256, known.suffix).unlink(missing_ok=True)

    # -- what users see ----------------------------------------------------

    def publish(self, known: Known) -> None:
        """Makes an accepted artifact visible instead of an older one of its package."""
        with self._lock:
            self._known.add(known.sha256)
            self._link(known)
            older = self._names.get(known.package)
            if older is not None and older != known.pkgname:
                self._unlink(older)
            self._show(known)
            sync_directory(self.all)

    def _show(self, known: Known) -> None:
        self._visible[known.pkgname] = known
        self._names[known.package] = known.pkgname
        self._summary_due = True

    def _link(self, known: Known) -> bool:
        """Makes All/PKGNAME.SUFFIX the pool's file; whether that was needed."""
        source = self.path_of(known.sha256, known.suffix)
        target = self.all / f"{known.pkgname}{known.suffix}"
        with suppress(FileNotFoundError):
            if target.samefile(source):
                return False
        temporary = self.all / f"{TEMPORARY}{known.pkgname}"
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(source)
        except OSError:
            source.stat()
            shutil.copyfile(source, temporary)  # a file system without hard links
            sync_file(temporary)
        temporary.replace(target)
        return True

    def _unlink(self, pkgname: str) -> None:
        known = self._visible.pop(pkgname, None)
        if known is not None:
            self._names.pop(known.package, None)
            (self.all / f"{pkgname}{known.suffix}").unlink(missing_ok=True)
            self._summary_due = True

    @property
    def summary_due(self) -> bool:
        """Whether pkg_summary.gz is older than what is in All."""
        return self._summary_due

    def write_summary(self) -> None:
        """Writes pkg_summary.gz anew if that is due; raises OSError, and it stays due."""
        with self._lock:
            if not self._summary_due:
                return
            entries = [known.summary for _, known in sorted(self._visible.items())]
            self._summary_due = False
        temporary = self.all / f"{TEMPORARY}{SUMMARY}"
        try:
            with temporary.open("wb") as file:
                with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
                    packed.writelines(entries)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.all / SUMMARY)
            sync_directory(self.all)
        except OSError:
            self._summary_due = True
            raise

    # -- after a start -----------------------------------------------------

    def reconcile(self, records: Iterable[Known], now: float | None = None) -> Reconciled:
        """Makes All what clusterdep has recorded, and says what of it is not here.

        Of several artifacts of one package, or of one name, the current one is visible,
        else the newest. Files in All that nobody knows are removed at once, files of the
        pool after UNKNOWN_KEPT. Small repositories are compared by checksum, large ones
        by size (see `damaged` for the rest).
        """
        moment = time.time() if now is None else now
        every = [known for known in records if _plausible(known)]
        absent = {known.sha256 for known in every if not self._is_here(known)}
        missing = {known.sha256 for known in every if known.own} & absent
        whole = [known for known in every if known.sha256 not in absent]
        checked = sum(known.size for known in whole) <= CHECK_AT_ONCE
        if checked:
            missing.update(self.damaged(whole))
        sound = [known for known in whole if known.sha256 not in missing]
        with self._lock:
            self._known = {known.sha256 for known in sound}
            self._visible, self._names = {}, {}
            linked = 0
            for known in _to_show(sound):
                linked += self._link(known)
                self._show(known)
            unlinked = self._remove_unknown_links()
            removed = self._remove_unknown_files(moment - UNKNOWN_KEPT)
            self._summary_due = bool(
                linked or unlinked or missing or not (self.all / SUMMARY).exists()
            )
            sync_directory(self.all)
        return Reconciled(tuple(sorted(missing)), linked, unlinked, removed, checked)

    def absent(self, records: Iterable[Known]) -> list[str]:
        """The sha256 of those files that should be here and are not, or are of another size."""
        own = [known for known in records if known.own and _plausible(known)]
        return [known.sha256 for known in own if not self._is_here(known)]

    def unseen(self, records: Iterable[Known]) -> list[Known]:
        """Those that are current and here, and not in All."""
        with self._lock:
            shown = {known.sha256 for known in self._visible.values()}
        current = [k for k in records if k.current and k.sha256 not in shown and _plausible(k)]
        return [known for known in current if self._is_here(known)]

    def damaged(self, records: Iterable[Known]) -> list[str]:
        """The sha256 of those files that are not what they are named; reads all of them.

        A damaged file is removed, so that nobody uses it.
        """
        bad = []
        for known in records:
            path = self.path_of(known.sha256, known.suffix)
            try:
                sound = sha256_of(path) == known.sha256
            except FileNotFoundError:
                sound = False
            if not sound:
                path.unlink(missing_ok=True)
                bad.append(known.sha256)
        return bad

    def forget(self, sha256: str) -> None:
        """Stops showing an artifact whose file turned out to be damaged or gone."""
        with self._lock:
            self._known.discard(sha256)
            for known in [k for k in self._visible.values() if k.sha256 == sha256]:
                self._unlink(known.pkgname)

    def visible(self) -> list[Known]:
        """What is in All, by name."""
        with self._lock:
            return [known for _, known in sorted(self._visible.items())]

    def _is_here(self, known: Known) -> bool:
        path = self.path_of(known.sha256, known.suffix)
        try:
            if path.stat().st_size == known.size:
                return True
            path.unlink()
        except FileNotFoundError:
            pass
        return False

    def _remove_unknown_links(self) -> int:
        names = {f"{known.pkgname}{known.suffix}" for known in self._visible.values()}
        strangers = [
            entry.name
            for entry in os.scandir(self.all)
            if entry.name not in names
            and valid_suffix(Path(entry.name).suffix)
            and entry.is_file(follow_symlinks=False)
        ]
        for name in strangers:
            (self.all / name).unlink(missing_ok=True)
        return len(strangers)

    def _remove_unknown_files(self, before: float) -> int:
        old = [
            entry.name
            for entry in os.scandir(self.pool)
            if entry.name.partition(".")[0] not in self._known
            and entry.is_file(follow_symlinks=False)
            and entry.stat(follow_symlinks=False).st_ctime < before
        ]
        for name in old:
            (self.pool / name).unlink(missing_ok=True)
        return len(old)


def _temporary_names(directory: Path) -> list[str]:
    names = (entry.name for entry in os.scandir(directory))
    return [name for name in names if name.startswith((INCOMING, TEMPORARY))]


def _plausible(known: Known) -> bool:
    """Whether a record can name files: it comes from another program."""
    return (
        valid_pkgname(known.pkgname)
        and valid_suffix(known.suffix)
        and len(known.sha256) == 64
        and all(digit in "0123456789abcdef" for digit in known.sha256)
    )


def _to_show(records: list[Known]) -> list[Known]:
    """One artifact for each package, and one for each name: the current, else the newest."""
    packages: dict[tuple[str, str], Known] = {}
    names: dict[str, Known] = {}
    ranked = sorted(records, key=lambda known: (known.current, known.built, known.sha256))
    for known in ranked:
        packages[known.package] = known
    for known in ranked:
        if packages[known.package] is known:
            names[known.pkgname] = known
    return list(names.values())


def _checked(path: Path, expected: Expected, package: tuple[str, str]) -> Known:
    """What the file is, read to its end; raises PackageFileError or OSError."""
    if not valid_pkgname(expected.pkgname) or not valid_suffix(expected.suffix):
        raise PackageFileError(
            Flaw.FORBIDDEN, f"{expected.pkgname}{expected.suffix} is no name of a package file"
        )
    size = path.stat().st_size
    if size != expected.size:
        raise PackageFileError(
            Flaw.CHECKSUM, f"{size} bytes arrived of {expected.size} that the host has"
        )
    sha256 = sha256_of(path)
    if sha256 != expected.sha256:
        raise PackageFileError(
            Flaw.CHECKSUM, f"its SHA-256 is {sha256}, and on the host {expected.sha256}"
        )
    contents = read_package(path)
    if contents.pkgname != expected.pkgname:
        raise PackageFileError(
            Flaw.FOREIGN, f"it is {contents.pkgname}, and {expected.pkgname} was asked for"
        )
    summary = summary_entry(contents, f"{expected.pkgname}{expected.suffix}", size)
    return Known(
        pkgname=expected.pkgname,
        sha256=sha256,
        size=size,
        suffix=expected.suffix,
        summary=summary,
        package=package,
        content_digest=contents.content_digest,
    )
