"""The command import: has the dispatcher take over package files that another system built."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from clusterbuild.api.v1 import clusterbuild_pb2 as pb
from clusterbuild.api.v1 import clusterbuild_pb2_grpc as rpc
from clusterbuild.cli_query import address_of, as_dict
from clusterdep.api import client
from clusterdep.api.errors import Fault, Kind


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Mounts the command."""
    command = commands.add_parser(
        "import",
        help="take over package files that another system built",
        description="Takes over the package files of a directory, or of All in it: each is read "
        "to its end, kept in the repository, and counts from now on as if it had been built here "
        "from the records that the profile has. What is not whole, or is no package of the "
        "profile, is refused and listed. Can be repeated. `clusterdep import pbulk` calls it.",
        epilog="Exit code 0 also where files were refused: they are on standard error.",
        parents=[common],
    )
    command.add_argument("profile", metavar="PROFILE")
    command.add_argument("directory", metavar="DIR", help="on the dispatcher's machine")
    command.add_argument(
        "--names", metavar="FILE", help="only the packages that this file lists, a name a line"
    )
    command.add_argument(
        "--link",
        action="store_true",
        help="hard links instead of copies; then nobody may ever write to those files again",
    )
    command.add_argument("--by", default="import", help="who built them, for people")
    command.add_argument("--json", action="store_true", help="print what was done, as JSON")
    command.set_defaults(run=lambda args: asyncio.run(_import(args)))


async def _import(args: argparse.Namespace) -> int:
    request = pb.ImportRequest(
        profile=args.profile,
        directory=str(Path(args.directory).absolute()),
        names=_names(args.names) if args.names else [],
        link=args.link,
        by=args.by,
    )
    answer = pb.ImportResponse()
    async with client.connect(address_of(args)) as channel:
        async for answer in rpc.ControlStub(channel).Import(request):
            if not answer.ended and sys.stderr.isatty():
                print(f"\r{answer.done} of {answer.total} files", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    for refusal in answer.refused:
        print(f"clusterbuild: refused {refusal.name}: {refusal.why}", file=sys.stderr)
    for name in answer.absent:
        print(f"clusterbuild: {name}: there is no file of it in {args.directory}", file=sys.stderr)
    if args.json:
        refused = [as_dict(refusal) for refusal in answer.refused]
        print(json.dumps(as_dict(answer) | {"refused": refused, "absent": list(answer.absent)}))
    else:
        print(
            f"{answer.taken} packages taken over, {answer.known} known before, "
            f"{len(answer.refused)} refused, {len(answer.absent)} without a file"
        )
    return os.EX_OK


def _names(path: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="ascii", errors="backslashreplace")
    except OSError as error:
        raise Fault(Kind.NO_INPUT, f"{path}: {error.strerror}") from error
    return list(dict.fromkeys(text.split()))
