"""Opens fabric connections: strict host keys, the options of the socket, and errors for people.

Everything here blocks, and is called in a thread.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import fabric
import paramiko

from clusterbuild.engines import Kind
from clusterbuild.engines.runner import RunnerError
from clusterbuild.ssh_config import Resolved

#: A peer that says nothing for so long is asked (seconds), how often, and until when (tries).
KEEP_IDLE, KEEP_INTERVAL, KEEP_TRIES = 3, 2, 3
#: What we sent and is not acknowledged after so long ends the connection, milliseconds.
USER_TIMEOUT = 8000
#: Host key algorithms, by the types of keys that known_hosts files hold.
ALGORITHMS = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}

# What goes wrong is told by our own messages; paramiko would log it with tracebacks.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


@dataclass
class Opened:
    """An open connection, and those it goes through, the nearest host first."""

    through: list[fabric.Connection] = field(default_factory=list)

    @property
    def transport(self) -> paramiko.Transport:
        """What commands are run over."""
        found: paramiko.Transport = self.through[-1].transport
        return found

    @property
    def alive(self) -> bool:
        """Whether it is still open, as far as is known."""
        return all(connection.is_connected for connection in self.through)

    def close(self) -> None:
        """Closes all of it."""
        for connection in reversed(self.through):
            with contextlib.suppress(Exception):
                connection.client.close()


def open_connection(way: Resolved, timeout: float) -> Opened:
    """Connects. Raises RunnerError: UNREACHABLE for what may pass, REFUSED for what will not."""
    opened = Opened()
    try:
        for hop in (*way.jumps, way):
            with _explained(hop, "" if hop is way else f"jump host {hop.host}: "):
                opened.through.append(_open(hop, opened, timeout))
    except BaseException:
        opened.close()
        raise
    return opened


def _open(way: Resolved, opened: Opened, timeout: float) -> fabric.Connection:
    known = _known_keys(way)
    settings: dict[str, object] = {
        "key_filename": [str(path) for path in way.identities],
        "allow_agent": way.agent,
        "look_for_keys": False,
        "banner_timeout": timeout,
        "auth_timeout": timeout,
        "channel_timeout": timeout,
    }
    if known:
        fit = {name for kind in known for name in ALGORITHMS.get(kind, ())}
        every = {name for names in ALGORITHMS.values() for name in names}
        settings["disabled_algorithms"] = {"keys": sorted(every - fit)}
    if opened.through:
        settings["sock"] = _channel_to(way, opened.transport, timeout)
    elif way.proxy_command:
        settings["sock"] = paramiko.ProxyCommand(_proxy_command(way))
    else:
        settings["sock"] = _socket_to(way, timeout)
    connection = fabric.Connection(
        host=way.host,
        port=way.port,
        user=way.user,
        connect_timeout=timeout,
        connect_kwargs=settings,
        config=fabric.Config(ssh_config=paramiko.SSHConfig(), lazy=True),
    )
    connection.client.set_missing_host_key_policy(_Unknown())
    name = way.host if way.port == 22 else f"[{way.host}]:{way.port}"
    for kind, key in known.items():
        connection.client.get_host_keys().add(name, kind, key)
    try:
        connection.open()
    except BaseException:
        connection.client.close()
        raise
    return connection


def _socket_to(way: Resolved, timeout: float) -> socket.socket:
    """A TCP connection that is quick with small things, and notices when nobody is there."""
    link = socket.create_connection((way.host, way.port), timeout)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEP_IDLE),
        ("TCP_KEEPINTVL", KEEP_INTERVAL),
        ("TCP_KEEPCNT", KEEP_TRIES),
        ("TCP_USER_TIMEOUT", USER_TIMEOUT),
    ):
        if hasattr(socket, name):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return link


def _channel_to(way: Resolved, through: paramiko.Transport, timeout: float) -> paramiko.Channel:
    target = (way.host, way.port)
    return through.open_channel("direct-tcpip", target, ("127.0.0.1", 0), timeout=timeout)


def _proxy_command(way: Resolved) -> str:
    """With the tokens of ssh_config replaced by what they stand for."""
    tokens = {"h": way.host, "n": way.host, "p": str(way.port), "r": way.user, "%": "%"}
    return re.sub(r"%(.)", lambda match: tokens.get(match[1], match[0]), way.proxy_command)


# -- host keys ---------------------------------------------------------------------------


class _UnknownKeyError(Exception):
    def __init__(self, key: paramiko.PKey) -> None:
        super().__init__(key)
        self.key = key


class _Unknown(paramiko.MissingHostKeyPolicy):
    """A host that is not in the known hosts is not talked to."""

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> None:
        raise _UnknownKeyError(key)


def _known_keys(way: Resolved) -> dict[str, paramiko.PKey]:
    """The keys that the host may have, by type, less those that are revoked."""
    lines = [
        line.split()
        for path in way.known_hosts
        if path.is_file()
        for line in path.read_text(errors="replace").splitlines()
    ]
    revoked = {words[3] for words in lines if len(words) > 3 and words[0] == "@revoked"}
    # As ssh does: a key that is known for the name alone counts for every port.
    for name in dict.fromkeys([way.known_name, way.alias or way.host]):
        found: dict[str, paramiko.PKey] = {}
        for words in lines:
            good = len(words) > 2 and words[0][0] not in "@#" and words[2] not in revoked
            if good and words[1] not in found and _names(words[0], name):
                with contextlib.suppress(paramiko.hostkeys.InvalidHostKey, paramiko.SSHException):
                    entry = paramiko.hostkeys.HostKeyEntry.from_line(" ".join(words[:3]))
                    if entry is not None and entry.key is not None:
                        found[words[1]] = entry.key
        if found:
            return found
    return {}


def _names(patterns: str, name: str) -> bool:
    """Whether a known_hosts line is about a host: plain, with * and ?, negated, or hashed."""
    meant = False
    for pattern in patterns.split(","):
        if pattern.startswith("|1|"):
            with contextlib.suppress(ValueError, IndexError, AssertionError):  # it is rubbish
                meant = meant or paramiko.HostKeys.hash_host(name, pattern) == pattern
        elif _matches(pattern.removeprefix("!"), name):
            if pattern.startswith("!"):
                return False
            meant = True
    return meant


def _matches(pattern: str, name: str) -> bool:
    parts = (re.escape(c).replace(r"\*", ".*").replace(r"\?", ".") for c in pattern.lower())
    return re.fullmatch("".join(parts), name.lower()) is not None


def _fingerprint(key: paramiko.PKey) -> str:
    """As ssh-keygen -l shows it."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode()
    return f"{key.get_name()} SHA256:{digest.rstrip('=')}"


def _file_of(way: Resolved) -> Path:
    """The known_hosts file in which somebody would put right what is wrong."""
    there = [path for path in way.known_hosts if path.is_file()]
    return (there or [*way.known_hosts, Path("~/.ssh/known_hosts").expanduser()])[0]


# -- what went wrong, in words ---------------------------------------------------------------


@contextlib.contextmanager
def _explained(way: Resolved, where: str) -> Iterator[None]:
    """Makes what can go wrong while connecting a RunnerError."""
    try:
        yield
    except _UnknownKeyError as error:
        raise RunnerError(Kind.REFUSED, where + _unknown_key(way, error.key)) from None
    except paramiko.BadHostKeyException as error:
        raise RunnerError(Kind.REFUSED, where + _changed_key(way, error)) from None
    except paramiko.ssh_exception.IncompatiblePeer as error:
        why = f"it shares no method with us: {error}; known keys are in {_file_of(way)}"
        raise RunnerError(Kind.REFUSED, where + why) from None
    except paramiko.PasswordRequiredException:
        why = f"a key for {way.user} has a passphrase: use an agent, or a key without one"
        raise RunnerError(Kind.REFUSED, where + why) from None
    except paramiko.AuthenticationException:
        raise RunnerError(Kind.REFUSED, where + _not_let_in(way)) from None
    except socket.gaierror as error:
        why = f"the name {way.host} is not known: {error.strerror}"
        raise RunnerError(Kind.UNREACHABLE, where + why) from None
    except (OSError, EOFError, paramiko.SSHException) as error:
        why = f"no connection to {way.host} port {way.port}: {_plainly(error)}"
        raise RunnerError(Kind.UNREACHABLE, where + why) from None


def _plainly(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or "it closed the connection"


def _unknown_key(way: Resolved, key: paramiko.PKey) -> str:
    port = "" if way.port == 22 else f"-p {way.port} "
    file = _file_of(way)
    return (
        f"its host key is not known: compare {_fingerprint(key)} with the host's own, then add "
        f"it to {file} with 'ssh-keyscan {port}{way.host} >>{file}'"
    )


def _changed_key(way: Resolved, error: paramiko.BadHostKeyException) -> str:
    file = _file_of(way)
    return (
        f"its host key has changed: it shows {_fingerprint(error.key)}, but known is "
        f"{_fingerprint(error.expected_key)}; somebody may be in between. If the host was set "
        f"up anew, remove the old one with \"ssh-keygen -R '{way.known_name}' -f {file}\" and "
        "add the new one"
    )


def _not_let_in(way: Resolved) -> str:
    keys = ", ".join(str(path) for path in way.identities) or "no key file"
    agent = " and an agent" if way.agent else ""
    return (
        f"it does not let {way.user} in with {keys}{agent}: put the public key into "
        f"~{way.user}/.ssh/authorized_keys there"
    )
