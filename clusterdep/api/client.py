"""How to reach a daemon: default places, addresses, channels."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import grpc

#: Longest Unix socket path that all systems accept (sun_path is 104 bytes on some), less a little.
SOCKET_PATH_LIMIT = 100
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

SERVER_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
    # A reader that is gone without a word is noticed, too.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.so_reuseport", 0),
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


def connect(address: str) -> grpc.aio.Channel:
    """A channel to a daemon at `address`: `unix:PATH` or `HOST:PORT`.

    Connects when first used. The caller closes it.
    """
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
