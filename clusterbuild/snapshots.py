"""Snapshots of trees: immutable copies, named by their content, that scans and builds read.

STATE/trees holds for each snapshot DIGEST a directory of this name, the list of its files
DIGEST.files and, once a host has wanted it, the archive DIGEST.tgz; and pins/PROFILE, which
says what the builds of a profile read. A snapshot is made under another name and renamed when
it is whole. Files that did not change are shared between snapshots by hard links, never with
the tree itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from clusterdep.api.errors import Fault, Kind

#: Left out wherever they are: what version control keeps for itself.
FOREIGN = frozenset({".git", ".hg", ".svn", ".bzr", "CVS", "_darcs"})
#: Left out at the top: what is fetched and what is made.
DATA = frozenset({"distfiles", "packages"})
#: How often a tree that changes meanwhile is looked at anew.
ROUNDS = 5
#: A file changed so shortly before it was read may change again unseen, seconds.
RACY = 2.0
#: How long a snapshot that nobody has pinned is kept after its last use, seconds.
KEPT_SECONDS = 3600.0
PIECE = 1 << 20
COMPRESSION = 4
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Snapshot:
    """A tree at one moment."""

    digest: str  # SHA256, of names, contents and what may be executed
    path: Path


@dataclass(frozen=True, slots=True)
class Found:
    """Something in a tree. `key` changes whenever a file's content may have."""

    path: str  # relative to the tree
    kind: str  # "d" directory, "f" file, "x" file to execute, "l" symbolic link
    key: str = ""  # of files: size, times and inode
    target: str = ""  # of links
    changed: float = 0.0  # seconds since 1970


class _MovedError(Exception):
    """A file is not any more what it was when the tree was looked at."""


class Snapshots:
    """The snapshots in one directory. Methods block; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path_of(self, digest: str) -> Path:
        """Where a snapshot is, if it is there."""
        return self._root / digest

    def take(self, tree: Path) -> Snapshot:
        """The snapshot of a tree as it is now, made unless there is one of the same content.

        Raises Fault if the tree can not be read or does not stop changing, or if it can not
        be written here.
        """
        try:
            with self._locked():
                return self._take(tree)
        except OSError as error:
            what = f"no snapshot of {tree} could be made: {error}"
            raise Fault(Kind.CANNOT_CREATE, what) from error

    def _take(self, tree: Path) -> Snapshot:
        known = self._read_hashes(tree)
        for _ in range(ROUNDS):
            found = look(tree, self._root.parent)
            try:
                lines = self._lines(tree, found, known)
                digest = hashlib.sha256("".join(lines).encode(*ENCODING)).hexdigest()
                snapshot = Snapshot(digest, self._root / digest)
                if not snapshot.path.is_dir():
                    self._make(tree, snapshot, found, lines)
            except (_MovedError, FileNotFoundError):
                continue
            self._write_hashes(tree, known)
            os.utime(snapshot.path)
            return snapshot
        raise Fault(
            Kind.UNAVAILABLE,
            f"no snapshot of {tree} could be made: its files do not stop changing",
            "wait until whatever writes there is done",
        )

    def _lines(self, tree: Path, found: list[Found], known: dict[str, str]) -> list[str]:
        """A line for each thing found: kind, content, path. Adds to the known hashes."""
        now = time.time()
        lines, fresh = [], {}
        for one in found:
            content = one.target if one.kind == "l" else "-"
            if one.kind in "fx":
                content = known.get(one.key) or _hash(tree / one.path)
                if now - one.changed > RACY:
                    fresh[one.key] = content
            lines.append(f"{one.kind} {_escaped(content)} {_escaped(one.path)}\n")
        known.clear()
        known.update(fresh)
        return lines

    # -- making one -------------------------------------------------------------------

    def _make(self, tree: Path, snapshot: Snapshot, found: list[Found], lines: list[str]) -> None:
        new = self._root / f".new.{secrets.token_hex(6)}"
        try:
            new.mkdir(parents=True)
            self._fill(tree, new, found, lines)
            if look(tree, self._root.parent) != found:
                raise _MovedError
            listing = self._root / f"{snapshot.digest}.files"
            _write_whole(listing, "".join(lines).encode(*ENCODING))
            os.sync()
            new.rename(snapshot.path)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _fill(self, tree: Path, new: Path, found: list[Found], lines: list[str]) -> None:
        there = self._shared()
        for one, line in zip(found, lines, strict=True):
            target = new / one.path
            if one.kind == "d":
                target.mkdir()
                continue
            if one.kind == "l":
                target.symlink_to(one.target)
                continue
            old = there.get(line)
            if old is None or not _linked(old, target):
                _copy(tree / one.path, target, one.kind, line.split(" ")[1])

    def _shared(self) -> Mapping[str, Path]:
        """Files of the newest snapshot, by their line in its list."""
        for _, digest in sorted(self._all(), reverse=True):
            with contextlib.suppress(OSError):
                lines = self._listing(digest)
                return {line: self._root / digest / path for line, _, _, path in lines}
        return {}

    def _listing(self, digest: str) -> Iterator[tuple[str, str, str, str]]:
        """Of everything in a snapshot: line, kind, content or target, path."""
        text = (self._root / f"{digest}.files").read_bytes().decode(*ENCODING)
        for line in text.split("\n")[:-1]:
            kind, content, path = line.split(" ")
            yield f"{line}\n", kind, _plain(content), _plain(path)

    def files(self, digest: str) -> Iterator[tuple[str, str, str]]:
        """Of everything in a snapshot: kind, digest or target, path. Raises OSError."""
        return ((kind, content, path) for _, kind, content, path in self._listing(digest))

    def archive(self, digest: str) -> Path:
        """The snapshot as a compressed tar file, whose members are relative to the tree's top.

        Made when it is first wanted. Raises OSError.
        """
        path = self._root / f"{digest}.tgz"
        with self._locked():
            if not path.exists():
                new = self._root / f".new.{secrets.token_hex(6)}.tgz"
                try:
                    self._pack(digest, new)
                    new.replace(path)
                finally:
                    new.unlink(missing_ok=True)
            os.utime(self._root / digest)
        return path

    def _pack(self, digest: str, target: Path) -> None:
        form = tarfile.GNU_FORMAT  # read by every tar, however long the names
        with tarfile.open(target, "w:gz", compresslevel=COMPRESSION, format=form) as tar:
            for _, kind, content, name in self._listing(digest):
                path = self._root / digest / name
                member = tarfile.TarInfo(name)
                status = path.lstat()
                member.mtime, member.mode = int(status.st_mtime), 0o755
                if kind == "d":
                    member.type = tarfile.DIRTYPE
                    tar.addfile(member)
                elif kind == "l":
                    member.type, member.linkname = tarfile.SYMTYPE, content
                    tar.addfile(member)
                else:
                    member.mode, member.size = MODES[kind], status.st_size
                    with path.open("rb") as file:
                        tar.addfile(member, file)

    # -- who uses what --------------------------------------------------------------------

    def pin(self, profile: str, tree: Path, snapshot: Snapshot, kit: str = "") -> None:
        """From now on builds of a profile read this snapshot of its tree. Raises OSError.

        `kit` is the digest of the kit that hosts scan it with; empty: they do not scan it.
        """
        with self._locked():
            pins = self._root / "pins"
            pins.mkdir(exist_ok=True)
            said = {"tree": str(tree), "digest": snapshot.digest, "kit": kit}
            _write_whole(pins / profile, json.dumps(said).encode())

    def pinned(self, profile: str, tree: Path) -> Snapshot | None:
        """What builds of a profile read, if that was said for this tree and is there."""
        digest = self._pins().get(profile, {}).get("digest", "")
        if self._pins().get(profile, {}).get("tree") != str(tree) or not _DIGEST.fullmatch(digest):
            return None
        snapshot = Snapshot(digest, self._root / digest)
        with contextlib.suppress(FileNotFoundError):
            os.utime(snapshot.path)
            return snapshot
        return None

    def scanned_with(self, profile: str, kit: str) -> bool:
        """Whether hosts scan what is pinned for a profile, with this kit."""
        return self._pins().get(profile, {}).get("kit", "") == kit

    def changed(self, old: Snapshot, new: Snapshot) -> list[str]:
        """The files in which two snapshots differ, by path. Raises OSError."""
        listings = (set(self.files(one.digest)) for one in (old, new))
        differ = set.symmetric_difference(*listings)
        return sorted({path for kind, _, path in differ if kind != "d"})

    def wanted(self) -> frozenset[str]:
        """The snapshots that some profile has pinned."""
        return frozenset(pin.get("digest", "") for pin in self._pins().values())

    def _pins(self) -> dict[str, dict[str, str]]:
        pins = {}
        for path in (self._root / "pins").glob("[!.]*"):
            with contextlib.suppress(OSError, ValueError):
                read = json.loads(path.read_bytes())
                if isinstance(read, dict):
                    pins[path.name] = {key: str(value) for key, value in read.items()}
        return pins

    def prune(self, now: float | None = None) -> list[str]:
        """Removes snapshots that nobody has pinned, no job here reads, and nobody used lately.

        Returns their digests. Raises OSError.
        """
        with self._locked():
            now = time.time() if now is None else now
            used = self.wanted() | self._read_by_jobs()
            gone = [
                digest
                for last_use, digest in self._all()
                if digest not in used and now - last_use > KEPT_SECONDS
            ]
            for digest in gone:
                hidden = self._root / f".old.{digest}"
                (self._root / digest).rename(hidden)
                shutil.rmtree(hidden)
                for suffix in (".files", ".tgz"):
                    (self._root / f"{digest}{suffix}").unlink(missing_ok=True)
            return gone

    def _read_by_jobs(self) -> frozenset[str]:
        """The snapshots that jobs on this machine build from, by their job files."""
        used = set()
        for path in (self._root.parent / "hosts").glob("*/jobs/*/job"):
            with contextlib.suppress(OSError):
                used.update(re.findall(rb"^TREE='.*/([0-9a-f]{64})'$", path.read_bytes(), re.M))
        return frozenset(digest.decode() for digest in used)

    def _all(self) -> Iterator[tuple[float, str]]:
        """When each snapshot was last used, and its digest."""
        for path in self._root.iterdir():
            if _DIGEST.fullmatch(path.name):
                yield path.stat().st_mtime, path.name

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Makes the directory; one process at a time changes it, and tidies up after others."""
        self._root.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in (*self._root.glob(".new.*"), *self._root.glob(".old.*")):
                if left.is_dir():
                    shutil.rmtree(left)
                else:
                    left.unlink()
            yield
        finally:
            os.close(lock)

    # -- hashes that were computed before ---------------------------------------------------

    def _hashes(self, tree: Path) -> Path:
        return self._root / f"hashes.{hashlib.sha256(os.fsencode(tree)).hexdigest()[:16]}"

    def _read_hashes(self, tree: Path) -> dict[str, str]:
        try:
            lines = self._hashes(tree).read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            return {}
        pairs = (line.partition(" ") for line in lines)
        return {key: digest for key, _, digest in pairs if _DIGEST.fullmatch(digest)}

    def _write_hashes(self, tree: Path, known: Mapping[str, str]) -> None:
        text = "".join(f"{key} {digest}\n" for key, digest in known.items())
        _write_whole(self._hashes(tree), text.encode())


#: How names are written down: any bytes, as the file system has them.
ENCODING = ("utf-8", "surrogateescape")
#: Permissions of files in a snapshot; the tree's own do not matter otherwise.
MODES = {"f": 0o644, "x": 0o755}


def look(tree: Path, state: Path) -> list[Found]:
    """Everything of a tree that belongs into a snapshot, in the order of paths.

    A link at its top that leads to a directory elsewhere is taken for that directory: so are
    trees laid over each other. `state` is left out if it lies within. Raises OSError.
    """
    try:
        own = state.stat()
        leave = (own.st_dev, own.st_ino)
    except FileNotFoundError:
        leave = (0, 0)
    found: list[Found] = []
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(tree / below) as entries:
            for entry in entries:
                one = _found(tree, below, entry, leave)
                if one is not None:
                    found.append(one)
                    if one.kind == "d":
                        waiting.append(f"{one.path}/")
    found.sort(key=lambda one: one.path)
    return found


def _found(tree: Path, below: str, entry: os.DirEntry[str], leave: tuple[int, int]) -> Found | None:
    name = entry.name
    depth = below.count("/")
    if name in FOREIGN or (depth == 0 and name in DATA):
        return None
    if depth == 2 and (name == "work" or name.startswith("work.")) and not entry.is_file():
        return None
    path = below + name
    if entry.is_symlink():
        if depth or not _leads_out(tree, entry):
            return Found(path, "l", target=str(Path(entry.path).readlink()))
        return Found(path, "d")
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        return None if (status.st_dev, status.st_ino) == leave else Found(path, "d")
    if not stat.S_ISREG(status.st_mode):
        return None
    kind = "x" if status.st_mode & stat.S_IXUSR else "f"
    numbers = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    changed = max(status.st_mtime, status.st_ctime)
    return Found(path, kind, "-".join(map(str, numbers)), changed=changed)


def _leads_out(tree: Path, entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and tree.resolve() not in Path(entry.path).resolve().parents


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _linked(old: Path, target: Path) -> bool:
    try:
        target.hardlink_to(old)
    except OSError:
        return False
    return True


def _copy(source: Path, target: Path, kind: str, expected: str) -> None:
    """Copies a file; raises _MovedError if it is not what was expected."""
    digest = hashlib.sha256()
    with source.open("rb") as file, target.open("xb") as copy:
        while piece := file.read(PIECE):
            digest.update(piece)
            copy.write(piece)
        os.fchmod(copy.fileno(), MODES[kind])
        times = os.fstat(file.fileno())
    os.utime(target, ns=(times.st_mtime_ns, times.st_mtime_ns))
    if digest.hexdigest() != expected:
        raise _MovedError


def _write_whole(path: Path, content: bytes) -> None:
    new = path.with_name(f".new.{path.name}")
    new.write_bytes(content)
    new.replace(path)


def _escaped(text: str) -> str:
    """As one word of a line."""
    return re.sub(r"[\\\s\x00-\x1f\x85]", lambda match: f"\\{ord(match[0]):06x}", text)


def _plain(word: str) -> str:
    if "\\" not in word:
        return word
    return re.sub(r"\\([0-9a-f]{6})", lambda match: chr(int(match[1], 16)), word)
