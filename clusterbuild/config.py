"""The dispatcher's configuration: TOML into frozen values, all problems said at once."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clusterdep.api import client, hosts_file, ports
from clusterdep.api import settings as file
from clusterdep.api.addresses import Access

#: What is shown to clusterdep, and believed of it: fields of addresses.Access.
ACCESS = ("ca", "certificate", "key", "token_file")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `clusterbuild serve` can be told. Times are seconds, sizes bytes."""

    state: Path = field(default_factory=lambda: client.default_state("clusterbuild"))
    dispatcher: str = ""  # its name; empty: made of host and state directory
    clusterdep: str = ""  # address; empty: the socket of a clusterdep on this machine
    clusterdep_ca: Path | None = None  # see addresses.Access
    clusterdep_certificate: Path | None = None
    clusterdep_key: Path | None = None
    clusterdep_token_file: Path | None = None
    listen: tuple[str, ...] = ()  # unix:PATH, and tls:, mtls: or plaintext:HOST:PORT
    tls_certificate: Path | None = None  # see ports.Ports
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    tls_revoked: Path | None = None
    insecure_plaintext: str = ""  # role of whoever comes without TLS
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
        """Its Unix socket, where nobody has to show who they are."""
        return next(place for place in self.ports.places if place.startswith("unix:"))

    @property
    def ports(self) -> ports.Ports:
        """Where it listens."""
        return ports.Ports(
            ports.all_places(self.listen, client.default_address("clusterbuild", self.state)),
            self.tls_certificate,
            self.tls_key,
            self.tls_client_ca,
            self.tls_revoked,
            self.insecure_plaintext,
        )

    @property
    def clusterdep_address(self) -> str:
        """Where clusterdep is."""
        return self.clusterdep or client.default_address("clusterdep")

    @property
    def access(self) -> Access:
        """What is shown to clusterdep; what is not set here, as the environment says."""
        own = Access(
            self.clusterdep_ca,
            self.clusterdep_certificate,
            self.clusterdep_key,
            self.clusterdep_token_file,
        )
        return client.access_of(own)


#: Keys of the file and how the value of each is read; ValueError says what it must be.
KEYS: dict[str, file.Check] = {
    "state": file.directory,
    "dispatcher": file.name,
    "clusterdep": file.text,
    **ports.KEYS,
    **{f"clusterdep_{name}": file.file for name in ACCESS},
    "metrics": file.host_port,
    "hosts": file.file,
    "slots": file.count,
    "sandbox": file.one_of(hosts_file.SANDBOXES),
    "sandbox_base": hosts_file.sandbox_base,
    "sandbox_memory": file.size,
    "build_user": file.text,
    "search_path": file.text,
    "time_limit": file.seconds,
    "stage_time_limit": file.seconds,
    "log_limit": file.size,
    "log_attempts": file.count,
    "log_level": file.one_of(file.LEVELS),
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
    table, text = file.load(path)
    values, problems = file.read(table, KEYS, text)
    file.refuse(path, problems + ports.problems(values, text))
    file.beside(path, values, ("hosts", *ports.FILES, *(f"clusterdep_{name}" for name in ACCESS)))
    if hosts_file.is_archive(values.get("sandbox_base", "")):
        archive = Path(values["sandbox_base"]).expanduser()
        values["sandbox_base"] = str(path.absolute().parent / archive)
    return replace(Settings(), **{**values, **given})
