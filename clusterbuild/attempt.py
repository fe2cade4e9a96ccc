"""An attempt in hand: its grant, where it is in its life, and what came of others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from clusterbuild.core.blame import Judgement
from clusterbuild.core.job import Job, Phase
from clusterbuild.core.result import JobResult
from clusterbuild.engines import JobState, Scanned
from clusterbuild.repository import Known
from clusterdep.api.v1 import clusterdep_pb2 as pb


@dataclass(eq=False)
class ScanWork:
    """What an attempt has that scans."""

    grant: pb.ScanGrant
    snapshot: str = ""  # that it reads; empty: not known any more, after a restart
    after: int = 0  # the number of the last result that is here
    answered: int = 0  # pkgpaths that clusterdep was told of
    lists: list[Scanned] = field(default_factory=list)  # of the tree
    problems: list[tuple[str, str]] = field(default_factory=list)  # of the lists: where, why
    report: pb.ScanResult | None = None


@dataclass(eq=False)
class Attempt:
    """Changed by the dispatcher alone. Times are seconds since 1970, but for `since`.

    One that scans has `scan`, and a grant with what it shares with builds; its pkgname says
    for people what it is.
    """

    job: Job
    grant: pb.Grant
    host: str
    begun: float  # when it was granted, or adopted
    since: float  # when its phase began, on the monotonic clock
    seen: JobState | None = None  # what its host said last
    stage_since: float = 0.0
    result: JobResult | None = None
    judgement: Judgement | None = None
    kept: Known | None = None
    scan: ScanWork | None = None
    report: pb.Result | None = None
    task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The attempt's own name."""
        return self.job.attempt

    @property
    def phase(self) -> Phase:
        """Where it is in its life."""
        return self.job.phase

    @property
    def stage(self) -> str:
        """The stage it is in, or ended in; empty if none has begun."""
        if self.result is not None and self.result.stage:
            return self.result.stage
        return self.seen.stage if self.seen is not None else ""

    @property
    def package(self) -> tuple[str, str]:
        """Its package within the profile: pkgpath and variant."""
        return self.grant.pkgpath, self.grant.variant


@dataclass
class Tally:
    """What came of attempts since the daemon started."""

    built: int = 0
    failed: int = 0
    scanned: int = 0  # jobs that scanned, not pkgpaths
    returned: int = 0
    refused: int = 0  # results that clusterdep refused
    illegal: int = 0  # events that no table allows: faults of this program


@dataclass(frozen=True)
class Listener:
    """Whom the dispatcher tells what it does; for metrics."""

    reported: Callable[[Attempt], None] = lambda attempt: None
