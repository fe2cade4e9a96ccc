"""What takes time in the life of a scan; the counterpart of `steps` for attempts that scan.

What a host finds is told to clusterdep piece by piece, while the host goes on; so what is
lost with a host, or with one of the daemons, is little. A piece that is told again changes
nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from clusterbuild.archive import Archive
from clusterbuild.attempt import Attempt, ScanWork
from clusterbuild.core.blame import Case, EngineTrouble, Gone, NotKept, Step
from clusterbuild.core.job import Event, Instruction, Phase
from clusterbuild.core.result import Outcome
from clusterbuild.engines import Engine, EngineError, Kind, ScanList, Scanned
from clusterbuild.messages import Sandbox, spec_of
from clusterbuild.pauses import PASSING, pauses, when_there_is_room
from clusterbuild.rules import Rules
from clusterbuild.trees import Trees
from clusterdep.api import scanned
from clusterdep.api.errors import Fault
from clusterdep.api.errors import Kind as FaultKind
from clusterdep.api.v1 import clusterdep_pb2 as pb

log = logging.getLogger("clusterbuild.scan_steps")

#: What a step ends with: the event, and the case that says why if something failed.
Outcomes = tuple[Event, Case | None]

#: How often it is asked what a scan that goes on has found, seconds.
GATHER_SECONDS = 15.0
#: How long bringing what there is of a scan that is given back may take, seconds.
SAVE_SECONDS = 30.0
#: Faults of clusterdep that may be over when it is told again.
LATER = frozenset({FaultKind.UNAVAILABLE})


@dataclass(frozen=True)
class Telling:
    """How clusterdep is told what scans found. Both raise Fault."""

    put: Callable[[pb.PutHeader, Sequence[pb.PutScan], pb.PutEnd], Awaitable[None]]
    known: Callable[[str], Awaitable[list[str]]]  # the pkgpaths of a profile, in scan order


@dataclass
class ScanSteps:
    """Carries out instructions for scans, with the engine of their host."""

    rules: Callable[[], Rules]
    engines: Mapping[str, Engine]
    archive: Archive
    trees: Trees
    telling: Telling
    sandbox_of: Callable[[str], tuple[Sandbox, int]]  # of a host: what its jobs get, and slots
    _bringing: dict[str, asyncio.Lock] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ways: dict[Instruction, Callable[[Attempt], Awaitable[Outcomes | None]]] = {
            Instruction.START: self._start,
            Instruction.FETCH: self._fetch,
            Instruction.SAVE_LOGS: self._bring_what_there_is,
            Instruction.END: self._end,
            Instruction.PUBLISH: self._nothing,
            Instruction.DROP: self._nothing,
            Instruction.CLEAN: self._clean,
        }

    async def carry_out(self, instruction: Instruction, attempt: Attempt) -> Outcomes | None:
        """Does it; the event it ends with, None where nobody waits for one."""
        return await self._ways[instruction](attempt)

    async def gather(self, attempt: Attempt) -> None:
        """Brings what a scan has found, again and again as long as it runs."""
        while True:
            await asyncio.sleep(GATHER_SECONDS)
            if attempt.phase is not Phase.BUILDING:
                return
            try:
                await self._bring(attempt)
            except (EngineError, Fault) as error:
                log.info("%s: %s", attempt.name, error)

    def _engine(self, attempt: Attempt) -> Engine:
        engine = self.engines.get(attempt.host)
        if engine is None:
            raise EngineError(attempt.host, "reach it", "it is not configured", Kind.ABSENT)
        return engine

    # -- the way there --------------------------------------------------------

    async def _start(self, attempt: Attempt) -> Outcomes:
        scan, profile = _scan(attempt), attempt.grant.profile
        sandbox, slots = self.sandbox_of(attempt.host)
        try:
            snapshot = await self.trees.of(profile.name, Path(profile.tree), scan.grant.generation)
        except Fault as error:
            return Event.NOT_STARTED, EngineTrouble(Step.START, Kind.ABSENT.value, str(error))
        try:
            repository = await self.archive.repository(profile.name)
            rules = self.rules().of(attempt.host)
            spec = spec_of(
                attempt.grant, repository, rules, sandbox=sandbox, slots=slots, snapshot=snapshot
            )
            todo = ScanList(
                tuple(scan.grant.pkgpaths),
                cache=_cache_name(scan.grant, snapshot.digest),
                time_limit=scan.grant.time_limit or scanned.TIME_LIMIT,
                output_limit=scanned.MOST_OUTPUT,
                categories=selected_categories(scan.grant, snapshot.path),
            )
            scan.snapshot = snapshot.digest
            spec = replace(spec, scan=todo, distdir=None, variables=(), build_user="")
            engine = self._engine(attempt)
            await when_there_is_room(lambda: engine.start(spec))
        except EngineError as error:
            return Event.NOT_STARTED, EngineTrouble(Step.START, error.kind.value, str(error))
        except (OSError, Fault) as error:
            return Event.NOT_STARTED, NotKept(str(error))
        return Event.STARTED, None

    # -- the way back ---------------------------------------------------------

    async def _fetch(self, attempt: Attempt) -> Outcomes:
        engine = self._engine(attempt)
        async for _ in pauses():
            try:
                attempt.result = await engine.result(attempt.name)
                await self._bring(attempt)
            except EngineError as error:
                if error.kind not in PASSING:
                    return Event.NOT_FETCHED, _not_fetched(attempt, error)
            except Fault as fault:
                if fault.kind not in LATER:
                    return Event.NOT_FETCHED, NotKept(str(fault))
            else:
                through = attempt.result.outcome is Outcome.SCANNED
                return Event.FETCHED_LOGS, None if through else attempt.result
        raise AssertionError("pauses never end")

    async def _bring(self, attempt: Attempt) -> None:
        """Brings here what was found and not yet told, and tells it. Raises EngineError, Fault."""
        async with self._bringing.setdefault(attempt.name, asyncio.Lock()):
            scan, engine = _scan(attempt), self._engine(attempt)
            while True:
                where, found = await engine.scanned(attempt.name, scan.after)
                if not found:
                    break
                if scan.grant.enumerate:
                    scan.lists += found
                else:
                    await self._tell(attempt, where, found)
                scan.after = found[-1].number
            over = attempt.result is not None and attempt.result.outcome is Outcome.SCANNED
            if scan.grant.enumerate and over:
                await self._tell_lists(attempt)

    async def _tell(self, attempt: Attempt, where: str, found: list[Scanned]) -> None:
        scan, profile = _scan(attempt), attempt.grant.profile
        files = await self.trees.files(profile.name, Path(profile.tree), scan.snapshot)

        def parts() -> list[pb.PutScan]:
            said = []
            for one in found:
                out, heard = (
                    scanned.relocated(text, where, profile.tree) for text in (one.out, one.said)
                )
                put = put_scan(replace(one, out=out, said=heard), scan.grant.time_limit)
                if not put.error and files is not None:
                    read = files.read_by(one.path, out, profile.tree)
                    put.inputs.extend(
                        pb.InputFile(path=path, digest=digest) for path, digest in read.items()
                    )
                said.append(put)
            return said

        await self.telling.put(self._header(attempt), await asyncio.to_thread(parts), pb.PutEnd())
        scan.answered += len(found)

    async def _tell_lists(self, attempt: Attempt) -> None:
        """The pkgpaths of the tree; of a category that cannot be listed those it had before."""
        scan = _scan(attempt)
        pkgpaths, scan.problems = enumeration(scan.lists)
        if not pkgpaths:
            return
        broken = {name for name, _ in scan.problems if name != "."}
        if broken:
            before = await self.telling.known(attempt.grant.profile.name)
            pkgpaths += [path for path in before if path.partition("/")[0] in broken]
        end = pb.PutEnd(enumeration=dict.fromkeys(pkgpaths))
        await self.telling.put(self._header(attempt), [], end)

    def _header(self, attempt: Attempt) -> pb.PutHeader:
        grant, snapshot = attempt.grant, _scan(attempt).snapshot
        return pb.PutHeader(
            profile=grant.profile.name,
            mode=pb.PutHeader.MODE_MERGE,
            revision=f"snapshot:{snapshot}" if snapshot else "",
            attempt=grant.attempt,
            fence=grant.fence,
        )

    async def _bring_what_there_is(self, attempt: Attempt) -> None:
        """Of a scan that is given back: nice to have, and not waited for long."""
        try:
            async with asyncio.timeout(SAVE_SECONDS):
                await self._bring(attempt)
        except (TimeoutError, EngineError, Fault) as error:
            log.info("what %s has found is not told: %s", attempt.name, error)

    # -- the end --------------------------------------------------------------

    async def _end(self, attempt: Attempt) -> Outcomes:
        async for _ in pauses():
            try:
                await self._engine(attempt).end(attempt.name)
            except EngineError as error:
                if error.kind is not Kind.ABSENT:
                    log.warning("%s", error)
                    continue
            return Event.ENDED, None
        raise AssertionError("pauses never end")

    async def _nothing(self, attempt: Attempt) -> None:
        """There is nothing to do for a scan."""

    async def _clean(self, attempt: Attempt) -> None:
        """What cannot be cleaned now is found when the host is looked at again."""
        self._bringing.pop(attempt.name, None)
        try:
            await self._engine(attempt).clean(attempt.name)
        except EngineError as error:
            log.info("%s", error)


def _scan(attempt: Attempt) -> ScanWork:
    if attempt.scan is None:
        raise AssertionError(f"{attempt.name} is no scan")
    return attempt.scan


def _cache_name(grant: pb.ScanGrant, snapshot: str) -> str:
    """The same for all scans of one generation that see the same, and for no others."""
    seen = "\n".join((grant.profile.name, grant.generation, snapshot, grant.profile.kit))
    return hashlib.sha256(seen.encode()).hexdigest()[:32]


def selected_categories(grant: pb.ScanGrant, tree: Path) -> tuple[str, ...]:
    """Of the lists of a tree: categories that the selection names and that are there."""
    names = dict.fromkeys(entry.partition("/")[0] for entry in grant.profile.selection)
    return tuple(
        name
        for name in names
        if grant.enumerate
        and scanned.is_directory_name(name)
        and (tree / name / "Makefile").is_file()
    )


def put_scan(one: Scanned, time_limit: float) -> pb.PutScan:
    """What clusterdep is told of one pkgpath."""
    fault = fault_of(one, "pbulk-index", time_limit) or scanned.flaw(one.out)
    if not fault:
        return pb.PutScan(pkgpath=one.path, records=one.out, seconds=one.seconds)
    error = scanned.error_text(fault, one.out, one.said)
    return pb.PutScan(pkgpath=one.path, error=error, seconds=one.seconds)


def fault_of(one: Scanned, target: str, time_limit: float) -> str:
    """Why make failed, in one sentence; empty if it did not."""
    if one.late:
        why = f"it was ended because it took longer than {time_limit or scanned.TIME_LIMIT:g} s"
    elif max(len(one.out), len(one.said)) > scanned.MOST_OUTPUT:
        why = f"it was ended because it printed more than {scanned.MOST_OUTPUT} bytes"
    elif one.status > 128:
        why = f"it was killed by signal {one.status - 128}"
    elif one.status:
        why = f"it exited with status {one.status}"
    else:
        return ""
    return f"make {target}: {why}"


def enumeration(lists: Sequence[Scanned]) -> tuple[list[str], list[tuple[str, str]]]:
    """The pkgpaths of a tree in its own order, and (category or ".", why) of what is wrong."""
    pkgpaths: dict[str, None] = {}
    problems: list[tuple[str, str]] = []
    for one in lists:
        fault = fault_of(one, "show-subdir-var VARNAME=SUBDIR", 0.0)
        names, wrong = scanned.subdirectories(b"" if fault else one.out)
        if one.path == "." and not fault and not names:
            fault = "make show-subdir-var names no category; is it a pkgsrc tree?"
        if fault:
            problems.append((one.path, scanned.error_text(fault, one.out, one.said)))
        problems += [(one.path, why) for why in wrong]
        if one.path != ".":
            pkgpaths.update(dict.fromkeys(f"{one.path}/{name}" for name in names))
    return list(pkgpaths), problems


def _not_fetched(attempt: Attempt, error: EngineError) -> Case:
    if error.kind is Kind.ABSENT and attempt.result is None:
        return Gone()
    return EngineTrouble(Step.FETCH, error.kind.value, str(error))
