"""How to reach a host: what the hosts file says, completed by OpenSSH's own reading of ssh_config.

`ssh -G` is asked, so that fabric and the OpenSSH programs that move large files go the same
way, whatever ssh_config holds: Include, Match, ProxyJump, HostKeyAlias.
"""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from clusterbuild.engines import Kind
from clusterbuild.engines.runner import RunnerError

#: How long ssh may take to read its configuration, seconds.
LIMIT = 20.0
#: How many hosts one may have to jump over.
MOST_JUMPS = 8


@dataclass(frozen=True)
class Way:
    """What is configured of the way to a host; 0, empty and None: as ssh_config says."""

    address: str
    port: int = 0
    user: str = ""
    ssh_config: Path | None = None
    identity: Path | None = None
    known_hosts: Path | None = None
    connect_timeout: float = 10.0

    def options(self) -> list[str]:
        """For any program of OpenSSH that connects to the host."""
        words = ["-F", str(self.ssh_config)] if self.ssh_config else []
        settings = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": f"{max(1, round(self.connect_timeout))}",
            "ServerAliveInterval": "3",
            "ServerAliveCountMax": "3",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "ClearAllForwardings": "yes",
            "PermitLocalCommand": "no",
            "RequestTTY": "no",
            "Ciphers": "^aes128-gcm@openssh.com",  # the fastest of the good ones
        }
        if self.port:
            settings["Port"] = str(self.port)
        if self.user:
            settings["User"] = self.user
        if self.identity:
            settings["IdentityFile"] = _quoted(self.identity)
            settings["IdentitiesOnly"] = "yes"
        if self.known_hosts:
            settings["UserKnownHostsFile"] = _quoted(self.known_hosts)
            settings["GlobalKnownHostsFile"] = "/dev/null"
        for name, value in settings.items():
            words += ["-o", f"{name}={value}"]
        return words


def _quoted(path: Path) -> str:
    """As OpenSSH reads file names: with blanks only in quotes, and % doubled."""
    return '"{}"'.format(str(path).replace("%", "%%"))


@dataclass(frozen=True)
class Resolved:
    """The way to a host, with nothing left open."""

    host: str  # name or address to connect to
    port: int
    user: str
    identities: tuple[Path, ...]
    agent: bool  # whether an agent's keys may be tried, too
    known_hosts: tuple[Path, ...]
    alias: str  # what the host is called in these; empty: by its name and port
    jumps: tuple[Resolved, ...] = ()  # hosts in between, the nearest first
    proxy_command: str = ""

    @property
    def known_name(self) -> str:
        """What its key is looked up by."""
        return self.alias or (self.host if self.port == 22 else f"[{self.host}]:{self.port}")


def resolve(way: Way) -> Resolved:
    """Asks ssh. Blocks. Raises RunnerError (REFUSED) if the configuration cannot be used."""
    return _resolve(way.options(), way.address, way.ssh_config, MOST_JUMPS)


def _resolve(options: list[str], address: str, ssh_config: Path | None, most: int) -> Resolved:
    said = _ask([*options, address])
    port = int(said.get("port", ["22"])[0])
    jumps = _jumps(said.get("proxyjump", ["none"])[0], ssh_config, most)
    command = said.get("proxycommand", ["none"])[0]
    alias = said.get("hostkeyalias", [""])[0]
    files = [
        word
        for key in ("userknownhostsfile", "globalknownhostsfile")
        for word in shlex.split(said.get(key, [""])[0])
    ]
    host, user = said["hostname"][0], said["user"][0]
    keys = [Path(word.strip('"')).expanduser() for word in said.get("identityfile", [])]
    only = said.get("identitiesonly", ["no"])[0] == "yes"
    return Resolved(
        host=host,
        port=port,
        user=user,
        identities=tuple(key for key in keys if key.is_file()),
        agent=not only and said.get("identityagent", [""])[0] != "none",
        known_hosts=tuple(Path(word).expanduser() for word in files if word != "none"),
        alias="" if alias == "none" else alias,
        jumps=jumps,
        proxy_command="" if jumps or command == "none" else command,
    )


def _jumps(spec: str, ssh_config: Path | None, most: int) -> tuple[Resolved, ...]:
    """The hosts that ProxyJump names, with those in front of the first."""
    if spec == "none":
        return ()
    hops = spec.split(",")
    if len(hops) > most:
        raise RunnerError(Kind.REFUSED, f"ssh_config has too many jumps: {spec[:200]}")
    config = ["-F", str(ssh_config)] if ssh_config else []
    found: tuple[Resolved, ...] = ()
    for number, hop in enumerate(hops):
        user, _, rest = hop.removeprefix("ssh://").rpartition("@")
        name, port = _host_port(rest)
        options = [*config, *(["-l", user] if user else []), *(["-p", port] if port else [])]
        one = _resolve(options, name, ssh_config, most - 1)
        # What ProxyJump says of the first is its way; the others are reached through it.
        found = (*found, *(one.jumps if number == 0 else ()), one)
    return found


def _host_port(text: str) -> tuple[str, str]:
    if text.startswith("["):
        name, _, port = text[1:].partition("]")
        return name, port.removeprefix(":")
    name, colon, port = text.partition(":")
    return (text, "") if ":" in port else (name, port if colon else "")


def _ask(words: list[str]) -> dict[str, list[str]]:
    """What `ssh -G` prints: each setting with its values."""
    try:
        done = subprocess.run(
            ["ssh", "-G", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=LIMIT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunnerError(Kind.REFUSED, f"OpenSSH's ssh cannot be run here: {error}") from None
    if done.returncode:
        said = "; ".join(done.stderr.decode(errors="replace").split("\n")).strip("; ")
        said = "".join(c for c in said if c.isprintable())
        raise RunnerError(Kind.REFUSED, f"ssh_config cannot be used: {said}")
    settings: dict[str, list[str]] = {}
    for line in done.stdout.decode(errors="surrogateescape").splitlines():
        name, _, value = line.partition(" ")
        settings.setdefault(name, []).append(value)
    return settings
