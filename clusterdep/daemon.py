"""`clusterdep serve`: puts everything together, and runs it until a signal comes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from clusterdep import config
from clusterdep.api import client
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.api.v1 import clusterdep_pb2_grpc as rpc
from clusterdep.feed import Feed
from clusterdep.ledger import Ledger
from clusterdep.metrics import Metrics
from clusterdep.orders import Orders
from clusterdep.questions import Questions
from clusterdep.service import (
    AdminService,
    FaultInterceptor,
    FeedService,
    QueryService,
    WorkService,
)
from clusterdep.store.database import Store
from clusterdep.work import Work

log = logging.getLogger("clusterdep.daemon")

#: How long calls under way may take when the daemon stops, seconds.
GRACE = 3.0
HOUR = 3600.0
SECOND = 1.0
SERVICES = tuple(
    pb.DESCRIPTOR.services_by_name[name].full_name for name in ("Feed", "Work", "Query", "Admin")
)


async def serve(path: Path | None, settings: config.Settings) -> None:
    """Serves until SIGTERM or SIGINT. `path` is the file SIGHUP reads again. Raises Fault."""
    with _only_one(settings.state), contextlib.ExitStack() as stack:
        store = Store(settings.database)
        stack.callback(store.close)
        ledger = Ledger(store, settings.lease_seconds, time.time)
        work = Work(ledger, settings.renew_seconds, lambda: uuid.uuid4().hex)
        orders = Orders(ledger)
        questions = Questions(ledger, work)
        apply_profiles(orders, settings)
        if settings.metrics:
            stack.callback(Metrics(ledger, questions).serve(settings.metrics))
        server = await _server(ledger, work, orders, questions)
        _listen(server, settings.address)
        await server.start()
        _permit(settings.address)
        log.info("serving at %s, database %s", settings.address, settings.database)
        try:
            await _run(ledger, work, settings, _on_signals(path, orders))
        finally:
            log.info("stopping")
            work.stop()
            await server.stop(GRACE)
            _unlink(settings.address)


def apply_profiles(orders: Orders, settings: config.Settings) -> None:
    """Profiles of the configuration, into the database."""
    for profile in settings.profiles:
        orders.put_profile(
            pb.Profile(
                **{
                    name: getattr(profile, name)
                    for name in config.ProfileSettings.__dataclass_fields__
                }
            )
        )


@contextlib.contextmanager
def _only_one(state: Path) -> Iterator[None]:
    """Holds the lock of a state directory; two daemons on one database would both write."""
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(state / "clusterdep.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
            other = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
            raise Fault(
                Kind.UNAVAILABLE,
                f"another clusterdep (pid {other}) serves the state directory {state}",
                "stop that one, or name another directory with --state DIR",
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


async def _server(
    ledger: Ledger, work: Work, orders: Orders, questions: Questions
) -> grpc.aio.Server:
    server = grpc.aio.server(interceptors=(FaultInterceptor(),), options=client.SERVER_OPTIONS)
    rpc.add_FeedServicer_to_server(FeedService(Feed(ledger), orders), server)
    rpc.add_WorkServicer_to_server(WorkService(work), server)
    rpc.add_QueryServicer_to_server(QueryService(questions), server)
    rpc.add_AdminServicer_to_server(AdminService(ledger, orders), server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for name in ("", *SERVICES):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection(
        (*SERVICES, reflection.SERVICE_NAME, health.SERVICE_NAME), server
    )
    return server


def _listen(server: grpc.aio.Server, address: str) -> None:
    """Binds the Unix socket; one that nobody answers at is of a daemon that was killed."""
    path = Path(address.removeprefix("unix:"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            if _answers(path):
                raise Fault(
                    Kind.UNAVAILABLE,
                    f"another program serves the socket {path}",
                    "stop that one, or name another with 'listen' in the configuration",
                )
            path.unlink()
        server.add_insecure_port(address)
    except (OSError, RuntimeError) as error:
        raise Fault(
            Kind.CANNOT_CREATE,
            f"the socket {path} cannot be made: {error}",
            "make its directory writable for this user, or set 'listen' in the configuration",
        ) from error


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def _permit(address: str) -> None:
    """Whoever may write to the socket may give orders: only its owner and group may."""
    Path(address.removeprefix("unix:")).chmod(0o660)


def _unlink(address: str) -> None:
    Path(address.removeprefix("unix:")).unlink(missing_ok=True)


def _on_signals(path: Path | None, orders: Orders) -> asyncio.Event:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def reload() -> None:
        try:
            settings = config.load(path)
            apply_profiles(orders, settings)
            logging.getLogger("clusterdep").setLevel(settings.log_level.upper())
        except Fault as fault:
            log.error("the configuration was not read again: %s", fault)
        else:
            log.info("the configuration was read again: profiles and log_level are in force")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    return stopped


async def _run(
    ledger: Ledger, work: Work, settings: config.Settings, stopped: asyncio.Event
) -> None:
    """Ends leases when their time is over, and forgets old events, until stopped."""
    prune_at = 0.0
    while not stopped.is_set():
        now = time.time()
        try:
            work.attempts.expire()
            if now >= prune_at:
                ledger.prune_events(settings.event_days, settings.event_count)
                prune_at = now + HOUR
        except Fault as fault:
            log.error("%s", fault)
        due = ledger.leases.next_expiry()
        left = SECOND if due is None else min(SECOND, max(0.05, due - now))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), left)
