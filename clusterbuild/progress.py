"""Shows a run while it goes on: a line per job that ended, and on a terminal a live last line."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from typing import Any, TextIO

from clusterbuild.api.v1 import clusterbuild_pb2 as bpb
from clusterdep.api.v1 import clusterdep_pb2 as pb

#: How often it is said how far scans on hosts are, seconds.
SCAN_SECONDS = 10.0
#: Statuses of packages that have come to an end in a run, and those that have not.
DONE = frozenset({pb.STATUS_BUILT, pb.STATUS_FAILED})
TO_DO = frozenset({pb.STATUS_WAITING, pb.STATUS_OPEN, pb.STATUS_LEASED})

#: Kinds of events that end a job, or take it from its host: each is worth a line.
JOB_EVENTS = frozenset({"built", "failed", "returned", "lapsed"})


def counts(summary: pb.SummaryResponse) -> tuple[int, int]:
    """How many of the needed packages have come to an end, and how many can."""
    done = sum(count.needed for count in summary.counts if count.status in DONE)
    to_do = sum(count.needed for count in summary.counts if count.status in TO_DO)
    return done, done + to_do


def printable(text: str) -> str:
    """Text that came from elsewhere, with nothing in it that a terminal would obey."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


class Progress:
    """Writes to `out`; what a terminal shows last is drawn anew each time."""

    def __init__(
        self,
        out: TextIO,
        *,
        terminal: bool = False,
        quiet: bool = False,
        as_json: bool = False,
        width: Callable[[], int] = lambda: shutil.get_terminal_size().columns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = out
        self._terminal = terminal and not as_json and not quiet
        self._quiet = quiet
        self._json = as_json
        self._width = width
        self._footer = ""
        self._hosts: dict[str, str] = {}  # what is wrong with each, as far as was said
        self._clock = clock
        self._to_scan = 0  # pkgpaths that were to be scanned, at most
        self._scans_left = 0
        self._scans_told = 0.0  # when that was said

    def say(self, text: str) -> None:
        """A line for people; nothing if quiet or in JSON."""
        if not self._quiet and not self._json:
            self._line(text)

    def record(self, kind: str, **values: Any) -> None:
        """An object for programs; nothing unless in JSON."""
        if self._json:
            self._line(json.dumps({"kind": kind, **values}))

    def event(self, event: pb.Event, done: int, total: int) -> None:
        """One event of clusterdep; only the end of a job is worth a line."""
        detail = json.loads(event.detail or "{}")
        if self._json:
            self._line(
                json.dumps(
                    {
                        "kind": event.kind,
                        "sequence": event.sequence,
                        "time": event.time,
                        "profile": event.profile,
                        "subject": event.subject,
                        "cause": event.cause,
                        "detail": detail,
                    }
                )
            )
            return
        if said := scan_line(event):
            self._line(printable(said))
        text = job_line(event, detail)
        if text and not (self._quiet and event.kind == "built"):
            width = len(str(total))
            self._line(printable(f"[{done:{width}}/{total}] {text}"))

    def hosts(self, status: bpb.StatusResponse) -> None:
        """A line for each host that cannot build any more, or can again."""
        for host in status.hosts:
            before, now = self._hosts.get(host.name, ""), trouble_of(host)
            if now == before or host.state in ("unknown", "probing"):
                continue
            self._hosts[host.name] = now
            self.record("host", name=host.name, state=host.state, reason=host.reason)
            if not self._json:
                reason = f": {host.reason}" if now and host.reason else ""
                self._line(printable(f"host {host.name} {now or 'is well again'}{reason}"))

    def scanning(self, summary: pb.SummaryResponse) -> None:
        """How far the scans of hosts are: a line now and then, and when they are through."""
        if summary.profile.scans != "hosts":
            return
        left, before = summary.outdated, self._scans_left
        self._to_scan = max(self._to_scan, left)
        self._scans_left = left
        due = self._clock() - self._scans_told >= SCAN_SECONDS
        if not self._to_scan or not (due if left else before):
            return
        self._scans_told = self._clock()
        done = self._to_scan - left
        failed = summary.scan_failures
        self.record("scanning", done=done, total=self._to_scan, failed=failed)
        if left != before:
            failures = f", {failed} failed" if failed else ""
            self.say(f"Scanned {done} of {self._to_scan} pkgpaths{failures}")
        if not left:
            self._to_scan = 0

    def live(self, status: bpb.StatusResponse, done: int, total: int) -> None:
        """What runs now, on a terminal."""
        if not self._terminal:
            return
        scans = f"scanning, {self._scans_left} left  " if self._scans_left else ""
        text = scans + live_line(status, done, total)
        self._footer = printable(text)[: max(1, self._width() - 1)]
        self._out.write(f"\r\x1b[K{self._footer}")
        self._out.flush()

    def close(self) -> None:
        """Takes the live line away."""
        if self._footer:
            self._out.write("\r\x1b[K")
            self._out.flush()
            self._footer = ""

    def _line(self, text: str) -> None:
        if self._footer:
            self._out.write("\r\x1b[K")
        self._out.write(text + "\n")
        self._out.write(self._footer)
        self._out.flush()


def trouble_of(host: bpb.Host) -> str:
    """What keeps a host from building, in few words; empty if nothing does."""
    if host.state in ("lost", "quarantined", "refused"):
        return f"is {host.state}"
    return "gets no work" if host.state == "ready" and host.reason else ""


def scan_line(event: pb.Event) -> str:
    """What an event says of a scan that failed, for people; empty for all other events."""
    if event.kind != "scan-failed":
        return ""
    what = event.subject if "/" in event.subject else "the lists of the tree"
    return f"scan of {what} FAILED: {event.cause}"


def job_line(event: pb.Event, detail: dict[str, Any]) -> str:
    """What an event says of a job that ended, for people; empty for all other events."""
    host = f" on {detail['host']}" if detail.get("host") else ""
    if event.kind == "built":
        return f"{event.subject} built in {float(detail.get('seconds') or 0):.1f} s{host}"
    if event.kind == "failed":
        stage = detail.get("stage") or ""
        where = f" in stage {stage}" if stage else ""
        log = f"; log: {detail.get('log')}/{stage}.log" if detail.get("log") and stage else ""
        return f"{event.subject} FAILED{where}{host}: {event.cause}{log}"
    if event.kind == "returned":
        blame = f" ({detail['blame']})" if detail.get("blame") else ""
        return f"{event.subject} given back{host}{blame}: {event.cause}"
    if event.kind == "lapsed":
        return f"{event.subject} lost{host}: {event.cause}"
    return ""


def live_line(status: bpb.StatusResponse, done: int, total: int) -> str:
    """The line at the bottom: how far it is, and what runs."""
    parts = [f"[{done}/{total}]"]
    if not status.connected:
        parts.append("clusterdep is away")
    for host in status.hosts:
        if host.state not in ("ready", "draining") or (host.reason and not host.busy):
            reason = f": {host.reason}" if host.reason else ""
            parts.append(f"{host.name} is {host.state}{reason}")
    for job in status.jobs:
        stage = job.stage if job.phase == "building" and job.stage else job.phase
        parts.append(f"{job.pkgname} {stage} {elapsed(status.time - job.started)}")
    return "  ".join(parts)


def elapsed(seconds: float) -> str:
    """A length of time, short: `0:07`, `1:02:03`."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
