"""The command line of clusterdep."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import grpc

from clusterdep import cli_admin, cli_feed, cli_offline, cli_query, cli_scan
from clusterdep.api.errors import Fault, fault_of
from clusterdep.cli_call import Caller

PROGRAM = "clusterdep"

EPILOG = """\
Every command that asks the daemon finds it at its Unix socket in the state
directory; name another with --state DIR, or with --address unix:PATH or
CLUSTERDEP_ADDRESS. Every command that prints a list has --json: one object a line.

Exit codes are those of sysexits(3): 0 done, 64 wrong usage, 65 unusable data or no
such package, 66 a file is missing, 69 the daemon does not answer, 73 a file
can not be made, 78 wrong configuration.
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog=PROGRAM,
        description="The dependency database: what every package of a pkgsrc tree requires, "
        "and what is worth building next.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {version(PROGRAM)}")
    common = argparse.ArgumentParser(add_help=False)
    for place, default in ((top, None), (common, argparse.SUPPRESS)):
        place.add_argument(
            "--state", metavar="DIR", default=default, help="the daemon's state directory"
        )
        place.add_argument(
            "--address", metavar="ADDRESS", default=default, help="the daemon's address: unix:PATH"
        )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    serve = commands.add_parser("serve", help="run the daemon", parents=[common])
    serve.add_argument("--config", metavar="FILE", help="TOML; working defaults without it")
    serve.set_defaults(run=_serve)
    cli_feed.add_commands(commands, common)
    cli_scan.add_commands(commands, common)
    cli_query.add_commands(commands, common)
    cli_admin.add_commands(commands, common)
    cli_offline.add_commands(commands)
    return top


def _serve(args: argparse.Namespace) -> int:
    from clusterdep import config, daemon  # noqa: PLC0415  only the daemon pays for these

    path = Path(args.config) if args.config else None
    settings = config.load(path)
    if args.state:
        from dataclasses import replace  # noqa: PLC0415

        settings = replace(settings, state=Path(args.state).absolute())
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING
    )
    logging.getLogger("clusterdep").setLevel(settings.log_level.upper())
    asyncio.run(daemon.serve(path, settings))
    return os.EX_OK


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    top = parser()
    args = top.parse_args(words)
    if args.command is None:
        top.print_help(sys.stderr)
        return os.EX_USAGE
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except Fault as fault:
        print(f"{PROGRAM}: {fault}", file=sys.stderr)
        return fault.exit_code
    except grpc.RpcError as error:
        failed = fault_of(error, Caller.address_of(args), PROGRAM)
        print(f"{PROGRAM}: {failed}", file=sys.stderr)
        return failed.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return os.EX_OK
    except KeyboardInterrupt:
        return 130
