"""Why an artifact is stale: what it was made of beside what it would be made of now.

The input key says only that something differs (core/inputs.py); this says what: a field of
the record, an option, a file of the tree, a requirement, the toolchain.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from clusterdep.core.inputs import VOLATILE
from clusterdep.core.tokens import parse_token

#: How many files, patterns or options are named; the others are counted.
MOST_NAMED = 5
#: Characters of a value that are shown.
LONGEST_VALUE = 60

_FIELD = re.compile(rb"^([A-Z_]+)=(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What an artifact is made of."""

    record: bytes  # its text without SCAN_DEPENDS; empty: unknown
    inputs_digest: str  # of the files that a build reads from the tree
    files: Mapping[str, str] | None  # digests by path; None: which ones is not known
    toolchain: str
    #: (pkgname, content digest) of the artifacts that it requires; empty digest: not built now.
    requirements: Sequence[tuple[str, str]]


def reasons(was: Ingredients, now: Ingredients) -> list[str]:
    """A sentence for each thing that differs; empty if nothing does that is known."""
    found = list(_record(was.record, now.record)) if was.record and now.record else []
    if was.inputs_digest != now.inputs_digest:
        found += _files(was.files, now.files)
    found += _requirements(was.requirements, now.requirements)
    if was.toolchain != now.toolchain:
        found.append(f"the toolchain is {_value(now.toolchain)} now, not {_value(was.toolchain)}")
    return found


# --- the record -----------------------------------------------------------------------------


def _fields(record: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    for key, value in _FIELD.findall(record):
        text = b" ".join(value.split()).decode(errors="backslashreplace")
        fields.setdefault(key.decode(), text)
    return {key: text for key, text in fields.items() if key not in VOLATILE}


def _record(was: bytes, now: bytes) -> Iterator[str]:
    before, after = _fields(was), _fields(now)
    for key in dict.fromkeys((*before, *after)):
        old, new = before.get(key, ""), after.get(key, "")
        if old == new:
            continue
        if key == "PKGNAME":
            yield f"it is {new} now, not {old}"
        elif key == "ALL_DEPENDS":
            yield from _patterns(old.split(), new.split())
        elif key == "PKG_OPTIONS":
            yield from _options(old.split(), new.split())
        else:
            yield f"{key} is {_value(new)} now, not {_value(old)}"


def _patterns(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    before, after = ([_pattern(word) for word in words] for words in (old, new))
    come = [pattern for pattern in dict.fromkeys(after) if pattern not in before]
    gone = [pattern for pattern in dict.fromkeys(before) if pattern not in after]
    if come:
        yield f"it asks for {_named(come)} now"
    if gone:
        yield f"it does not ask for {_named(gone)} any more"
    if not come and not gone:
        yield "it asks for the same in another order, or in other places"


def _pattern(word: str) -> str:
    return parse_token(word.encode()).pattern.decode(errors="backslashreplace") or word


def _options(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    on = [option for option in new if option not in old]
    off = [option for option in old if option not in new]
    if on:
        yield f"{_plural('option', on)} {_named(on)} {'is' if len(on) == 1 else 'are'} on now"
    if off:
        yield f"{_plural('option', off)} {_named(off)} {'is' if len(off) == 1 else 'are'} off now"
    if not on and not off:
        yield "its options are the same in another order"


# --- files ----------------------------------------------------------------------------------


def _files(was: Mapping[str, str] | None, now: Mapping[str, str] | None) -> Iterator[str]:
    if was is None or now is None:
        yield "files that its build reads from the tree are others, and which ones is not known"
        return
    changed = sorted(path for path in was.keys() & now.keys() if was[path] != now[path])
    added, removed = sorted(now.keys() - was.keys()), sorted(was.keys() - now.keys())
    left = MOST_NAMED
    for paths, what in ((changed, "changed"), (added, "new"), (removed, "gone")):
        if paths:
            yield _told(paths, left, what)
            left = max(0, left - len(paths))
    if not (changed or added or removed):
        yield "files that its build reads from the tree are others"


def _told(paths: Sequence[str], most: int, what: str) -> str:
    word, verb = ("file", "is") if len(paths) == 1 else ("files", "are")
    subject = f"{word} {_named(paths, most)}" if most else f"{len(paths)} more {word}"
    return f"{subject} {what}" if what == "changed" else f"{subject} {verb} {what}"


# --- requirements ---------------------------------------------------------------------------


def _requirements(was: Sequence[tuple[str, str]], now: Sequence[tuple[str, str]]) -> Iterator[str]:
    before, after = dict(was), dict(now)
    for name in (name for name in before if name in after):
        if not after[name] or before[name] == after[name]:
            continue
        if before[name]:
            yield f"requirement {name} was built again, and what is in it is not the same"
        else:
            yield f"which {name} it was built with is not known"
    gone = _by_base(name for name in before if name not in after)
    come = _by_base(name for name in after if name not in before)
    for base in dict.fromkeys((*gone, *come)):
        old, new = gone.get(base, []), come.get(base, [])
        if old and new:
            yield f"requirement {' and '.join(old)} is {' and '.join(new)} now"
        elif new:
            yield f"it requires {' and '.join(new)} now"
        else:
            yield f"it does not require {' and '.join(old)} any more"


def _by_base(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[name.rpartition("-")[0]].append(name)
    return found


# --- words ----------------------------------------------------------------------------------


def _named(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    if more <= 0:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {more} more"


def _plural(word: str, things: Sequence[str]) -> str:
    return word if len(things) == 1 else word + "s"


def _value(text: str) -> str:
    shown = text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"
    return f"'{shown}'" if text else "empty"
