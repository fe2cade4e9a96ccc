"""Finding packages by words or by a pattern, best first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from clusterdep.core import dewey

_SPECIAL = re.compile(r"[][*?{}<>]")
_FIELDS = re.compile(rb"^(?:CATEGORIES|MAINTAINER|COMMENT)=(.*)$", re.MULTILINE)
#: Longest search text, characters.
LONGEST = 1024


class Candidate(NamedTuple):
    """A package that may be what is searched."""

    id: int
    pkgname: str
    pkgpath: str
    text: bytes  # its record


def is_pattern(text: str) -> bool:
    """Whether a search is for a pattern, and not for words."""
    return bool(_SPECIAL.search(text))


def search(text: str, candidates: Iterable[Candidate], limit: int) -> list[int]:
    """Ids of at most `limit` candidates that fit, best first; equals stay in their order.

    With one of [ ] * ? { } < > in it, `text` is one pattern: of pkgpaths if it has a
    slash, else of pkgnames. Otherwise it is words that must all be there, in any case, in
    pkgname, pkgpath, categories, maintainer, or comment. Raises dewey.PatternError.
    """
    rank = _pattern(text.strip()) if is_pattern(text) else _words(text.lower().split())
    found = []
    for place, candidate in enumerate(candidates):
        fits = rank(candidate)
        if fits is not None:
            found.append((fits, place, candidate.id))
    return [number for _, _, number in sorted(found)[:limit]]


#: How well a candidate fits, 0 is best; None: not at all.
_Rank = Callable[[Candidate], int | None]


def _pattern(text: str) -> _Rank:
    pattern = dewey.compile_pattern(text.encode())
    prefixes = tuple(pattern.prefixes)
    by_path = "/" in text

    def rank(candidate: Candidate) -> int | None:
        name = (candidate.pkgpath if by_path else candidate.pkgname).encode()
        return 0 if name.startswith(prefixes) and pattern.match(name) else None

    return rank


def _words(words: list[str]) -> _Rank:
    def rank(candidate: Candidate) -> int | None:
        name, path = candidate.pkgname.lower(), candidate.pkgpath.lower()
        worst = -1
        for word in words:
            place = _place(word, name, path, candidate.text)
            if place is None:
                return None
            worst = max(worst, place)
        return None if worst < 0 else worst

    return rank


def _place(word: str, name: str, path: str, text: bytes) -> int | None:
    """Where a word is: the whole of the name first, a line of the record last."""
    if word in name:
        if word in (name, name.rpartition("-")[0]):
            return 0
        return 2 if name.startswith(word) else 3
    if word in path:
        return 1 if word in path.split("/") else 4
    needle = word.encode()
    if needle in text.lower() and any(needle in x.lower() for x in _FIELDS.findall(text)):
        return 5
    return None
