"""The report of a run: data in, text or JSON out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

#: How many names of what a failure blocks are shown in text.
SHOWN = 5


@dataclass(frozen=True)
class Unbuilt:
    """A package that is not built, and one sentence why."""

    pkgname: str
    pkgpath: str
    status: str
    why: str
    selected: bool = True


@dataclass(frozen=True)
class Failed(Unbuilt):
    """A package whose build failed: where its log is, and what it keeps from being built."""

    host: str = ""
    seconds: float = 0.0
    log: str = ""
    blocks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScanFailure:
    """A pkgpath that could not be scanned, and the line of make's error that says most."""

    pkgpath: str
    error: str
    selected: bool = True


@dataclass(frozen=True)
class Count:
    """Packages of one status."""

    all: int = 0
    needed: int = 0  # selected, or required by something selected
    selected: int = 0


@dataclass(frozen=True)
class Report:
    """Everything a report says. Times are seconds since 1970."""

    profile: str
    tree: str
    prefix: str
    selection: tuple[str, ...]
    started: float  # 0: it is about no run, but about how things are
    ended: float
    counts: dict[str, Count]
    built: tuple[str, ...] = ()  # in this run, in order
    failed: tuple[Failed, ...] = ()
    blocked: tuple[Unbuilt, ...] = ()
    unresolved: tuple[Unbuilt, ...] = ()
    prefailed: tuple[Unbuilt, ...] = ()
    skipped: tuple[Unbuilt, ...] = ()
    duplicate: tuple[Unbuilt, ...] = ()  # have the PKGNAME of an earlier record, which stands
    left: tuple[Unbuilt, ...] = ()  # could be built, but was not: open, waiting, held, ...
    scan_failures: tuple[ScanFailure, ...] = ()
    scan_failure_count: int = 0  # all of them: the list is cut
    missing_selection: tuple[str, ...] = ()
    repository: str = ""
    logs: str = ""
    problem: str = ""  # why the run ended before it was through
    directory: str = field(default="", compare=False)  # where the report is kept

    @property
    def not_built(self) -> list[Unbuilt]:
        """What was selected, could not be left out, and is not built."""
        every = (*self.failed, *self.blocked, *self.unresolved, *self.prefailed, *self.left)
        return [package for package in every if package.selected]

    @property
    def complete(self) -> bool:
        """Whether everything selected is built, or has a reason to be skipped."""
        scans = [failure for failure in self.scan_failures if failure.selected]
        return not (self.not_built or self.missing_selection or scans or self.problem)


def to_json(report: Report) -> dict[str, Any]:
    """The report as plain values."""
    return {**asdict(report), "complete": report.complete}


def sentence(report: Report) -> str:
    """The outcome in one sentence."""
    built = report.counts.get("built", Count()).selected
    total = sum(count.selected for count in report.counts.values())
    parts = [f"{built} of {total} selected packages {_are(total)} built"]
    if report.started:
        count = len(report.built)
        parts.append(f"{count or 'nothing'} {_were(count)} built in this run")
    for count, what in (
        (report.counts.get("skipped", Count()).selected, "skipped"),
        (sum(package.selected for package in report.duplicate), "left out as a duplicate"),
        (len(report.not_built), "not built"),
    ):
        if count:
            parts.append(f"{count} {_are(count)} {what}")
    scans = sum(failure.selected for failure in report.scan_failures)
    if scans:
        parts.append(f"{scans} could not be scanned")
    if report.missing_selection:
        parts.append(f"nothing is called {', '.join(report.missing_selection)}")
    return "; ".join(parts)


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _were(count: int) -> str:
    return "were" if count > 1 else "was"


def render(report: Report, *, names: bool = True, most: int = 0) -> str:
    """The report as text; with `names` also what was built; at most `most` of each list."""
    lines = [*_head(report), *_counts(report)]
    if names and report.built:
        lines += ["", f"Built in this run ({len(report.built)})"]
        lines += [f"  {name}" for name in report.built]
    for title, packages in _sections(report):
        if packages:
            lines += ["", f"{title} ({len(packages)})"]
            shown = packages[:most] if most else packages
            for package in shown:
                lines += _package(package)
            if len(shown) < len(packages):
                lines += [f"  and {len(packages) - len(shown)} more"]
    lines += _scans(report)
    if report.missing_selection:
        lines += ["", "Selected, but there is nothing of that name"]
        lines += [f"  {entry}" for entry in report.missing_selection]
    lines += _places(report)
    return "\n".join(lines) + "\n"


def _head(report: Report) -> Iterator[str]:
    yield f"Report of profile {report.profile}"
    yield ""
    yield f"  tree      {report.tree}"
    yield f"  prefix    {report.prefix}"
    yield f"  selected  {' '.join(report.selection) or 'everything'}"
    if report.started:
        yield f"  started   {_moment(report.started)}"
        yield f"  took      {duration(report.ended - report.started)}"
    if report.problem:
        yield f"  problem   {report.problem}"
    yield f"  result    {sentence(report)}"


def _counts(report: Report) -> Iterator[str]:
    if not report.counts:
        return
    yield ""
    yield f"  {'':12}{'selected':>10}{'needed':>10}{'all':>10}"
    for status, count in report.counts.items():
        yield f"  {status:12}{count.selected:>10}{count.needed:>10}{count.all:>10}"


def _sections(report: Report) -> list[tuple[str, tuple[Unbuilt, ...]]]:
    """Headings and what stands below them, worst first."""
    return [
        ("Failed", report.failed),
        ("Blocked, because they need what cannot be built", report.blocked),
        ("Unresolved: nothing matches what they ask for", report.unresolved),
        ("Marked as failing, or not scanned", report.prefailed),
        ("Left", report.left),
        ("Skipped, as they ask to be here", report.skipped),
        ("Of the same name as an earlier record, which stands", report.duplicate),
    ]


def _package(package: Unbuilt) -> Iterator[str]:
    yield f"  {package.pkgname}  ({package.pkgpath})"
    why = package.why or f"it is {package.status}"
    if not isinstance(package, Failed):
        yield f"      {why}"
        return
    where = f", on {package.host} after {package.seconds:.0f} s" if package.host else ""
    yield f"      {why}{where}"
    if package.log:
        yield f"      log: {package.log}"
    if package.blocks:
        shown = ", ".join(package.blocks[:SHOWN])
        more = len(package.blocks) - SHOWN
        rest = f" and {more} more" if more > 0 else ""
        yield f"      blocks {len(package.blocks)}: {shown}{rest}"


def _scans(report: Report) -> Iterator[str]:
    if not report.scan_failure_count:
        return
    yield ""
    yield f"Could not be scanned ({report.scan_failure_count})"
    for failure in report.scan_failures:
        yield f"  {failure.pkgpath}"
        yield f"      {failure.error}"
    if report.scan_failure_count > len(report.scan_failures):
        yield f"  and {report.scan_failure_count - len(report.scan_failures)} more"


def _places(report: Report) -> Iterator[str]:
    yield ""
    yield f"  packages  {report.repository}"
    yield f"  logs      {report.logs}"
    if report.directory:
        yield f"  report    {report.directory}"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def duration(seconds: float) -> str:
    """A length of time for people: `12 s`, `3 min 5 s`, `2 h 7 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
