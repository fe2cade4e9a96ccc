"""The command changed: tells the daemon that files of a tree changed, and says what follows."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.cli_call import Caller, ask, print_json

#: A look at a large tree on a slow disk may take this long, seconds.
LONG = 1800.0
#: Pkgpaths that are listed for people; --json has more.
SHOWN = 20


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Mounts the command."""
    changed = commands.add_parser(
        "changed",
        help="say that files of a tree changed, or have it looked at now",
        description="Finds the pkgpaths that have to be scanned again because files changed, "
        "and marks them. Without files the profile's trees are looked at now, which wants "
        "the profile to say how (profile set --follow). Meant for commit hooks; "
        "scan --outdated scans what is marked.",
        parents=[common],
    )
    changed.add_argument("profile", metavar="PROFILE")
    changed.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="relative to the tree, or absolute; - reads names, one a line, from standard input",
    )
    changed.add_argument(
        "-n", "--dry-run", action="store_true", help="only say what would be scanned and built"
    )
    changed.add_argument(
        "--explain", action="store_true", help="list every pkgpath with the files that led to it"
    )
    changed.add_argument(
        "--now", action="store_true", help="do not wait for more changes of files many read"
    )
    changed.add_argument("--revision", default="", help="of the tree with these changes")
    changed.add_argument("--json", action="store_true", help="one JSON object")
    changed.set_defaults(run=lambda args: ask(args, lambda caller: _changed(caller, args)))


async def _changed(caller: Caller, args: argparse.Namespace) -> int:
    request = pb.TreeChangedRequest(
        profile=args.profile,
        files=_names(args.files),
        revision=args.revision,
        dry_run=args.dry_run,
        explain=args.explain,
        at_once=args.now,
    )
    answer = await caller.feed.TreeChanged(request, timeout=LONG)
    if args.json:
        print_json(answer)
    else:
        _say(answer, args)
    return os.EX_OK


def _names(files: list[str]) -> list[str]:
    """The files named; what begins with a dot is in this directory, not in the tree."""
    names: list[str] = []
    for file in files:
        names += sys.stdin.read().splitlines() if file == "-" else [file]
    return [str(Path(name).absolute()) if name.startswith("./") else name for name in names]


def _say(answer: pb.TreeChangedResponse, args: argparse.Namespace) -> None:
    for remark in answer.remarks:
        print(f"clusterdep: {remark}", file=sys.stderr)
    shown = answer.rescans if args.explain else answer.rescans[:SHOWN]
    for rescan in shown:
        print(f"{rescan.pkgpath}  {rescan.why}")
        for file in rescan.files if len(rescan.files) > 1 else ():
            print(f"    {file}")
    if len(shown) < answer.pkgpaths:
        print(f"... and {answer.pkgpaths - len(shown)} more")
    if args.explain:
        for file in answer.unread:
            print(f"nothing reads {file}")
    would = "would be " if args.dry_run else ""
    print(
        f"{_count(answer.files, 'file')} changed; {_count(answer.pkgpaths, 'pkgpath')} {would}to "
        f"be scanned again, about {_time(answer.scan_seconds)}"
        + (", and the lists of packages are to be read again" if answer.enumerate else "")
    )
    if answer.rebuilds:
        print(
            f"at most {_count(answer.rebuilds, 'artifact')} may have to be built again, about "
            f"{_time(answer.rebuild_seconds)} of one slot"
        )
    if answer.waiting:
        print(
            f"{', '.join(answer.waiting[:3])}{' and others' if len(answer.waiting) > 3 else ''}: "
            f"what reads it waits {_time(answer.wait_seconds)} for more changes (--now does not)"
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _time(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
