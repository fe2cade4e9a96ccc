"""What a scan of a pkgpath comes to: the rules that the scan helper and dispatchers share."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

#: Seconds that one make may take. Without an option cache some take minutes.
TIME_LIMIT = 900.0
#: Bytes that one make may print, so that it fits into a message.
MOST_OUTPUT = 15 << 20
#: Bytes of an error that are kept, and of what make said that are looked at for it.
LONGEST_ERROR = 64 << 10

_DIRECTORY = re.compile(r"(?!\.{1,2}$)[\w.+][\w.+-]*", re.ASCII)
_RECORD_LINE = re.compile(rb"[A-Z_]+=")
_RECORD = re.compile(rb"^PKGNAME=", re.MULTILINE)
_SCAN_DEPENDS = re.compile(rb"^SCAN_DEPENDS=(.*)$", re.MULTILINE)


# --- what make says


def is_directory_name(word: str) -> bool:
    """Whether a word of a SUBDIR list can be the name of a directory in it."""
    return _DIRECTORY.fullmatch(word) is not None


def subdirectories(out: bytes) -> tuple[list[str], list[str]]:
    """Of a SUBDIR list (the directory names, each once; what is wrong with other words)."""
    words = dict.fromkeys(out.decode(errors="backslashreplace").split())
    good = [word for word in words if is_directory_name(word)]
    wrong = [
        f"SUBDIR has {word[:100]}, which is not the name of a directory in it"
        for word in words
        if not is_directory_name(word)
    ]
    return good, wrong


def flaw(out: bytes) -> str:
    """Why what make printed can hold no records, though it exited with 0; empty if it may."""
    if b"\0" in out:
        return "make pbulk-index printed a NUL byte"
    if _RECORD.search(out):
        return ""
    what = "" if not out.strip() else ": no line begins with PKGNAME="
    return f"make pbulk-index printed no record{what}"


def error_text(fault: str, out: bytes, said: bytes) -> str:
    """The fault, and under it what make said; of its output only what belongs to no record."""
    lines = out[-4096:].splitlines()
    stray = b"\n".join(line for line in lines if line and not _RECORD_LINE.match(line))
    heard = b"\n".join(text.strip() for text in (said[-LONGEST_ERROR:], stray) if text.strip())
    return f"{fault}\n{heard.decode(errors='backslashreplace')}".strip()[:LONGEST_ERROR]


def relocated(text: bytes, scanned: str, tree: str) -> bytes:
    """What make said in a copy of the tree at `scanned`, as if it had been said in `tree`."""
    if scanned in ("", "/", tree):
        return text
    name = re.escape(os.fsencode(scanned)) + rb"(?![\w.+~-])"
    return re.sub(name, os.fsencode(tree).replace(b"\\", rb"\\"), text)


def included(out: bytes) -> set[bytes]:
    """The words of all SCAN_DEPENDS lines: the files that make has read."""
    return {word for found in _SCAN_DEPENDS.finditer(out) for word in found[1].split()}


# --- what a build reads


def inputs(
    pkgpath: str,
    own: Iterable[str],
    read: Iterable[bytes],
    tree: str,
    digest: Callable[[str], str],
) -> dict[str, str]:
    """The files that a build of a pkgpath reads, by path, with their digests.

    All files in the package directory (`own`, relative to it, without what `is_foreign`), and
    those that its makefiles include from elsewhere in the tree, but not from its mk directory:
    `read` are the words of SCAN_DEPENDS, said in the tree at `tree`. `digest` gives the digest
    of a path relative to the tree. Text that is not UTF-8 is shown with backslash escapes.
    """
    found = {f"{pkgpath}/{name}": "" for name in own}
    for word in read:
        name = _elsewhere(pkgpath, os.fsdecode(word), tree)
        if name:
            found[name] = ""
    return {_shown(name): _shown(digest(name)) for name in sorted(found)}


def is_foreign(name: str) -> bool:
    """Whether a path in a package directory is no file of the package: of version control, say."""
    *directories, file = name.split("/")
    return any(map(is_foreign_directory, directories)) or is_foreign_file(file)


def is_foreign_directory(name: str) -> bool:
    """The same of the name of a directory."""
    return name in ("CVS", ".git", ".hg", ".svn", "work") or name.startswith("work.")


def is_foreign_file(name: str) -> bool:
    """The same of the name of anything else."""
    return name == ".git" or name.startswith(".#") or name.endswith(("~", ".orig", ".rej"))


def content(path: Path) -> str:
    """Digest of a file; of a link that leads to no file where it leads; or that there is none."""
    try:
        if path.is_symlink() and not path.is_file():
            return f"-> {path.readlink()}"
        if not path.is_file():  # a pipe, a socket: nothing that could be read
            return "no file"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _shown(text: str) -> str:
    return os.fsencode(text).decode(errors="backslashreplace")


def _elsewhere(pkgpath: str, word: str, tree: str) -> str:
    """Of a word of SCAN_DEPENDS: its path below the tree, if it counts as another's file."""
    top = f"{tree}/"
    path = os.path.normpath(f"{top}{pkgpath}/{word}" if word[:1] != "/" else word)
    name = path.removeprefix(top)
    return "" if name == path or name.startswith(("mk/", f"{pkgpath}/")) else name
