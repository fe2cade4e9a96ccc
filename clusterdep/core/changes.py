"""What changed files mean: which pkgpaths have to be scanned again, and why.

A pkgpath is scanned again when

* a file changed that its last scan read (SCAN_DEPENDS, real paths; also mk.conf and other
  files outside the tree), be it there or gone;
* any file of its own directory changed: make finds a new hacks.mk or options.mk by itself, and
  patches, distinfo and PLIST are part of what an artifact is made of. Scanning one directory
  takes a fraction of a second, so what changes only the digest of its inputs is scanned, too:
  record and digest are always of one moment;
* a file is there now that nothing read, and that make would have read: see `_NEW`;
* the options of a package changed that its buildlink3.mk asks for
  (mk/pkg-build-options.mk runs make in the other directory: SCAN_DEPENDS does not show it);
* its last scan failed, and the file is named in what make said, or nothing is known of what
  it reads and the file is one that everybody may read.

The lists of categories and packages (SUBDIR) are in the top Makefile and in the categories'
own, and may depend on mk.conf: if one of these changed, the tree is enumerated again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from posixpath import basename, dirname

from clusterdep.core.files import NAMED, SHARED, Readers


class Kind(Enum):
    """What became of a file."""

    CHANGED = "changed"
    NEW = "is new"
    GONE = "is gone"


#: What leads from files to a pkgpath: (how, files).
Leads = dict[str, tuple[str, ...]]

_OPTIONS = "mk/pkg-build-options.mk"
_OWN_OPTIONS = "mk/bsd.options.mk"
_MENTIONS = re.compile(r"\bexists *\(|^\. *(?:s|-)include", re.MULTILINE)
_SUBDIR = re.compile(r"^[ \t]*SUBDIR[ \t]*\+?=[ \t]*([^#\n]*)", re.MULTILINE)
_NEVER = re.compile(r"(?:^|/)(?:CVS|\.git|\.hg|\.svn)(?:/|$)|(?:^|/)\.#[^/]*$|(?:~|\.orig|\.rej)$")
_WORK = re.compile(r"[^/]+/[^/]+/(?:.*/)?work(?:\.[^/]*)?/")


@dataclass(frozen=True)
class Known:
    """What is known of a profile's tree."""

    ids: Mapping[str, int]  # of every pkgpath of the enumeration
    failed: Mapping[str, str]  # what make said, for pkgpaths whose last scan failed
    readers: Readers
    #: The file as it is now, empty if it is not there or cannot be read.
    text: Callable[[str], str]
    names: Mapping[int, str]  # `ids` turned round


@dataclass
class Effect:
    """What a set of changed files leads to."""

    rescans: dict[str, Leads] = field(default_factory=dict)  # by pkgpath
    enumerate: str = ""  # the file for which the tree is to be enumerated again
    new: list[str] = field(default_factory=list)  # pkgpaths that are listed now
    gone: list[str] = field(default_factory=list)  # known pkgpaths that are listed no more
    unread: list[str] = field(default_factory=list)  # files that lead nowhere


def is_foreign(path: str) -> bool:
    """Whether a file belongs to no package: bookkeeping of CVS or git, backups, work directories.

    The same that is left out of the digest of a package directory.
    """
    return _NEVER.search(path) is not None or _WORK.match(path) is not None


def effect(changes: Mapping[str, Kind], known: Known) -> Effect:
    """What the changed files, by real path (core/files.py), lead to."""
    found = Effect()
    files = {path: kind for path, kind in changes.items() if not is_foreign(path)}
    used: set[str] = set()
    names = known.names

    def lead(pkgpaths: Iterable[int], how: str, path: str) -> None:
        for number in pkgpaths:
            if number in names:
                used.add(path)
                _note(found.rescans.setdefault(names[number], {}), how, path)

    for number, paths in known.readers.who(files).items():
        if number in names:
            found.rescans[names[number]] = {"reads": paths}
    used.update(path for path in files if known.readers.read(path))
    for path, kind in files.items():
        own = known.ids.get(_pkgpath(path))
        if own is not None:
            lead((own,), f"{kind.value} in its directory:", path)
        if kind is Kind.NEW and not known.readers.read(path):
            lead(_would_read(path, known), "would read the new", path)
        lead(_asks(path, known), "asks for options of", path)
        lead(_failed(path, known), "failed, and may read", path)
    _lists(found, files, known, used)
    found.unread = [path for path in files if path not in used]
    return found


def _note(leads: Leads, how: str, path: str) -> None:
    """One more file that leads to a pkgpath, if no other way was found for it."""
    if not any(path in paths for paths in leads.values()):
        before = leads.get(how, ())
        if len(before) < NAMED:
            leads[how] = (*before, path)


def _pkgpath(path: str) -> str:
    """The package directory that a file of the tree is in, if it is in one."""
    parts = path.split("/", 2)
    return "/".join(parts[:2]) if len(parts) == 3 and parts[0] else ""


def why(leads: Leads) -> str:
    """In one sentence why a pkgpath is scanned again."""
    files = [(how, path) for how, paths in leads.items() for path in paths]
    if not files:
        return next(iter(leads))
    how, first = files[0]
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{how} {first}{more}"


# --- files that were not there when it was scanned ------------------------------------------


def _beside(path: str, name: str) -> str:
    return f"{dirname(path)}/{name}"


def _would_read(path: str, known: Known) -> Iterator[int]:
    """Who would read a file that nobody has read."""
    name = basename(path)
    if name in _NEW:
        yield from _NEW[name](path, known)
    elif name == "Makefile.inc" and path.count("/") == 1:
        # Every makefile of a directory may include ../Makefile.inc, as BSD's do.
        category = f"{dirname(path)}/"
        yield from (n for pkgpath, n in known.ids.items() if pkgpath.startswith(category))
    if name.endswith(".mk"):
        yield from _tentative(path, known)


def _beside_buildlink3(path: str, known: Known) -> Iterator[int]:
    """bsd.buildlink3.mk includes the builtin.mk beside a buildlink3.mk if there is one."""
    yield from known.readers.of(_beside(path, "buildlink3.mk"))


def _same_pkgdir(path: str, known: Known) -> Iterator[int]:
    """bsd.hacks.mk includes hacks.mk in PKGDIR, which is not always the own directory."""
    for other in ("Makefile", "Makefile.common", "options.mk"):
        yield from known.readers.of(_beside(path, other))


_NEW: Mapping[str, Callable[[str, Known], Iterator[int]]] = {
    "builtin.mk": _beside_buildlink3,
    "hacks.mk": _same_pkgdir,
}


def _tentative(path: str, known: Known) -> Iterator[int]:
    """Readers of files in mk/ that look whether the file is there, and name it."""
    name, directory = basename(path), dirname(path)
    below_mk = path.startswith(SHARED)
    if not below_mk and name in _NEW:
        return
    for candidate in known.readers.shared():
        text = known.text(candidate)
        if (below_mk or directory in text) and name in text and _MENTIONS.search(text):
            yield from known.readers.of(candidate)


# --- what SCAN_DEPENDS does not show --------------------------------------------------------


def _asks(path: str, known: Known) -> Iterator[int]:
    """Packages that ask a package for its options, if the file may change these."""
    pkgpath = _pkgpath(path)
    if pkgpath not in known.ids or not _sets_options(path, pkgpath, known):
        return
    asking = f"{pkgpath}/buildlink3.mk"
    if basename(_OPTIONS) in known.text(asking):
        yield from known.readers.of(asking) & known.readers.of(_OPTIONS)


def _sets_options(path: str, pkgpath: str, known: Known) -> bool:
    name = basename(path)
    if name.endswith(".mk") and "options" in name:
        return True
    if not name.startswith("Makefile"):
        return False
    read = known.readers.files(known.ids[pkgpath])
    return _OWN_OPTIONS in read and f"{pkgpath}/options.mk" not in read


def _failed(path: str, known: Known) -> Iterator[int]:
    """Pkgpaths whose last scan failed and that this file may mend."""
    everybodys = path.startswith((SHARED, "/"))
    for pkgpath, said in known.failed.items():
        number = known.ids.get(pkgpath)
        if number is None:
            continue
        named = f"/{path.lstrip('/')}" in said
        if named or (everybodys and not known.readers.knows(number)):
            yield number


# --- which pkgpaths there are ---------------------------------------------------------------


def _lists(found: Effect, files: Mapping[str, Kind], known: Known, used: set[str]) -> None:
    """Whether the lists of categories and packages changed, and what they say now."""
    if "Makefile" in files:
        categories = {pkgpath.partition("/")[0] for pkgpath in known.ids}
        _enumerate(found, "Makefile", used)
        listed = subdirs(known.text("Makefile"))
        new = [name for name in listed if name not in categories]
        gone = categories.difference(listed) if listed else ()
        for category in (*new, *sorted(gone)):
            _members(found, category, known, listed=category not in gone)
    for path in files:
        category, _, name = path.partition("/")
        if name == "Makefile" and category:
            _enumerate(found, path, used)
            _members(found, category, known, listed=True)
        elif path.startswith("/") and basename(path) == "mk.conf":
            _enumerate(found, path, used)
    found.new = sorted(dict.fromkeys(found.new))
    found.gone = sorted(dict.fromkeys(found.gone))
    for pkgpath in found.gone:
        found.rescans.pop(pkgpath, None)


def _enumerate(found: Effect, path: str, used: set[str]) -> None:
    used.add(path)
    found.enumerate = found.enumerate or path


def _members(found: Effect, category: str, known: Known, *, listed: bool) -> None:
    """Compares a category's own list with the pkgpaths that are known."""
    text = known.text(f"{category}/Makefile") if listed else ""
    now = {f"{category}/{name}" for name in subdirs(text)}
    before = {p for p in known.ids if p.startswith(f"{category}/")}
    found.new += now - before
    if not text or now:  # a list made in another way says nothing here
        found.gone += before - now


def subdirs(text: str) -> list[str]:
    """The directories that a Makefile lists, as far as it can be read without make."""
    words = (word for line in _SUBDIR.findall(text) for word in line.split())
    return [word for word in dict.fromkeys(words) if "$" not in word]


# --- in which order -------------------------------------------------------------------------


def hot(files: Collection[str], readers: Readers, most: int) -> set[str]:
    """Of the files those that more than `most` pkgpaths read."""
    return {path for path in files if readers.count(path) > most}
