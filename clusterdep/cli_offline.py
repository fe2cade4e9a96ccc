"""Commands that need no daemon: `match` and `resolve`."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from clusterdep.core import buildable, dewey, scanindex
from clusterdep.core.resolve import Package, Resolver
from clusterdep.scanfile import PIECE, ScanFile, ScanFileError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


#: The names of the commands.
COMMANDS = ("match", "resolve")


def add_commands(commands: Commands) -> None:
    """Adds both to a parser's commands; `args.run(args)` then answers the exit code."""
    one = commands.add_parser(
        "match",
        help="print the package names that match a pattern",
        description="Prints the names that match PATTERN, as pbulk matches them. Exit status: 0 if "
        "any does, 1 if none, 65 if the pattern can not be read. With - for PATTERN, reads lines "
        "of pattern, tab and name from standard input and prints 1 or 0 for each.",
    )
    one.add_argument(
        "pattern", metavar="PATTERN", help="foo>=1.2<2, foo-[0-9]*, {foo,bar}>=1, or -"
    )
    one.add_argument("names", metavar="NAME", nargs="*", help="a package name: foo-1.2nb3")
    one.set_defaults(run=match)
    other = commands.add_parser(
        "resolve",
        help="add DEPENDS lines to the records of a scan",
        description="Prints the records of a scan, each with the names of the packages it requires "
        "in a DEPENDS line, as pbulk resolves them. Packages that can not be resolved have a fail "
        "reason instead; they, and records that were left out, are named on standard error.",
    )
    other.add_argument(
        "--pscan",
        metavar="FILE",
        required=True,
        help="the scan: plain, or compressed with zstd, gzip or bzip2; - for standard input",
    )
    other.add_argument("-o", "--output", metavar="FILE", help="write it there, whole or not at all")
    other.add_argument(
        "--summary",
        action="store_true",
        help="say on standard error how many packages could be built, and why the others not",
    )
    other.set_defaults(run=resolve)


def _complain(text: object) -> None:
    print(f"clusterdep: {text}", file=sys.stderr)


# --- match ----------------------------------------------------------------------------------


def match(args: argparse.Namespace) -> int:
    """`clusterdep match PATTERN NAME...` and `clusterdep match -`."""
    if args.pattern == "-":
        if args.names:
            _complain("match - reads the names from standard input: none are wanted after it")
            return os.EX_USAGE
        return _match_lines(sys.stdin.buffer)
    if not args.names:
        _complain("match: which names? None were given after the pattern")
        return os.EX_USAGE
    try:
        pattern = dewey.compile_pattern(os.fsencode(args.pattern))
    except dewey.PatternError as error:
        _complain(error)
        return os.EX_DATAERR
    found = [name for name in args.names if pattern.match(os.fsencode(name))]
    for name in found:
        print(name)
    return 0 if found else 1


def _match_lines(lines: BinaryIO) -> int:
    status = 0
    for number, line in enumerate(lines, 1):
        pattern, tab, name = line.rstrip(b"\n").partition(b"\t")
        matches, why = False, "" if tab else "there is no tab between a pattern and a name"
        try:
            matches = bool(tab) and dewey.match(pattern, name)
        except dewey.PatternError as error:
            why = str(error)
        if why:
            _complain(f"line {number}: {why}")
            status = os.EX_DATAERR
        print(int(matches))
    return status


# --- resolve --------------------------------------------------------------------------------


#: How much to write at once, in bytes.
_BATCH = 1 << 19


@dataclass(slots=True)
class _Survey:
    """What a first reading of the scan found. A package's key is its place in these lists."""

    packages: list[Package] = field(default_factory=list)
    pkgpaths: list[bytes] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)  # first byte, number of bytes
    resolved: dict[int, list[bytes]] = field(default_factory=dict)  # those with a DEPENDS line
    skipped: set[int] = field(default_factory=set)  # those with a skip reason
    prefailed: set[int] = field(default_factory=set)  # those with a fail reason


def resolve(args: argparse.Namespace) -> int:
    """`clusterdep resolve --pscan FILE`."""
    collecting = gc.isenabled()
    gc.disable()  # there is no garbage in cycles, and looking for it takes a third of the time
    try:
        with ScanFile(args.pscan) as scan, _output(args.output) as out:
            survey = _survey(scan)
            resolver = Resolver(survey.packages)
            _report(survey, resolver)
            _write(out, _records(scan, survey, resolver))
            scan.check_unchanged()
            if args.summary:
                print(f"clusterdep: {_summary(survey, resolver)}", file=sys.stderr)
        return os.EX_OK
    except ScanFileError as error:
        _complain(error)
        return error.status
    except BrokenPipeError:  # the reader has seen enough: main knows what to do
        raise
    except OSError as error:
        _complain(f"{args.output or 'standard output'}: {error.strerror or error}")
        return os.EX_CANTCREAT if args.output else os.EX_IOERR
    finally:
        if collecting:
            gc.enable()


def _survey(scan: ScanFile) -> _Survey:
    """Reads the scan; what is refused is said at once."""
    survey = _Survey()
    known: dict[bytes, bytes] = {}  # every distinct token, once
    for text in scanindex.split(scan.pieces()):
        fields = scanindex.check(text) if isinstance(text, scanindex.Text) else text
        if isinstance(fields, scanindex.Refusal) or isinstance(text, scanindex.Refusal):
            _complain(f"{scan.name}: {fields}")
            continue
        key = len(survey.packages)
        tokens = fields[b"ALL_DEPENDS"].split()
        if b"DEPENDS" in fields:  # kept as it is, not looked into
            survey.resolved[key] = fields[b"DEPENDS"].split()
            tokens = []
        if fields.get(b"PKG_SKIP_REASON", b"").strip():
            survey.skipped.add(key)
        if fields.get(b"PKG_FAIL_REASON", b"").strip():
            survey.prefailed.add(key)
        depends = tuple([known.setdefault(token, token) for token in tokens])
        survey.packages.append(Package(key, (0, key), fields[b"PKGNAME"], depends))
        survey.pkgpaths.append(fields[b"PKG_LOCATION"])
        survey.spans.append((text.start, len(text.raw)))
    if not survey.packages:
        raise ScanFileError(f"{scan.name}: there is no record in it to resolve", os.EX_DATAERR)
    return survey


def _report(survey: _Survey, resolver: Resolver) -> None:
    """Names on standard error what is left out and what can not be resolved."""
    standing = dict(resolver.duplicates())
    for package in survey.packages:
        key = package.key
        shown = f"{package.pkgname.decode()} ({survey.pkgpaths[key].decode()})"
        if key in standing:
            other = survey.pkgpaths[standing[key]].decode()
            _complain(f"{shown}: left out, because a record of {other} before it has that name")
            continue
        resolution = resolver.resolution(key)
        for problem in resolution.problems if resolution else ():
            _complain(f"{shown}: {problem}")


def _records(scan: ScanFile, survey: _Survey, resolver: Resolver) -> Iterator[bytes]:
    """The records to be written, in order."""
    at = 0
    scan.rewind()
    for key, (start, size) in enumerate(survey.spans):
        resolution = resolver.resolution(key)
        if resolution is None:
            continue
        while at < start:
            at += len(scan.read(min(PIECE, start - at)) or bytes(start - at))
        raw = scan.read(size)
        at += size
        if key in survey.resolved:
            yield raw
        elif resolution.problems:
            yield scanindex.with_fail_reason(raw, [one.reason for one in resolution.problems])
        else:
            yield scanindex.with_depends(raw, resolver.depends(key))


def _write(out: BinaryIO, records: Iterator[bytes]) -> None:
    batch: list[bytes] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record)
        if size >= _BATCH:
            out.write(b"".join(batch))
            batch.clear()
            size = 0
    out.write(b"".join(batch))
    out.flush()


def _summary(survey: _Survey, resolver: Resolver) -> str:
    """How many packages could be built, and what is in the way of the others."""
    own: list[buildable.Buildable] = []
    requires: list[list[int]] = []
    standing = [
        (package.key, resolution)
        for package in survey.packages
        if (resolution := resolver.resolution(package.key)) is not None
    ]
    place = {key: at for at, (key, _) in enumerate(standing)}
    for key, resolution in standing:
        own.append(
            buildable.alone(
                key in survey.skipped, key in survey.prefailed, bool(resolution.problems)
            )
        )
        named = (resolver.standing(name) for name in survey.resolved.get(key, ()))
        keys = [*resolution.requires, *(key for key in named if key is not None)]
        requires.append([place[key] for key in keys])
    return buildable.summary(buildable.classify(own, requires))


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that is there when all went well, and else as it was."""
    if path is None:
        yield sys.stdout.buffer
        return
    target = Path(path).resolve()
    if target.exists() and not target.is_file():  # a device or a pipe
        with target.open("wb") as out:
            yield out
        return
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            yield out
            out.flush()
            os.fchmod(handle, _mode(target))
            os.fsync(handle)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _mode(target: Path) -> int:
    """The permissions that a file has, or that a new one gets."""
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
