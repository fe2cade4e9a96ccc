"""Commands that give orders: about profiles, about packages, about the database."""

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
from clusterdep.api.errors import Fault, Kind
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
    ("follow", "how changes of the tree are seen: git, cvs, hg, files, or none"),
    ("scans", "where its scans run: helper (clusterdep scan brings them), or hosts"),
    ("resolver", "which of several packages that match is chosen: pbulk, or prefer-buildable"),
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
    put.add_argument(
        "--follow-seconds", type=float, default=0.0, help="how often the tree is looked at"
    )
    put.add_argument(
        "--overlay",
        metavar="AT=DIR[:FOLLOW]",
        action="append",
        default=[],
        type=_overlay,
        help="another tree, laid over it at that name in its top directory; all of them each time",
    )
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
    _add_steering(commands, add)
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


def _overlay(text: str) -> pb.Overlay:
    """AT=DIR, AT=DIR:FOLLOW, or AT alone: what is there already."""
    at, _, tree = text.partition("=")
    directory, colon, follow = tree.rpartition(":")
    if not colon or follow not in ("none", "git", "cvs", "hg", "files"):
        directory, follow = tree, ""
    return pb.Overlay(at=at, tree=str(Path(directory).absolute()) if tree else "", follow=follow)


def _add_steering(commands: Any, add: Callable[..., argparse.ArgumentParser]) -> None:
    """Orders about packages, and what is forgotten."""
    for name, run, text in (
        ("hold", _hold, "have packages granted to nobody until they are released"),
        ("release", _hold, "release packages that are held"),
        ("rebuild", _rebuild, "have packages built again, whatever there is of them"),
    ):
        command = add(commands, name, run, text)
        command.add_argument("profile", metavar="PROFILE")
        command.add_argument("packages", metavar="PACKAGE", nargs="+")
        if name == "rebuild":
            command.add_argument(
                "--dependents", action="store_true", help="and all that requires them"
            )
        else:
            command.add_argument("--why", default="", help="for people")
            command.set_defaults(release=name == "release")
    rescan = add(commands, "rescan", _rescan, "have pkgpaths scanned again")
    rescan.add_argument("profile", metavar="PROFILE")
    rescan.add_argument(
        "names", metavar="NAME", nargs="+", help="pkgpath, category, or package; or all"
    )
    forget = add(
        commands, "forget", _forget, "forget what is left of packages that the tree has no more"
    )
    forget.add_argument("profile", metavar="PROFILE")
    forget.add_argument(
        "--whole", action="store_true", help="the profile itself, with all that is known of it"
    )
    prune = add(commands, "prune", _prune, "forget old attempts, and artifacts that were replaced")
    prune.add_argument("profile", metavar="PROFILE", nargs="?", default="", help="default: all")
    prune.add_argument(
        "--days", type=float, default=0, help="attempts that ended longer ago than this"
    )
    prune.add_argument(
        "--keep", type=int, default=0, help="but of each package so many; at least 3"
    )
    prune.add_argument(
        "--artifacts",
        action="store_true",
        help="records of artifacts that a newer one replaced, or whose package is gone",
    )
    for command in (forget, prune):
        command.add_argument("-n", "--dry-run", action="store_true", help="only say what it would")


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
    request.profile.follow_seconds = args.follow_seconds
    request.profile.overlays.extend(args.overlay)
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


async def _hold(caller: Caller, args: argparse.Namespace) -> int:
    request = pb.HoldRequest(
        profile=args.profile, packages=args.packages, release=args.release, why=args.why
    )
    answer = await caller.admin.Hold(request, timeout=DEADLINE)
    if args.json:
        print_json(answer)
    return os.EX_OK


async def _rebuild(caller: Caller, args: argparse.Namespace) -> int:
    request = pb.RebuildRequest(
        profile=args.profile, packages=args.packages, dependents=args.dependents
    )
    answer = await caller.admin.Rebuild(request, timeout=DEADLINE)
    if args.json:
        print_json(answer)
    return os.EX_OK


async def _rescan(caller: Caller, args: argparse.Namespace) -> int:
    names = [] if args.names == ["all"] else args.names
    request = pb.RescanRequest(profile=args.profile, names=names)
    answer = await caller.admin.Rescan(request, timeout=DEADLINE)
    if args.json:
        print_json(answer)
    else:
        print(f"{answer.pkgpaths} pkgpaths")
    return os.EX_OK


async def _forget(caller: Caller, args: argparse.Namespace) -> int:
    request = pb.ForgetRequest(profile=args.profile, whole=args.whole, dry_run=args.dry_run)
    answer = await caller.admin.Forget(request, timeout=LONG)
    if args.json:
        print_json(answer)
    else:
        print(f"{answer.packages} packages")
    return os.EX_OK


async def _prune(caller: Caller, args: argparse.Namespace) -> int:
    if not args.days and not args.artifacts:
        raise Fault(Kind.USAGE, "nothing to prune", "say --days N, --artifacts, or both")
    request = pb.PruneRequest(
        profile=args.profile,
        attempts_days=args.days,
        keep_attempts=args.keep,
        artifacts=args.artifacts,
        dry_run=args.dry_run,
    )
    answer = await caller.admin.Prune(request, timeout=LONG)
    if args.json:
        print_json(answer)
        return os.EX_OK
    print(f"{answer.attempts} attempts, {answer.artifacts} artifacts of {answer.bytes} bytes")
    for name in (*answer.logs, *answer.sha256):
        print(name)
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
