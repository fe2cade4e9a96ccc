"""Commands that give orders: profile select retry db."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clusterdep import config
from clusterdep.api import client
from clusterdep.api.serving import only_one
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.cli_call import DEADLINE, Caller, ask, print_json
from clusterdep.store.restoring import restore

#: Checking and copying a large database may take this long, seconds.
LONG = 3600.0
_FIELDS = (
    ("tree", "directory of the tree"),
    ("prefix", "LOCALBASE its packages are built for"),
    ("pkgdb", "PKG_DBDIR; default PREFIX/pkgdb"),
    ("kit", "bootstrap kit, a tar file"),
    ("make", "the make to use where the kit brings none"),
    ("opsys", "pins the operating system of hosts, as uname -s says"),
    ("os-version", "pins its version"),
    ("machine-arch", "pins the architecture, as uname -m says"),
    ("distdir", "where distfiles are"),
    ("policy", "when an artifact is current: inputs, version, or exists"),
    ("toolchain", "id of compiler and base system; another id makes everything stale"),
)


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Mounts the commands of this module."""

    def add(parent: Any, name: str, run: Callable[..., Any], text: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = parent.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common]
        )
        command.add_argument("--json", action="store_true", help="one JSON object a line")
        command.set_defaults(run=lambda args: ask(args, lambda caller: run(caller, args)))
        return command

    profile = commands.add_parser("profile", help="list profiles, make or change one")
    verbs = profile.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add(verbs, "list", _profile_list, "list all profiles")
    put = add(verbs, "set", _profile_set, "make a profile, or change what is named")
    put.add_argument("name", metavar="PROFILE")
    for field, text in _FIELDS:
        put.add_argument(f"--{field}", default="", help=text)
    select = add(commands, "select", _select, "set what is wanted of a profile")
    select.add_argument("profile", metavar="PROFILE")
    select.add_argument(
        "entries",
        metavar="ENTRY",
        nargs="*",
        help="pkgpath, category, or pattern; none: everything",
    )
    retry = add(commands, "retry", _retry, "try failed packages again")
    retry.add_argument("profile", metavar="PROFILE")
    retry.add_argument("packages", metavar="PACKAGE", nargs="*", help="none: all that failed")
    database = commands.add_parser(
        "db", help="check, copy, compact the database of the running daemon; restore a copy"
    )
    verbs = database.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add(verbs, "check", _db_check, "compare the file with its rules and memory with a recount")
    backup = add(verbs, "backup", _db_backup, "copy the database, whole and consistent")
    backup.add_argument("file", metavar="FILE", help="must not exist yet")
    add(verbs, "compact", _db_compact, "give free pages back to the file system")
    restore = verbs.add_parser(
        "restore",
        help="put a copy in the place of the database; the daemon must not run",
        description="Puts a copy that 'db backup' made in the place of the database, after "
        "looking at it in full. The old database is kept beside it. The daemon must not run.",
        parents=[common],
    )
    restore.add_argument("file", metavar="FILE")
    restore.set_defaults(run=_db_restore)


async def _profile_list(caller: Caller, args: argparse.Namespace) -> int:
    answer = await caller.query.ListProfiles(pb.ListProfilesRequest(), timeout=DEADLINE)
    for profile in answer.profiles:
        if args.json:
            print_json(profile)
        else:
            print(f"{profile.name}  tree {profile.tree or '-'}  prefix {profile.prefix or '-'}")
    return os.EX_OK


async def _profile_set(caller: Caller, args: argparse.Namespace) -> int:
    fields = {
        field.replace("-", "_"): getattr(args, field.replace("-", "_")) for field, _ in _FIELDS
    }
    for name in ("tree", "prefix", "pkgdb", "kit", "distdir"):
        if fields[name]:
            fields[name] = str(Path(fields[name]).absolute())
    request = pb.PutProfileRequest(profile=pb.Profile(name=args.name, **fields))
    answer = await caller.admin.PutProfile(request, timeout=DEADLINE)
    if args.json:
        print_json(answer)
    return os.EX_OK


async def _select(caller: Caller, args: argparse.Namespace) -> int:
    request = pb.SelectRequest(profile=args.profile, selection=args.entries)
    answer = await caller.admin.Select(request, timeout=DEADLINE)
    if args.json:
        print_json(answer)
    for entry in answer.missing:
        print(f"clusterdep: nothing is called {entry} yet", file=sys.stderr)
    return os.EX_OK


async def _retry(caller: Caller, args: argparse.Namespace) -> int:
    request = pb.RetryRequest(profile=args.profile, packages=args.packages)
    answer = await caller.admin.Retry(request, timeout=DEADLINE)
    if args.json:
        print_json(answer)
    return os.EX_OK


async def _db_check(caller: Caller, args: argparse.Namespace) -> int:
    answer = await caller.admin.CheckDatabase(pb.CheckDatabaseRequest(), timeout=LONG)
    if args.json:
        print_json(answer)
    else:
        for finding in answer.findings:
            print(f"clusterdep: {finding}", file=sys.stderr)
    return os.EX_OK if answer.sound else os.EX_SOFTWARE


async def _db_backup(caller: Caller, args: argparse.Namespace) -> int:
    request = pb.BackupRequest(path=str(Path(args.file).absolute()))
    answer = await caller.admin.Backup(request, timeout=LONG)
    if args.json:
        print_json(answer)
    return os.EX_OK


async def _db_compact(caller: Caller, args: argparse.Namespace) -> int:
    answer = await caller.admin.Compact(pb.CompactRequest(), timeout=LONG)
    if args.json:
        print_json(answer)
    else:
        print(f"{answer.before} bytes before, {answer.after} after")
    return os.EX_OK


def _db_restore(args: argparse.Namespace) -> int:
    state = Path(args.state) if args.state else client.default_state("clusterdep")
    settings = config.Settings(state=state.absolute())
    with only_one(settings.state, "clusterdep"):
        stamp = time.strftime("%Y%m%d-%H%M%S")
        kept = restore(Path(args.file), settings.database, time.time(), stamp)
    if kept is not None:
        print(f"clusterdep: the old database is kept as {kept}", file=sys.stderr)
    return os.EX_OK
