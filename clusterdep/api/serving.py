"""What both daemons share in serving: one daemon per state directory, the places it serves at."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from clusterdep.api import client
from clusterdep.api.access import Gate, Tokens
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.guard import Guard
from clusterdep.api.ports import Ports

if TYPE_CHECKING:
    from clusterdep.api.certificates import Shown

#: Calls at once of all clients, and of one connection; the others are told to come later.
CALLS, STREAMS = 4_096, 256
#: Connections at each place.
CONNECTIONS = 1_024

OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", client.MESSAGE_LIMIT),
    ("grpc.max_send_message_length", client.MESSAGE_LIMIT),
    ("grpc.max_concurrent_streams", STREAMS),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS),
    # Who connects and says nothing, who is gone without a word, who asks nothing for long.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 3_600_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
    ("grpc.so_reuseport", 0),
]


# -- the state directory -----------------------------------------------------------------


@contextlib.contextmanager
def only_one(state: Path, name: str) -> Iterator[None]:
    """Holds STATE/NAME.lock with our pid in it. Raises Fault where another process does."""
    path = state / f"{name}.lock"
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Fault(
            Kind.CANNOT_CREATE,
            f"the state directory {state} cannot be written: {error.strerror}",
            "make it writable for this user, or name another with --state DIR",
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            other = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
            raise Fault(
                Kind.INTERRUPTED,
                f"another '{name}' (pid {other}) uses the state directory {state}",
                "wait for it or stop it, or name another directory with --state DIR",
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


# -- places ------------------------------------------------------------------------------


class Door:
    """Everything about who comes in: what is shown, who is let in, which tokens count."""

    def __init__(self, ports: Ports) -> None:
        """Raises Fault (CONFIG) if a certificate, key or list cannot be used."""
        self.ports = ports
        self.tokens = Tokens()
        self._shown: Shown | None = None
        if not ports.tls:
            self.gate = Gate(self.tokens, plaintext_role=ports.plaintext_role)
            return
        from clusterdep.api import certificates  # noqa: PLC0415  only TLS pays for cryptography

        self._shown = certificates.Shown(ports)
        self.gate = Gate(
            self.tokens,
            certificates.read_certificate,
            certificates.Revoked(ports.revoked),
            ports.plaintext_role,
        )

    def server(self) -> grpc.aio.Server:
        """A server whose every method this one guards; served by `listening`."""
        return grpc.aio.server(
            interceptors=(Guard(self.gate),), options=OPTIONS, maximum_concurrent_rpcs=CALLS
        )

    def reload(self) -> None:
        """Reads the certificate again, now. Raises Fault; what was read before holds then."""
        if self._shown is not None:
            self._shown.reload()

    def open(self, server: grpc.aio.Server, state: Path) -> list[Path]:
        """Binds all places; the Unix sockets that were made. Raises Fault."""
        sockets = []
        for place in self.ports.places:
            kind, _, where = place.partition(":")
            if kind == "unix":
                _bind(server, Path(where), state)
                sockets.append(Path(where))
                continue
            try:
                if self._shown is not None and kind in ("tls", "mtls"):
                    server.add_secure_port(where, self._shown.credentials(kind == "mtls"))
                elif kind == "plaintext":
                    server.add_insecure_port(where)
            except RuntimeError as error:
                raise Fault(
                    Kind.CANNOT_CREATE,
                    f"{place} cannot be served: another program may have the port, or this "
                    "machine has no such address",
                    "name another with 'listen' in the configuration",
                ) from error
        return sockets


class Health:
    """What the health service says of each service; an empty name is all of them together."""

    def __init__(self, checks: health.aio.HealthServicer) -> None:
        self._checks = checks
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, services: Iterable[str], serving: bool) -> None:
        """From now on these serve, or do not."""
        answer = health_pb2.HealthCheckResponse
        status = answer.SERVING if serving else answer.NOT_SERVING
        for name in services:
            task = asyncio.get_running_loop().create_task(self._checks.set(name, status))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


@contextlib.asynccontextmanager
async def listening(
    server: grpc.aio.Server, door: Door, state: Path, services: Sequence[str], grace: float
) -> AsyncIterator[Health]:
    """Serves at all places of `door` for as long as the block lasts, health and reflection too.

    `services` are full names; calls under way may take `grace` seconds at the end. Raises
    Fault if it can not be served there.
    """
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = (*services, reflection.SERVICE_NAME, health.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    sockets = door.open(server, state)
    await server.start()
    for name in ("", *services):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    reviews = asyncio.create_task(door.gate.keep())
    try:
        yield Health(checks)
    finally:
        reviews.cancel()
        await server.stop(grace)
        for path in sockets:
            _unlink(path)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _bind(server: grpc.aio.Server, path: Path, state: Path) -> None:
    """Binds the Unix socket; one at which nobody answers is of a daemon that was killed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.parent != state and path == client.socket_path(state, path.name):
            _check_private(path.parent)
        if path.is_socket() and not _answers(path):
            path.unlink()
        elif path.exists():
            raise Fault(
                Kind.UNAVAILABLE,
                f"another program serves the socket {path}",
                "stop that one, or name another with 'listen' in the configuration",
            )
        # Whoever may write to the socket may give orders: only its owner may.
        mask = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{path}")
        finally:
            os.umask(mask)
    except (OSError, RuntimeError) as error:
        raise Fault(
            Kind.CANNOT_CREATE,
            f"the socket {path} cannot be made: {error}",
            "make its directory writable for this user, or set 'listen' in the configuration",
        ) from error


def _check_private(directory: Path) -> None:
    """A directory in /tmp could have been made by somebody else before us. Raises Fault."""
    found = directory.lstat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise Fault(
            Kind.DENIED,
            f"the directory {directory} of the socket is not ours alone",
            "remove it, or name a state directory with a shorter path with --state DIR",
        )


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True
