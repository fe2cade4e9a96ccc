"""Patterns to requirements, whole or after a change, by one of two rules.

A package's dependency tokens are taken from left to right. If one of the
packages already chosen for it matches the pattern, that is the requirement;
otherwise it is the best of all packages that match. Of packages with the same
name only the first in scan order stands; the others are nobody's requirement
and have none.

What is best depends on the rule. For `pbulk` it is the greatest by dewey.rank,
whatever its skip and fail reasons, and whatever location the token names:
exactly what pbulk chooses. For `prefer-buildable` one that can be built comes
before one that can not, then one at the location that the token names before
others, then the greatest by dewey.rank. "Can be built" is what the package's
own record says, no more: whether its requirements can be built, too, would make
each choice depend on others, and with cycles on the order they are made in.
A package already chosen comes first by both rules: two packages of one pkgbase
could not be installed together.

What differs from pbulk: a token that can not be read or matches nothing is a
problem of that package alone.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, cast

from clusterdep.core import dewey
from clusterdep.core.tokens import Obstacle, Problem, Reverse, Token, Wanted, parse_token

__all__ = [
    "Difference",
    "Obstacle",
    "Package",
    "Problem",
    "Resolution",
    "Resolver",
    "Rule",
    "Token",
    "parse_token",
]

_AFTER_ALL = b"\xff"  # names are ASCII

#: From so many new names on it is cheaper to sort all names again than to insert each.
_MANY = 200


# --- values in and out ----------------------------------------------------------------------


class Rule(enum.StrEnum):
    """Which of several packages that match a pattern is chosen."""

    PBULK = "pbulk"
    PREFER_BUILDABLE = "prefer-buildable"


class Package(NamedTuple):
    """What the resolver needs to know of a package. `key` is the caller's and never changes.

    `order` is its place in scan order: (position of the pkgpath, number of the record).
    `pkgpath` and `buildable` (it has neither a skip nor a fail reason) matter to
    PREFER_BUILDABLE only.
    """

    key: int
    order: tuple[int, int]
    pkgname: bytes  # printable ASCII
    depends: tuple[bytes, ...]  # dependency tokens
    pkgpath: bytes = b""
    buildable: bool = True


class Resolution(NamedTuple):
    """What the tokens of one package came to."""

    choices: tuple[int | None, ...]  # for each token the key of its requirement
    requires: tuple[int, ...]  # the same keys, each once, in the order they were chosen
    problems: tuple[Problem, ...]


class Difference(NamedTuple):
    """A requirement of a package that pbulk would have chosen otherwise. Keys of packages."""

    pattern: bytes
    chosen: int
    pbulk: int


# --- the resolver ---------------------------------------------------------------------------


class Resolver:
    """The packages of one profile and the requirements between them, kept up under changes.

    A change costs what it touches: the tokens that a name which came or went
    matches, and the packages that have one of those.
    """

    def __init__(self, packages: Iterable[Package] = (), rule: Rule = Rule.PBULK) -> None:
        self.rule = rule
        self._packages: dict[int, Package] = {}
        self._named: dict[bytes, list[int]] = {}  # keys in scan order: the first one stands
        self._shared: set[bytes] = set()  # names that several have
        self._names: list[bytes] = []  # all of them, sorted
        self._wanted: dict[bytes, Wanted] = {}  # by token
        #: Tokens that one name matches, found when they were last used: who has that name.
        self._sole: dict[bytes, int] = {}
        self._resolutions: dict[int, Resolution] = {}
        self._differences: dict[int, tuple[Difference, ...]] = {}
        self._reverse: Reverse | None = None  # made when the first change comes
        self._exchange((), packages)
        self._names = sorted(self._named)
        for keys in self._named.values():
            self._resolutions[keys[0]] = self._resolve(keys[0])

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
        for name in self._shared:
            keys = self._named[name]
            for key in keys[1:]:
                yield key, keys[0]

    def depends(self, key: int) -> list[bytes]:
        """The names for the DEPENDS line of a package that stands."""
        return [self._packages[other].pkgname for other in self._resolutions[key].requires]

    @property
    def differences(self) -> Mapping[int, tuple[Difference, ...]]:
        """For each package that has some, the requirements that pbulk would choose otherwise."""
        return self._differences

    def apply(self, put: Iterable[Package] = (), drop: Iterable[int] = ()) -> set[int]:
        """Adds or replaces the packages `put`, removes the keys `drop` (but those put again).

        Returns the keys whose resolution is another than before, or that have one
        now or have none any more. Keys to drop that nobody has are ignored.
        """
        reverse = self._reversed()
        new = {package.key: package for package in put}
        old = [self._packages[key] for key in {*new, *drop} if key in self._packages]
        names = {package.pkgname for package in (*old, *new.values())}
        stood = {name: self._standing(name) for name in names}
        before: dict[int, Resolution | None] = {}
        left: set[bytes] = set()
        for package in stood.values():
            if package is not None:
                before[package.key] = self._resolutions.pop(package.key)
                self._differences.pop(package.key, None)
                left.update(self._withdraw(package.key, reverse))
        self._exchange(old, new.values())
        touched = self._rematch(stood, reverse)
        stand = {keys[0] for name in names if (keys := self._named.get(name))}
        for key in touched | stand:
            before.setdefault(key, self._resolutions.get(key))
            self._resolutions[key] = self._resolve(key)
        for key in stand:
            self._admit(key, reverse)
        for text in left:
            if reverse.drop_unused(self._wanted[text]):
                del self._wanted[text]
                self._sole.pop(text, None)
        return {key for key, was in before.items() if self._resolutions.get(key) != was}

    def reorder(self, orders: Mapping[int, tuple[int, int]]) -> set[int]:
        """Gives packages other places in scan order; returns what `apply` does.

        That matters only where several have one name.
        """
        again: list[Package] = []
        for key, order in orders.items():
            package = self._packages[key]
            if len(self._named[package.pkgname]) > 1:
                again.append(package._replace(order=order))
            else:
                self._packages[key] = package._replace(order=order)
        return self.apply(again) if again else set()

    def _standing(self, pkgname: bytes) -> Package | None:
        key = self.standing(pkgname)
        return None if key is None else self._packages[key]

    def _exchange(self, old: Iterable[Package], new: Iterable[Package]) -> None:
        for package in old:
            del self._packages[package.key]
            keys = self._named[package.pkgname]
            keys.remove(package.key)
            if not keys:
                del self._named[package.pkgname]
            elif len(keys) == 1:
                self._shared.discard(package.pkgname)
        for package in new:
            self._packages[package.key] = package
            keys = self._named.setdefault(package.pkgname, [])
            keys.append(package.key)
            if len(keys) > 1:
                keys.sort(key=lambda key: self._packages[key].order)
                self._shared.add(package.pkgname)

    # what a change leads to

    def _reversed(self) -> Reverse:
        if self._reverse is None:
            self._reverse = Reverse()
            for key in self._resolutions:
                self._admit(key, self._reverse)
        return self._reverse

    def _admit(self, key: int, reverse: Reverse) -> None:
        for text in self._packages[key].depends:
            reverse.add(self._wanted[text], key)

    def _withdraw(self, key: int, reverse: Reverse) -> tuple[bytes, ...]:
        tokens = self._packages[key].depends
        for text in tokens:
            reverse.discard(self._wanted[text], key)
        return tokens

    def _rematch(self, stood: dict[bytes, Package | None], reverse: Reverse) -> set[int]:
        """Brings names and tokens up to date; returns the packages that are to be resolved again.

        `stood` says who had each name that may have come, gone, or passed to another.
        """
        came = [name for name, was in stood.items() if was is None and name in self._named]
        gone = [name for name, was in stood.items() if was is not None and name not in self._named]
        self._sort_names(came, gone)
        touched: set[int] = set()
        elections: set[Wanted] = set()
        for name, was in stood.items():
            now = self._standing(name)
            if now is was or (now and was and self._alike(now, was)):
                continue
            for wanted in reverse.matching(name):
                if was is None or now is None:
                    wanted.choose({*wanted.names} ^ {name})
                if was is None or now is None or was.key != now.key:
                    touched |= reverse.users(wanted)
                    self._sole.pop(wanted.text, None)
                elections.add(wanted)
        if self.rule is not Rule.PBULK:
            for wanted in elections:
                before = wanted.best
                self._elect(wanted)
                if wanted.best != before:
                    touched |= reverse.users(wanted)
        return touched

    def _alike(self, one: Package, other: Package) -> bool:
        """Whether it makes no difference to others which of two packages of one name stands."""
        return one.key == other.key and (
            self.rule is Rule.PBULK
            or (one.pkgpath, one.buildable) == (other.pkgpath, other.buildable)
        )

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

    def _elect(self, wanted: Wanted) -> None:
        """Finds the best of the names that match, where it may be another than pbulk's."""
        if len(wanted.names) < 2:
            wanted.best = wanted.usual
            return
        location = parse_token(wanted.text).pkgpath

        def worth(name: bytes) -> tuple[object, ...]:
            package = self._packages[self._named[name][0]]
            return package.buildable, package.pkgpath == location, dewey.rank(name)

        wanted.best = max(wanted.names, key=worth)

    def _resolve(self, key: int) -> Resolution:
        tokens = self._packages[key].depends
        choices = [self._sole.get(text) for text in tokens]
        if None not in choices:  # so it is nearly always
            self._differences.pop(key, None)
            return Resolution(tuple(choices), tuple(cast(list[int], dict.fromkeys(choices))), ())
        chosen: dict[int, None] = {}
        problems: dict[Problem, None] = {}
        for at, text in enumerate(tokens):
            other = choices[at]
            if other is None:
                other = choices[at] = self._choose(text, chosen)
            if other is None:
                problems[self._wanted[text].problem()] = None
            else:
                chosen[other] = None
        if self.rule is not Rule.PBULK:
            self._compare(key, choices)
        return Resolution(tuple(choices), tuple(chosen), tuple(problems))

    def _choose(self, text: bytes, chosen: Iterable[int]) -> int | None:
        """Who meets the token of a package for which `chosen` were chosen already."""
        wanted = self._wanted.get(text) or self._search(text)
        if wanted.best is None:
            return None
        best = self._named[wanted.best][0]
        if len(wanted.names) == 1:
            self._sole[text] = best
            return best
        key = self._already(wanted, chosen)
        return best if key is None else key

    def _already(self, wanted: Wanted, chosen: Iterable[int]) -> int | None:
        """Who of those that were chosen already matches."""
        for key in chosen:
            if self._packages[key].pkgname in wanted.names:
                return key
        return None

    def _compare(self, key: int, choices: Iterable[int | None]) -> None:
        """Notes where pbulk would have chosen otherwise."""
        chosen: dict[int, None] = {}
        found: dict[Difference, None] = {}
        for text, ours in zip(self._packages[key].depends, choices, strict=True):
            wanted = self._wanted[text]
            if wanted.usual is None or ours is None:
                continue
            theirs = self._already(wanted, chosen)
            if theirs is None:
                theirs = self._named[wanted.usual][0]
            chosen[theirs] = None
            if theirs != ours:
                found[Difference(parse_token(text).pattern, ours, theirs)] = None
        if found:
            self._differences[key] = tuple(found)
        else:
            self._differences.pop(key, None)

    def _search(self, text: bytes) -> Wanted:
        """A token that is new, with the names that its pattern matches."""
        wanted = self._wanted[text] = Wanted(text)
        pattern = wanted.pattern
        if pattern is not None:
            found: set[bytes] = set()
            for prefix in pattern.prefixes:
                start = bisect_left(self._names, prefix)
                end = bisect_left(self._names, prefix + _AFTER_ALL, start)
                found.update(name for name in self._names[start:end] if pattern.match(name))
            wanted.choose(found)
            if self.rule is not Rule.PBULK:
                self._elect(wanted)
        return wanted
