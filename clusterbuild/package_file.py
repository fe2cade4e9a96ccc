"""Reads a binary package file to its end: is it whole, what is it, and what is in it.

The file comes from a host and is not trusted: everything is bounded and checked before it
is believed. Facts about the format: pkg_create(1), pkg_summary(5).
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from clusterbuild.core.blame import Flaw

#: Members of one package file, bytes of all of them, and of their names and headers.
MEMBER_LIMIT = 1_000_000
UNPACKED_LIMIT = 64 * 2**30
HEADER_LIMIT = 4 * 2**20
#: Bytes of a metadata member: +CONTENTS names every file, the others are small.
METADATA_LIMITS = {"+CONTENTS": 128 * 2**20, "+DESC": 2**20, "+COMMENT": 2**16}
SMALL_METADATA = 2**20
CHUNK = 2**20

#: What of +BUILD_INFO a pkg_summary entry shows, in the order pkg_info(1) -X shows it.
SUMMARY_FIELDS = (
    b"BUILD_DATE",
    b"CATEGORIES",
    b"HOMEPAGE",
    b"LICENSE",
    b"MACHINE_ARCH",
    b"OPSYS",
    b"OS_VERSION",
    b"PKGPATH",
    b"PKGTOOLS_VERSION",
    b"PKG_OPTIONS",
    b"PREV_PKGPATH",
    b"PROVIDES",
    b"REQUIRES",
    b"SUPERSEDES",
)
#: What differs between two builds of the same, and takes no part in the content digest:
#: members, and lines of members by their beginning. The exact requirements of the build
#: (@blddep) and the versions of the tree's files (+BUILD_VERSION) say from what a package
#: was made, not what it is.
VOLATILE_MEMBERS = frozenset({"+BUILD_VERSION"})
VOLATILE_LINES = {
    "+BUILD_INFO": (b"BUILD_DATE=", b"BUILD_HOST="),
    "+CONTENTS": (b"@blddep ",),
}

_PKGNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+,~-]*-[A-Za-z0-9_.+,~]+")
_SUFFIX = re.compile(r"\.t[a-z0-9]{1,5}")
_TYPES = frozenset(
    {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE}
)


class PackageFileError(Exception):
    """A package file that is not kept; `flaw` says why, and the text what was found."""

    def __init__(self, flaw: Flaw, text: str) -> None:
        super().__init__(text)
        self.flaw = flaw


@dataclass(frozen=True)
class Contents:
    """What a whole package file holds."""

    pkgname: str
    content_digest: str  # hex; see VOLATILE_MEMBERS and VOLATILE_LINES
    metadata: dict[str, bytes]
    members: int


def valid_pkgname(name: str) -> bool:
    """Whether `name` can be a package's name, and with that a safe file name."""
    return len(name) <= 200 and bool(_PKGNAME.fullmatch(name))


def valid_suffix(suffix: str) -> bool:
    """Whether `suffix` can be that of a package file, as `.tgz` is."""
    return bool(_SUFFIX.fullmatch(suffix))


def sha256_of(path: Path) -> str:
    """Hex digest of a file; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Metered:
    """A byte stream that ends with an error once more was read than is allowed."""

    def __init__(self, stream: _Readable) -> None:
        self._stream = stream
        self.left = HEADER_LIMIT

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(CHUNK if size < 0 else min(size, CHUNK))
        self.left -= len(data)
        if self.left < 0:
            raise PackageFileError(Flaw.FORBIDDEN, "a member's header is larger than 4 MiB")
        return data


@dataclass
class _Reading:
    """What was seen of a package file so far."""

    entries: dict[str, tuple[str, ...]] = field(default_factory=dict)
    metadata: dict[str, bytes] = field(default_factory=dict)
    links: set[str] = field(default_factory=set)
    unpacked: int = 0


@contextmanager
def _damage_told() -> Iterator[None]:
    """Turns what the decompressors and tarfile say of bad input into PackageFileError."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise PackageFileError(Flaw.DAMAGED, f"it is not a whole archive: {error}") from None
    except (ValueError, OverflowError) as error:
        raise PackageFileError(Flaw.DAMAGED, f"its archive cannot be read: {error}") from None
    except OSError as error:
        if error.errno is not None:
            raise  # the disk's fault and not the file's
        raise PackageFileError(Flaw.DAMAGED, f"it is not a whole archive: {error}") from None


def read_package(path: Path) -> Contents:
    """Reads the package file `path` to its end.

    Blocking, and as long as the file: for a thread. Raises PackageFileError, or OSError
    where the file itself cannot be read.
    """
    with path.open("rb") as file, _damage_told():
        stream = _Metered(_unpacking(file))
        reading = _read_members(stream)
        # To the end, for the checksum that only stands there.
        while stream.read():
            pass
    return _contents(reading)


def _unpacking(file: IO[bytes]) -> _Readable:
    """The unpacked bytes of a compressed file, which says by its beginning what it is."""
    magic = file.read(2)
    file.seek(0)
    if magic == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=file)
    if magic == b"BZ":
        return bz2.BZ2File(file)
    if magic == b"\xfd7":
        return lzma.LZMAFile(file)
    raise PackageFileError(Flaw.DAMAGED, "it is no gzip, bzip2 or xz file")


def _read_members(stream: _Metered) -> _Reading:
    reading = _Reading()
    with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
        while (member := archive.next()) is not None:
            archive.members.clear()  # or it keeps them all
            name = _checked_name(member)
            if len(reading.entries) >= MEMBER_LIMIT:
                raise PackageFileError(Flaw.FORBIDDEN, f"it has more than {MEMBER_LIMIT} members")
            if name in reading.entries:
                raise PackageFileError(Flaw.FORBIDDEN, f"it holds {name!r} twice")
            reading.unpacked += member.size
            if reading.unpacked > UNPACKED_LIMIT:
                raise PackageFileError(Flaw.FORBIDDEN, "unpacked it is larger than 64 GiB")
            stream.left = member.size + HEADER_LIMIT
            reading.entries[name] = _entry(archive, member, name, reading)
            stream.left = HEADER_LIMIT
    return reading


def _checked_name(member: tarfile.TarInfo) -> str:
    """The member's name without a leading `./`; raises PackageFileError."""
    name = member.name
    while name.startswith("./"):
        name = name[2:]
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or not parts:
        raise PackageFileError(Flaw.FORBIDDEN, f"it holds a member named {member.name!r}")
    if member.type not in _TYPES or member.sparse is not None:
        raise PackageFileError(Flaw.FORBIDDEN, f"its member {name!r} is no file, directory or link")
    return str(PurePosixPath(name))


def _entry(
    archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, reading: _Reading
) -> tuple[str, ...]:
    """What the content digest says of a member; keeps its bytes if it is metadata."""
    mode = f"{member.mode & 0o7777:o}"
    if member.isdir():
        return ("dir", mode)
    if member.issym():
        reading.links.add(name)
        return ("symlink", member.linkname)
    if member.islnk():
        target = str(PurePosixPath(member.linkname))
        # Which of several names is the file and which the link depends on the order.
        return reading.entries.get(target, ("link", target))
    file = archive.extractfile(member)
    if file is None:
        raise PackageFileError(Flaw.DAMAGED, f"its member {name!r} cannot be read")
    with file:
        if name.startswith("+") and "/" not in name:
            return _metadata_entry(file, member, name, reading)
        return ("file", mode, _digest_of(file, member, name))


def _digest_of(file: IO[bytes], member: tarfile.TarInfo, name: str) -> str:
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(CHUNK):
        digest.update(chunk)
        size += len(chunk)
    if size != member.size:
        raise PackageFileError(Flaw.DAMAGED, f"its member {name!r} is cut short")
    return digest.hexdigest()


def _metadata_entry(
    file: IO[bytes], member: tarfile.TarInfo, name: str, reading: _Reading
) -> tuple[str, ...]:
    limit = METADATA_LIMITS.get(name, SMALL_METADATA)
    if member.size > limit:
        raise PackageFileError(Flaw.FORBIDDEN, f"its {name} is larger than {limit} bytes")
    data = file.read()
    if len(data) != member.size:
        raise PackageFileError(Flaw.DAMAGED, f"its {name} is cut short")
    reading.metadata[name] = data
    if name in VOLATILE_MEMBERS:
        return ("volatile",)
    volatile = VOLATILE_LINES.get(name, ())
    if volatile:
        lines = data.splitlines(keepends=True)
        data = b"".join(line for line in lines if not line.startswith(volatile))
    return ("metadata", hashlib.sha256(data).hexdigest())


def _contents(reading: _Reading) -> Contents:
    plist = reading.metadata.get("+CONTENTS")
    if plist is None:
        raise PackageFileError(Flaw.FOREIGN, "it is no package: there is no +CONTENTS in it")
    for name in reading.entries:
        if any(str(parent) in reading.links for parent in PurePosixPath(name).parents):
            raise PackageFileError(Flaw.FORBIDDEN, f"its member {name!r} is below a symbolic link")
    pkgname = plist_name(plist)
    absent = next((name for name in plist_files(plist) if name not in reading.entries), None)
    if absent is not None:
        raise PackageFileError(
            Flaw.DAMAGED, f"its +CONTENTS lists {absent!r}, which is not in the archive"
        )
    digest = hashlib.sha256()
    for name, entry in sorted(reading.entries.items()):
        for word in (name, *entry):
            data = word.encode("utf-8", "surrogateescape")
            digest.update(b"%d:%s," % (len(data), data))
        digest.update(b"\n")
    return Contents(pkgname, digest.hexdigest(), reading.metadata, len(reading.entries))


def plist_name(plist: bytes) -> str:
    """The package name that a +CONTENTS gives; raises PackageFileError."""
    for line in plist.splitlines():
        if line.startswith(b"@name "):
            name = line[6:].strip().decode("ascii", "backslashreplace")
            if valid_pkgname(name):
                return name
            raise PackageFileError(Flaw.FOREIGN, f"{name!r:.220} is no package name")
    raise PackageFileError(Flaw.FOREIGN, "its +CONTENTS has no @name")


def plist_files(plist: bytes) -> Iterator[str]:
    """The files that a +CONTENTS lists, each as it is named in the archive."""
    ignored = False
    for line in plist.splitlines():
        if line.startswith(b"@"):
            ignored = line.rstrip() == b"@ignore"
        elif line.strip():
            if not ignored:
                yield str(PurePosixPath(line.decode("utf-8", "surrogateescape")))
            ignored = False


def _plist_values(plist: bytes, command: bytes) -> list[bytes]:
    start = b"@" + command + b" "
    return [line[len(start) :] for line in plist.splitlines() if line.startswith(start)]


def summary_entry(contents: Contents, file_name: str, file_size: int) -> bytes:
    """The package's entry of a pkg_summary(5), as pkg_info(1) -X prints it."""
    metadata = contents.metadata
    plist = metadata["+CONTENTS"]
    build_info: dict[bytes, list[bytes]] = {}
    for line in metadata.get("+BUILD_INFO", b"").splitlines():
        key, found, value = line.partition(b"=")
        if found:
            build_info.setdefault(key, []).append(value)
    out = [b"PKGNAME=" + contents.pkgname.encode()]
    out += [b"COMMENT=" + line for line in metadata.get("+COMMENT", b"").splitlines()[:1]]
    out += [b"SIZE_PKG=" + line for line in metadata.get("+SIZE_PKG", b"").splitlines()[:1]]
    out += [b"%s=%s" % (key, value) for key in SUMMARY_FIELDS for value in build_info.get(key, ())]
    out += [b"DEPENDS=" + pattern for pattern in _plist_values(plist, b"pkgdep")]
    out += [b"CONFLICTS=" + pattern for pattern in _plist_values(plist, b"pkgcfl")]
    out += [b"FILE_NAME=" + file_name.encode(), b"FILE_SIZE=%d" % file_size]
    out += [b"DESCRIPTION=" + line for line in metadata.get("+DESC", b"").splitlines()]
    return b"\n".join(line.replace(b"\0", b"").rstrip(b"\r") for line in out) + b"\n\n"
