"""Distfiles: which ones a package names in its distinfo, and which of them are at hand."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clusterbuild.engines import Distfile

log = logging.getLogger("clusterbuild.distfiles")

#: Checksums of distinfo that can be computed here, the best first, and how hashlib names them.
ALGORITHMS = {"BLAKE2s": "blake2s", "SHA512": "sha512", "SHA256": "sha256", "SHA1": "sha1"}
_LINE = re.compile(r"(\w+) \(([^()\s]+)\) = ([0-9a-fA-F]+)(?: bytes)?\s*")
#: Names that can be sent: those that hosts take as paths.
_NAME = re.compile(r"(?!.*(^|/)\.{1,2}(/|$))[A-Za-z0-9_.+,@~-]+(/[A-Za-z0-9_.+,@~-]+)*")
#: What makefiles say of a distinfo that is another package's, and what they include.
_ELSEWHERE = re.compile(
    r"^DISTINFO_FILE\s*[?:]?=\s*(?:\$\{\.CURDIR\}/)?(\.\./[\w.+/-]+)\s*(?:#.*)?$", re.M
)
_INCLUDED = re.compile(r'^\.\s*include\s+"((?:\.\./\.\./)?[\w.+/-]+)"', re.M)
#: A distinfo or makefile larger than this is none, bytes.
LARGEST = 16 << 20


@dataclass(frozen=True)
class Wanted:
    """A distfile as a distinfo describes it: its size in bytes, and checksums in hex by name."""

    name: str  # may have a directory: DIST_SUBDIR/foo-1.0.tar.gz
    size: int
    sums: Mapping[str, str]


def parse(text: str) -> list[Wanted]:
    """The distfiles that a distinfo describes: those with a size; patches have none."""
    sizes: dict[str, int] = {}
    sums: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or not _NAME.fullmatch(match[2]):
            continue
        if match[1] == "Size":
            if match[3].isdecimal() and len(match[3]) < 19:
                sizes[match[2]] = int(match[3])
        else:
            sums.setdefault(match[2], {})[match[1]] = match[3].lower()
    return [Wanted(name, size, sums.get(name, {})) for name, size in sizes.items()]


def wanted(tree: Path, pkgpath: str) -> list[Wanted]:
    """What the distinfo of a package names, wherever in the tree its makefile says that is.

    As far as that can be told without make: a distinfo elsewhere is found if the Makefile, or
    one that it includes, names it by a path that begins with ../ .
    """
    directory = tree / pkgpath
    makefile = _read(directory / "Makefile")
    texts = [makefile]
    for name in _INCLUDED.findall(makefile):
        if not name.startswith("../../mk/"):
            texts.append(_read(directory / name))
    paths = [directory / name for text in texts for name in _ELSEWHERE.findall(text)]
    for path in (*paths, directory / "distinfo"):
        if path.is_file():
            return parse(_read(path))
    return []


def _read(path: Path) -> str:
    """A text of a tree; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(LARGEST).decode(errors="surrogateescape")
    except OSError:
        return ""


@dataclass
class Shelf:
    """Finds distfiles, and remembers the checksums of those it has read. Its methods block."""

    _known: dict[tuple[str, int, int, int], dict[str, str]] = field(default_factory=dict)

    def find(self, files: Iterable[Wanted], directories: Sequence[Path]) -> list[Distfile]:
        """Those of `files` that are in one of the directories, whole and as wanted."""
        found = (self._find(file, directories) for file in files)
        return [file for file in found if file is not None]

    def _find(self, file: Wanted, directories: Sequence[Path]) -> Distfile | None:
        for directory in directories:
            path = directory / file.name
            try:
                if not path.is_file() or path.stat().st_size != file.size:
                    continue
                sums = self._sums(path)
            except OSError as error:
                log.warning("%s cannot be read: %s", path, error.strerror)
                continue
            wrong = [name for name, value in file.sums.items() if sums.get(name, value) != value]
            if not wrong:
                return Distfile(file.name, path, file.size, sums["SHA256"])
            log.warning("%s is not what distinfo says: its %s differs", path, wrong[0])
        return None

    def _sums(self, path: Path) -> dict[str, str]:
        status = path.stat()
        key = (str(path), status.st_size, status.st_mtime_ns, status.st_ino)
        if key not in self._known:
            hashes = {name: hashlib.new(known) for name, known in ALGORITHMS.items()}
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    for one in hashes.values():
                        one.update(piece)
            self._known[key] = {name: one.hexdigest() for name, one in hashes.items()}
        return self._known[key]
