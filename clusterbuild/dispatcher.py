"""The dispatcher: what it has in hand, what it tells clusterdep, and what it does with answers.

All of it happens on one event loop; every change of an attempt goes through `happen` and
every change of a host through `host_happen`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clusterbuild.archive import Archive
from clusterbuild.attempt import Attempt, Listener, ScanWork, Tally
from clusterbuild.core import hosts as host_rules
from clusterbuild.core import job as job_rules
from clusterbuild.core.blame import Blame, Case, Gone, Judgement, Overdue, Stopped, judge
from clusterbuild.core.hosts import Host, NoSlotError, State
from clusterbuild.core.job import Event, IllegalEventError, Instruction, Job, Phase
from clusterbuild.engines import Engine, HostFacts, JobState, Life
from clusterbuild.logs import LogTree
from clusterbuild.messages import (
    like_build,
    offer_of,
    result_of,
    sandbox_of,
    scan_result_of,
    wrong_with,
    wrong_with_scan,
)
from clusterbuild.rules import Rules
from clusterbuild.scan_steps import ScanSteps, Telling
from clusterbuild.steps import Steps
from clusterbuild.trees import Trees
from clusterdep.api import scanned
from clusterdep.api.v1 import clusterdep_pb2 as pb

log = logging.getLogger("clusterbuild.dispatcher")

#: How long an attempt may be in a phase, seconds; while building its own limit counts.
PHASE_LIMITS = {
    Phase.SENDING: 900.0,
    Phase.FETCHING: 1800.0,
    Phase.STORING: 1800.0,
    Phase.RETURNING: 120.0,
    Phase.ENDING: 120.0,
}
#: What a host gets beyond a build's time limit to end it by itself, seconds.
GRACE = 300.0
#: How long publishing and cleaning may take when the daemon stops, seconds.
LEAVE_SECONDS = 15.0
#: What of a job's life on its host means which event.
FOUND = {
    Life.RUNNING: Event.FOUND_RUNNING,
    Life.ENDED: Event.FOUND_FINISHED,
    Life.GONE: Event.FOUND_NOTHING,
}
#: Instructions that take no time.
AT_ONCE = frozenset({Instruction.RELEASE, Instruction.REPORT})


@dataclass
class Dispatcher:
    """Hosts and attempts, and the rules that move them."""

    rules: Rules
    engines: Mapping[str, Engine]
    archive: Archive
    logs: LogTree
    trees: Trees
    telling: Telling
    clock: Callable[[], float] = time.time  # seconds since 1970, for people
    monotonic: Callable[[], float] = time.monotonic  # for limits and pauses: it never jumps
    listener: Listener = field(default_factory=Listener)
    hosts: dict[str, Host] = field(default_factory=dict)
    facts: dict[str, HostFacts] = field(default_factory=dict)
    sandboxes: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, Attempt] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    stopping: bool = False
    trouble: str = ""  # why nothing can be kept here now
    news: asyncio.Event = field(default_factory=asyncio.Event)  # there is something to tell

    def __post_init__(self) -> None:
        self._steps = Steps(
            lambda: self.rules,
            self.engines,
            self.archive,
            self.logs,
            self.trees,
            troubled=self.set_trouble,
        )
        self._scan_steps = ScanSteps(
            lambda: self.rules,
            self.engines,
            self.archive,
            self.trees,
            self.telling,
            self._steps.sandbox_of,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: dict[asyncio.Task[None], str] = {}  # of attempts that are done
        for name in self.engines:
            self.hosts[name] = Host(name, slots=1)

    # -- attempts ---------------------------------------------------------------

    def happen(self, attempt: Attempt, event: Event, case: Case | None = None) -> None:
        """The one place where an attempt moves. `case` says why, where something failed."""
        try:
            job, instructions = job_rules.advance(attempt.job, event)
        except IllegalEventError as error:
            self.tally.illegal += 1
            log.error("%s", error)
            return
        moved = job.phase is not attempt.phase
        attempt.job = job
        if not moved:
            return
        attempt.since = self.monotonic()
        if case is not None and attempt.judgement is None:
            attempt.judgement = judge(case)
        log.debug("%s %s: %s -> %s", attempt.grant.pkgname, job.attempt, event.value, job.phase)
        self._carry_out(attempt, instructions)
        if job.phase is Phase.DONE:
            self.attempts.pop(attempt.name, None)
        if job.phase is Phase.BUILDING and attempt.scan is not None:
            self._begin(self._scan_steps.gather(attempt))
        if job.phase is Phase.BUILDING and attempt.seen is not None:
            self._found(attempt, attempt.seen)  # its end may have been told before its start

    def _carry_out(self, attempt: Attempt, instructions: tuple[Instruction, ...]) -> None:
        if Instruction.RELEASE in instructions:
            self._release(attempt)
        if Instruction.REPORT in instructions:
            self._report(attempt)
        before = attempt.task
        if before is not None and before is not asyncio.current_task():
            before.cancel()
        slow = [do for do in instructions if do not in AT_ONCE]
        attempt.task = self._begin(self._do(attempt, slow)) if slow else None
        if attempt.task is not None and attempt.phase is Phase.DONE:
            self._leaving[attempt.task] = attempt.name
            attempt.task.add_done_callback(self._leaving.pop)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _do(self, attempt: Attempt, instructions: list[Instruction]) -> None:
        steps = self._steps if attempt.scan is None else self._scan_steps
        try:
            for instruction in instructions:
                outcome = await steps.carry_out(instruction, attempt)
                if outcome is not None:
                    self.happen(attempt, *outcome)
        except Exception:
            # A fault of this program: the attempt is given back when its phase is overdue.
            self.tally.illegal += 1
            log.exception("%s cannot go on while %s", attempt.name, attempt.phase.value)

    def _release(self, attempt: Attempt) -> None:
        host = self.hosts.get(attempt.host)
        if host is not None:
            self.hosts[host.name] = host_rules.release(host, attempt.name)
            self.news.set()

    def _report(self, attempt: Attempt) -> None:
        if attempt.scan is not None:
            attempt.scan.report = scan_result_of(attempt.scan, attempt.judgement)
        else:
            self._report_build(attempt)
        self._learn(attempt)
        self.listener.reported(attempt)
        self.news.set()

    def _report_build(self, attempt: Attempt) -> None:
        grant = attempt.grant
        if attempt.kept is not None:
            attempt.judgement = None
        elif attempt.judgement is None:
            attempt.judgement = Judgement(Blame.INFRASTRUCTURE, "nothing was brought back")
        attempt.report = result_of(
            grant,
            kept=attempt.kept,
            judgement=attempt.judgement,
            result=attempt.result,
            stage=attempt.stage,
            log=self.logs.directory(grant.profile.name, grant.pkgname, attempt.name),
        )

    def _learn(self, attempt: Attempt) -> None:
        """Counts the outcome, and what it says of the host."""
        host, judgement = self.hosts.get(attempt.host), attempt.judgement
        if judgement is None or judgement.blame is Blame.PACKAGE:
            self.tally.scanned += attempt.scan is not None
            self.tally.built += judgement is None and attempt.scan is None
            self.tally.failed += judgement is not None and attempt.scan is None
            if host is not None:
                self.hosts[host.name] = host_rules.job_worked(host)
            return
        self.tally.returned += 1
        log.warning("%s is given back: %s", attempt.grant.pkgname, judgement.message)
        if host is not None and judgement.blame is Blame.HOST:
            faulted = host_rules.job_faulted(host, self.monotonic(), judgement.message)
            if faulted.state is not host.state:
                log.warning("host %s is %s: %s", host.name, faulted.state.value, faulted.reason)
            self.hosts[host.name] = faulted

    # -- hosts --------------------------------------------------------------------

    def host_happen(self, name: str, event: host_rules.Event, reason: str = "") -> None:
        """The one place where a host moves. Its jobs follow it when it is lost."""
        before = self.hosts[name]
        after = host_rules.happen(before, event, self.monotonic(), reason)
        self.hosts[name] = after
        if after.state is not before.state:
            level = logging.WARNING if after.state in host_rules.PAUSES else logging.INFO
            log.log(level, "host %s is %s%s", name, after.state.value, f": {reason}" * bool(reason))
        if (after.state, after.free) != (before.state, before.free):
            self.news.set()
        self._follow_host(after)
        if after.state is State.READY and self.stopping:
            self.host_happen(name, host_rules.Event.DRAIN, "the dispatcher is stopped")

    def _follow_host(self, host: Host) -> None:
        """What a host's state means for its attempts."""
        for attempt in [a for a in self.attempts.values() if a.host == host.name]:
            if host.state is State.LOST:
                self.happen(attempt, Event.HOST_LOST)
            elif host.state is State.REFUSED and attempt.phase is Phase.GRANTED:
                self._never_began(attempt, f"host {host.name} cannot build: {host.reason}")

    def probed(self, name: str, facts: HostFacts) -> None:
        """A host said what it is."""
        self.facts[name] = facts
        try:
            sandbox = sandbox_of(facts, self.rules.of(name))
        except ValueError as error:
            self.host_happen(name, host_rules.Event.UNFIT, str(error))
            return
        self.sandboxes[name] = sandbox.kind
        self._steps.prepared(name, sandbox, sandbox.slots)
        if self.hosts[name].slots != sandbox.slots:
            self.hosts[name] = host_rules.resized(self.hosts[name], sandbox.slots)
            log.info("host %s has %d slots, sandbox %s", name, sandbox.slots, sandbox.kind)
            self.news.set()
        self.host_happen(name, host_rules.Event.PROBED)

    def expected(self, name: str) -> list[Attempt]:
        """What a look at the host must show, or else it is gone; to be asked before the look."""
        phases = (Phase.GRANTED, Phase.BUILDING, Phase.LOST)
        return [a for a in self.attempts.values() if a.host == name and a.phase in phases]

    def looked(self, name: str, expected: list[Attempt], states: list[JobState]) -> list[str]:
        """A host was looked at whole; returns the attempts there that are nobody's."""
        there = {state.attempt: state for state in states}
        for state in states:
            self.seen(name, state)
        for attempt in expected:
            found = there.get(attempt.name)
            starting = found is None or found.life is Life.STARTING
            if attempt.phase is Phase.GRANTED and starting:
                self.happen(attempt, Event.BEGIN)
            elif _vanished(attempt, found):
                self.happen(attempt, Event.FOUND_NOTHING, _gone(found))
        ours = {*self.attempts, *self._leaving.values()}
        return [other for other in there if other not in ours]

    def seen(self, name: str, state: JobState) -> None:
        """A host said how one of its jobs is."""
        attempt = self.attempts.get(state.attempt)
        if attempt is None or attempt.host != name:
            return
        if attempt.seen is None or attempt.seen.stage != state.stage:
            attempt.stage_since = self.clock() - state.stage_seconds
        attempt.seen = state
        self._found(attempt, state)

    def _found(self, attempt: Attempt, state: JobState) -> None:
        event = FOUND.get(state.life)
        if event is None:
            return
        case = _gone(state) if event is Event.FOUND_NOTHING else None
        self.happen(attempt, event, case)

    # -- the exchange ---------------------------------------------------------------

    def request(self, wait_seconds: float) -> pb.ExchangeRequest:
        """Everything there is to say now."""
        self.news.clear()
        request = pb.ExchangeRequest(
            dispatcher=self.rules.dispatcher, wait_seconds=wait_seconds, takes_scans=True
        )
        for name, host in self.hosts.items():
            request.hosts.append(offer_of(host, self.facts.get(name), self.trouble))
        for attempt in self.attempts.values():
            if attempt.phase in job_rules.RENEWED:
                request.holding.add(
                    attempt=attempt.name, fence=attempt.grant.fence, stage=attempt.stage
                )
            if attempt.phase is not Phase.REPORTING:
                continue
            if attempt.report is not None:
                request.results.append(attempt.report)
            elif attempt.scan is not None and attempt.scan.report is not None:
                request.scan_results.append(attempt.scan.report)
        return request

    def take(self, answer: pb.ExchangeResponse) -> bool:
        """Does what clusterdep answered; whether there was anything new in it."""
        new = False
        for verdict in answer.verdicts:
            attempt = self.attempts.get(verdict.attempt)
            if attempt is not None and attempt.phase is Phase.REPORTING:
                self._judged(attempt, verdict)
                new = True
        for cancellation in answer.cancellations:
            attempt = self.attempts.get(cancellation.attempt)
            if attempt is not None:
                log.info("%s is cancelled: %s", attempt.grant.pkgname, cancellation.why)
                self.happen(attempt, Event.CANCELLED)
                new = True
        for grant in answer.grants:
            if grant.attempt not in self.attempts:
                self._granted(self._take_on(grant), wrong_with(grant))
                new = True
        for scan in answer.scans:
            if scan.attempt not in self.attempts:
                self._granted(self._take_on_scan(scan), wrong_with_scan(scan))
                new = True
        return new

    def _judged(self, attempt: Attempt, verdict: pb.Verdict) -> None:
        if verdict.kind == pb.Verdict.KIND_REFUSED:
            self.tally.refused += 1
            log.warning("the result of %s is refused: %s", attempt.grant.pkgname, verdict.why)
            self.happen(attempt, Event.REFUSED)
        else:
            self.happen(attempt, Event.ACCEPTED)

    def _granted(self, attempt: Attempt, wrong: str) -> None:
        host = self.hosts.get(attempt.host)
        if wrong:
            self._give_back(attempt, Blame.INFRASTRUCTURE, wrong)
        elif host is None:
            self._never_began(attempt, f"host {attempt.host!r:.80} is not configured")
        else:
            try:
                self.hosts[host.name] = host_rules.claim(host, attempt.name)
            except NoSlotError as error:
                self._never_began(attempt, str(error))
            else:
                self.happen(attempt, Event.BEGIN)

    def _take_on(self, grant: pb.Grant) -> Attempt:
        attempt = Attempt(
            Job(grant.attempt), grant, grant.host, begun=self.clock(), since=self.monotonic()
        )
        self.attempts[grant.attempt] = attempt
        return attempt

    def _take_on_scan(self, grant: pb.ScanGrant) -> Attempt:
        attempt = self._take_on(like_build(grant))
        attempt.scan = ScanWork(grant)
        return attempt

    def _give_back(self, attempt: Attempt, blame: Blame, why: str) -> None:
        attempt.judgement = Judgement(blame, why)
        self.happen(attempt, Event.STOPPED)

    def _never_began(self, attempt: Attempt, why: str) -> None:
        """Gives an attempt back that says nothing about its package, and must not count."""
        self._give_back(attempt, Blame.OPERATOR, why)

    def adopt(self, leases: Iterable[pb.Lease]) -> None:
        """After a restart: takes on what was granted before. Its hosts are looked at later."""
        for lease in leases:
            scans = lease.HasField("scan")
            if (lease.scan if scans else lease.grant).attempt in self.attempts:
                continue
            attempt = self._take_on_scan(lease.scan) if scans else self._take_on(lease.grant)
            attempt.begun = lease.granted or attempt.begun
            wrong = wrong_with_scan(lease.scan) if scans else wrong_with(lease.grant)
            host = self.hosts.get(attempt.host)
            if wrong:
                self._give_back(attempt, Blame.INFRASTRUCTURE, wrong)
            elif host is None:
                self._never_began(attempt, f"host {attempt.host!r:.80} is not configured any more")
            else:
                self.hosts[host.name] = host_rules.adopt(host, attempt.name)

    # -- operators, time, trouble -----------------------------------------------------

    def stop(self, now: bool) -> int:
        """Takes nothing new; ends what runs if `now`. How many jobs are still to end."""
        self.stopping = True
        for host in list(self.hosts.values()):
            if host.state is State.READY:
                self.host_happen(host.name, host_rules.Event.DRAIN, "the dispatcher is stopped")
        if now:
            for attempt in list(self.attempts.values()):
                self.happen(attempt, Event.STOPPED, Stopped("stopped by an operator"))
        return len(self.attempts) + len(self._leaving)

    def resume(self) -> None:
        """Takes work again, and does not wait to look at hosts that were lost or unfit."""
        self.stopping = False
        for host in list(self.hosts.values()):
            self.hosts[host.name] = host_rules.hastened(host, self.monotonic())
            if host.state is State.DRAINING:
                self.host_happen(host.name, host_rules.Event.RESUME)

    def tick(self) -> None:
        """Ends what takes longer than it may."""
        now = self.monotonic()
        for attempt in list(self.attempts.values()):
            limit = self._limit(attempt)
            if limit and now - attempt.since > limit:
                log.warning("%s is overdue while %s", attempt.name, attempt.phase.value)
                self.happen(attempt, Event.OVERDUE, Overdue(attempt.phase.value, limit))

    def _limit(self, attempt: Attempt) -> float:
        if attempt.phase is Phase.BUILDING and attempt.scan is not None:
            # It begins nothing more when it has taken as long as one pkgpath may.
            return 2 * (attempt.scan.grant.time_limit or scanned.TIME_LIMIT) + GRACE
        if attempt.phase is Phase.BUILDING:
            limit = self.rules.of(attempt.host).limit(attempt.grant.time_limit)
            return limit + GRACE if limit else 0.0
        return PHASE_LIMITS.get(attempt.phase, 0.0)

    def set_trouble(self, trouble: str) -> None:
        """Says, or takes back, that nothing can be kept here; no job is taken meanwhile."""
        if trouble and not self.trouble:
            log.error("no work is taken: %s", trouble)
        elif self.trouble and not trouble:
            log.info("work is taken again")
        if trouble != self.trouble:
            self.trouble = trouble
            self.news.set()

    async def close(self) -> None:
        """Lets go of everything; what runs on hosts goes on there.

        Attempts that are done are published and cleaned, if that does not take long.
        """
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=LEAVE_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _vanished(attempt: Attempt, found: JobState | None) -> bool:
    """Whether what a look shows of an attempt, if anything, means that it is gone."""
    if attempt.phase is Phase.LOST:
        return found is None or found.life is Life.STARTING
    return attempt.phase is Phase.BUILDING and found is None


def _gone(state: JobState | None) -> Case:
    return Gone(state.reason if state is not None else "")
