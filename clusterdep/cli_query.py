"""Commands that only ask: what there is, what requires what, what is open, and why."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.cli_call import (
    DEADLINE,
    Caller,
    ask,
    print_json,
    print_table,
    status_word,
)

Subparsers = Any  # argparse's own type has no public name


def add_commands(commands: Subparsers, common: argparse.ArgumentParser) -> None:
    """Mounts the commands of this module."""

    def add(name: str, run: Callable[..., Any], text: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common]
        )
        command.add_argument("--json", action="store_true", help="one JSON object a line")
        command.set_defaults(run=lambda args: ask(args, lambda caller: run(caller, args)))
        return command

    def profile(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "-p", "--profile", default="", help="may be left out where there is only one"
        )

    def package(command: argparse.ArgumentParser) -> None:
        profile(command)
        command.add_argument("package", metavar="PACKAGE", help="PKGNAME, PKGBASE, or pkgpath")
        command.add_argument("--variant", default="", help="one of several of a pkgpath")

    jobs = add("jobs", _jobs, "list what could be built now, most urgent first")
    profile(jobs)
    jobs.add_argument("-n", "--limit", type=int, default=0, help="at most so many")
    show = add("show", _show, "show a package: status, record, requirements, artifact")
    package(show)
    for name, run, text in (
        ("requires", _requires, "list what a package requires"),
        ("required-by", _required_by, "list what requires a package"),
    ):
        command = add(name, run, text)
        package(command)
        command.add_argument("-t", "--transitive", action="store_true", help="and so on")
    package(add("breaks", _breaks, "list what can not be built as long as a package is not"))
    package(add("why", _why, "explain why a package has the status it has"))
    search = add(
        "search",
        _search,
        "find packages by words in pkgname, pkgpath, categories and maintainer, or by a pattern",
    )
    profile(search)
    search.add_argument("words", metavar="WORD", nargs="+", help="all of them, or one pattern")
    search.add_argument("-n", "--limit", type=int, default=0, help="at most so many; 0: 100")
    status = add("status", _status, "count packages by status, list what failed to scan")
    profile(status)
    status.add_argument(
        "--packages", action="store_true", help="list every package with its status instead"
    )
    history = add("history", _history, "list attempts, newest first")
    profile(history)
    history.add_argument("package", nargs="?", default="", help="of this package only")
    history.add_argument("-n", "--limit", type=int, default=100, help="at most so many")
    events = add("events", _events, "list events from the log")
    profile(events)
    events.add_argument("--after", type=int, default=0, help="begin after this sequence number")
    events.add_argument("-f", "--follow", action="store_true", help="go on as they happen")


async def _jobs(caller: Caller, args: argparse.Namespace) -> int:
    request = pb.ListOpenJobsRequest(profile=args.profile, limit=args.limit)
    rows = []
    async for package in _each(caller.query.ListOpenJobs(request, timeout=DEADLINE)):
        if args.json:
            print_json(package)
        else:
            rows.append((package.pkgname, package.pkgpath, package.variant))
    print_table(rows, ("PKGNAME", "PKGPATH", "VARIANT"))
    return os.EX_OK


def _request(args: argparse.Namespace) -> pb.PackageRequest:
    return pb.PackageRequest(
        profile=args.profile,
        package=args.package,
        variant=args.variant,
        transitive=getattr(args, "transitive", False),
    )


async def _show(caller: Caller, args: argparse.Namespace) -> int:
    detail = await caller.query.GetPackage(_request(args), timeout=DEADLINE)
    if args.json:
        print_json(detail)
        return os.EX_OK
    package = detail.package
    reason = f": {package.reason}" if package.reason else ""
    print(f"{package.pkgname}  {package.pkgpath}  {package.variant}".rstrip())
    print(f"status       {status_word(package.status)}{reason}")
    print(f"selected     {'yes' if package.selected else 'needed' if package.needed else 'no'}")
    print(f"depth        {package.depth}")
    if detail.HasField("artifact"):
        artifact = detail.artifact
        current = "current" if artifact.current else "stale"
        print(f"artifact     {artifact.artifact.pkgname}, {current}, built {_time(artifact.built)}")
        print(f"             sha256 {artifact.artifact.sha256}, {artifact.artifact.size} bytes")
        if artifact.dispatcher:
            print(f"             in the repository of {artifact.dispatcher}")
    for reason in detail.stale:
        print(f"stale        {reason}")
    if detail.scan_error:
        print("scan error   " + detail.scan_error.strip().replace("\n", "\n             "))
    print("requirements" if detail.requirements else "requirements none")
    for requirement in detail.requirements:
        print(f"  {_requirement(requirement)}")
    print("record")
    record = detail.record.decode(errors="backslashreplace")
    print("  " + record.strip().replace("\n", "\n  "))
    return os.EX_OK


def _requirement(requirement: pb.Requirement) -> str:
    found = (
        f"{requirement.pkgname} ({status_word(requirement.status)})"
        if requirement.pkgname
        else "nothing matches"
    )
    return f"{requirement.pattern}: {found}" if requirement.pattern else found


async def _requires(caller: Caller, args: argparse.Namespace) -> int:
    async for page in caller.query.Requires(_request(args), timeout=DEADLINE):
        for requirement in page.requirements:
            if args.json:
                print_json(requirement)
            else:
                print(_requirement(requirement))
    return os.EX_OK


async def _required_by(caller: Caller, args: argparse.Namespace) -> int:
    return await _print_packages(args, caller.query.RequiredBy(_request(args), timeout=DEADLINE))


async def _breaks(caller: Caller, args: argparse.Namespace) -> int:
    return await _print_packages(args, caller.query.Breaks(_request(args), timeout=DEADLINE))


async def _search(caller: Caller, args: argparse.Namespace) -> int:
    request = pb.SearchRequest(profile=args.profile, words=" ".join(args.words), limit=args.limit)
    rows = []
    found = False
    async for package in _each(caller.query.Search(request, timeout=DEADLINE)):
        found = True
        if args.json:
            print_json(package)
        else:
            rows.append((package.pkgname, package.pkgpath, status_word(package.status)))
    print_table(rows, ("PKGNAME", "PKGPATH", "STATUS"))
    return os.EX_OK if found else 1


async def _each(pages: AsyncIterable[pb.Packages]) -> AsyncIterator[pb.Package]:
    """The packages of a list that comes in pages."""
    async for page in pages:
        for package in page.packages:
            yield package


async def _print_packages(args: argparse.Namespace, pages: AsyncIterable[pb.Packages]) -> int:
    async for package in _each(pages):
        if args.json:
            print_json(package)
        else:
            print(f"{package.pkgname} ({status_word(package.status)})")
    return os.EX_OK


async def _why(caller: Caller, args: argparse.Namespace) -> int:
    evidence = await caller.query.Why(_request(args), timeout=DEADLINE)
    if args.json:
        print_json(evidence)
    else:
        _print_evidence(evidence, 0)
    return os.EX_OK


def _print_evidence(evidence: pb.Evidence, deep: int) -> None:
    text = f": {evidence.text}" if evidence.text else ""
    print(f"{'  ' * deep}{evidence.subject} is {status_word(evidence.status)}{text}")
    for cause in evidence.causes:
        _print_evidence(cause, deep + 1)


async def _status(caller: Caller, args: argparse.Namespace) -> int:
    if args.packages:
        return await _status_packages(caller, args)
    names = [args.profile]
    if not args.profile:
        answer = await caller.query.ListProfiles(pb.ListProfilesRequest(), timeout=DEADLINE)
        names = [profile.name for profile in answer.profiles]
    for name in names:
        summary = await caller.query.Summary(pb.SummaryRequest(profile=name), timeout=DEADLINE)
        if args.json:
            print_json(summary)
        else:
            _print_summary(summary)
    return os.EX_OK


def _print_summary(summary: pb.SummaryResponse) -> None:
    profile = summary.profile
    state = "idle" if summary.idle else "working" if profile.complete else "not scanned completely"
    print(f"{profile.name}  {state}  {summary.pkgpaths} pkgpaths  {summary.leases} leases")
    rows = [
        (f"  {status_word(c.status)}", str(c.selected), str(c.needed), str(c.all))
        for c in summary.counts
    ]
    if rows:
        print_table([("  ", "selected", "needed", "all"), *rows], ("", "", "", ""))
    if summary.unwritable:
        print(f"  nothing can be recorded: {summary.unwritable}; it goes on when there is room")
    if summary.outdated:
        print(f"  {summary.outdated} pkgpaths are to be scanned again")
    if summary.enumerate and profile.tree:
        print(f"  the lists of packages are to be read: {summary.enumerate}")
    for tree in summary.following:
        if tree.error:
            print(f"  it cannot be seen what changed: {tree.error}")
        if tree.waiting:
            print(f"  {tree.waiting} changed files that many read wait for more changes")
    for entry in summary.missing_selection:
        print(f"  selection: nothing is called {entry}")
    for failure in summary.failures:
        print(f"  scan failed: {failure.pkgpath}: {failure.error}")
    for one in summary.differences:
        print(f"  {one.pkgname} requires {one.chosen} for {one.pattern}; pbulk: {one.pbulk}")
    for both in summary.collisions:
        print(f"  {both.pkgname} requires {both.first} and {both.second}, which collide")


async def _status_packages(caller: Caller, args: argparse.Namespace) -> int:
    request = pb.ListPackagesRequest(profile=args.profile)
    async for package in _each(caller.query.ListPackages(request, timeout=DEADLINE)):
        if args.json:
            print_json(package)
        else:
            reason = f": {package.reason}" if package.reason else ""
            print(f"{package.pkgname} {status_word(package.status)}{reason}")
    return os.EX_OK


async def _history(caller: Caller, args: argparse.Namespace) -> int:
    request = pb.HistoryRequest(profile=args.profile, package=args.package, limit=args.limit)
    rows = []
    async for attempt in caller.query.History(request, timeout=DEADLINE):
        if args.json:
            print_json(attempt)
            continue
        seconds = f"{attempt.ended - attempt.granted:.1f} s" if attempt.ended else ""
        rows.append(
            (
                _time(attempt.granted),
                attempt.pkgname,
                attempt.host,
                attempt.outcome or "leased",
                seconds,
                attempt.message,
            )
        )
    print_table(rows, ("GRANTED", "PKGNAME", "HOST", "OUTCOME", "TOOK", "MESSAGE"))
    return os.EX_OK


async def _events(caller: Caller, args: argparse.Namespace) -> int:
    request = pb.WatchRequest(profile=args.profile, after=args.after, follow=args.follow)
    async for event in caller.query.Watch(request):
        if args.json:
            print_json(event, detail=json.loads(event.detail))
        else:
            cause = f": {event.cause}" if event.cause else ""
            print(
                f"{event.sequence} {_time(event.time)} {event.profile} {event.kind} "
                f"{event.subject}{cause}",
                flush=True,
            )
    return os.EX_OK


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
