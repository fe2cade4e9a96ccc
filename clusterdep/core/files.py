"""Which files a scan read, and who reads a file: SCAN_DEPENDS turned round.

SCAN_DEPENDS names about 150 makefiles for each record, most of them below mk/ and the same
for thousands of packages. So three things are kept apart:

* a *path*, once: real, relative to the tree where it is in it, else absolute. It has a
  number for ever;
* a *set* of paths below mk/, once, however many records read exactly these: a few thousand
  sets stand for nine tenths of all entries;
* for each pkgpath the numbers of its sets and of all other files, packed into bytes (`pack`).

`Paths` makes numbers of the words of SCAN_DEPENDS, `Readers` is the way back. Both are used
by one thread only; nothing here reads a file.
"""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from posixpath import normpath
from typing import NamedTuple

#: The directory whose files nearly everybody reads.
SHARED = "mk/"
#: Of the files that lead to one pkgpath so many are named.
NAMED = 20

_UP = b"../../"
_SHARED_WORD = _UP + SHARED.encode()
_NEXT_SHARED = b" " + _SHARED_WORD
_PLAIN = re.compile(rb"\.\./\.\./(?:(?!\.{0,2}/)[^/ ]+/)*(?!\.{1,2}$)[^/ ]+")


class Reads(NamedTuple):
    """What one record read."""

    shared: int  # number of the set of files below mk/
    files: frozenset[int]  # numbers of the others


class _Numbers(dict[bytes, int]):
    """Numbers of words of SCAN_DEPENDS: known ones at the speed of a dict."""

    def __init__(self, paths: Paths) -> None:
        super().__init__()
        self._paths = paths
        self._pkgpath = self._root = ""
        self._absolute: list[bytes] = []  # the words that depend on where the tree is

    def begin(self, pkgpath: str, root: str) -> None:
        """From now on words are of that package directory, of a tree that is at `root`."""
        self._pkgpath = pkgpath
        if root != self._root:
            self._root = root
            for word in self._absolute:
                del self[word]
            self._absolute.clear()

    def __missing__(self, word: bytes) -> int:
        text = word.decode(errors="backslashreplace")
        if b"/" not in word and word.strip(b"."):
            return self._paths.number(f"{self._pkgpath}/{text}")
        number = self._paths.number(real(text, self._pkgpath, self._root))
        if _PLAIN.fullmatch(word):  # means the same in every package directory
            self[word] = number
        elif word.startswith(b"/"):
            self[word] = number
            self._absolute.append(word)
        return number


def real(word: str, pkgpath: str, root: str = "") -> str:
    """The path that a word of SCAN_DEPENDS means, if it was read in the directory of `pkgpath`.

    Relative to the tree where it is in it, else absolute. `root` is where the tree was then;
    `ROOT/category/package/../../x` is known to be x without it.
    """
    if not word.startswith("/"):
        path = normpath(f"{pkgpath}/{word}")
        return normpath(f"{root}/{path}") if root and path.startswith("../") else path
    _, inside, rest = word.partition(f"/{pkgpath}/../../")
    if inside:
        path = normpath(rest)
        return path if not path.startswith("../") else normpath(word)
    path = normpath(word)
    return path.removeprefix(f"{root}/") if root else path


class Paths:
    """The numbers of all paths and sets there are. What is new has to be stored."""

    def __init__(
        self,
        paths: Iterable[tuple[int, str]] = (),
        sets: Iterable[tuple[int, bytes]] = (),
    ) -> None:
        """`paths` and `sets` are (number, path) and (number, packed numbers); see `know`."""
        self._path: dict[int, str] = {}
        self._number: dict[str, int] = {}
        self._below_mk: set[int] = set()
        self._members: dict[int, frozenset[int]] = {}
        self._set: dict[frozenset[int], int] = {}
        self._runs: dict[bytes, frozenset[int]] = {}  # by the text of a run of words below mk/
        self._sums: dict[tuple[bytes, frozenset[int]], int] = {}  # set: a run, and what else
        self._words = _Numbers(self)
        self._next = self._next_set = 1
        #: What was not here before, to be stored; whoever has stored it clears the lists.
        self.new_paths: list[tuple[int, str]] = []
        self.new_sets: list[tuple[int, bytes]] = []
        self.know(paths, sets)

    def know(
        self, paths: Iterable[tuple[int, str]] = (), sets: Iterable[tuple[int, bytes]] = ()
    ) -> None:
        """Paths and sets as they are stored."""
        for number, path in paths:
            self._add(number, path)
        for number, packed in sets:
            self._add_set(number, frozenset(_unpack(packed)))

    def _add(self, number: int, path: str) -> None:
        self._path[number] = path
        self._number[path] = number
        self._next = max(self._next, number + 1)
        if path.startswith(SHARED):
            self._below_mk.add(number)

    def _add_set(self, number: int, members: frozenset[int]) -> None:
        self._members[number] = members
        self._set[members] = number
        self._next_set = max(self._next_set, number + 1)

    def __len__(self) -> int:
        return len(self._path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._number)

    def path(self, number: int) -> str:
        """The path with that number."""
        return self._path[number]

    def find(self, path: str) -> int:
        """The number of a path, 0 if nothing ever read it."""
        return self._number.get(path, 0)

    def members(self, number: int) -> frozenset[int]:
        """The paths of a set."""
        return self._members[number]

    def number(self, path: str) -> int:
        """The number of a path; a new one if it has none."""
        number = self._number.get(path)
        if number is None:
            number = self._next
            self._add(number, path)
            self.new_paths.append((number, path))
        return number

    def reads(self, pkgpath: str, value: bytes, tree: str = "") -> Reads:
        """What the value of SCAN_DEPENDS of a record says.

        `tree` is where the tree was when it was scanned; where the value says it itself
        (`TREE/category/package/../../x`), that counts.
        """
        root, inside = _root(pkgpath, value)
        words = self._words
        words.begin(pkgpath, root or tree)
        begin, end = _stretch(value)
        run = value[begin:end]
        known = self._run(run)
        rest = value if known is None or not run else value[:begin] + value[end:]
        if inside:
            rest = rest.replace(inside, _UP)
        numbers = frozenset(map(words.__getitem__, rest.split()))
        shared = numbers & self._below_mk
        if known is None:
            return Reads(self._set_of(shared), numbers - shared)
        number = self._sums.get((run, shared))
        if number is None:
            number = self._sums[run, shared] = self._set_of(known | shared)
        return Reads(number, numbers - shared)

    def _run(self, run: bytes) -> frozenset[int] | None:
        """The numbers of a run of words below mk/; None if something else is in it.

        Make prints them sorted since 2020, so that all of them are one run, and most
        records have a run that others have.
        """
        known = self._runs.get(run)
        if known is None and run.count(b" ") <= run.count(_NEXT_SHARED):
            numbers = frozenset(map(self._words.__getitem__, run.split()))
            if numbers <= self._below_mk:
                known = self._runs[run] = numbers
        return known

    def _set_of(self, members: frozenset[int]) -> int:
        number = self._set.get(members)
        if number is None:
            number = self._next_set
            self._add_set(number, members)
            self.new_sets.append((number, _pack(sorted(members))))
        return number

    def files(self, packed: bytes) -> set[int]:
        """All paths that a pkgpath reads."""
        sets, files = unpack(packed)
        return set(files).union(*(self._members[number] for number in sets))


def _stretch(value: bytes) -> tuple[int, int]:
    """From the first to the last word below mk/: where it begins and ends."""
    begin = 0 if value.startswith(_SHARED_WORD) else value.find(_NEXT_SHARED) + 1
    if not begin and not value.startswith(_SHARED_WORD):
        return 0, 0
    end = value.find(b" ", value.rfind(_NEXT_SHARED) + 1)
    return begin, end if end >= 0 else len(value)


def _root(pkgpath: str, value: bytes) -> tuple[str, bytes]:
    """(the directory of the tree, how it leads to its top from the package directory).

    Known if an absolute word has the package directory in it; else empty.
    """
    mark = b"/%b/../../" % pkgpath.encode()
    at = value.find(mark)
    root = value[value.rfind(b" ", 0, at) + 1 : at] if at > 0 else b""
    return (root.decode(errors="backslashreplace"), root + mark) if root[:1] == b"/" else ("", b"")


# --- what a pkgpath reads, as bytes: 32-bit numbers, little-endian ----------------------------


def pack(records: Iterable[Reads]) -> bytes:
    """What the records of a pkgpath read: how many sets, their numbers, and those of files."""
    sets: set[int] = set()
    files: set[int] = set()
    for shared, others in records:
        sets.add(shared)
        files |= others
    return _pack([len(sets), *sorted(sets), *sorted(files)])


def unpack(packed: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(sets, other files) of a pkgpath."""
    if not packed:
        return (), ()
    numbers = _unpack(packed)
    sets = numbers[0] + 1
    return numbers[1:sets], numbers[sets:]


def _pack(numbers: Collection[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def _unpack(packed: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(packed) // 4}I", packed)


# --- the way back -----------------------------------------------------------------------------


class Readers:
    """Who reads a file, in one profile. Pkgpaths are numbers here."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._packed: dict[int, bytes] = {}
        self._of_set: dict[int, array[int]] = {}  # pkgpaths, ascending
        self._of_file: dict[int, array[int]] = {}  # the same, of files that are in no set
        self._sets_with: dict[int, array[int]] = {}  # by file: sets that somebody reads
        self._several: set[int] = set()  # pkgpaths with more than one set

    def __len__(self) -> int:
        return len(self._packed)

    def put(self, pkgpath: int, packed: bytes) -> None:
        """What a pkgpath reads now; costs what differs from what it read before."""
        before = self._packed.get(pkgpath, b"")
        if packed == before:
            return
        sets, files = unpack(packed)
        old_sets, old_files = unpack(before)
        for number in set(old_sets) - set(sets):
            _remove(self._of_set, number, pkgpath)
            if number not in self._of_set:
                self._forget_set(number)
        for number in set(old_files).difference(files):
            _remove(self._of_file, number, pkgpath)
        for number in set(sets) - set(old_sets):
            if number not in self._of_set:
                self._learn_set(number)
            _add(self._of_set, number, pkgpath)
        for number in set(files).difference(old_files):
            _add(self._of_file, number, pkgpath)
        if len(sets) > 1:
            self._several.add(pkgpath)
        else:
            self._several.discard(pkgpath)
        if packed:
            self._packed[pkgpath] = packed
        else:
            del self._packed[pkgpath]

    def drop(self, pkgpath: int) -> None:
        """The pkgpath is no more, or nobody knows what it reads."""
        self.put(pkgpath, b"")

    def _learn_set(self, number: int) -> None:
        for file in self._paths.members(number):
            _add(self._sets_with, file, number)

    def _forget_set(self, number: int) -> None:
        for file in self._paths.members(number):
            _remove(self._sets_with, file, number)

    def of(self, path: str) -> set[int]:
        """The pkgpaths that read a file."""
        number = self._paths.find(path)
        found = set(self._of_file.get(number, ()))
        for shared in self._sets_with.get(number, ()):
            found.update(self._of_set[shared])
        return found

    def who(self, paths: Iterable[str]) -> dict[int, tuple[str, ...]]:
        """For each pkgpath that reads some of the files: these, in their order, at most NAMED."""
        asked = tuple(dict.fromkeys(paths))
        # What a set or a pkgpath has of them is a number with a bit for each until the end.
        sets: dict[int, int] = {}
        found: dict[int, int] = {}
        numbers = [self._paths.find(path) for path in asked]
        for at, number in enumerate(numbers):
            for shared in self._sets_with.get(number, ()):
                sets[shared] = sets.get(shared, 0) | 1 << at
        alike: dict[int, list[array[int]]] = {}
        for shared, bits in sets.items():
            alike.setdefault(bits, []).append(self._of_set[shared])
        for bits, pkgpaths in alike.items():
            found.update(dict.fromkeys(chain.from_iterable(pkgpaths), bits))
        for pkgpath in self._several if sets else ():
            for shared in unpack(self._packed[pkgpath])[0]:
                if shared in sets:
                    found[pkgpath] |= sets[shared]
        for at, number in enumerate(numbers):
            bit = 1 << at
            for pkgpath in self._of_file.get(number, ()):
                found[pkgpath] = found.get(pkgpath, 0) | bit
        names = {bits: tuple(_chosen(asked, bits)) for bits in set(found.values())}
        return {pkgpath: names[bits] for pkgpath, bits in found.items()}

    def read(self, path: str) -> bool:
        """Whether anybody reads a file."""
        number = self._paths.find(path)
        return number in self._of_file or number in self._sets_with

    def count(self, path: str) -> int:
        """How many pkgpaths read a file, or a few more: one with several sets counts often."""
        number = self._paths.find(path)
        sets = self._sets_with.get(number, ())
        return len(self._of_file.get(number, ())) + sum(len(self._of_set[s]) for s in sets)

    def knows(self, pkgpath: int) -> bool:
        """Whether it is known what a pkgpath reads."""
        return pkgpath in self._packed

    def files(self, pkgpath: int) -> set[str]:
        """The paths that a pkgpath reads."""
        packed = self._packed.get(pkgpath, b"")
        return {self._paths.path(number) for number in self._paths.files(packed)}

    def shared(self) -> Iterator[str]:
        """The paths below mk/ that somebody reads."""
        return map(self._paths.path, self._sets_with)

    def paths(self) -> Iterator[str]:
        """All paths that somebody reads."""
        for number in self._of_file.keys() | self._sets_with.keys():
            yield self._paths.path(number)


def _chosen(paths: tuple[str, ...], bits: int) -> Iterator[str]:
    """The first paths whose bits are set."""
    for _ in range(NAMED):
        if not bits:
            return
        lowest = bits & -bits
        yield paths[lowest.bit_length() - 1]
        bits ^= lowest


def _add(table: dict[int, array[int]], key: int, value: int) -> None:
    numbers = table.get(key)
    if numbers is None:
        table[key] = array("I", (value,))
    elif value > numbers[-1]:
        numbers.append(value)
    else:
        insort(numbers, value)


def _remove(table: dict[int, array[int]], key: int, value: int) -> None:
    numbers = table[key]
    if len(numbers) == 1:
        del table[key]
    else:
        del numbers[bisect_left(numbers, value)]
