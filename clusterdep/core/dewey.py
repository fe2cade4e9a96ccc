"""Version numbers and patterns of package names, compared and matched as pbulk does.

Names and patterns are bytes, because scan records are. pkg_install's matcher
differs in that a bare `foo` matches every version of foo; pbulk's does not, and
nor does this one. Version numbers here have no upper limit.

A pattern is read in this order: braces are expanded first, and any alternative
may match; one with `<` or `>` is a base with version bounds; one with any of
`*?[]` is a shell glob on the whole name; all else is compared byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache, total_ordering
from itertools import zip_longest
from typing import NamedTuple

#: Bounds on what a pattern may ask of us; the longest of pkgsrc has 69 bytes, and 6 alternatives.
LONGEST_PATTERN = 1024
MOST_ALTERNATIVES = 256

#: int() refuses more than 4300 digits at once.
_DIGITS_AT_ONCE = 4000


class PatternError(ValueError):
    """A pattern that can not be read: `pattern` says which, `why` what is wrong with it."""

    def __init__(self, pattern: bytes, why: str) -> None:
        super().__init__(pattern, why)
        self.pattern = pattern
        self.why = why

    def __str__(self) -> str:
        return f"pattern {self.pattern.decode(errors='backslashreplace')}: {self.why}"


# --- versions -------------------------------------------------------------------------------


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A version, ordered. `numbers` has no trailing zeros: missing ones count as 0."""

    numbers: tuple[int, ...]
    nb: int

    def __lt__(self, other: Version) -> bool:
        if self.numbers == other.numbers:
            return self.nb < other.nb
        for mine, theirs in zip_longest(self.numbers, other.numbers, fillvalue=0):
            if mine != theirs:
                return mine < theirs
        raise AssertionError("numbers that differ have an element that differs")


_PIECE = re.compile(
    rb"(?P<number>[0-9]+)|(?P<dot>[._]|pl)|(?P<alpha>alpha)|(?P<beta>beta)|(?P<pre>pre|rc)"
    rb"|nb(?P<nb>[0-9]*)|(?P<letter>[a-z])"
)
_FIXED = {"dot": 0, "alpha": -3, "beta": -2, "pre": -1}


@lru_cache(maxsize=1 << 15)
def parse_version(text: bytes) -> Version:
    """The version that `text` stands for. Every text stands for one: unknown bytes are ignored.

    A run of digits is one number, `.`, `_` and `pl` are 0, `alpha`, `beta` and
    `pre` or `rc` are -3, -2 and -1, any other letter is 0 and its place in the
    alphabet. `nb` sets the package's own revision, and the last one counts.
    """
    numbers: list[int] = []
    nb = 0
    for piece in _PIECE.finditer(text.lower()):
        kind = piece.lastgroup or ""
        if kind == "number":
            numbers.append(_number(piece[0]))
        elif kind == "nb":
            nb = _number(piece["nb"])
        elif kind == "letter":
            numbers += (0, piece[0][0] - ord("a") + 1)
        else:
            numbers.append(_FIXED[kind])
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return Version(tuple(numbers), nb)


def _number(digits: bytes) -> int:
    if len(digits) <= _DIGITS_AT_ONCE:
        return int(digits or b"0")
    number = 0
    for start in range(0, len(digits), _DIGITS_AT_ONCE):
        piece = digits[start : start + _DIGITS_AT_ONCE]
        number = number * 10 ** len(piece) + int(piece)
    return number


def compare(one: bytes, other: bytes) -> int:
    """-1, 0 or 1: version text `one` is less than, equal to, or greater than `other`."""
    mine, theirs = parse_version(one), parse_version(other)
    return (mine > theirs) - (mine < theirs)


def split_name(pkgname: bytes) -> tuple[bytes, bytes]:
    """(base, version), cut at the last `-`; a name without one is all base."""
    base, dash, version = pkgname.rpartition(b"-")
    return (base, version) if dash else (pkgname, b"")


def rank(pkgname: bytes) -> tuple[Version, bytes]:
    """Orders the names that match one pattern: the greatest is the one to choose.

    The greater version (text after the last `-`) wins whatever the bases are,
    and of equal versions the name that is greater in byte order.
    """
    return parse_version(split_name(pkgname)[1]), pkgname


# --- patterns -------------------------------------------------------------------------------


class _Exact(NamedTuple):
    prefix: bytes

    def match(self, name: bytes) -> bool:
        return name == self.prefix


class _Bounds(NamedTuple):
    """A base, and bounds of the version; the open ones are `>` and `<`."""

    prefix: bytes  # base and dash
    lower: Version | None
    lower_open: bool
    upper: Version | None
    upper_open: bool

    def match(self, name: bytes) -> bool:
        if name.rfind(b"-") + 1 != len(self.prefix) or not name.startswith(self.prefix):
            return False
        version = parse_version(name[len(self.prefix) :])
        if self.lower is not None and (
            version < self.lower or (self.lower_open and version == self.lower)
        ):
            return False
        return self.upper is None or (
            version < self.upper or (not self.upper_open and version == self.upper)
        )


#: Of a glob: the bytes that may stand at one place, or None for `*`.
_Item = frozenset[int] | None
_ANY = frozenset(range(256))


class _Glob(NamedTuple):
    prefix: bytes  # what stands before the first wildcard or backslash
    items: tuple[_Item, ...]
    wild: bool  # begins with a wildcard: a period at the beginning of a name is not for it

    def match(self, name: bytes) -> bool:
        if not name.startswith(self.prefix) or (self.wild and name.startswith(b".")):
            return False
        return _glob(self.items, name, len(self.prefix))


class Pattern:
    """A compiled pattern. Every name it matches begins with one of `prefixes`."""

    __slots__ = ("_alternatives", "text")

    def __init__(self, text: bytes, alternatives: tuple[_Exact | _Bounds | _Glob, ...]) -> None:
        self.text = text
        self._alternatives = alternatives

    @property
    def prefixes(self) -> set[bytes]:
        return {alternative.prefix for alternative in self._alternatives}

    def match(self, name: bytes) -> bool:
        """Whether the package name `name` is one that the pattern asks for."""
        for alternative in self._alternatives:  # any() takes twice as long  # noqa: SIM110
            if alternative.match(name):
                return True
        return False

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


def compile_pattern(text: bytes) -> Pattern:
    """The pattern ready to match; raises PatternError if a brace is not closed or it is too big."""
    if len(text) > LONGEST_PATTERN:
        raise PatternError(
            text[:40] + b"...", f"has {len(text)} bytes, more than the {LONGEST_PATTERN} allowed"
        )
    return Pattern(text, tuple([_compile(alternative) for alternative in _expand(text)]))


_compiled = lru_cache(maxsize=1 << 10)(compile_pattern)


def match(pattern: bytes, name: bytes) -> bool:
    """Whether `name` matches `pattern`; raises PatternError as compile_pattern does."""
    return _compiled(pattern).match(name)


def _expand(text: bytes) -> list[bytes]:
    """The patterns without braces that `text` stands for, from left to right."""
    if b"{" not in text:
        return [text]
    done: list[bytes] = []
    todo = [text]
    while todo:
        one = todo.pop()
        start = one.find(b"{")
        if start < 0:
            done.append(one)
            continue
        pieces, end = _group(one, start, text)
        todo += [one[:start] + piece + one[end:] for piece in reversed(pieces)]
        if len(done) + len(todo) > MOST_ALTERNATIVES:
            raise PatternError(text, f"stands for more than {MOST_ALTERNATIVES} patterns")
    return done


def _group(one: bytes, start: int, text: bytes) -> tuple[list[bytes], int]:
    """The pieces of the brace group that opens at `start`, and where it ends."""
    depth = 0
    pieces: list[bytes] = []
    piece_start = start + 1
    for place in re.finditer(rb"[{,}]", one[start:]):
        at, sign = start + place.start(), place[0]
        if sign == b"{":
            depth += 1
        elif sign == b"}":
            depth -= 1
        if depth == 0 or (depth == 1 and sign == b","):
            pieces.append(one[piece_start:at])
            piece_start = at + 1
        if depth == 0:
            return pieces, piece_start
    raise PatternError(text, "a { is not closed by a }")


_OPERATOR = re.compile(rb"[<>]=?")
_WILD = re.compile(rb"[*?\[\]]")
_NOT_LITERAL = re.compile(rb"[*?\[\\]")
_UPPER = re.compile(rb"<=?")


def _compile(text: bytes) -> _Exact | _Bounds | _Glob:
    operator = _OPERATOR.search(text)
    if operator is not None:
        return _bounds(text, operator)
    if not _WILD.search(text):
        return _Exact(text)
    first = _NOT_LITERAL.search(text)
    literal = first.start() if first else len(text)  # a `]` alone is literal, too
    return _Glob(text[:literal], _glob_items(text[literal:]), text[:1] in (b"*", b"?", b"["))


def _bounds(text: bytes, operator: re.Match[bytes]) -> _Bounds:
    prefix = text[: operator.start()] + b"-"
    is_open = not operator[0].endswith(b"=")
    rest = text[operator.end() :]
    if operator[0].startswith(b"<"):  # no second bound is looked for: it belongs to the version
        return _Bounds(prefix, None, False, parse_version(rest), is_open)
    second = _UPPER.search(rest)
    if second is None:
        return _Bounds(prefix, parse_version(rest), is_open, None, False)
    lower, upper = rest[: second.start()], rest[second.end() :]
    upper_open = not second[0].endswith(b"=")
    return _Bounds(prefix, parse_version(lower), is_open, parse_version(upper), upper_open)


# --- globs ----------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 10)
def _glob_items(text: bytes) -> tuple[_Item, ...]:
    items: list[_Item] = []
    at = 0
    while at < len(text):
        item, at = _glob_item(text, at)
        if item is not None or items[-1:] != [None]:
            items.append(item)
    return tuple(items)


def _glob_item(text: bytes, at: int) -> tuple[_Item, int]:
    """The item that begins at `at`, and where the next one does."""
    sign = text[at : at + 1]
    if sign == b"*":
        return None, at + 1
    if sign == b"?":
        return _ANY, at + 1
    if sign == b"\\" and at + 1 < len(text):
        return frozenset(text[at + 1 : at + 2]), at + 2
    if sign == b"[":
        bracket = _bracket(text, at)
        if bracket is not None:
            return bracket
    return frozenset(sign), at + 1


#: What is inside may begin with `]`, and escape one further on.
_BRACKET = re.compile(rb"\[(?P<negated>[!^]?+)(?P<inside>\]?+(?:\\.|[^]\\])*)\]", re.DOTALL)
_MEMBER = re.compile(rb"\\?(?P<low>.)(?:-\\?(?P<high>.))?", re.DOTALL)


@lru_cache(maxsize=256)
def _bracket_set(negated: bool, inside: bytes) -> frozenset[int]:
    members: set[int] = set()
    for member in _MEMBER.finditer(inside):
        low, high = member["low"], member["high"] or member["low"]
        members.update(range(low[0], high[0] + 1))
    return _ANY - members if negated else frozenset(members)


def _bracket(text: bytes, at: int) -> tuple[frozenset[int], int] | None:
    """The bracket expression at `at`; None if it is not closed and `[` stands for itself."""
    found = _BRACKET.match(text, at)
    if found is None:
        return None
    return _bracket_set(bool(found["negated"]), found["inside"]), found.end()


def _glob(items: tuple[_Item, ...], name: bytes, start: int) -> bool:
    """Whether `items` match all of `name` from `start`; on a mismatch the last `*` takes more."""
    item, at = 0, start
    star, star_at = -1, start
    while at < len(name):
        wanted = items[item] if item < len(items) else frozenset[int]()
        if wanted is None:
            star, star_at = item, at
            item += 1
            if item == len(items):
                return True
        elif name[at] in wanted:
            item, at = item + 1, at + 1
        elif star >= 0:
            star_at += 1
            item, at = star + 1, star_at
        else:
            return False
    return all(rest is None for rest in items[item:])
