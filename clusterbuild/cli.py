"""The command line of clusterbuild."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import grpc

from clusterbuild import cli_import, cli_query
from clusterdep.api import client
from clusterdep.api.errors import Fault

PROGRAM = "clusterbuild"

EPILOG = """\
Every command that asks the daemon finds it at its Unix socket in the state
directory: $CLUSTERBUILD_STATE, else /var/db/clusterbuild for root and
~/.local/state/clusterbuild for everybody else; name another with --state DIR,
or the daemon with --address unix:PATH or CLUSTERBUILD_ADDRESS. One on another
machine is --address HOST:PORT, with what is to be shown to it over TLS in --ca,
--cert, --key and --token-file, or CLUSTERDEP_CA, CLUSTERDEP_CERT, CLUSTERDEP_KEY
and CLUSTERDEP_TOKEN_FILE. Every command that reads has --json.

Exit codes are those of sysexits(3): 0 done, 1 something selected was not built,
64 wrong usage, 65 unusable data or no such thing, 66 a file is missing, 69 a
daemon does not answer or nothing can go on, 70 a daemon keeps ending, 73 a
file can not be made, 75 another one is at it already, 77 not let in or not allowed,
78 wrong configuration.
"""


class Parser(argparse.ArgumentParser):
    """A parser whose complaints end with EX_USAGE; so do those of its commands."""

    def error(self, message: str) -> NoReturn:
        """Says how it is used, and what is wrong."""
        self.print_usage(sys.stderr)
        self.exit(os.EX_USAGE, f"{self.prog}: {message}\n")


def parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog=PROGRAM,
        description="The dispatcher: builds packages on hosts, and keeps what they make.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {version('clusterdep')}")
    common = Parser(add_help=False)
    for place, default in ((top, None), (common, argparse.SUPPRESS)):
        place.add_argument(
            "--state", metavar="DIR", default=default, help="the daemon's state directory"
        )
        place.add_argument(
            "--address", metavar="ADDRESS", default=default, help="unix:PATH, or HOST:PORT for TLS"
        )
        client.add_options(place, default)
        place.add_argument(
            "--clusterdep", metavar="ADDRESS", default=default, help="clusterdep's address"
        )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    _add_serve(commands, common)
    _add_run(commands, common)
    cli_query.add_commands(commands, common)
    cli_import.add_commands(commands, common)
    return top


def _add_serve(commands: argparse._SubParsersAction[Parser], common: Parser) -> None:
    serve = commands.add_parser(
        "serve",
        help="run the daemon",
        description="Runs the daemon in the foreground. SIGTERM stops it: builds that run go "
        "on, and the next start takes them up again. SIGHUP reads the configuration again.",
        parents=[common],
    )
    serve.add_argument("--config", metavar="FILE", help="TOML; working defaults without it")
    serve.add_argument("--hosts", metavar="FILE", help="the hosts file; default: this machine")
    serve.add_argument("--slots", type=_count, help="jobs at once on this machine")
    serve.set_defaults(run=_serve)


def _add_run(commands: argparse._SubParsersAction[Parser], common: Parser) -> None:
    run = commands.add_parser(
        "run",
        help="build a tree: start both daemons, scan, build, report",
        description="Builds what is selected of a tree and everything it requires. Starts both "
        "daemons in the state directory, or uses those that run there; shows every job that "
        "ends; makes a report. Ctrl-C ends what runs, once more leaves at once; whatever ended "
        "it, the next run goes on from there.",
        epilog="Exit code 0: everything selected is built, or asks to be skipped here. "
        "1: something is not, and the report says what and why.",
        parents=[common],
    )
    run.add_argument("--tree", metavar="DIR", required=True, help="the pkgsrc tree")
    run.add_argument("--profile", metavar="NAME", default="default", help="what it is kept as")
    run.add_argument(
        "--select",
        metavar="WORDS",
        action="append",
        default=[],
        help="pkgpaths, categories or patterns, in one word or several; default: everything",
    )
    run.add_argument(
        "--kit",
        metavar="FILE",
        help="bootstrap kit; made of the tree if that has bootstrap/bootstrap",
    )
    run.add_argument(
        "--prefix", metavar="DIR", default="", help="of the kit; default: what the kit says"
    )
    run.add_argument("--make", metavar="MAKE", default="", help="where the kit brings none: bmake")
    run.add_argument("--distdir", metavar="DIR", help="distfiles; default: TREE/distfiles")
    run.add_argument(
        "--hosts", metavar="FILE", help="build on the hosts of this file; default: here"
    )
    run.add_argument("--slots", type=_count, default=0, help="jobs at once; default: cores")
    run.add_argument("--scan-jobs", type=_count, default=0, help="scans at once; default: cores")
    run.add_argument(
        "--scan-on",
        choices=("hosts", "here"),
        default="",
        help="where the tree is scanned; default: on the hosts if --hosts names some",
    )
    run.add_argument("--retry-failed", action="store_true", help="try again what failed before")
    end = run.add_mutually_exclusive_group()
    end.add_argument(
        "--once",
        "--no-serve",
        dest="serve",
        action="store_false",
        default=None,
        help="end when nothing is left to do (default unless on a terminal)",
    )
    end.add_argument(
        "--serve", action="store_true", default=None, help="then go on serving until Ctrl-C"
    )
    run.add_argument("--quiet", action="store_true", help="only failures and errors")
    run.add_argument("--names", action="store_true", help="list in the report what was built")
    run.add_argument("--json", action="store_true", help="events and report, an object a line")
    run.set_defaults(run=_run)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return number


def _serve(args: argparse.Namespace) -> int:
    from clusterbuild import config, daemon  # noqa: PLC0415  only the daemon pays for these

    path = Path(args.config) if args.config else None

    def load() -> config.Settings:
        return config.load(
            path,
            state=Path(args.state).absolute() if args.state else None,
            clusterdep=args.clusterdep,
            **{f"clusterdep_{name}": getattr(args, name) for name in config.ACCESS},
            hosts=Path(args.hosts).absolute() if args.hosts else None,
            slots=args.slots,
        )

    settings = load()
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING
    )
    logging.getLogger(PROGRAM).setLevel(settings.log_level.upper())
    asyncio.run(daemon.serve(path, settings, load))
    return os.EX_OK


def _run(args: argparse.Namespace) -> int:
    from clusterbuild import run  # noqa: PLC0415  only this command pays for it
    from clusterbuild.progress import Progress  # noqa: PLC0415

    terminal = sys.stdout.isatty()
    state = Path(args.state) if args.state else client.default_state(PROGRAM)
    options = run.Options(
        tree=Path(args.tree).absolute(),
        profile=args.profile,
        state=state.absolute(),
        kit=Path(args.kit).absolute() if args.kit else None,
        prefix=args.prefix,
        make=args.make,
        distdir=Path(args.distdir).absolute() if args.distdir else None,
        select=tuple(word for words in args.select for word in words.split()),
        hosts=Path(args.hosts).absolute() if args.hosts else None,
        slots=args.slots,
        scan_jobs=args.scan_jobs,
        scan_on=args.scan_on,
        retry_failed=args.retry_failed,
        serve=terminal if args.serve is None else args.serve,
        names=args.names,
    )
    progress = Progress(sys.stdout, terminal=terminal, quiet=args.quiet, as_json=args.json)
    return run.run(options, progress)


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
        address = cli_query.address_of(args)
        failed = client.fault_of(error, address, PROGRAM, client.access_of(args))
        print(f"{PROGRAM}: {failed}", file=sys.stderr)
        return failed.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return os.EX_OK
    except KeyboardInterrupt:
        return 130
