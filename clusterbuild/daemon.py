"""`clusterbuild serve`: puts everything together, and runs it until a signal comes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path

from clusterbuild import config
from clusterbuild.api.v1 import clusterbuild_pb2 as pb
from clusterbuild.api.v1 import clusterbuild_pb2_grpc as rpc
from clusterbuild.archive import Archive
from clusterbuild.attempt import Listener
from clusterbuild.dispatcher import Dispatcher
from clusterbuild.engines import Engine
from clusterbuild.engines.local import local_engine
from clusterbuild.engines.ssh import SshEngine
from clusterbuild.exchange import Exchange
from clusterbuild.importing import Importer
from clusterbuild.keeper import Keeper
from clusterbuild.known_tokens import follow_tokens
from clusterbuild.log_reader import LogReader
from clusterbuild.logs import LogTree
from clusterbuild.metrics import Metrics
from clusterbuild.rules import Rules
from clusterbuild.scan_steps import Telling
from clusterbuild.service import ControlService, LogsService, StatusService
from clusterbuild.trees import Trees
from clusterdep.api import hosts_file
from clusterdep.api.client import Link
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.serving import Door, listening, only_one

log = logging.getLogger("clusterbuild.daemon")

#: How long calls under way may take when the daemon stops, seconds.
GRACE = 2.0
#: How often what is overdue or due is looked for, and the disk, seconds.
TICK, DISK_TICK = 1.0, 10.0
SERVICES = tuple(
    pb.DESCRIPTOR.services_by_name[name].full_name for name in ("Status", "Control", "Logs")
)

#: The name of this machine where no hosts are configured.
LOCALHOST = "localhost"
#: Paths that can stand in makefiles and shell words as they are.
PLAIN_PATH = re.compile(r"[A-Za-z0-9./+@,~_-]+")

MakeEngines = Callable[[config.Settings, Trees], Mapping[str, Engine]]


def configured_engines(settings: config.Settings, trees: Trees) -> Mapping[str, Engine]:
    """Of the hosts in the hosts file; without one, this machine is the one host. Raises Fault."""
    if settings.hosts is not None:
        entries = hosts_file.load(settings.hosts)
        return {entry.name: SshEngine(entry, trees, trees.distfiles) for entry in entries}
    base = settings.state / "hosts" / LOCALHOST
    if not PLAIN_PATH.fullmatch(str(base)):
        raise Fault(
            Kind.CONFIG,
            f"jobs cannot run below {base}: makefiles cannot handle such names",
            "name a state directory of letters, digits and ./+@,~_- with --state DIR",
        )
    own = settings.sandbox_base
    base_dir = "" if hosts_file.is_archive(own) else own
    return {LOCALHOST: local_engine(base, LOCALHOST, base_dir=base_dir)}


def rules_of(settings: config.Settings) -> Rules:
    """What the dispatcher works by, of everything that is configured. Raises Fault."""
    rules = Rules(
        dispatcher=settings.name,
        slots=settings.slots,
        sandbox=settings.sandbox,
        sandbox_base=settings.sandbox_base,
        sandbox_memory=settings.sandbox_memory,
        build_user=settings.build_user,
        search_path=settings.search_path,
        time_limit=settings.time_limit,
        stage_time_limit=settings.stage_time_limit,
        log_limit=settings.log_limit,
        log_attempts=settings.log_attempts,
    )
    if settings.hosts is None:
        return rules
    own = {
        entry.name: replace(
            rules,
            slots=entry.slots,
            sandbox=entry.sandbox,
            sandbox_base=entry.sandbox_base,
            sandbox_memory=entry.sandbox_memory,
            build_user=entry.build_user,
            search_path=entry.search_path or rules.search_path,
            most_time=entry.time_limit,
        )
        for entry in hosts_file.load(settings.hosts)
    }
    return replace(rules, hosts=own)


async def serve(
    path: Path | None,
    settings: config.Settings,
    reread: Callable[[], config.Settings],
    engines_of: MakeEngines = configured_engines,
) -> None:
    """Serves until SIGTERM or SIGINT; what runs on hosts goes on, and is taken up again.

    `path` is the configuration, for messages; `reread` reads it again on SIGHUP. Raises
    Fault.
    """
    with only_one(settings.state, "clusterbuild"):
        if settings.hosts is None:
            _check_build_user(settings)
        trees = Trees(settings.state / "trees")
        engines = engines_of(settings, trees)
        address = settings.clusterdep_address
        async with contextlib.AsyncExitStack() as stack:
            door = Door(settings.ports)
            link = Link(address, settings.access)
            stack.push_async_callback(link.close)
            exchange = Exchange(link, name=settings.name)
            archive = Archive(
                settings.state / "packages", exchange.list_artifacts, exchange.declare_missing
            )
            metrics = Metrics()
            dispatcher = Dispatcher(
                rules_of(settings),
                engines,
                archive,
                LogTree(settings.state / "logs"),
                trees,
                Telling(exchange.put_scans, exchange.known_pkgpaths),
                listener=Listener(metrics.reported),
            )
            for engine in engines.values():
                stack.push_async_callback(engine.close)
            stack.push_async_callback(archive.close)
            stack.push_async_callback(dispatcher.close)
            if settings.metrics:
                stack.callback(
                    metrics.serve(
                        dispatcher, exchange.connection, door.gate.refused, settings.metrics
                    )
                )
            await stack.enter_async_context(_served(settings, door, dispatcher, exchange))
            keepers = [Keeper(dispatcher, engine) for engine in engines.values()]
            if settings.ports.tls:
                stack.callback(asyncio.create_task(follow_tokens(link, door.tokens)).cancel)
            stopped = _on_signals(path, reread, dispatcher, keepers, door)
            places = ", ".join(settings.ports.places)
            log.info("serving at %s, clusterdep at %s", places, address)
            await _run(dispatcher, exchange, keepers, stopped)
            log.info("stopping; what runs goes on and is taken up at the next start")


async def _run(
    dispatcher: Dispatcher, exchange: Exchange, keepers: list[Keeper], stopped: asyncio.Event
) -> None:
    async def converse() -> None:
        await exchange.adopt(dispatcher)
        for keeper in keepers:
            tasks.add(asyncio.create_task(keeper.run()))
        await exchange.run(dispatcher)

    tasks = {asyncio.create_task(converse()), asyncio.create_task(_keep_time(dispatcher))}
    try:
        await stopped.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep_time(dispatcher: Dispatcher) -> None:
    """Looks for what is overdue, what is to be written, and whether the disk can be."""
    loop = asyncio.get_running_loop()
    disk_at = 0.0
    while True:
        try:
            dispatcher.tick()
            if loop.time() >= disk_at or dispatcher.trouble:
                dispatcher.set_trouble(await asyncio.to_thread(dispatcher.archive.trouble))
                disk_at = loop.time() + DISK_TICK
            await dispatcher.archive.settle()
        except OSError as error:
            dispatcher.set_trouble(f"the repository cannot be written: {error}")
        except Exception:
            log.exception("this should not have happened")
        await asyncio.sleep(TICK)


# -- what is served -------------------------------------------------------------------


def _check_build_user(settings: config.Settings) -> None:
    """A build user must be able to reach the job directories, which are below the state."""
    if not settings.build_user:
        return
    if os.geteuid() != 0:
        raise Fault(
            Kind.CONFIG,
            f"build_user is {settings.build_user}, but only root can run jobs as somebody else",
            "leave build_user out, or start the daemon as root",
        )
    mode = stat.S_IMODE(settings.state.stat().st_mode)
    if not mode & stat.S_IXOTH:
        raise Fault(
            Kind.CONFIG,
            f"{settings.build_user} cannot reach its jobs in {settings.state}",
            f"let others pass through: chmod o+x {settings.state}",
        )


@contextlib.asynccontextmanager
async def _served(
    settings: config.Settings, door: Door, dispatcher: Dispatcher, exchange: Exchange
) -> AsyncIterator[None]:
    """The gRPC server, for as long as the block lasts."""
    server = door.server()
    rpc.add_StatusServicer_to_server(StatusService(dispatcher, exchange.connection), server)
    importer = Importer(dispatcher.archive, exchange)
    rpc.add_ControlServicer_to_server(ControlService(dispatcher, importer), server)
    reader = LogReader(dispatcher, dispatcher.engines, dispatcher.logs)
    rpc.add_LogsServicer_to_server(LogsService(reader), server)
    async with listening(server, door, settings.state, SERVICES, GRACE):
        yield


# -- signals ---------------------------------------------------------------------------


def _on_signals(
    path: Path | None,
    reread: Callable[[], config.Settings],
    dispatcher: Dispatcher,
    keepers: list[Keeper],
    door: Door,
) -> asyncio.Event:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def reload() -> None:
        try:
            settings = reread()
            dispatcher.rules = rules_of(settings)
            door.reload()
        except Fault as fault:
            log.error("the configuration was not read again: %s", fault)
            return
        logging.getLogger("clusterbuild").setLevel(settings.log_level.upper())
        for keeper in keepers:
            keeper.probe_soon()
        names = ", ".join(config.RELOADED)
        log.info("%s was read again: %s are in force", path or "the configuration", names)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    return stopped
