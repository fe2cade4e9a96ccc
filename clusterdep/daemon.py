"""`clusterdep serve`: puts everything together, and runs it until a signal comes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import signal
import time
import uuid
from pathlib import Path

import grpc

from clusterdep import config
from clusterdep.api.errors import Fault
from clusterdep.api.serving import Door, listening, only_one
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.api.v1 import clusterdep_pb2_grpc as rpc
from clusterdep.feed import Feed
from clusterdep.follow import Follow, Rules
from clusterdep.forgetting import Forgetting
from clusterdep.keyring import Keyring
from clusterdep.ledger import Ledger
from clusterdep.lists import Lists
from clusterdep.metrics import Metrics
from clusterdep.orders import Orders
from clusterdep.questions import Questions
from clusterdep.scans import Scans
from clusterdep.service import AdminService, FeedService, QueryService, WorkService
from clusterdep.steering import Steering
from clusterdep.store.database import Store
from clusterdep.takeover import TakeOver
from clusterdep.upkeep import Retention, Upkeep
from clusterdep.watching import Watching
from clusterdep.work import Work

log = logging.getLogger("clusterdep.daemon")

#: How long calls under way may take when the daemon stops, seconds.
GRACE = 3.0
SECOND = 1.0
SERVICES = tuple(
    pb.DESCRIPTOR.services_by_name[name].full_name for name in ("Feed", "Work", "Query", "Admin")
)
#: Of these, and of all together, health says that they do not serve while the disk is full.
WRITING = ("", *(name for name in SERVICES if not name.endswith(".Query")))


async def serve(path: Path | None, settings: config.Settings) -> None:
    """Serves until SIGTERM or SIGINT. `path` is the file SIGHUP reads again. Raises Fault."""
    with only_one(settings.state, "clusterdep"), contextlib.ExitStack() as stack:
        store = Store(settings.database)
        stack.callback(store.close)
        # Nearly all that is made stays: the collector need not look at it again and again.
        gc.set_threshold(20_000, 20, 100)
        ledger = Ledger(store, settings.lease_seconds, time.time)
        scans = Scans(ledger, lambda: uuid.uuid4().hex)
        work = Work(ledger, scans, settings.renew_seconds, lambda: uuid.uuid4().hex)
        feed = Feed(ledger, scans)
        orders = Orders(ledger, feed)
        door = Door(settings.ports)
        keyring = Keyring(ledger, door.tokens)
        rules = Rules(settings.hot_readers, settings.settle_seconds)
        follow = Follow(ledger, settings.state, rules)
        questions = Questions(ledger, work, follow)
        forgetting = Forgetting(ledger, feed)
        upkeep = Upkeep(ledger, feed, forgetting, _retention(settings))
        await feed.recover()
        gc.freeze()
        await apply_profiles(orders, settings)
        if settings.metrics:
            stack.callback(Metrics(ledger, questions, door.gate.refused).serve(settings.metrics))
        server = door.server()
        _add_services(
            server,
            FeedService(feed, TakeOver(ledger, feed), follow, orders),
            WorkService(work, keyring),
            QueryService(questions, Lists(ledger, questions), Watching(ledger)),
            AdminService(orders, Steering(ledger), forgetting, upkeep, keyring),
        )
        async with listening(server, door, settings.state, SERVICES, GRACE) as health:
            places = ", ".join(settings.ports.places)
            log.info("serving at %s, database %s", places, settings.database)
            upkeep.on_writable = functools.partial(health.say, WRITING)
            looking_after = asyncio.create_task(upkeep.run())
            following = asyncio.create_task(follow.run())
            comparing = asyncio.create_task(feed.compare())
            try:
                await _run(ledger, work, feed, _on_signals(path, orders, door))
            finally:
                log.info("stopping")
                looking_after.cancel()
                following.cancel()
                comparing.cancel()
                work.stop()
                keyring.stop()


async def apply_profiles(orders: Orders, settings: config.Settings) -> None:
    """Profiles of the configuration, into the database."""
    for profile in settings.profiles:
        await orders.put_profile(
            pb.Profile(
                **{
                    name: getattr(profile, name)
                    for name in config.ProfileSettings.__dataclass_fields__
                }
            )
        )


def _retention(settings: config.Settings) -> Retention:
    return Retention(
        settings.event_days,
        settings.event_count,
        pb.PruneRequest(
            attempts_days=settings.attempt_days,
            keep_attempts=settings.attempt_count,
            artifacts=settings.artifact_records == "newest",
        ),
    )


def _add_services(
    server: grpc.aio.Server,
    feed: FeedService,
    work: WorkService,
    query: QueryService,
    admin: AdminService,
) -> None:
    rpc.add_FeedServicer_to_server(feed, server)
    rpc.add_WorkServicer_to_server(work, server)
    rpc.add_QueryServicer_to_server(query, server)
    rpc.add_AdminServicer_to_server(admin, server)


def _on_signals(path: Path | None, orders: Orders, door: Door) -> asyncio.Event:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    running: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(read_again())
        running.add(task)
        task.add_done_callback(running.discard)

    async def read_again() -> None:
        try:
            settings = config.load(path)
            await apply_profiles(orders, settings)
            door.reload()
            logging.getLogger("clusterdep").setLevel(settings.log_level.upper())
        except Fault as fault:
            log.error("the configuration was not read again: %s", fault)
        else:
            log.info(
                "the configuration was read again: profiles, log_level and certificate are in force"
            )

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    return stopped


async def _run(ledger: Ledger, work: Work, feed: Feed, stopped: asyncio.Event) -> None:
    """Ends leases when their time is over, and scans that cannot be done, until stopped."""
    while not stopped.is_set():
        try:
            if not ledger.store.stopped:
                work.attempts.expire()
                work.scans.expire()
                for name, errors in work.scans.hopeless().items():
                    await feed.fail_scans(name, errors)
        except Fault as fault:
            if not ledger.store.stopped:  # that was said already
                log.error("%s", fault)
        due = ledger.leases.next_expiry()
        left = SECOND if due is None else min(SECOND, max(0.05, due - time.time()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), left)
