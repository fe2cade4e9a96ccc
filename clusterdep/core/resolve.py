"""Patterns to requirements, exactly as pbulk resolves them, whole or after a change.

A package's dependency tokens are taken from left to right. If one of the
packages already chosen for it matches the pattern, that is the requirement;
otherwise it is the best of all packages that match, whatever their skip and
fail reasons, and whatever location the token names: the greatest by
dewey.rank. Of packages with the same name only the first in scan order stands;
the others are nobody's requirement and have none.

What differs from pbulk: a token that can not be read or matches nothing is a
problem of that package alone.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, cast

from clusterdep.core import dewey

_UP = b"../../"
_AFTER_ALL = b"\xff"  # names are ASCII

#: From so many new names on it is cheaper to sort all names again than to insert each.
_MANY = 200


# --- tokens and problems --------------------------------------------------------------------


class Obstacle(enum.StrEnum):
    """Why a token leads to no requirement."""

    UNMATCHED = "no package matches"
    TOKEN = "malformed dependency"
    PATTERN = "malformed pattern"


@dataclass(frozen=True, slots=True)
class Problem:
    """A dependency token that leads to no requirement; its package can not be built."""

    obstacle: Obstacle
    subject: bytes  # the pattern, or the whole token where it has none
    why: str = ""

    @property
    def reason(self) -> bytes:
        """What to put into PKG_FAIL_REASON, between quotes."""
        if self.obstacle is Obstacle.UNMATCHED:
            return b'could not resolve dependency "' + self.subject + b'"'
        return self.obstacle.encode() + b' "' + self.subject + b'": ' + self.why.encode()

    def __str__(self) -> str:
        subject = self.subject.decode(errors="backslashreplace")
        return f"{self.obstacle} {subject}" + (f": {self.why}" if self.why else "")


class Token(NamedTuple):
    """A word of ALL_DEPENDS: what is wanted, and the pkgpath that is said to have it."""

    pattern: bytes
    pkgpath: bytes
    why: str  # what is wrong with it; empty: nothing


def parse_token(text: bytes) -> Token:
    """Reads `pattern:../../category/package`; never raises."""
    pattern, colon, location = text.partition(b":")
    if not colon:
        return Token(pattern, b"", "it has no :../../category/package after the pattern")
    if not location.startswith(_UP):
        return Token(pattern, b"", "what follows the colon does not begin with ../../")
    if not pattern:
        return Token(pattern, b"", "it has no pattern before the colon")
    return Token(pattern, location[len(_UP) :].rstrip(b"/"), "")


# --- values in and out ----------------------------------------------------------------------


class Package(NamedTuple):
    """What the resolver needs to know of a package. `key` is the caller's and never changes.

    `order` is its place in scan order: (position of the pkgpath, number of the record).
    """

    key: int
    order: tuple[int, int]
    pkgname: bytes  # printable ASCII
    depends: tuple[bytes, ...]  # dependency tokens


class Resolution(NamedTuple):
    """What the tokens of one package came to."""

    choices: tuple[int | None, ...]  # for each token the key of its requirement
    requires: tuple[int, ...]  # the same keys, each once, in the order they were chosen
    problems: tuple[Problem, ...]


class _Wanted:
    """A token that packages have, and the names that match its pattern."""

    __slots__ = ("best", "names", "pattern", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.names: tuple[bytes, ...] = ()
        self.best: bytes | None = None
        self.pattern: dewey.Pattern | None = None  # None: it can not be read
        token = parse_token(text)
        if not token.why:
            with suppress(dewey.PatternError):
                self.pattern = dewey.compile_pattern(token.pattern)

    def choose(self, names: Iterable[bytes]) -> None:
        """Takes the names that match, and the best of them."""
        self.names = tuple(names)
        self.best = self.names[0] if len(self.names) == 1 else _best(self.names)

    def problem(self) -> Problem:
        """What to say while no name matches."""
        token = parse_token(self.text)
        if token.why:
            return Problem(Obstacle.TOKEN, self.text, token.why)
        try:
            dewey.compile_pattern(token.pattern)
        except dewey.PatternError as error:
            return Problem(Obstacle.PATTERN, error.pattern, error.why)
        return Problem(Obstacle.UNMATCHED, token.pattern)


def _best(names: Iterable[bytes]) -> bytes | None:
    return max(names, key=dewey.rank, default=None)


# --- the resolver ---------------------------------------------------------------------------


class _Reverse:
    """From a name to the tokens it matches, and from a token to the packages that have it."""

    def __init__(self) -> None:
        self._by_prefix: dict[bytes, set[_Wanted]] = {}
        self._users: dict[_Wanted, set[int]] = {}

    def add(self, wanted: _Wanted, user: int) -> None:
        users = self._users.get(wanted)
        if users is None:
            users = self._users[wanted] = set()
            for prefix in wanted.pattern.prefixes if wanted.pattern else ():
                self._by_prefix.setdefault(prefix, set()).add(wanted)
        users.add(user)

    def discard(self, wanted: _Wanted, user: int) -> None:
        self._users[wanted].discard(user)

    def drop_unused(self, wanted: _Wanted) -> bool:
        """Forgets the token if no package has it any more; says whether that is so."""
        if self._users[wanted]:
            return False
        del self._users[wanted]
        for prefix in wanted.pattern.prefixes if wanted.pattern else ():
            self._by_prefix[prefix].discard(wanted)
            if not self._by_prefix[prefix]:
                del self._by_prefix[prefix]
        return True

    def users(self, wanted: _Wanted) -> set[int]:
        return self._users[wanted]

    def matching(self, name: bytes) -> Iterator[_Wanted]:
        """The tokens that `name` matches."""
        candidates: set[_Wanted] = set()
        for end in range(len(name) + 1):
            candidates |= self._by_prefix.get(name[:end], set())
        for wanted in candidates:
            if wanted.pattern is not None and wanted.pattern.match(name):
                yield wanted


class Resolver:
    """The packages of one profile and the requirements between them, kept up under changes.

    A change costs what it touches: the tokens that a name which came or went
    matches, and the packages that have one of those.
    """

    def __init__(self, packages: Iterable[Package] = ()) -> None:
        self._packages: dict[int, Package] = {}
        self._named: dict[bytes, list[int]] = {}  # keys in scan order: the first one stands
        self._names: list[bytes] = []  # all of them, sorted
        self._wanted: dict[bytes, _Wanted] = {}  # by token
        #: Tokens that one name matches, found when they were last used: who has that name.
        self._sole: dict[bytes, int] = {}
        self._resolutions: dict[int, Resolution] = {}
        self._reverse: _Reverse | None = None  # made when the first change comes
        self._exchange((), packages)
        self._names = sorted(self._named)
        for keys in self._named.values():
            self._resolutions[keys[0]] = self._resolve(self._packages[keys[0]].depends)

    def package(self, key: int) -> Package:
        """The package with that key; raises KeyError if there is none."""
        return self._packages[key]

    def resolution(self, key: int) -> Resolution | None:
        """What its tokens came to; None if a package of the same name stands before it."""
        return self._resolutions.get(key)

    def standing(self, pkgname: bytes) -> int | None:
        """The key of the package that has this name and stands; None if nobody has it."""
        keys = self._named.get(pkgname)
        return keys[0] if keys else None

    def duplicates(self) -> Iterator[tuple[int, int]]:
        """(key, key of the package of the same name that stands before it), in no order."""
        for keys in self._named.values():
            for key in keys[1:]:
                yield key, keys[0]

    def depends(self, key: int) -> list[bytes]:
        """The names for the DEPENDS line of a package that stands."""
        return [self._packages[other].pkgname for other in self._resolutions[key].requires]

    def apply(self, put: Iterable[Package] = (), drop: Iterable[int] = ()) -> set[int]:
        """Adds or replaces the packages `put`, removes the keys `drop` (but those put again).

        Returns the keys whose resolution is another than before, or that have one
        now or have none any more. Keys to drop that nobody has are ignored.
        """
        reverse = self._reversed()
        new = {package.key: package for package in put}
        old = [self._packages[key] for key in {*new, *drop} if key in self._packages]
        names = {package.pkgname for package in (*old, *new.values())}
        stood = {name: self.standing(name) for name in names}
        before: dict[int, Resolution | None] = {}
        left: set[bytes] = set()
        for key in stood.values():
            if key is not None:
                before[key] = self._resolutions.pop(key)
                left.update(self._withdraw(key, reverse))
        self._exchange(old, new.values())
        touched = self._rematch(stood, reverse)
        stand = {keys[0] for name in names if (keys := self._named.get(name))}
        for key in touched | stand:
            before.setdefault(key, self._resolutions.get(key))
            self._resolutions[key] = self._resolve(self._packages[key].depends)
        for key in stand:
            self._admit(key, reverse)
        for text in left:
            if reverse.drop_unused(self._wanted[text]):
                del self._wanted[text]
                self._sole.pop(text, None)
        return {key for key, was in before.items() if self._resolutions.get(key) != was}

    def _exchange(self, old: Iterable[Package], new: Iterable[Package]) -> None:
        for package in old:
            del self._packages[package.key]
            keys = self._named[package.pkgname]
            keys.remove(package.key)
            if not keys:
                del self._named[package.pkgname]
        for package in new:
            self._packages[package.key] = package
            keys = self._named.setdefault(package.pkgname, [])
            keys.append(package.key)
            if len(keys) > 1:
                keys.sort(key=lambda key: self._packages[key].order)

    # what a change leads to

    def _reversed(self) -> _Reverse:
        if self._reverse is None:
            self._reverse = _Reverse()
            for key in self._resolutions:
                self._admit(key, self._reverse)
        return self._reverse

    def _admit(self, key: int, reverse: _Reverse) -> None:
        for text in self._packages[key].depends:
            reverse.add(self._wanted[text], key)

    def _withdraw(self, key: int, reverse: _Reverse) -> tuple[bytes, ...]:
        tokens = self._packages[key].depends
        for text in tokens:
            reverse.discard(self._wanted[text], key)
        return tokens

    def _rematch(self, stood: dict[bytes, int | None], reverse: _Reverse) -> set[int]:
        """Brings names and tokens up to date; returns the packages that are to be resolved again.

        `stood` says who had each name that may have come, gone, or passed to another.
        """
        came = [name for name, was in stood.items() if was is None and name in self._named]
        gone = [name for name, was in stood.items() if was is not None and name not in self._named]
        self._sort_names(came, gone)
        touched: set[int] = set()
        for name, was in stood.items():
            now = self.standing(name)
            for wanted in reverse.matching(name) if now != was else ():
                touched |= reverse.users(wanted)
                self._sole.pop(wanted.text, None)
                if was is None or now is None:
                    wanted.choose({*wanted.names} ^ {name})
        return touched

    def _sort_names(self, came: list[bytes], gone: list[bytes]) -> None:
        for name in gone:
            del self._names[bisect_left(self._names, name)]
        if len(came) < _MANY:
            for name in came:
                insort(self._names, name)
        else:
            self._names += came
            self._names.sort()

    # the rule

    def _resolve(self, tokens: tuple[bytes, ...]) -> Resolution:
        choices = [self._sole.get(text) for text in tokens]
        if None not in choices:  # so it is nearly always
            return Resolution(tuple(choices), tuple(cast(list[int], dict.fromkeys(choices))), ())
        chosen: dict[int, None] = {}
        problems: dict[Problem, None] = {}
        for at, text in enumerate(tokens):
            key = choices[at]
            if key is None:
                key = choices[at] = self._choose(text, chosen)
            if key is None:
                problems[self._wanted[text].problem()] = None
            else:
                chosen[key] = None
        return Resolution(tuple(choices), tuple(chosen), tuple(problems))

    def _choose(self, text: bytes, chosen: Iterable[int]) -> int | None:
        """Who meets the token of a package for which `chosen` were chosen already."""
        wanted = self._wanted.get(text) or self._search(text)
        if wanted.best is None:
            return None
        if len(wanted.names) == 1:
            key = self._sole[text] = self._named[wanted.best][0]
            return key
        for key in chosen:
            if self._packages[key].pkgname in wanted.names:
                return key
        return self._named[wanted.best][0]

    def _search(self, text: bytes) -> _Wanted:
        """A token that is new, with the names that its pattern matches."""
        wanted = self._wanted[text] = _Wanted(text)
        pattern = wanted.pattern
        if pattern is not None:
            found: set[bytes] = set()
            for prefix in pattern.prefixes:
                start = bisect_left(self._names, prefix)
                end = bisect_left(self._names, prefix + _AFTER_ALL, start)
                found.update(name for name in self._names[start:end] if pattern.match(name))
            wanted.choose(found)
        return wanted
