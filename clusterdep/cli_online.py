"""Commands that talk to a daemon, or are one."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc

from clusterdep import (
    cli_admin,
    cli_auth,
    cli_changed,
    cli_feed,
    cli_import,
    cli_query,
    cli_scan,
    config,
    daemon,
)
from clusterdep.api import client
from clusterdep.api.errors import Fault
from clusterdep.cli_call import Caller

PROGRAM = "clusterdep"


def add_commands(top: argparse.ArgumentParser, commands: Any) -> None:
    """Mounts all of them; their faults are said, and become exit codes."""
    common = argparse.ArgumentParser(add_help=False)
    for place, default in ((top, None), (common, argparse.SUPPRESS)):
        place.add_argument(
            "--state", metavar="DIR", default=default, help="the daemon's state directory"
        )
        place.add_argument(
            "--address", metavar="ADDRESS", default=default, help="unix:PATH, or HOST:PORT for TLS"
        )
        client.add_options(place, default)
    serve = commands.add_parser(
        "serve",
        help="run the daemon",
        description="Runs the daemon in the foreground until SIGTERM. SIGHUP reads the "
        "configuration again: profiles and log_level, and the certificate.",
        parents=[common],
    )
    serve.add_argument("--config", metavar="FILE", help="TOML; working defaults without it")
    serve.set_defaults(run=_serve)
    modules = (cli_feed, cli_scan, cli_changed, cli_import, cli_query, cli_admin, cli_auth)
    for module in modules:
        module.add_commands(commands, common)
    for command in _leaves(commands):
        command.set_defaults(run=_guarded(command.get_default("run")))


def _leaves(commands: Any) -> list[argparse.ArgumentParser]:
    """The parsers that run something, also below `db` and `profile`."""
    found: list[argparse.ArgumentParser] = []
    for parser in commands.choices.values():
        below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        found += _leaves(below[0]) if below else [parser]
    return found


def _guarded(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    def guarded(args: argparse.Namespace) -> int:
        try:
            return run(args)
        except Fault as error:
            fault = error
        except grpc.RpcError as error:
            address = Caller.address_of(args)
            fault = client.fault_of(error, address, PROGRAM, client.access_of(args))
        print(f"{PROGRAM}: {fault}", file=sys.stderr)
        return fault.exit_code

    return guarded


def _serve(args: argparse.Namespace) -> int:
    path = Path(args.config) if args.config else None
    settings = config.load(path)
    if args.state:
        settings = replace(settings, state=Path(args.state).absolute())
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING
    )
    logging.getLogger("clusterdep").setLevel(settings.log_level.upper())
    asyncio.run(daemon.serve(path, settings))
    return os.EX_OK
