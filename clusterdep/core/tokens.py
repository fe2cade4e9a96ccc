"""Dependency tokens: what they say, which names match them, and who has them."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from clusterdep.core import dewey

_UP = b"../../"

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


# --- tokens and the names that match them -----------------------------------------------------


class Wanted:
    """A token that packages have, and the names that match its pattern."""

    __slots__ = ("best", "names", "pattern", "text", "usual")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.names: tuple[bytes, ...] = ()
        self.best: bytes | None = None  # by the rule
        self.usual: bytes | None = None  # by pbulk's rule
        self.pattern: dewey.Pattern | None = None  # None: it can not be read
        token = parse_token(text)
        if not token.why:
            with suppress(dewey.PatternError):
                self.pattern = dewey.compile_pattern(token.pattern)

    def choose(self, names: Iterable[bytes]) -> None:
        """Takes the names that match, and the best of them by pbulk's rule."""
        self.names = tuple(names)
        self.best = self.usual = self.names[0] if len(self.names) == 1 else _best(self.names)

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


class Reverse:
    """From a name to the tokens it matches, and from a token to the packages that have it."""

    def __init__(self) -> None:
        self._by_prefix: dict[bytes, set[Wanted]] = {}
        self._users: dict[Wanted, set[int]] = {}

    def add(self, wanted: Wanted, user: int) -> None:
        """The package `user` has the token."""
        users = self._users.get(wanted)
        if users is None:
            users = self._users[wanted] = set()
            for prefix in wanted.pattern.prefixes if wanted.pattern else ():
                self._by_prefix.setdefault(prefix, set()).add(wanted)
        users.add(user)

    def discard(self, wanted: Wanted, user: int) -> None:
        """The package `user` has the token no more; see `drop_unused`."""
        self._users[wanted].discard(user)

    def drop_unused(self, wanted: Wanted) -> bool:
        """Forgets the token if no package has it any more; says whether that is so."""
        if self._users[wanted]:
            return False
        del self._users[wanted]
        for prefix in wanted.pattern.prefixes if wanted.pattern else ():
            self._by_prefix[prefix].discard(wanted)
            if not self._by_prefix[prefix]:
                del self._by_prefix[prefix]
        return True

    def users(self, wanted: Wanted) -> set[int]:
        """The packages that have the token."""
        return self._users[wanted]

    def matching(self, name: bytes) -> Iterator[Wanted]:
        """The tokens that `name` matches."""
        candidates: set[Wanted] = set()
        for end in range(len(name) + 1):
            candidates |= self._by_prefix.get(name[:end], set())
        for wanted in candidates:
            if wanted.pattern is not None and wanted.pattern.match(name):
                yield wanted
