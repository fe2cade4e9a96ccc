"""Asks clusterdep for everything a report says, and keeps reports on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clusterbuild.report import Count, Failed, Report, ScanFailure, Unbuilt, render, to_json
from clusterdep.api.v1 import clusterdep_pb2 as pb

#: Deadline of one question, seconds.
DEADLINE = 60.0
#: Of so many failures it is asked what they block: each costs a question.
MOST_ASKED = 200

#: Which part of a report the packages of a status stand in.
PARTS = {
    pb.STATUS_BLOCKED: "blocked",
    pb.STATUS_UNRESOLVED: "unresolved",
    pb.STATUS_PREFAILED: "prefailed",
    pb.STATUS_SKIPPED: "skipped",
    pb.STATUS_UNSCANNED: "prefailed",
    pb.STATUS_OPEN: "left",
    pb.STATUS_WAITING: "left",
    pb.STATUS_LEASED: "left",
    pb.STATUS_HELD: "left",
}


def status_word(status: int) -> str:
    """The word for a status: `built`."""
    return pb.Status.Name(pb.Status.ValueType(status)).removeprefix("STATUS_").lower()


async def gather(
    query: Any,
    profile: str,
    *,
    started: float,
    built: Sequence[str] = (),
    state: Path | None = None,
    problem: str = "",
) -> Report:
    """The report of a profile as it is now. `query` is a QueryStub. Raises grpc.RpcError."""
    summary = await query.Summary(pb.SummaryRequest(profile=profile), timeout=DEADLINE)
    parts: dict[str, list[Unbuilt]] = {name: [] for name in (*PARTS.values(), "duplicate")}
    failed = []
    names: set[str] = set()
    request = pb.ListPackagesRequest(profile=profile, needed=True)
    packages = [
        package
        async for page in query.ListPackages(request, timeout=DEADLINE)
        for package in page.packages
    ]
    for package in packages:
        again = package.pkgname in names
        names.add(package.pkgname)
        if package.status == pb.STATUS_FAILED:
            failed.append(package)
        elif package.status in PARTS:
            # Of several records with one PKGNAME the first stands, as in pbulk.
            parts["duplicate" if again else PARTS[package.status]].append(_unbuilt(package))
    found = summary.profile
    return Report(
        profile=found.name,
        tree=found.tree,
        prefix=found.prefix,
        selection=tuple(found.selection),
        started=started,
        ended=time.time(),
        counts={status_word(c.status): Count(c.all, c.needed, c.selected) for c in summary.counts},
        built=tuple(built),
        failed=tuple([await _failed(query, p, n < MOST_ASKED) for n, p in enumerate(failed)]),
        **{name: tuple(packages) for name, packages in parts.items()},
        scan_failures=tuple(_scan_failure(f, found.selection) for f in summary.failures),
        scan_failure_count=summary.scan_failures,
        missing_selection=tuple(summary.missing_selection),
        repository=str(state / "packages" / found.name / "All") if state else "",
        logs=str(state / "logs" / found.name) if state else "",
        problem=problem,
        directory=str(state / "report") if state else "",
    )


def _unbuilt(package: pb.Package) -> Unbuilt:
    word = status_word(package.status)
    why = package.reason
    if PARTS[package.status] == "left":
        why = f"it is {word} {why}".rstrip()
    return Unbuilt(package.pkgname, package.pkgpath, word, why, package.selected)


def _scan_failure(failure: pb.ScanFailure, selection: Sequence[str]) -> ScanFailure:
    """Whether it was selected can only be told of pkgpaths and categories: it has no names."""
    category = failure.pkgpath.partition("/")[0]
    selected = not selection or bool({failure.pkgpath, category} & set(selection))
    return ScanFailure(failure.pkgpath, failure.error, selected)


async def _failed(query: Any, package: pb.Package, ask: bool) -> Failed:
    last = pb.Attempt()
    blocks: list[str] = []
    if ask:
        request = pb.HistoryRequest(profile=package.profile, package=package.pkgname, limit=1)
        async for attempt in query.History(request, timeout=DEADLINE):
            last = attempt
        wanted = pb.PackageRequest(
            profile=package.profile, package=package.pkgname, transitive=True
        )
        async for page in query.RequiredBy(wanted, timeout=DEADLINE):
            blocks += [
                other.pkgname
                for other in page.packages
                if other.needed and other.status == pb.STATUS_BLOCKED
            ]
    return Failed(
        package.pkgname,
        package.pkgpath,
        "failed",
        package.reason,
        package.selected,
        host=last.host,
        seconds=max(0.0, last.ended - last.granted),
        log=_log_of(last),
        blocks=tuple(blocks),
    )


def _log_of(attempt: pb.Attempt) -> str:
    """The log of the stage that failed, or the directory of all logs."""
    if attempt.log and attempt.stage:
        return f"{attempt.log}/{attempt.stage}.log"
    return attempt.log


def save(report: Report, directory: Path) -> Path:
    """Keeps a report as text and JSON, and as the latest; returns the text. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(report.ended))
    name = f"{stamp}-{report.profile}"
    texts = {"txt": render(report), "json": json.dumps(to_json(report), indent=1) + "\n"}
    for suffix, text in texts.items():
        for path in (directory / f"{name}.{suffix}", directory / f"latest.{suffix}"):
            fresh = path.with_name(f".{path.name}.new")
            fresh.write_text(text, errors="backslashreplace")
            fresh.replace(path)
    return directory / f"{name}.txt"
