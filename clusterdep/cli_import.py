"""The command import: takes over what pbulk has scanned, built, and failed to build."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.cli_call import Caller, ask
from clusterdep.cli_feed import LONG, put, say_refusals
from clusterdep.scanfile import ScanFile, ScanFileError

#: Logs that pbulk keeps of a failure, the last first, and the stages they are of.
STAGES = (
    "deinstall", "clean", "package", "install", "build", "configure", "checksum", "depends",
    "pre-clean",
)  # fmt: skip
#: The end of a log in which its last line is looked for, bytes; characters of it that are kept.
TAIL, LONGEST_LINE = 4096, 300
#: Endings of compressed scans.
COMPRESSED = ("", ".zst", ".bz2", ".gz")


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Mounts the command."""
    command = commands.add_parser(
        "import",
        help="take over an existing set-up of pbulk",
        description="Takes over what another system has done.",
    )
    systems = command.add_subparsers(title="systems", metavar="SYSTEM", required=True)
    pbulk = systems.add_parser(
        "pbulk",
        help="its scan, its packages, its success and error lists",
        description="Makes a profile of what pbulk has: the records of its scan, the package files "
        "of its packages directory, and the failures of its error list. What is in the success "
        "list and has a whole package file counts as built; the files are copied (or linked) "
        "into the repository of the dispatcher, which must run. Nothing of pbulk's is changed, "
        "and it can be repeated. What was left out is said on standard error, with the reason.",
        parents=[common],
    )
    pbulk.add_argument("profile", metavar="PROFILE", help="made if there is none of that name")
    source = pbulk.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--meta", metavar="DIR", help="the meta directory of its logs: pscan, success, error"
    )
    source.add_argument("--pscan", metavar="FILE", help="the scan alone; also compressed")
    pbulk.add_argument("--packages", metavar="DIR", help="its packages directory, with All in it")
    pbulk.add_argument("--success", metavar="FILE", help="names of what it built; default: in DIR")
    pbulk.add_argument("--error", metavar="FILE", help="names of what failed; default: in DIR")
    pbulk.add_argument(
        "--link",
        action="store_true",
        help="hard links to the package files instead of copies; then pbulk must never run again",
    )
    pbulk.add_argument(
        "--dispatcher", metavar="ADDRESS", default="", help="of clusterbuild, if not its default"
    )
    pbulk.add_argument("--json", action="store_true", help="print what was done, as JSON")
    pbulk.set_defaults(run=lambda args: ask(args, lambda caller: _pbulk(caller, args)))


@dataclass(slots=True)
class Done:
    """What an import did, and what it left out."""

    records: int = 0
    refused_records: int = 0
    built: int = 0  # packages whose files were taken over now
    known: int = 0  # packages and failures that were known before
    failed: int = 0
    refused: list[dict[str, str]] = field(default_factory=list)  # name, why
    absent: list[str] = field(default_factory=list)  # built, says pbulk, and there is no file


async def _pbulk(caller: Caller, args: argparse.Namespace) -> int:
    meta = Path(args.meta) if args.meta else None
    scan = args.pscan or _scan_of(meta)
    success = _names(args.success or (meta and meta / "success"), bool(args.success))
    error = _names(args.error or (meta and meta / "error"), bool(args.error)) or {}
    done = Done()
    await _load(caller, args.profile, scan, done)
    if args.packages:
        # pbulk, too, believes the error list where a name is in both.
        names = None if success is None else [name for name in success if name not in error]
        code = await _take_packages(args, names, done)
        if code:
            return code
    await _take_failures(caller, args.profile, error, meta, done)
    # Only now: nothing that is there already is to be built meanwhile.
    header = pb.PutHeader(profile=args.profile, mode=pb.PutHeader.MODE_MERGE)
    await put(caller, header, [], pb.PutEnd(complete=True))
    _say(args, done)
    return os.EX_OK


def _scan_of(meta: Path | None) -> str:
    assert meta is not None
    for name in ("pscan", "presolve"):
        for ending in COMPRESSED:
            if (meta / f"{name}{ending}").is_file():
                return str(meta / f"{name}{ending}")
    raise Fault(
        Kind.NO_INPUT,
        f"{meta} has neither pscan nor presolve in it",
        "name the meta directory below pbulk's bulklog, or a scan with --pscan FILE",
    )


def _names(path: Path | str | None, wanted: bool) -> dict[str, None] | None:
    """The names in a list, each once; None if there is no list and none was asked for."""
    if path is None:
        return None
    try:
        text = Path(path).read_text(encoding="ascii", errors="backslashreplace")
    except FileNotFoundError:
        if not wanted:
            return None
        raise Fault(Kind.NO_INPUT, f"{path}: there is no such file") from None
    except OSError as error:
        raise Fault(Kind.NO_INPUT, f"{path}: {error.strerror}") from error
    return dict.fromkeys(text.split())


async def _load(caller: Caller, profile: str, scan: str, done: Done) -> None:
    try:
        with ScanFile(scan) as file:
            header = pb.PutHeader(profile=profile, mode=pb.PutHeader.MODE_REPLACE, create=True)
            parts = (pb.PutRecordsRequest(records=piece) for piece in file.pieces())
            answer = await put(caller, header, parts, pb.PutEnd())
    except ScanFileError as error:
        kind = Kind.NO_INPUT if error.status == os.EX_NOINPUT else Kind.DATA
        raise Fault(kind, str(error)) from error
    say_refusals(answer)
    if not answer.records:
        raise Fault(Kind.DATA, f"{scan} has no record that can be used")
    done.records, done.refused_records = answer.records, answer.refused_count


async def _take_packages(args: argparse.Namespace, names: list[str] | None, done: Done) -> int:
    """Has the dispatcher take over the files: they are its own to keep. Returns its exit code."""
    words = [sys.executable, "-m", "clusterbuild", "import", args.profile, args.packages]
    words += ["--by", "pbulk", "--json", *(["--link"] if args.link else [])]
    if args.dispatcher:
        words += ["--address", args.dispatcher]
    elif getattr(args, "state", None):
        words += ["--state", args.state]
    with tempfile.NamedTemporaryFile("w", prefix="clusterdep-") as listed:
        if names is not None:
            listed.write("\n".join(names) + "\n")
            listed.flush()
            words += ["--names", listed.name]
        process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
    if process.returncode:
        print(
            "clusterdep: the records are loaded, but packages and failures were not taken over; "
            "mend what clusterbuild says and repeat this",
            file=sys.stderr,
        )
        return process.returncode if process.returncode > 0 else os.EX_SOFTWARE
    told = json.loads(out)
    done.built, done.known = told["taken"], told["known"]
    done.refused, done.absent = told["refused"], told["absent"]
    return os.EX_OK


async def _take_failures(
    caller: Caller, profile: str, names: Iterable[str], meta: Path | None, done: Done
) -> None:
    logs = meta.absolute().parent if meta is not None else None

    def parts() -> Iterator[pb.TakeOverRequest]:
        yield pb.TakeOverRequest(header=pb.TakeOverHeader(profile=profile, by="pbulk"))
        for name in names:
            yield pb.TakeOverRequest(failure=_failure(name, logs))
        yield pb.TakeOverRequest(end=pb.TakeOverEnd())

    answer = await caller.feed.TakeOver(parts(), timeout=LONG)
    done.failed = answer.failures
    done.known += answer.known
    for refusal in answer.refused:
        done.refused.append({"name": refusal.where, "why": refusal.why})
        print(f"clusterdep: refused failure of {refusal.where}: {refusal.why}", file=sys.stderr)


def _failure(pkgname: str, logs: Path | None) -> pb.TakenFailure:
    """A failure in pbulk's words: the last log it left, and its last line."""
    failure = pb.TakenFailure(pkgname=pkgname, message="it is in pbulk's list of errors")
    if logs is None or "/" in pkgname or not (logs / pkgname).is_dir():
        return failure
    failure.log = str(logs / pkgname)
    for stage in STAGES:
        path = logs / pkgname / f"{stage}.log"
        if path.is_file():
            failure.stage = stage
            failure.message = _last_line(path) or failure.message
            break
    return failure


def _last_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read(TAIL).decode(errors="backslashreplace").splitlines()
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:LONGEST_LINE] if said else ""


def _say(args: argparse.Namespace, done: Done) -> None:
    if args.json:
        values = {name: getattr(done, name) for name in Done.__slots__}
        print(json.dumps(values))
        return
    print(
        f"profile {args.profile}: {done.records} records ({done.refused_records} refused), "
        f"{done.built} packages built, {done.failed} failed, {done.known} known before; "
        f"left out: {len(done.refused)} refused, {len(done.absent)} without a package file"
    )
