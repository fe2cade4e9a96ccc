"""How addresses are written, and what is shown there: values that clients and daemons share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from clusterdep.api.errors import Fault, Kind

#: Longest Unix socket path that all systems accept (sun_path is 104 bytes on some), less a little.
SOCKET_PATH_LIMIT = 100
_HOST_PORT = r"(\[[0-9a-fA-F:.]+(%[A-Za-z0-9._-]+)?\]|[A-Za-z0-9._-]+):(\d{1,5})"


def is_host_port(value: object) -> bool:
    """Whether it is HOST:PORT, or [ADDRESS]:PORT for IPv6."""
    found = re.fullmatch(_HOST_PORT, value) if isinstance(value, str) else None
    return found is not None and 0 < int(found[3]) < 65536


def split(address: str) -> tuple[str, str]:
    """The kind of an address, "unix", "plaintext" or "tls", and what gRPC calls it.

    Raises Fault (USAGE) if it is none.
    """
    kind, _, where = address.partition(":")
    if kind == "unix" and where:
        return "unix", address
    if kind == "plaintext" and is_host_port(where):
        return "plaintext", where
    if is_host_port(address):
        return "tls", address
    raise Fault(
        Kind.USAGE,
        f"'{address}' is no address of a daemon",
        "it is unix:PATH, or HOST:PORT for TLS ([ADDRESS]:PORT for IPv6), or plaintext:HOST:PORT",
    )


@dataclass(frozen=True, slots=True)
class Access:
    """What a client shows over TLS, and whom it believes; a Unix socket needs nothing of it."""

    ca: Path | None = None  # who signed the daemon's certificate; None: a CA the system knows
    certificate: Path | None = None  # of the client, PEM
    key: Path | None = None  # its private key, PEM
    token_file: Path | None = None  # holds a bearer token
