"""The dispatcher's configuration: TOML into frozen values, all problems said at once."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clusterdep.api import client, hosts_file
from clusterdep.api.errors import Fault, Kind

LEVELS = ("debug", "info", "warning", "error")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `clusterbuild serve` can be told. Times are seconds, sizes bytes."""

    state: Path = field(default_factory=lambda: client.default_state("clusterbuild"))
    dispatcher: str = ""  # its name; empty: made of host and state directory
    clusterdep: str = ""  # address; empty: the socket of a clusterdep on this machine
    listen: str = ""  # unix:PATH; empty: the socket in the state directory
    metrics: str = ""  # HOST:PORT of /metrics; empty: none
    hosts: Path | None = None  # the hosts file; None: this machine is the only host
    slots: int = 0  # of this machine; 0: as many as it has cores, if each can have a sandbox
    sandbox: str = "auto"
    sandbox_base: str = ""  # of chroot: a directory, or a tar file
    sandbox_memory: int = 0  # for what overlay and chroot change; 0: the disk
    build_user: str = ""  # whom configure and build run as, where the daemon is root
    search_path: str = ""  # PATH of builds; empty: the prefix and the system's directories
    time_limit: float = 8 * 3600.0  # for a whole build, where its grant names none
    stage_time_limit: float = 0.0  # for one stage; 0: none
    log_limit: int = 256 * 2**20  # for the log of one stage; 0: none
    log_attempts: int = 10  # of each package, whose logs are kept; 0: all
    log_level: str = "info"

    @property
    def name(self) -> str:
        """The dispatcher's name: stable over restarts, and another in another directory."""
        if self.dispatcher:
            return self.dispatcher
        host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:90] or "dispatcher"
        if self.state == client.default_state("clusterbuild"):
            return host
        return f"{host}-{hashlib.sha256(os.fsencode(self.state)).hexdigest()[:8]}"

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.listen or client.default_address("clusterbuild", self.state)

    @property
    def clusterdep_address(self) -> str:
        """Where clusterdep is."""
        return self.clusterdep or client.default_address("clusterdep")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a string")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", value):
        raise ValueError("a name of letters, digits, and . _ -")
    return value


def _path(value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError("the name of a directory")
    return Path(value).expanduser().absolute()


def _file(value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError("the name of a file")
    return Path(value).expanduser()


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a whole number, 0 or more")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a time, as 90, "90s", "15m", "8h" or "2d"')
    return float(found[1]) * UNITS[found[2]]


def _bytes(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = re.fullmatch(r"(\d+)([KMGT]?)", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a size, as 4096, "64M" or "2G"')
    return int(found[1]) * SIZES[found[2]]


def _one_of(words: tuple[str, ...]) -> Callable[[object], str]:
    def checked(value: object) -> str:
        if value not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return str(value)

    return checked


def _listen(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("unix:/"):
        raise ValueError("unix:PATH with an absolute path")
    if len(value.removeprefix("unix:").encode()) > client.SOCKET_PATH_LIMIT:
        raise ValueError(f"a path of at most {client.SOCKET_PATH_LIMIT} bytes")
    return value


def _host_port(value: object) -> str:
    pattern = r"(\[[0-9a-fA-F:]+\]|[^\s:]+):\d{1,5}"
    if value != "" and not (isinstance(value, str) and re.fullmatch(pattern, value)):
        raise ValueError("HOST:PORT, or empty for none")
    return str(value)


#: Keys of the file and how the value of each is read; ValueError says what it must be.
KEYS: dict[str, Callable[[object], object]] = {
    "state": _path,
    "dispatcher": _name,
    "clusterdep": _text,
    "listen": _listen,
    "metrics": _host_port,
    "hosts": _file,
    "slots": _count,
    "sandbox": _one_of(hosts_file.SANDBOXES),
    "sandbox_base": hosts_file.sandbox_base,
    "sandbox_memory": _bytes,
    "build_user": _text,
    "search_path": _text,
    "time_limit": _seconds,
    "stage_time_limit": _seconds,
    "log_limit": _bytes,
    "log_attempts": _count,
    "log_level": _one_of(LEVELS),
}
#: Keys that SIGHUP puts in force, as it does what builds get on the hosts of the hosts file;
#: everything else needs a restart.
RELOADED = ("slots", "time_limit", "stage_time_limit", "log_limit", "log_attempts", "log_level")


def load(path: Path | None, **changes: Any) -> Settings:
    """The settings in the file at `path`, or the defaults; `changes` that are not None win.

    Raises Fault naming every problem with its line.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    if path is None:
        return replace(Settings(), **given)
    try:
        text = path.read_text()
        table = tomllib.loads(text)
    except OSError as error:
        what = f"the configuration {path} cannot be read: {error.strerror}"
        raise Fault(Kind.CONFIG, what, "name another file with --config FILE") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Fault(Kind.CONFIG, f"the configuration {path} is not TOML: {error}") from error
    values, problems = read(table, text)
    if problems:
        lines = "\n".join(f"{path}{problem}" for problem in problems)
        raise Fault(Kind.CONFIG, f"the configuration cannot be used:\n{lines}")
    if "hosts" in values:
        values["hosts"] = path.absolute().parent / values["hosts"]
    if hosts_file.is_archive(values.get("sandbox_base", "")):
        file = Path(values["sandbox_base"]).expanduser()
        values["sandbox_base"] = str(path.absolute().parent / file)
    return replace(Settings(), **{**values, **given})


def read(table: dict[str, Any], text: str) -> tuple[dict[str, Any], list[str]]:
    """The values of a file's table, and its problems, each as `:LINE: WHAT`."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in table.items():
        place = f"{_line(text, key)}: "
        if key not in KEYS:
            problems.append(f"{place}unknown key '{key}'; known are {', '.join(sorted(KEYS))}")
            continue
        try:
            values[key] = KEYS[key](value)
        except ValueError as error:
            problems.append(f"{place}{key} must be {error}, and is {value!r}")
    return values, problems


def _line(text: str, key: str) -> str:
    """`:LINE` of the first line that sets `key`, if there is one."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*(\[\[?\s*)?\"?{re.escape(key)}\b", line):
            return f":{number}"
    return ""
