"""The command scan: runs the scan helper, and sends what it finds to the daemon as it comes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.cli_call import DEADLINE, Caller, ask
from clusterdep.cli_feed import put, say_refusals
from clusterdep.facts import key_line
from clusterdep.scanner import Enumeration, Scanner, ScannerError, ScanResult

#: Results are sent when there are so many, or when the oldest has waited so long (seconds).
BATCH = 2000
PATIENCE = 20.0


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Mounts the command."""
    scan = commands.add_parser(
        "scan",
        help="scan a profile's tree with its own make",
        description="Runs make pbulk-index in the directories of a profile's tree and gives "
        "what it prints to the running daemon. Without names the whole tree; with names "
        "those pkgpaths and categories, and whatever their dependencies name. Wants the "
        "profile's prefix to hold nothing but its bootstrap kit. A scan that was interrupted "
        "goes on where it was, if the tree's revision is known and the same.",
        parents=[common],
    )
    scan.add_argument("profile", metavar="PROFILE")
    scan.add_argument("names", metavar="NAME", nargs="*", help="pkgpath, category, or pattern")
    scan.add_argument("-j", "--jobs", type=int, default=0, help="at once; default: cores")
    scan.add_argument(
        "--time-limit", type=float, default=900.0, help="seconds for each directory; default 900"
    )
    scan.add_argument(
        "--tree", metavar="DIR", help="a copy of the profile's tree, to be scanned in its place"
    )
    scan.add_argument("--revision", default="", help="of the tree; default: what git says")
    scan.add_argument(
        "--outdated",
        action="store_true",
        help="only what has changed since its last scan, most needed first; see `changed`",
    )
    scan.add_argument("--again", action="store_true", help="also what was scanned at this revision")
    scan.add_argument("-v", "--verbose", action="store_true", help="a line for each directory")
    scan.set_defaults(run=lambda args: ask(args, lambda caller: _scan(caller, args)))


async def _scan(caller: Caller, args: argparse.Namespace) -> int:
    summary = await _summary(caller, args.profile)
    profile = summary.profile
    if args.outdated and args.names:
        raise Fault(Kind.USAGE, "names and --outdated do not go together")
    prefix = Path(profile.prefix) if profile.prefix else None
    try:
        with Scanner(
            Path(args.tree or profile.tree),
            prefix=prefix,
            make=profile.make,
            jobs=args.jobs,
            time_limit=args.time_limit,
            seen_as=profile.tree,
        ) as scanner:
            revision = args.revision or await asyncio.to_thread(_revision, scanner.tree, prefix)
            run = _Run(caller, args, scanner, revision, summary.now)
            await (run.outdated(summary) if args.outdated else run.all())
    except ScannerError as error:
        raise Fault(_KINDS.get(error.status, Kind.DATA), str(error)) from error
    return os.EX_OK


_KINDS = {os.EX_NOINPUT: Kind.NO_INPUT, os.EX_UNAVAILABLE: Kind.UNAVAILABLE}


async def _summary(caller: Caller, name: str) -> pb.SummaryResponse:
    request = pb.SummaryRequest(profile=name)
    summary: pb.SummaryResponse = await caller.query.Summary(request, timeout=DEADLINE)
    if not summary.profile.tree:
        raise Fault(
            Kind.PRECONDITION,
            f"profile {name} names no tree",
            f"set it: clusterdep profile set {name} --tree DIRECTORY",
        )
    return summary


@dataclass(slots=True)
class _Run:
    """One scan: what was found and not yet sent."""

    caller: Caller
    args: argparse.Namespace
    scanner: Scanner
    revision: str
    began: float  # by the daemon's clock: what changes from now on is not in it
    found: list[ScanResult] = field(default_factory=list)
    since: float = 0.0

    async def outdated(self, summary: pb.SummaryResponse) -> None:
        """Scans what has changed since its last scan, most needed first."""
        if summary.enumerate:
            enumeration = await self.scanner.enumerate()
            for problem in enumeration.problems:
                print(f"clusterdep: {problem}", file=sys.stderr)
            if not enumeration.problems:
                await self._send(pb.PutEnd(enumeration=enumeration.pkgpaths))
                # What is new in it was found after this scan began.
                self.began = (await _summary(self.caller, self.args.profile)).now
        request = pb.ListPkgpathsRequest(profile=self.args.profile, outdated=True)
        listed = self.caller.query.ListPkgpaths(request, timeout=DEADLINE)
        await self._each([pkgpath.path async for pkgpath in listed], follow=False)
        await self._send(pb.PutEnd())

    async def all(self) -> None:
        """Scans what is wanted and not known yet, and says when it is complete."""
        names = [name for name in self.args.names if _is_place(self.scanner.tree, name)]
        whole = len(names) < len(self.args.names) or not names
        enumeration = (
            await self.scanner.enumerate() if whole else await self.scanner.enumerate_named(names)
        )
        for problem in enumeration.problems:
            print(f"clusterdep: {problem}", file=sys.stderr)
        await self._directories(enumeration, follow=not whole)
        sound = whole and not enumeration.problems
        await self._send(
            pb.PutEnd(complete=True, enumeration=enumeration.pkgpaths if sound else [])
        )

    async def _directories(self, enumeration: Enumeration, follow: bool) -> None:
        # What follows from a directory is in its records, so those are scanned again.
        known = set() if follow or self.args.again else await self._known()
        wanted = [path for path in enumeration.pkgpaths if path not in known]
        await self._each(wanted, follow)

    async def _each(self, wanted: list[str], follow: bool) -> None:
        results = self.scanner.scan(wanted, follow=follow)
        async with contextlib.aclosing(results):
            async for result in results:
                await self._take(result)

    async def _known(self) -> set[str]:
        """Directories that were scanned at this very revision, and well."""
        if not self.revision:
            return set()
        request = pb.ListPkgpathsRequest(profile=self.args.profile)
        return {
            pkgpath.path
            async for pkgpath in self.caller.query.ListPkgpaths(request, timeout=DEADLINE)
            if pkgpath.revision == self.revision and not pkgpath.error and not pkgpath.outdated
        }

    async def _take(self, result: ScanResult) -> None:
        if self.args.verbose:
            print(f"{result.pkgpath} {result.seconds:.2f} s", file=sys.stderr)
        if result.error:
            line = key_line(result.error)
            print(f"clusterdep: scan failed: {result.pkgpath}: {line}", file=sys.stderr)
        elif result.warning:
            print(f"clusterdep: make warns in {_first(result)}", file=sys.stderr)
        self.since = self.since or time.monotonic()
        self.found.append(result)
        if len(self.found) >= BATCH or time.monotonic() - self.since > PATIENCE:
            await self._send(pb.PutEnd())

    async def _send(self, end: pb.PutEnd) -> None:
        header = pb.PutHeader(
            profile=self.args.profile,
            mode=pb.PutHeader.MODE_MERGE,
            revision=self.revision,
            began=self.began,
        )
        answer = await put(self.caller, header, _parts(self.found), end)
        say_refusals(answer)
        self.found = []
        self.since = 0.0


def _parts(results: Iterable[ScanResult]) -> Iterable[pb.PutRecordsRequest]:
    for result in results:
        yield pb.PutRecordsRequest(
            scan=pb.PutScan(
                pkgpath=result.pkgpath,
                records=result.records,
                error=result.error,
                inputs_digest=result.inputs_digest,
                seconds=result.seconds,
                inputs=_inputs(result.inputs),
            )
        )


def _first(result: ScanResult) -> str:
    """The first line of what make said in a directory, and how many there are."""
    first, *more = result.warning.splitlines()
    return f"{result.pkgpath}: {first}" + (f" (and {len(more)} lines more)" if more else "")


def _inputs(files: Mapping[str, str]) -> Iterator[pb.InputFile]:
    for path, digest in files.items():
        name, what = (
            text.encode(errors="surrogateescape").decode(errors="backslashreplace")
            for text in (path, digest)
        )
        yield pb.InputFile(path=name, digest=what)


def _is_place(tree: Path, name: str) -> bool:
    """Whether a name is a pkgpath or a category, and not a pattern."""
    return "/" in name or (tree / name).is_dir()


def _revision(tree: Path, prefix: Path | None) -> str:
    """What is scanned, if git knows it and nothing was changed: the tree, and mk.conf."""
    import subprocess  # noqa: PLC0415  only here

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ("git", "-C", str(tree), *words), capture_output=True, check=False, timeout=600
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode(errors="replace").strip() if not done.returncode else None

    object_name = git("rev-parse", "--verify", "-q", "HEAD:./")
    if not object_name or git("status", "--porcelain", "--", ".") != "":
        return ""
    settings = prefix / "etc/mk.conf" if prefix else None
    content = settings.read_bytes() if settings and settings.is_file() else b""
    surroundings = "\n".join((os.uname().release, os.uname().machine)).encode()
    return f"git:{object_name}+{hashlib.sha256(content + surroundings).hexdigest()[:16]}"
