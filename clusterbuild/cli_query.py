"""Commands that ask the daemon or order it about: hosts jobs log status report stop resume."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from clusterbuild import gather
from clusterbuild.api.v1 import clusterbuild_pb2 as pb
from clusterbuild.api.v1 import clusterbuild_pb2_grpc as rpc
from clusterbuild.core.result import STAGES
from clusterbuild.progress import elapsed, printable
from clusterbuild.report import render, to_json
from clusterdep.api import client
from clusterdep.api.v1 import clusterdep_pb2_grpc as dep_rpc

#: Deadline of an ordinary call, seconds.
DEADLINE = 60.0

Ask = Callable[[grpc.aio.Channel, argparse.Namespace], Awaitable[int]]
Commands = Any  # argparse's own type has no public name


def address_of(args: argparse.Namespace) -> str:
    """The daemon that the options name, or the default one."""
    if args.address:
        return str(args.address)
    return client.default_address("clusterbuild", Path(args.state) if args.state else None)


def clusterdep_of(args: argparse.Namespace) -> str:
    """The clusterdep that the options name, or the one in the same state directory."""
    if args.clusterdep:
        return str(args.clusterdep)
    return client.default_address("clusterdep", Path(args.state) if args.state else None)


def add_commands(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Mounts the commands of this module."""

    def add(name: str, ask: Ask, text: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common]
        )
        command.set_defaults(run=lambda args: asyncio.run(_asked(ask, args)))
        return command

    def reader(name: str, ask: Ask, text: str) -> argparse.ArgumentParser:
        command = add(name, ask, text)
        command.add_argument("--json", action="store_true", help="one JSON object a line")
        return command

    reader("status", _status, "say how the dispatcher is: hosts, jobs, connection")
    reader("hosts", _hosts, "list the hosts with their states")
    reader("jobs", _jobs, "list the jobs in hand")
    _add_log(reader("log", _log, "print the log of a job, also while it grows"))
    report = reader("report", _report, "report on a profile: built, failed, blocked, and why")
    report.add_argument("--profile", default="", help="may be left out where there is only one")
    stop = add("stop", _stop, "take no more work, and let what runs finish")
    stop.add_argument("--now", action="store_true", help="end what runs, and give it back")
    add("resume", _resume, "take work again; look at once at hosts that could not")


def _add_log(log: argparse.ArgumentParser) -> None:
    log.add_argument("what", metavar="PKGNAME|ATTEMPT", help="of a package its newest attempt")
    log.add_argument("--stage", default="", help=f"only this one of: {' '.join(STAGES)}")
    log.add_argument("--offset", type=int, default=0, help="leave out so many bytes")
    log.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")


async def _asked(ask: Ask, args: argparse.Namespace) -> int:
    async with client.connect(address_of(args), client.access_of(args)) as channel:
        return await ask(channel, args)


@asynccontextmanager
async def _clusterdep(args: argparse.Namespace) -> AsyncIterator[Any]:
    """A QueryStub of clusterdep; what fails is told as its fault and not the dispatcher's."""
    address = clusterdep_of(args)
    access = client.access_of(args)
    async with client.connect(address, access) as channel:
        try:
            yield dep_rpc.QueryStub(channel)
        except grpc.RpcError as error:
            raise client.fault_of(error, address, "clusterdep", access) from error


def as_dict(message: Message) -> dict[str, Any]:
    """A message of plain fields as plain values, named as in the contract."""
    return {
        field.name: getattr(message, field.name)
        for field in message.DESCRIPTOR.fields
        if field.message_type is None
    }


def _print_json(values: dict[str, Any]) -> None:
    print(json.dumps(values))


def _print_table(rows: Sequence[tuple[str, ...]], titles: tuple[str, ...]) -> None:
    """Rows in columns as wide as they need, titles on a terminal only."""
    shown = [titles, *rows] if sys.stdout.isatty() else list(rows)
    widths = [max((len(row[i]) for row in shown), default=0) for i in range(len(titles))]
    for row in shown:
        cells = (printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


async def _get(channel: grpc.aio.Channel) -> pb.StatusResponse:
    answer: pb.StatusResponse = await rpc.StatusStub(channel).Get(pb.GetRequest(), timeout=DEADLINE)
    return answer


async def _status(channel: grpc.aio.Channel, args: argparse.Namespace) -> int:
    status = await _get(channel)
    if args.json:
        hosts = [as_dict(host) for host in status.hosts]
        _print_json(as_dict(status) | {"hosts": hosts, "jobs": [as_dict(j) for j in status.jobs]})
        return os.EX_OK
    state = "stopping" if status.stopping else "working" if status.jobs else "waiting for work"
    slots, busy = sum(h.slots for h in status.hosts), sum(h.busy for h in status.hosts)
    print(f"dispatcher  {status.dispatcher}, {state}")
    print(f"clusterdep  {'' if status.connected else 'away: '}{printable(status.clusterdep)}")
    print(f"slots       {busy} of {slots} busy, {len(status.jobs)} jobs in hand")
    print(f"since start {status.built} built, {status.failed} failed, {status.returned} given back")
    _print_hosts(status)
    _print_jobs(status)
    return os.EX_OK


async def _hosts(channel: grpc.aio.Channel, args: argparse.Namespace) -> int:
    status = await _get(channel)
    if args.json:
        for host in status.hosts:
            _print_json(as_dict(host))
    else:
        _print_hosts(status)
    return os.EX_OK


def _print_hosts(status: pb.StatusResponse) -> None:
    rows = [
        (
            host.name,
            host.state,
            f"{host.busy}/{host.slots}",
            host.engine,
            host.sandbox,
            host.platform,
            f"{host.disk_free >> 30} GiB" if host.disk_free else "",
            host.reason,
        )
        for host in status.hosts
    ]
    titles = ("HOST", "STATE", "SLOTS", "ENGINE", "SANDBOX", "PLATFORM", "FREE", "REASON")
    _print_table(rows, titles)


async def _jobs(channel: grpc.aio.Channel, args: argparse.Namespace) -> int:
    status = await _get(channel)
    if args.json:
        for job in status.jobs:
            _print_json(as_dict(job))
    else:
        _print_jobs(status)
    return os.EX_OK


def _print_jobs(status: pb.StatusResponse) -> None:
    rows = [
        (
            job.pkgname,
            job.profile,
            job.host,
            job.phase,
            job.stage,
            elapsed(status.time - job.started),
            str(job.log_size),
            str(job.pid or ""),
            job.attempt,
        )
        for job in status.jobs
    ]
    titles = ("PKGNAME", "PROFILE", "HOST", "PHASE", "STAGE", "TIME", "LOG", "PID", "ATTEMPT")
    _print_table(rows, titles)


async def _log(channel: grpc.aio.Channel, args: argparse.Namespace) -> int:
    request = pb.ReadRequest(
        attempt=args.what, stage=args.stage, offset=args.offset, follow=args.follow
    )
    async for piece in rpc.LogsStub(channel).Read(request):
        if args.json:
            text = piece.data.decode(errors="backslashreplace")
            _print_json({"offset": piece.offset, "data": text})
        else:
            sys.stdout.buffer.write(_shown(piece.data))
        sys.stdout.flush()
    return os.EX_OK


def _shown(data: bytes) -> bytes:
    """A log as it is for programs; for a terminal without what it would obey."""
    if not sys.stdout.isatty():
        return data
    lines = data.decode(errors="backslashreplace").replace("\t", "        ").split("\n")
    return "\n".join(printable(line.rstrip("\r")) for line in lines).encode(
        sys.stdout.encoding, "backslashreplace"
    )


async def _report(channel: grpc.aio.Channel, args: argparse.Namespace) -> int:
    state = Path(args.state).absolute() if args.state else client.default_state("clusterbuild")
    async with _clusterdep(args) as query:
        report = await gather.gather(query, args.profile, started=0.0, state=state)
    if args.json:
        _print_json(to_json(report))
    else:
        print("\n".join(printable(line) for line in render(report).splitlines()))
    return os.EX_OK


async def _stop(channel: grpc.aio.Channel, args: argparse.Namespace) -> int:
    await rpc.ControlStub(channel).Stop(pb.StopRequest(now=args.now), timeout=DEADLINE)
    return os.EX_OK


async def _resume(channel: grpc.aio.Channel, args: argparse.Namespace) -> int:
    await rpc.ControlStub(channel).Resume(pb.ResumeRequest(), timeout=DEADLINE)
    return os.EX_OK
