"""The daemon's configuration: TOML into frozen values, all problems said at once."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusterdep.api import client
from clusterdep.api.errors import Fault, Kind


@dataclass(frozen=True, slots=True)
class ProfileSettings:
    """A `[[profile]]` of the file; what is empty keeps the value the database has."""

    name: str
    tree: str = ""
    prefix: str = ""
    pkgdb: str = ""
    kit: str = ""
    make: str = ""
    opsys: str = ""
    os_version: str = ""
    machine_arch: str = ""
    distdir: str = ""
    policy: str = ""
    toolchain: str = ""
    selection: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `clusterdep serve` can be told."""

    state: Path = field(default_factory=lambda: client.default_state("clusterdep"))
    listen: str = ""  # unix:PATH; empty: the socket in the state directory
    metrics: str = ""  # HOST:PORT of /metrics; empty: none
    lease_seconds: float = 120.0
    renew_seconds: float = 30.0
    event_days: float = 14.0
    event_count: int = 1_000_000
    log_level: str = "info"
    profiles: tuple[ProfileSettings, ...] = ()

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.listen or client.default_address("clusterdep", self.state)

    @property
    def database(self) -> Path:
        """The database file."""
        return self.state / "clusterdep.db"


#: Keys of the file: what a value must be, and how it is read.
_TOP: dict[str, tuple[type, ...]] = {
    "state": (str,),
    "listen": (str,),
    "metrics": (str,),
    "lease_seconds": (int, float),
    "renew_seconds": (int, float),
    "event_days": (int, float),
    "event_count": (int,),
    "log_level": (str,),
    "profile": (list,),
}
_WORDS = {str: "a string", int: "a whole number", float: "a number", list: "a list of tables"}
LEVELS = ("debug", "info", "warning", "error")


def load(path: Path | None) -> Settings:
    """The settings in the file at `path`, or the defaults. Raises Fault naming every problem."""
    if path is None:
        return Settings()
    try:
        text = path.read_text()
        table = tomllib.loads(text)
    except OSError as error:
        raise Fault(
            Kind.CONFIG, f"the configuration {path} cannot be read: {error.strerror}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Fault(Kind.CONFIG, f"the configuration {path} is not TOML: {error}") from error
    problems: list[str] = []
    values = _check(table, _TOP, problems, text, "")
    profiles = [
        _profile(entry, problems, text, f"profile {number}")
        for number, entry in enumerate(values.pop("profile", []), 1)
    ]
    _check_values(values, problems, text)
    if problems:
        lines = "\n".join(f"{path}{problem}" for problem in problems)
        raise Fault(Kind.CONFIG, f"the configuration can not be used:\n{lines}")
    if "state" in values:
        values["state"] = Path(values["state"]).expanduser().absolute()
    return Settings(**values, profiles=tuple(p for p in profiles if p is not None))


def _line(text: str, key: str) -> str:
    """`:LINE` of the first line that sets `key`, if there is one."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"\s*(\[\[?\s*)?\"?{re.escape(key)}\b", line):
            return f":{number}"
    return ""


def _check(
    table: dict[str, Any],
    known: dict[str, tuple[type, ...]],
    problems: list[str],
    text: str,
    where: str,
) -> dict[str, Any]:
    values = {}
    for key, value in table.items():
        place = f"{_line(text, key)}: {where + ': ' if where else ''}"
        if key not in known:
            problems.append(f"{place}unknown key '{key}'; known are {', '.join(sorted(known))}")
        elif not isinstance(value, known[key]) or isinstance(value, bool):
            problems.append(f"{place}{key} must be {_WORDS[known[key][-1]]}, not {value!r}")
        else:
            values[key] = value
    return values


def _profile(table: object, problems: list[str], text: str, where: str) -> ProfileSettings | None:
    known: dict[str, tuple[type, ...]] = {
        name: (str,) for name in ProfileSettings.__dataclass_fields__
    }
    known["selection"] = (list,)
    if not isinstance(table, dict):
        problems.append(f": {where} must be a table, written [[profile]]")
        return None
    before = len(problems)
    values = _check(table, known, problems, text, where)
    selection = values.pop("selection", [])
    if not all(isinstance(entry, str) for entry in selection):
        problems.append(f"{_line(text, 'selection')}: {where}: selection must be a list of strings")
    if "name" not in table:
        problems.append(f"{_line(text, 'profile')}: {where} has no name")
    if len(problems) > before:
        return None
    return ProfileSettings(**values, selection=tuple(selection))


def _check_values(values: dict[str, Any], problems: list[str], text: str) -> None:
    for key in ("lease_seconds", "renew_seconds", "event_days", "event_count"):
        if key in values and values[key] <= 0:
            problems.append(f"{_line(text, key)}: {key} must be greater than 0")
    defaults = Settings()
    lease = values.get("lease_seconds", defaults.lease_seconds)
    renew = values.get("renew_seconds", defaults.renew_seconds)
    if renew * 2 > lease:
        problems.append(
            f"{_line(text, 'renew_seconds')}: renew_seconds ({renew}) must be at most half of "
            f"lease_seconds ({lease}), or one lost call loses the lease"
        )
    listen = values.get("listen", "")
    if listen and not listen.startswith("unix:"):
        problems.append(
            f"{_line(text, 'listen')}: listen '{listen}' is not unix:PATH; other machines are not "
            "served without authentication"
        )
    if listen.startswith("unix:") and len(listen[5:].encode()) > client.SOCKET_PATH_LIMIT:
        problems.append(
            f"{_line(text, 'listen')}: the socket's path is longer than "
            f"{client.SOCKET_PATH_LIMIT} bytes"
        )
    metrics = values.get("metrics", "")
    if metrics and not re.fullmatch(r"[^\s:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", metrics):
        problems.append(f"{_line(text, 'metrics')}: metrics '{metrics}' is not HOST:PORT")
    if values.get("log_level", "info") not in LEVELS:
        problems.append(f"{_line(text, 'log_level')}: log_level must be one of {', '.join(LEVELS)}")
