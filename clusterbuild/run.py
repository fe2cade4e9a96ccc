"""`clusterbuild run`: one command that builds a tree with both daemons, and says how it went."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from clusterbuild import gather, kit
from clusterbuild.calls import Calls
from clusterbuild.daemon import LOCALHOST, PLAIN_PATH
from clusterbuild.follow import Follower
from clusterbuild.progress import Progress, printable
from clusterbuild.report import Report, render, to_json
from clusterbuild.scan import Scan, scan
from clusterbuild.snapshots import Snapshot, Snapshots
from clusterbuild.supervise import Child
from clusterdep.api import client, hosts_file
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.serving import only_one
from clusterdep.api.v1 import clusterdep_pb2 as pb

Answer = TypeVar("Answer")

#: How much of each list of the report is shown on the screen; on disk it is whole.
MOST_SHOWN = 50
#: Files of a tree that are read for every pkgpath.
EVERYTHING = ("mk/bsd.prefs.mk", "mk/bsd.pkg.mk")
#: How long jobs that are told to end may take, seconds.
END_SECONDS = 60.0


@dataclass(frozen=True)
class Options:
    """What `clusterbuild run` was told."""

    tree: Path
    profile: str
    state: Path
    kit: Path | None = None
    prefix: str = ""
    make: str = ""
    distdir: Path | None = None
    hosts: Path | None = None
    select: tuple[str, ...] = ()
    slots: int = 0
    scan_jobs: int = 0
    scan_on: str = ""  # hosts, here; empty: hosts if there is a hosts file
    retry_failed: bool = False
    serve: bool = False  # go on when nothing is left to do
    names: bool = False  # the report on the screen lists what was built

    @property
    def on_hosts(self) -> bool:
        """Whether hosts scan, and not this machine."""
        return self.scan_on == "hosts" or (not self.scan_on and self.hosts is not None)


@dataclass(frozen=True)
class Work:
    """What a run works with, once it is begun."""

    calls: Calls
    snapshot: Snapshot
    kit: kit.Kit


class Interrupted(Exception):
    """Somebody wants the run to end; carries the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Run:
    """One run, from the kit to the report."""

    def __init__(self, options: Options, progress: Progress) -> None:
        self._options = options
        self._progress = progress
        self._state = options.state
        self._snapshots = Snapshots(options.state / "trees")
        self._started = time.time()
        self._follower: Follower | None = None  # once there is a profile to report on
        self._outcome: int | None = None  # exit code, once nothing was left to do
        self._signals: asyncio.Queue[int] = asyncio.Queue()

    async def main(self) -> int:
        """Does it all; returns the exit code. Raises Fault if the run could not be done."""
        check(self._options)
        with only_one(self._state, "run"):
            self._listen()
            dep = Child("clusterdep", self._state, [], self._progress.say)
            build = Child("clusterbuild", self._state, self._words(), self._progress.say)
            try:
                snapshot = await self._first(asyncio.to_thread(self._take_snapshot))
                made = await self._first(self._make_kit(snapshot))
                await self._first(dep.begin())
                await self._first(build.begin())
                async with (
                    client.connect(dep.address) as one,
                    client.connect(build.address) as other,
                ):
                    work = Work(Calls(one, other), snapshot, made)
                    return await self._with_daemons(work, dep, build)
            except Interrupted as interrupted:
                return 128 + interrupted.number
            finally:
                self._progress.close()
                await build.stop()
                await dep.stop()

    def _words(self) -> list[str]:
        words = ["--clusterdep", client.default_address("clusterdep", self._state)]
        if self._options.hosts:
            words += ["--hosts", str(self._options.hosts)]
        return [*words, "--slots", str(self._options.slots)] if self._options.slots else words

    # -- signals ------------------------------------------------------------------

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signals.put_nowait, number)

    async def _first(
        self, awaited: Awaitable[Answer], guards: Sequence[asyncio.Task[None]] = ()
    ) -> Answer:
        """The outcome of `awaited`; Interrupted if a signal comes first, or a guard's Fault."""
        work = asyncio.ensure_future(awaited)
        signalled = asyncio.ensure_future(self._signals.get())
        every: set[asyncio.Future[object]] = {work, signalled, *guards}  # type: ignore[arg-type]
        try:
            await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
            for guard in guards:
                if guard.done():
                    guard.result()
            if work.done():
                return work.result()
            raise Interrupted(signalled.result())
        finally:
            work.cancel()
            signalled.cancel()
            await asyncio.gather(work, signalled, return_exceptions=True)

    # -- the way ------------------------------------------------------------------

    def _take_snapshot(self) -> Snapshot:
        """What is scanned and built from, whatever becomes of the tree meanwhile."""
        snapshot = self._snapshots.take(self._options.tree)
        self._snapshots.prune()
        return snapshot

    async def _make_kit(self, snapshot: Snapshot) -> kit.Kit:
        options = self._options
        if options.kit is not None:
            return await asyncio.to_thread(kit.given_kit, options.kit, options.prefix)
        prefix = options.prefix or str(self._state / "prefix")
        return await kit.made_kit(snapshot.path, prefix, self._state / "kit", options.make)

    async def _with_daemons(self, work: Work, dep: Child, build: Child) -> int:
        keeping = [asyncio.create_task(child.keep()) for child in (dep, build)]
        calls = work.calls
        try:
            await self._check_hosts(calls)
            return await self._first(self._build(work), keeping)
        except Interrupted as interrupted:
            await self._end_jobs(calls, build, keeping)
            if self._outcome is not None:
                return self._outcome
            with contextlib.suppress(Interrupted):
                await self._first(self._report(calls, "it was interrupted"), keeping)
            self._progress.say(f"All is kept in {self._state}; the next run goes on from there.")
            return 128 + interrupted.number
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)

    async def _check_hosts(self, calls: Calls) -> None:
        """A daemon that was running before may know other hosts. Raises Fault."""
        if self._options.hosts is None:
            return
        wanted = {entry.name for entry in hosts_file.load(self._options.hosts)}
        found = {host.name for host in (await calls.status()).hosts}
        if wanted != found:
            raise Fault(
                Kind.PRECONDITION,
                f"the clusterbuild that runs in {self._state} has the hosts "
                f"{', '.join(sorted(found))}, and not those of {self._options.hosts}",
                "stop it first, or name another state directory with --state DIR",
            )

    async def _build(self, work: Work) -> int:
        options, calls, made = self._options, work.calls, work.kit
        await calls.resume()
        profile = pb.Profile(
            name=options.profile,
            tree=str(options.tree),
            prefix=made.prefix,
            pkgdb=made.pkgdb,
            kit=str(made.path),
            make=options.make,
            distdir=str(options.distdir or made.distdir),
            scans="hosts" if options.on_hosts else "helper",
        )
        await calls.put_profile(profile, options.select)
        self._follower = Follower(calls, options.profile, self._progress)
        async with self._follower:
            self._progress.say(f"Scanning {options.tree}{' on hosts' if options.on_hosts else ''}")
            await (self._scan_on_hosts(work) if options.on_hosts else self._scan(work))
            if options.retry_failed:
                await calls.retry(options.profile)
            return await self._followed(calls, self._follower)

    async def _followed(self, calls: Calls, follower: Follower) -> int:
        """What came of it when nothing was left to do, and after that as long as is wanted."""
        why = await follower.until_idle()
        problem = f"nothing can go on: {why}" if why else ""
        report = await self._report(calls, problem)
        if problem:
            raise Fault(Kind.UNAVAILABLE, problem, f"see the logs in {self._state}")
        self._outcome = os.EX_OK if report is not None and report.complete else 1
        if self._options.serve:
            self._progress.say("Nothing is left to do. Serving and watching until Ctrl-C.")
            await follower.for_ever()
        return self._outcome

    async def _scan(self, work: Work) -> None:
        """Scans the snapshot. Builds that begin after that, and no others, are of it."""
        options = self._options
        pinned = await asyncio.to_thread(self._snapshots.pinned, options.profile, options.tree)
        what = Scan(
            profile=options.profile,
            words=options.select,
            address=client.default_address("clusterdep", self._state),
            snapshot=work.snapshot,
            kit=work.kit,
            base=self._state / "hosts" / LOCALHOST,
            log=self._state / "scan.log",
            jobs=options.scan_jobs,
            moved=pinned != work.snapshot,
            alone=options.hosts is None,
        )
        pin = functools.partial(self._snapshots.pin, options.profile, options.tree, work.snapshot)
        await scan(work.calls, what, lambda: asyncio.to_thread(pin))

    async def _scan_on_hosts(self, work: Work) -> None:
        """Has what changed scanned again; jobs that begin from now on read the new snapshot."""
        options, snapshots, kept = self._options, self._snapshots, work.kit
        seen = await asyncio.to_thread(kit.digest, kept)
        pinned = await asyncio.to_thread(snapshots.pinned, options.profile, options.tree)
        changed: list[str] | None = None
        if pinned is not None and await asyncio.to_thread(
            snapshots.scanned_with, options.profile, seen
        ):
            changed = await asyncio.to_thread(snapshots.changed, pinned, work.snapshot)
        elif pinned is not None:
            changed = [f"{kept.prefix}/etc/mk.conf", *EVERYTHING]
        await work.calls.stop(now=False)
        try:
            pin = functools.partial(snapshots.pin, options.profile, options.tree, work.snapshot)
            if changed:
                await work.calls.tree_changed(options.profile, changed)
            await asyncio.to_thread(pin, seen)
        finally:
            await work.calls.resume()

    # -- the end ------------------------------------------------------------------------

    async def _end_jobs(
        self, calls: Calls, build: Child, keeping: Sequence[asyncio.Task[None]]
    ) -> None:
        """Ends what runs, and waits for it unless a second signal comes."""
        if not build.ours:
            self._progress.say("What runs goes on: the daemons were not started by a run.")
            return
        self._progress.say("Ending what runs. Once more to leave at once.")
        with contextlib.suppress(Interrupted, Fault, TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await self._first(_jobs_ended(calls), keeping)

    async def _report(self, calls: Calls, problem: str = "") -> Report | None:
        """Makes the report, keeps it, and shows it. Raises Fault."""
        if self._follower is None:
            return None
        built = self._follower.built
        report = await calls.patiently(
            lambda: gather.gather(
                calls.query,
                self._options.profile,
                started=self._started,
                built=built,
                state=self._state,
                problem=problem,
            ),
            "clusterdep",
        )
        directory = self._state / "report"
        try:
            await asyncio.to_thread(gather.save, report, directory)
        except OSError as error:
            what = f"the report cannot be kept in {directory}: {error.strerror}"
            raise Fault(Kind.CANNOT_CREATE, what) from error
        self._progress.close()
        for line in render(report, names=self._options.names, most=MOST_SHOWN).splitlines():
            self._progress.say(printable(line))
        self._progress.record("report", report=to_json(report))
        return report


async def _jobs_ended(calls: Calls) -> None:
    while await calls.stop(now=True):  # noqa: ASYNC110  nobody tells us when they have ended
        await asyncio.sleep(0.1)


def check(options: Options) -> None:
    """What can be said before anything is begun; makes the state directory. Raises Fault."""
    tree, state = options.tree, options.state
    if not tree.is_dir():
        raise Fault(Kind.NO_INPUT, f"there is no tree {tree}", "name one with --tree DIR")
    if not os.access(tree / "Makefile", os.R_OK):
        raise Fault(
            Kind.NO_INPUT,
            f"{tree} is no pkgsrc tree: it has no Makefile that can be read",
            "name one with --tree DIR",
        )
    if options.kit is None and not (tree / "bootstrap/bootstrap").is_file():
        raise Fault(
            Kind.NO_INPUT,
            f"there is no bootstrap kit for {tree}, and nothing to make one with",
            "name one with --kit FILE.tgz",
        )
    for path in (state, tree):
        if not PLAIN_PATH.fullmatch(str(path)):
            raise Fault(
                Kind.CONFIG,
                f"makefiles cannot handle the name of the directory {path}",
                "use one of letters, digits and ./+@,~_-",
            )
    if options.hosts is not None:
        hosts_file.load(options.hosts)
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        if options.kit is None:
            Path(options.prefix or state / "prefix").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Fault(
            Kind.CANNOT_CREATE,
            f"the directory {error.filename} cannot be made: {error.strerror}",
            "name another with --state DIR, or make it writable",
        ) from error


def run(options: Options, progress: Progress) -> int:
    """Runs it to its end; returns the exit code. Raises Fault."""
    return asyncio.run(Run(options, progress).main())
