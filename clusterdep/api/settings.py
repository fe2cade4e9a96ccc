"""Reading configuration files: a check for each key, all problems gathered with their lines."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from clusterdep.api.addresses import SOCKET_PATH_LIMIT, is_host_port
from clusterdep.api.errors import Fault, Kind

#: Turns what stands in the file into a value; ValueError says what it must be.
Check = Callable[[object], object]

LEVELS = ("debug", "info", "warning", "error")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def load(path: Path) -> tuple[dict[str, Any], str]:
    """The table in the file at `path`, and its text. Raises Fault (CONFIG)."""
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text), text
    except OSError as error:
        what = f"the configuration {path} cannot be read: {error.strerror}"
        raise Fault(Kind.CONFIG, what, "name another file with --config FILE") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Fault(Kind.CONFIG, f"the configuration {path} is not TOML: {error}") from error


def read(
    table: Mapping[str, Any], keys: Mapping[str, Check], text: str, where: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """The values of a table that are right, and its problems, each as `:LINE: WHAT`.

    `where` names the table in messages; empty: the top of the file.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in table.items():
        place = f"{line_of(text, key)}: {where + ': ' if where else ''}"
        if key not in keys:
            problems.append(f"{place}unknown key '{key}'; known are {', '.join(sorted(keys))}")
            continue
        try:
            values[key] = keys[key](value)
        except ValueError as error:
            problems.append(f"{place}{key} must be {error}, and is {value!a:.200}")
    return values, problems


def line_of(text: str, key: str) -> str:
    """`:LINE` of the first line that sets `key`, if there is one."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*(\[\[?\s*)?\"?{re.escape(key)}\b", line):
            return f":{number}"
    return ""


def refuse(path: Path, problems: Iterable[str]) -> None:
    """Raises Fault (CONFIG) with all problems, if there are any."""
    lines = "\n".join(f"{path}{problem}" for problem in problems)
    if lines:
        raise Fault(Kind.CONFIG, f"the configuration cannot be used:\n{lines}")


def beside(path: Path, values: dict[str, Any], names: Iterable[str]) -> None:
    """Looks for the files of the keys `names` beside the configuration, if they are relative."""
    for name in names:
        if values.get(name):
            values[name] = path.absolute().parent / values[name]


# -- checks ------------------------------------------------------------------------------


def text(value: object) -> str:
    """Any string."""
    if not isinstance(value, str):
        raise ValueError("a string")
    return value


def strings(value: object) -> tuple[str, ...]:
    """A list of strings."""
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ValueError("a list of strings")
    return tuple(value)


def tables(value: object) -> list[dict[str, Any]]:
    """Tables written [[KEY]]."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ValueError("a list of tables, each with its name in double brackets")
    return value


def name(value: object) -> str:
    """A name as profiles and dispatchers have."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", value):
        raise ValueError("a name of letters, digits, and . _ -")
    return value


def directory(value: object) -> Path:
    """A directory, as an absolute path."""
    if not isinstance(value, str) or not value:
        raise ValueError("the name of a directory")
    return Path(value).expanduser().absolute()


def file(value: object) -> Path:
    """A file; a relative one stays so, see `beside`."""
    if not isinstance(value, str) or not value:
        raise ValueError("the name of a file")
    return Path(value).expanduser()


def count(value: object) -> int:
    """A whole number from 0 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a whole number, 0 or more")
    return value


def positive(value: object) -> float:
    """A number greater than 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e15:
        raise ValueError("a number greater than 0")
    return float(value)


def positive_count(value: object) -> int:
    """A whole number greater than 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError("a whole number greater than 0")
    return value


def seconds(value: object) -> float:
    """A length of time, seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a time, as 90, "90s", "15m", "8h" or "2d"')
    return float(found[1]) * UNITS[found[2]]


def size(value: object) -> int:
    """A size, bytes."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = re.fullmatch(r"(\d+)([KMGT]?)", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a size, as 4096, "64M" or "2G"')
    return int(found[1]) * SIZES[found[2]]


def one_of(words: tuple[str, ...]) -> Callable[[object], str]:
    """A check for one of some words."""

    def checked(value: object) -> str:
        if value not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return str(value)

    return checked


def host_port(value: object) -> str:
    """Where something is served, or nothing."""
    if value != "" and not is_host_port(value):
        raise ValueError("HOST:PORT, or empty for none")
    return str(value)


def listen(value: object) -> tuple[str, ...]:
    """Where a daemon serves: one place, or a list."""
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list) or not all(map(_is_place, entries)):
        raise ValueError(
            "unix:PATH with an absolute path, tls:HOST:PORT, mtls:HOST:PORT or "
            "plaintext:HOST:PORT, or a list of these"
        )
    for entry in entries:
        if len(entry.removeprefix("unix:").encode()) > SOCKET_PATH_LIMIT:
            raise ValueError(f"a path of at most {SOCKET_PATH_LIMIT} bytes")
    return tuple(entries)


def _is_place(entry: object) -> bool:
    if not isinstance(entry, str):
        return False
    kind, _, place = entry.partition(":")
    if kind == "unix":
        return place.startswith("/")
    return kind in ("tls", "mtls", "plaintext") and is_host_port(place)
