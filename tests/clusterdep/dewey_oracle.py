"""Versions and patterns once more: slow, and plain enough to be seen to be right."""

from __future__ import annotations

KEYWORDS = [(b"alpha", -3), (b"beta", -2), (b"pre", -1), (b"rc", -1), (b"pl", 0), (b".", 0)]
KEYWORDS += [(b"_", 0)]


class MalformedError(Exception):
    pass


def version(text: bytes) -> tuple[list[int], int]:
    text = text.lower()
    numbers: list[int] = []
    nb = 0
    while text:
        digits = 0
        while text[digits : digits + 1].isdigit():
            digits += 1
        keyword = next(((word, value) for word, value in KEYWORDS if text.startswith(word)), None)
        if digits:
            numbers.append(int(text[:digits]))
            text = text[digits:]
        elif keyword:
            numbers.append(keyword[1])
            text = text[len(keyword[0]) :]
        elif text.startswith(b"nb"):
            text = text[2:]
            nb = 0
            while text[:1].isdigit():
                nb = 10 * nb + int(text[:1])
                text = text[1:]
        else:
            if b"a" <= text[:1] <= b"z":
                numbers += [0, b" abcdefghijklmnopqrstuvwxyz".index(text[:1])]
            text = text[1:]
    return numbers, nb


def compare(one: bytes, other: bytes) -> int:
    (mine, my_nb), (theirs, their_nb) = version(one), version(other)
    while len(mine) < len(theirs):
        mine.append(0)
    while len(theirs) < len(mine):
        theirs.append(0)
    for a, b in [*zip(mine, theirs, strict=True), (my_nb, their_nb)]:
        if a != b:
            return -1 if a < b else 1
    return 0


def match(pattern: bytes, name: bytes) -> bool:
    """Whether `name` matches; raises MalformedError if a brace is not closed."""
    return any([match_plain(one, name) for one in expand(pattern)])


def expand(pattern: bytes) -> list[bytes]:
    start = pattern.find(b"{")
    if start < 0:
        return [pattern]
    alternatives = [b""]
    depth = 1
    at = start
    while depth:
        at += 1
        sign = pattern[at : at + 1]
        if not sign:
            raise MalformedError
        depth += (sign == b"{") - (sign == b"}")
        if sign == b"," and depth == 1:
            alternatives.append(b"")
        elif depth:
            alternatives[-1] += sign
    found = []
    for alternative in alternatives:
        found += expand(pattern[:start] + alternative + pattern[at + 1 :])
    return found


def match_plain(pattern: bytes, name: bytes) -> bool:
    places = [at for at in range(len(pattern)) if pattern[at : at + 1] in (b"<", b">")]
    if places:
        return match_bounds(pattern[: places[0]], pattern[places[0] :], name)
    if any(sign in pattern for sign in (b"*", b"?", b"[", b"]")):
        if name.startswith(b".") and not pattern.startswith((b".", b"\\.")):
            return False
        return match_glob(pattern, name)
    return pattern == name


def match_bounds(base: bytes, bounds: bytes, name: bytes) -> bool:
    if b"-" not in name or name[: name.rindex(b"-")] != base:
        return False
    have = name[name.rindex(b"-") + 1 :]
    if bounds.startswith(b">") and b"<" in bounds:
        cut = bounds.index(b"<")
        return bound(have, bounds[:cut]) and bound(have, bounds[cut:])
    return bound(have, bounds)


def bound(have: bytes, wanted: bytes) -> bool:
    if wanted.startswith(b"<="):
        return compare(have, wanted[2:]) <= 0
    if wanted.startswith(b"<"):
        return compare(have, wanted[1:]) < 0
    if wanted.startswith(b">="):
        return compare(have, wanted[2:]) >= 0
    return compare(have, wanted[1:]) > 0


def match_glob(pattern: bytes, name: bytes) -> bool:
    if not pattern:
        return not name
    sign, rest = pattern[:1], pattern[1:]
    if sign == b"*":
        return any(match_glob(rest, name[skip:]) for skip in range(len(name) + 1))
    if not name:
        return False
    if sign == b"?":
        return match_glob(rest, name[1:])
    if sign == b"\\" and rest:
        return rest[:1] == name[:1] and match_glob(rest[1:], name[1:])
    end = bracket_end(rest) if sign == b"[" else -1
    if end >= 0:
        return in_bracket(rest[:end], name[:1]) and match_glob(rest[end + 1 :], name[1:])
    return sign == name[:1] and match_glob(rest, name[1:])


def bracket_end(text: bytes) -> int:
    """Where the `]` stands that closes a bracket of which `text` is the inside and more."""
    at = 1 if text[:1] in (b"!", b"^") else 0
    if text[at : at + 1] == b"]":
        at += 1
    while at < len(text):
        if text[at : at + 1] == b"]":
            return at
        at += 2 if text[at : at + 1] == b"\\" else 1
    return -1


def in_bracket(inside: bytes, sign: bytes) -> bool:
    negated = inside[:1] in (b"!", b"^")
    members = list(inside[1:] if negated else inside)
    signs: list[tuple[int, bool]] = []  # and whether it is a dash that makes a range
    while members:
        escaped = members[0] == ord("\\") and len(members) > 1
        one = members.pop(1 if escaped else 0)
        if escaped:
            members.pop(0)
        signs.append((one, one == ord("-") and not escaped))
    found = False
    while signs:
        low = high = signs.pop(0)[0]
        if len(signs) > 1 and signs[0][1]:
            high = signs[1][0]
            del signs[:2]
        found = found or low <= sign[0] <= high
    return found != negated
