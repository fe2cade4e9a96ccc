"""The hosts file: TOML that names build machines, into frozen values; all problems said at once.

docs/hosts.md is its reference.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clusterdep.api.errors import Fault, Kind

#: Where a host builds unless something else is set; not below /tmp, of which jobs have their own.
BASE = "/var/tmp/clusterbuild"
SANDBOXES = ("auto", "mount", "overlay", "chroot", "none")
#: How the name of a tar file ends, as what a sandbox's root is made of.
ARCHIVES = (".tar", ".tgz", ".tar.gz", ".txz", ".tar.xz")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SIZES = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,99}")
_ADDRESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}|[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?")
#: What makefiles and the scripts on a host take as a path.
_PLAIN_PATH = re.compile(r"(?!.*(//|/\.{1,2}(/|$)))(/[A-Za-z0-9_.+@,~-]+)+")
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class HostEntry:
    """One host as it stands in the file. Times are seconds, sizes bytes; 0 or empty: not set."""

    name: str
    address: str = ""  # what ssh connects to; empty: the name
    port: int = 0  # 0: what ssh_config says, or 22
    user: str = ""  # empty: what ssh_config says, or our own name
    sudo: tuple[str, ...] = ()  # words before every command, which make it root's
    slots: int = 0  # 0: as many as it has cores, if each can have a sandbox
    sandbox: str = "auto"
    sandbox_base: str = ""  # of chroot: a directory on the host, or a tar file on this machine
    sandbox_memory: int = 0  # for what overlay and chroot change; 0: the host's disk
    build_user: str = ""  # whom configure and build run as, where commands are root's
    base: str = BASE  # directory on the host for everything of ours
    shell: str = "sh"  # a POSIX shell
    search_path: str = ""  # PATH of builds
    tags: tuple[str, ...] = ()
    classes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    time_limit: float = 0.0  # for one build, at most
    cores: int = 0  # 0: what the host says
    memory: int = 0  # 0: what the host says
    transfers: int = 2  # of large files, at once
    connect_timeout: float = 10.0
    ssh_config: Path | None = None  # None: the user's and the system's
    identity: Path | None = None  # private key; None: ssh_config's, an agent's, or the usual
    known_hosts: Path | None = None  # None: what ssh_config says, or the usual ones


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("a line of text")
    return value


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[object], str]:
    def checked(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(what)
        return value

    return checked


def _or_empty(check: Callable[[object], str]) -> Callable[[object], str]:
    return lambda value: "" if value == "" else check(value)


def _words(value: object) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(_text(value)))
    except ValueError:
        raise ValueError('words of a command, as "doas -n", or empty') from None


def _number(least: int, most: int) -> Callable[[object], int]:
    def checked(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    return checked


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd])", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a time, as 90, "90s", "15m", "8h" or "2d"')
    return float(found[1]) * UNITS[found[2]]


def _bytes(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = re.fullmatch(r"(\d{1,12})([KMGT])", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a size, as 4096, "512M" or "64G"')
    return int(found[1]) * SIZES[found[2]]


def _one_of(words: tuple[str, ...]) -> Callable[[object], str]:
    def checked(value: object) -> str:
        if value not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return str(value)

    return checked


def _file(value: object) -> Path:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("the name of a file")
    return Path(value)


def _labels(value: object) -> tuple[str, ...]:
    good = isinstance(value, list) and all(
        isinstance(word, str) and _LABEL.fullmatch(word) for word in value
    )
    if not isinstance(value, list) or not good:
        raise ValueError('a list of words, as ["slow", "big"]')
    return tuple(dict.fromkeys(value))


def _classes(value: object) -> Mapping[str, int]:
    count = _number(0, 100_000)
    try:
        if not isinstance(value, dict) or not all(map(_LABEL.fullmatch, value)):
            raise ValueError
        return MappingProxyType({name: count(most) for name, most in value.items()})
    except ValueError:
        raise ValueError("a table of classes and how many at once, as { memory-hog = 2 }") from None


_plain_path = _matching(
    _PLAIN_PATH, "an absolute path of letters, digits and ./+@,~_- (no others work in makefiles)"
)
_user = _matching(_USER, "the name of a user")


def is_archive(base: str) -> bool:
    """Is a `sandbox_base` a tar file on this machine, and not a directory on the host?"""
    return base.endswith(ARCHIVES)


def sandbox_base(value: object) -> str:
    """A `sandbox_base` as it stands in a file; raises ValueError saying what it must be."""
    if value == "" or (isinstance(value, str) and value.isprintable() and is_archive(value)):
        return str(value)
    try:
        return _plain_path(value)
    except ValueError:
        kinds = ", ".join(ARCHIVES)
        raise ValueError(
            f"an absolute path on the host, of letters, digits and ./+@,~_-, or a file ({kinds})"
        ) from None


#: Keys and how the value of each is read; ValueError says what it must be.
KEYS: dict[str, Callable[[object], object]] = {
    "name": _matching(NAME, "a name of letters, digits, and . _ -"),
    "address": _matching(_ADDRESS, "the name or address of a machine"),
    "port": _number(1, 65535),
    "user": _or_empty(_user),
    "sudo": _words,
    "slots": _number(0, 10_000),
    "sandbox": _one_of(SANDBOXES),
    "sandbox_base": sandbox_base,
    "sandbox_memory": _bytes,
    "build_user": _or_empty(_user),
    "base": _plain_path,
    "shell": _matching(re.compile(r"(/?[A-Za-z0-9_.+-]+)+"), "a POSIX shell, as sh or /bin/ksh"),
    "search_path": _text,
    "tags": _labels,
    "classes": _classes,
    "time_limit": _seconds,
    "cores": _number(0, 100_000),
    "memory": _bytes,
    "transfers": _number(1, 100),
    "connect_timeout": _seconds,
    "ssh_config": _file,
    "identity": _file,
    "known_hosts": _file,
}
#: Keys that can only stand for one host.
OWN = frozenset({"name", "address"})
#: Keys that name files on this machine; relative ones are looked for beside the hosts file.
FILES = ("ssh_config", "identity", "known_hosts")


def load(path: Path) -> tuple[HostEntry, ...]:
    """The hosts of a file, in its order. Raises Fault (CONFIG) naming every problem by line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise Fault(Kind.CONFIG, f"the hosts file {path} cannot be read: {why}") from error
    return parse(text, str(path), path.absolute().parent)


def parse(text: str, where: str, directory: Path) -> tuple[HostEntry, ...]:
    """The same of a text; `where` is its name for messages, `directory` where it stands."""
    try:
        top = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Fault(Kind.CONFIG, f"the hosts file {where} is not TOML: {error}") from error
    reader = _Reader(text, directory)
    hosts = reader.read(top)
    if reader.problems:
        lines = "\n".join(f"{where}{problem}" for problem in reader.problems)
        raise Fault(Kind.CONFIG, f"the hosts file cannot be used:\n{lines}")
    return hosts


class _Reader:
    """Reads one file, and gathers what is wrong with it, each as `:LINE: WHAT`."""

    def __init__(self, text: str, directory: Path) -> None:
        self.problems: list[str] = []
        self._lines = _lines(text)
        self._directory = directory

    def read(self, top: dict[str, Any]) -> tuple[HostEntry, ...]:
        for key in top:
            if key not in ("defaults", "host"):
                known = "known are [defaults] and [[host]]"
                self._problem(("", key), f"unknown '{key}'; {known}")
        defaults = self._table(("defaults", 0), top.get("defaults", {}), "[defaults]")
        entries = top.get("host", [])
        if not isinstance(entries, list):
            self._problem(("host", -1), "host must be written [[host]], once for each")
            return ()
        if not entries:
            self.problems.append(": there is no [[host]] in it")
        hosts: dict[str, HostEntry] = {}
        for number, entry in enumerate(entries):
            self._host(hosts, defaults, number, entry)
        return tuple(hosts.values())

    def _host(
        self, hosts: dict[str, HostEntry], defaults: dict[str, Any], number: int, entry: object
    ) -> None:
        place = ("host", number)
        name = entry.get("name") if isinstance(entry, dict) else None
        values = self._table(place, entry, f"host {name!a}" if name is not None else "[[host]]")
        if name is None:
            self._problem(place, "a [[host]] has no name")
        elif name in hosts:
            self._problem((*place, "name"), f"host {name} stands twice")
        elif "name" in values:
            host = HostEntry(**{**defaults, **values})
            if host.sandbox == "chroot" and not host.sandbox_base:
                wanted = "a directory on the host or a tar file"
                self._problem(place, f"host {name}: sandbox chroot needs sandbox_base, {wanted}")
            hosts[name] = host

    def _table(self, place: tuple[str, int], table: object, what: str) -> dict[str, Any]:
        """The values of a table that are right."""
        if not isinstance(table, dict):
            self._problem(place, f"{what} must be a table")
            return {}
        values: dict[str, Any] = {}
        for key, value in table.items():
            if key not in KEYS:
                known = ", ".join(sorted(KEYS))
                self._problem((*place, key), f"{what}: unknown key '{key}'; known are {known}")
            elif place[0] == "defaults" and key in OWN:
                self._problem((*place, key), f"{what}: {key} belongs to one host")
            else:
                try:
                    values[key] = KEYS[key](value)
                except ValueError as error:
                    said = f"{what}: {key} must be {error}, and is {value!a:.200}"
                    self._problem((*place, key), said)
        for key in FILES:
            if key in values:
                values[key] = self._directory / values[key].expanduser()
        if is_archive(values.get("sandbox_base", "")):
            file = Path(values["sandbox_base"]).expanduser()
            values["sandbox_base"] = str(self._directory / file)
        return values

    def _problem(self, place: tuple[str | int, ...], what: str) -> None:
        line = self._lines.get(place) or self._lines.get(place[:2], 0)
        self.problems.append(f":{line}: {what}" if line else f": {what}")


def _lines(text: str) -> dict[tuple[str | int, ...], int]:
    """The line of each table and key: ("host", 0) and ("host", 0, "slots")."""
    found: dict[tuple[str | int, ...], int] = {}
    table: tuple[str | int, ...] = ("",)
    hosts = -1
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[+\s*([^\]\s.]+)", line):
            hosts += match[1] == "host"
            table = ("host", hosts) if match[1] == "host" else (match[1], 0)
            found.setdefault(table, number)
            found.setdefault(("", match[1]), number)
        elif match := re.match(r"\s*(?:\"([^\"]+)\"|'([^']+)'|([A-Za-z0-9_-]+))\s*[.=]", line):
            found.setdefault((*table, match[1] or match[2] or match[3]), number)
    return found
