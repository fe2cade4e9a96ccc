"""The command line of clusterdep."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from clusterdep import cli_offline

# What talks to a daemon, and gRPC with it, is imported only by commands that do: `match`
# and `resolve` are used in scripts, a thousand times or on files of a hundred megabytes.

PROGRAM = "clusterdep"

EPILOG = """\
Every command that asks the daemon finds it at its Unix socket in the state
directory; name another with --state DIR, or with --address unix:PATH or
CLUSTERDEP_ADDRESS. One on another machine is --address HOST:PORT, with what is to be
shown to it over TLS in --ca, --cert, --key and --token-file, or CLUSTERDEP_CA,
CLUSTERDEP_CERT, CLUSTERDEP_KEY and CLUSTERDEP_TOKEN_FILE.
Every command that prints a list has --json: one object a line.

Exit codes are those of sysexits(3): 0 done, 64 wrong usage, 65 unusable data or no
such package, 66 a file is missing, 69 the daemon does not answer, 73 a file
can not be made, 77 not let in or not allowed, 78 wrong configuration.
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    from clusterdep import cli_online  # noqa: PLC0415

    top = _top()
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    cli_online.add_commands(top, commands)
    cli_offline.add_commands(commands)
    return top


def _top() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog=PROGRAM,
        description="The dependency database: what every package of a pkgsrc tree requires, "
        "and what is worth building next.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {version(PROGRAM)}")
    return top


def _offline_parser() -> argparse.ArgumentParser:
    top = _top()
    cli_offline.add_commands(top.add_subparsers(metavar="COMMAND", dest="command"))
    return top


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    words = sys.argv[1:] if words is None else list(words)
    offline = bool(words) and words[0] in cli_offline.COMMANDS
    top = _offline_parser() if offline else parser()
    args = top.parse_args(words)
    if args.command is None:
        top.print_help(sys.stderr)
        return os.EX_USAGE
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return os.EX_OK
    except KeyboardInterrupt:
        return 130
