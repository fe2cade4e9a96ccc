"""The daemon's configuration: TOML into frozen values, all problems said at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusterdep.api import client, ports
from clusterdep.api import settings as file


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
    resolver: str = ""
    toolchain: str = ""
    follow: str = ""
    scans: str = ""
    selection: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `clusterdep serve` can be told."""

    state: Path = field(default_factory=lambda: client.default_state("clusterdep"))
    listen: tuple[str, ...] = ()  # unix:PATH, and tls:, mtls: or plaintext:HOST:PORT
    tls_certificate: Path | None = None  # see ports.Ports
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    tls_revoked: Path | None = None
    insecure_plaintext: str = ""  # role of whoever comes without TLS
    metrics: str = ""  # HOST:PORT of /metrics; empty: none
    lease_seconds: float = 120.0
    renew_seconds: float = 30.0
    event_days: float = 14.0
    event_count: int = 1_000_000
    hot_readers: int = 500  # see follow.Rules
    settle_seconds: float = 300.0
    attempt_days: float = 400.0
    attempt_count: int = 10  # of each package that are kept however old
    artifact_records: str = "all"  # or "newest": records of replaced artifacts are forgotten
    log_level: str = "info"
    profiles: tuple[ProfileSettings, ...] = ()

    @property
    def address(self) -> str:
        """Its Unix socket, where nobody has to show who they are."""
        return next(place for place in self.ports.places if place.startswith("unix:"))

    @property
    def ports(self) -> ports.Ports:
        """Where it listens."""
        return ports.Ports(
            ports.all_places(self.listen, client.default_address("clusterdep", self.state)),
            self.tls_certificate,
            self.tls_key,
            self.tls_client_ca,
            self.tls_revoked,
            self.insecure_plaintext,
        )

    @property
    def database(self) -> Path:
        """The database file."""
        return self.state / "clusterdep.db"


#: Keys of a `[[profile]]` and how the value of each is read.
PROFILE_KEYS: dict[str, file.Check] = {
    name: file.strings if name == "selection" else file.text
    for name in ProfileSettings.__dataclass_fields__
}
#: Keys of the file and how the value of each is read; ValueError says what it must be.
KEYS: dict[str, file.Check] = {
    "state": file.directory,
    **ports.KEYS,
    "metrics": file.host_port,
    "lease_seconds": file.positive,
    "renew_seconds": file.positive,
    "event_days": file.positive,
    "event_count": file.positive_count,
    "hot_readers": file.positive_count,
    "settle_seconds": file.positive,
    "attempt_days": file.positive,
    "attempt_count": file.positive_count,
    "artifact_records": file.one_of(("all", "newest")),
    "log_level": file.one_of(file.LEVELS),
    "profile": file.tables,
}


def load(path: Path | None) -> Settings:
    """The settings in the file at `path`, or the defaults. Raises Fault naming every problem."""
    if path is None:
        return Settings()
    table, text = file.load(path)
    values, problems = file.read(table, KEYS, text)
    profiles = [
        _profile(entry, problems, text, f"profile {number}")
        for number, entry in enumerate(values.pop("profile", []), 1)
    ]
    problems += _together(values, text) + ports.problems(values, text)
    file.refuse(path, problems)
    file.beside(path, values, ports.FILES)
    return Settings(**values, profiles=tuple(ProfileSettings(**profile) for profile in profiles))


def _profile(table: dict[str, Any], problems: list[str], text: str, where: str) -> dict[str, Any]:
    values, found = file.read(table, PROFILE_KEYS, text, where)
    if "name" not in table:
        found.append(f"{file.line_of(text, 'profile')}: {where} has no name")
    problems += found
    return values


def _together(values: dict[str, Any], text: str) -> list[str]:
    """What is wrong with values that are right one by one."""
    defaults = Settings()
    lease = values.get("lease_seconds", defaults.lease_seconds)
    renew = values.get("renew_seconds", defaults.renew_seconds)
    if renew * 2 <= lease:
        return []
    return [
        f"{file.line_of(text, 'renew_seconds')}: renew_seconds ({renew}) must be at most half of "
        f"lease_seconds ({lease}), or one lost call loses the lease"
    ]
