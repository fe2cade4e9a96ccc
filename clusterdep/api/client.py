"""How to reach a daemon: default places, addresses, channels."""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path

import grpc

from clusterdep.api import errors, files
from clusterdep.api.addresses import SOCKET_PATH_LIMIT, Access, split
from clusterdep.api.errors import Fault, Kind

#: Largest message either side takes, bytes; what may be longer is streamed.
MESSAGE_LIMIT = 16 * 1024 * 1024

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
]


def default_state(program: str) -> Path:
    """The directory where `program` keeps its state when none is named.

    `$CLUSTERDEP_STATE` or `$CLUSTERBUILD_STATE` if set, /var/db/PROGRAM for root,
    else $XDG_STATE_HOME/PROGRAM (~/.local/state/PROGRAM).
    """
    named = os.environ.get(f"{program.upper()}_STATE")
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/db") / program
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local/state") / program


def socket_path(state: Path, name: str) -> Path:
    """Where the Unix socket `name` of the state directory `state` is.

    In the directory itself, or, if that path is longer than a socket's may be, in a
    short private directory whose name is made of it: both ends find the same one.
    The directory is not made here.
    """
    path = state.absolute() / name
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
        return path
    digest = hashlib.sha256(os.fsencode(state.absolute())).hexdigest()[:16]
    return Path("/tmp") / f"clusterdep-{os.geteuid()}-{digest}" / name


def default_address(program: str, state: Path | None = None) -> str:
    """The address of `program` when none is named: the Unix socket in its state directory."""
    named = os.environ.get(f"{program.upper()}_ADDRESS")
    if named and state is None:
        return named
    return f"unix:{socket_path(state or default_state(program), f'{program}.sock')}"


#: Fields of Access, the option and the environment variable of each, and what it is.
ACCESS = (
    ("ca", "--ca", "CLUSTERDEP_CA", "certificate of the CA that signed the daemon's"),
    ("certificate", "--cert", "CLUSTERDEP_CERT", "certificate that is shown to the daemon"),
    ("key", "--key", "CLUSTERDEP_KEY", "its private key"),
    ("token_file", "--token-file", "CLUSTERDEP_TOKEN_FILE", "file with the token to show"),
)


def add_options(parser: argparse.ArgumentParser, default: object) -> None:
    """The options of ACCESS, as paths; `default` is the value of one that is not given."""
    group = parser.add_argument_group("over TLS (docs/access.md)")
    for name, option, variable, text in ACCESS:
        group.add_argument(
            option,
            dest=name,
            metavar="FILE",
            type=Path,
            default=default,
            help=f"{text}; or ${variable}",
        )


def access_of(named: object = None) -> Access:
    """What the attributes of `named` say (parsed options, settings), or else the environment."""
    found = {}
    for name, _, variable, _ in ACCESS:
        value = getattr(named, name, None) or os.environ.get(variable)
        found[name] = Path(value).expanduser() if value else None
    return Access(**found)


def connect(address: str, access: Access | None = None) -> grpc.aio.Channel:
    """A channel to a daemon at `address`: `unix:PATH`, `HOST:PORT`, or `plaintext:HOST:PORT`.

    Connects when first used. The caller closes it. Without `access` the environment says
    what is shown over TLS. Raises Fault if a file of it cannot be used.
    """
    kind, target = split(address)
    if kind == "unix":
        return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
    access = access_of() if access is None else access
    if kind == "tls":
        from clusterdep.api import secure  # noqa: PLC0415  a Unix socket has no use for it

        return grpc.aio.secure_channel(target, secure.credentials(access), CHANNEL_OPTIONS)
    if access.token_file is not None:
        raise Fault(
            Kind.CONFIG,
            f"the token in {access.token_file} would be sent to {target} unencrypted",
            "use TLS, or no token",
        )
    return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)


class Link:
    """A channel that is kept for long, and made anew when what it shows has been renewed."""

    def __init__(self, address: str, access: Access) -> None:
        """Raises Fault if a file of `access` cannot be used."""
        self.address = address
        self.access = access
        self._seen = self._signature()
        self.channel = connect(address, access)
        self._old: list[grpc.aio.Channel] = []

    def _signature(self) -> files.Signature:
        return files.signature(self.access.ca, self.access.certificate, self.access.key)

    def renewed(self) -> bool:
        """Whether there is another channel now, since its files have changed. Raises Fault."""
        seen = self._signature()
        if seen == self._seen:
            return False
        channel = connect(self.address, self.access)
        # Calls may be under way on the old one; when they have ended it costs nothing.
        self._old.append(self.channel)
        self.channel, self._seen = channel, seen
        return True

    async def close(self) -> None:
        """Ends the connection."""
        for channel in (*self._old, self.channel):
            await channel.close()


def fault_of(
    error: grpc.RpcError, address: str, program: str, access: Access | None = None
) -> Fault:
    """What a failed call to `program` at `address` means for a person.

    Where it did not answer over TCP it is asked once more, to see why: this may take seconds.
    """
    fault = errors.fault_of(error, address, program)
    if fault.kind is not Kind.UNAVAILABLE or address.startswith("unix:"):
        return fault
    from clusterdep.api import secure  # noqa: PLC0415

    kind, target = split(address)
    found = secure.diagnose(target, kind == "tls", access_of() if access is None else access)
    return found or fault
