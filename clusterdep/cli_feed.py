"""Commands that bring records: load and scan."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable
from typing import Any

import grpc

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.cli_call import Caller, ask, print_json
from clusterdep.scanfile import ScanFile, ScanFileError

#: Deadline of a load, seconds.
LONG = 3600.0


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Mounts the commands of this module."""
    load = commands.add_parser(
        "load",
        help="put a file of scan records into a profile",
        description="Puts a file of scan records, as bmake pbulk-index prints and pbulk keeps "
        "them, into a profile of the running daemon, and makes the profile if there is none. "
        "The records become all that the profile has, in one go.",
        parents=[common],
    )
    load.add_argument("profile", metavar="PROFILE")
    load.add_argument("file", metavar="FILE", help="plain, .zst, .gz, .bz2; - is standard input")
    load.add_argument(
        "--merge", action="store_true", help="only touch the pkgpaths that the file has"
    )
    load.add_argument("--revision", default="", help="of the tree that was scanned")
    load.add_argument("--json", action="store_true", help="print what changed, as JSON")
    load.set_defaults(run=lambda args: ask(args, lambda caller: _load(caller, args)))


async def _load(caller: Caller, args: argparse.Namespace) -> int:
    try:
        with ScanFile(args.file) as file:
            mode = pb.PutHeader.MODE_MERGE if args.merge else pb.PutHeader.MODE_REPLACE
            header = pb.PutHeader(
                profile=args.profile, mode=mode, create=True, revision=args.revision
            )
            parts = (pb.PutRecordsRequest(records=piece) for piece in file.pieces())
            answer = await put(caller, header, parts, pb.PutEnd(complete=True))
    except ScanFileError as error:
        kind = Kind.NO_INPUT if error.status == os.EX_NOINPUT else Kind.DATA
        raise Fault(kind, str(error)) from error
    if answer.created_profile:
        print(f"clusterdep: made profile {args.profile}", file=sys.stderr)
    say_refusals(answer)
    if args.json:
        print_json(answer)
    if answer.refused_count and not answer.records:
        return os.EX_DATAERR
    return os.EX_OK


def say_refusals(answer: pb.PutRecordsResponse) -> None:
    """What was refused, on standard error."""
    for refusal in answer.refused:
        print(f"clusterdep: refused {refusal.where}: {refusal.why}", file=sys.stderr)
    rest = answer.refused_count - len(answer.refused)
    if rest:
        print(f"clusterdep: and {rest} more were refused", file=sys.stderr)


async def put(
    caller: Caller, header: pb.PutHeader, parts: Iterable[pb.PutRecordsRequest], end: pb.PutEnd
) -> pb.PutRecordsResponse:
    """One call of PutRecords. What reading `parts` raises ends it, and nothing is changed."""
    call = caller.feed.PutRecords(timeout=LONG)
    try:
        await call.write(pb.PutRecordsRequest(header=header))
        for part in parts:
            await call.write(part)
        await call.write(pb.PutRecordsRequest(end=end))
        await call.done_writing()
    except (grpc.RpcError, asyncio.InvalidStateError):
        pass  # the daemon has answered early: awaiting the call tells why
    except BaseException:
        call.cancel()
        raise
    answer: pb.PutRecordsResponse = await call
    return answer
