"""The engine of hosts that run clusterbuild/on_host, whatever way there is to reach them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path

from clusterbuild.core.result import STAGES, JobResult
from clusterbuild.engines import (
    Engine,
    EngineError,
    HostFacts,
    JobSpec,
    JobState,
    Kind,
    Scanned,
    wire,
)
from clusterbuild.engines.files import digest_of, local_trouble, pack, settle
from clusterbuild.engines.runner import Completed, Runner, RunnerError, script_words

#: The scripts that are copied to every host.
ON_HOST = Path(__file__).resolve().parent.parent / "on_host"
#: Tools whose place on the host is asked for.
TOOLS = ("bmake", "make", "cc", "c++", "gcc", "clang", "tar", "gzip", "sha256sum", "digest")
#: Exit statuses of the scripts (README.md) and what they mean; 127: there is no such shell.
STATUS_KINDS = {
    64: Kind.REFUSED,
    65: Kind.REFUSED,
    66: Kind.ABSENT,
    73: Kind.REFUSED,
    74: Kind.REFUSED,
    75: Kind.BUSY,
    126: Kind.REFUSED,
    127: Kind.REFUSED,
}

#: Deadlines of what is asked of a host, seconds.
QUICK = 30.0
START = 60.0
END = 60.0
CLEAN = 600.0
UNPACK = 1800.0
SCANNED = 120.0
#: A watcher that says nothing for so long is lost; on the host it says "alive" every 5 seconds.
SILENCE = 20.0
#: Exit status of `supervisor start` where files are missing.
MISSING = 66
#: Bytes that the two outputs of one scan may have together, and the table before them.
OUTPUTS = 40 << 20
#: How often a start is tried again with the files that were missing.
ROUNDS = 3

#: Puts the scripts (a tar file on standard input) of version $2 below $1, once.
INSTALL = """umask 022
mkdir -p "$1/on_host" && cd "$1/on_host" || exit 73
[ ! -d "$2" ] || exit 0
mkdir ".$2.$$" && cd ".$2.$$" && tar xf - && cd .. || exit 74
[ -d "$2" ] || mv ".$2.$$" "$2"
rm -rf ".$2.$$"
[ -d "$2" ]
"""


class HostEngine(Engine):
    """One host, reached by `runner`, that builds below the directory `base` of its own.

    `shell` is the host's POSIX shell, for hosts whose sh is none; `base_dir` a directory there
    of which the roots of the sandbox `chroot` are made, if that is what it is to be.
    """

    def __init__(
        self, name: str, runner: Runner, base: str, shell: str = "sh", base_dir: str = ""
    ) -> None:
        self.name = name
        self._base_dir = base_dir
        self._unpacking_base = asyncio.Lock()
        self._runner = runner
        self._base = base
        self._shell = shell
        self._version, self._scripts = pack(ON_HOST)
        self._prepared = False
        self._preparing = asyncio.Lock()
        self._digests: dict[tuple[str, int, int], str] = {}

    # -- what all engines have

    async def probe(self) -> HostFacts:
        what = "look at it"
        self._prepared = False
        words = ("--base", self._base_dir) if self._base_dir else ()
        done = await self._script(what, "probe", *words, *TOOLS, timeout=QUICK)
        with self._understood(what):
            return wire.host_facts(done.out)

    async def start(self, job: JobSpec) -> None:
        what = f"start {'the ' if job.scan else 'the build of '}{job.pkgname}"
        self._attempt(what, job.attempt)
        kit = await asyncio.to_thread(self._digest, job.kit) if job.kit else ""
        base = await asyncio.to_thread(self._digest, job.base_file) if job.base_file else ""
        places = {"tree": self._tree(job), "distdir": self._distdir(job), "base_file": base}
        try:
            text = wire.job_text(job, kit, **places)
        except ValueError as problem:
            raise EngineError(self.name, what, str(problem), Kind.REFUSED) from None
        files = {required.sha256: required.path for required in job.requirements}
        files |= {distfile.sha256: distfile.path for distfile in job.distfiles}
        if job.kit:
            files[kit] = job.kit
        if job.snapshot:
            files[job.snapshot] = job.tree
        if job.base_file:
            files[base] = job.base_file
        for _ in range(ROUNDS):
            done = await self._script(
                what,
                "supervisor",
                "start",
                job.attempt,
                stdin=text,
                timeout=START,
                expect=(0, MISSING),
            )
            if done.status == 0:
                return
            for digest in self._missing(what, done.out, files):
                if digest == job.snapshot:
                    await self._put_tree(what, digest)
                elif digest == base:
                    await self._put_base(what, files[digest], digest)
                else:
                    await self._put(what, files[digest], digest)
        raise EngineError(
            self.name, what, "files that were sent there are missing again", Kind.BROKEN
        )

    async def watch(self) -> AsyncIterator[JobState]:
        what = "watch it"
        await self._prepare(what)
        lines = self._runner.lines(self._command("watch"))
        async with aclosing(lines):
            while True:
                try:
                    async with asyncio.timeout(SILENCE):
                        line = await anext(lines)
                except StopAsyncIteration:
                    why = "the watcher there has ended"
                    raise EngineError(self.name, what, why, Kind.UNREACHABLE) from None
                except TimeoutError:
                    why = f"nothing was heard of it for {SILENCE:.0f} seconds"
                    raise EngineError(self.name, what, why, Kind.UNREACHABLE) from None
                except RunnerError as problem:
                    raise self._error(what, problem) from None
                with self._understood(what):
                    state = wire.job_state(line)
                if state is not None:
                    yield state

    async def look(self) -> list[JobState]:
        what = "look at its jobs"
        done = await self._script(what, "look", timeout=QUICK, limit=1 << 24)
        with self._understood(what):
            return sorted(wire.job_states(done.out), key=lambda state: state.attempt)

    async def result(self, attempt: str) -> JobResult:
        what = f"read the result of {attempt}"
        self._attempt(what, attempt)
        done = await self._script(what, "tell", attempt, timeout=QUICK, limit=1 << 22)
        with self._understood(what):
            return wire.job_result(attempt, done.out)

    async def fetch(self, attempt: str, name: str, target: Path, size: int, sha256: str) -> None:
        what = f"fetch {name[:255]!a} of {attempt}"
        self._attempt(what, attempt)
        if not wire.FILE_NAME.fullmatch(name):
            raise EngineError(self.name, what, "that is not a plain file name", Kind.REFUSED)
        part = target.with_name(target.name + ".part")
        source = f"{self._base}/jobs/{attempt}/out/{name}"
        try:
            await self._runner.get(source, part, size)
            await asyncio.to_thread(settle, part, target, size, sha256)
        except RunnerError as problem:
            if problem.kind is not Kind.UNREACHABLE:
                part.unlink(missing_ok=True)  # else the rest of it is fetched next time
            raise self._error(what, problem) from None
        except OSError as problem:
            part.unlink(missing_ok=True)
            raise self._error(what, local_trouble(problem)) from None

    async def read_log(
        self, attempt: str, stage: str, offset: int = 0, limit: int = 1 << 20
    ) -> bytes:
        what = f"read the {stage[:20]!a} log of {attempt}"
        self._attempt(what, attempt)
        if stage not in (*STAGES, "sandbox") or offset < 0 or limit < 1:
            raise EngineError(self.name, what, "there is no such log or place", Kind.REFUSED)
        blocks = -(-limit // 4096)
        words = (attempt, stage, str(offset), str(blocks))
        done = await self._script(what, "read-log", *words, timeout=QUICK, limit=blocks * 4096)
        return done.out[:limit]

    async def scanned(
        self, attempt: str, after: int, most: int = 4 << 20
    ) -> tuple[str, list[Scanned]]:
        what = f"read what {attempt} has scanned"
        self._attempt(what, attempt)
        words = (attempt, str(after), str(most))
        done = await self._script(what, "scanned", *words, timeout=SCANNED, limit=most + OUTPUTS)
        with self._understood(what):
            return wire.scanned(done.out, after)

    async def end(self, attempt: str) -> None:
        what = f"end {attempt}"
        self._attempt(what, attempt)
        await self._script(what, "end", attempt, timeout=END)

    async def clean(self, attempt: str) -> None:
        what = f"remove {attempt}"
        self._attempt(what, attempt)
        await self._script(what, "clean", attempt, timeout=CLEAN)

    async def close(self) -> None:
        await self._runner.close()

    # -- what is not the same for all hosts

    def _tree(self, job: JobSpec) -> str:
        """Where the host finds the tree."""
        return str(job.tree)

    def _distdir(self, job: JobSpec) -> str:
        """Where the host finds distfiles; empty: in the tree."""
        return str(job.distdir) if job.distdir else ""

    async def _put_tree(self, what: str, digest: str) -> None:
        """Sends a snapshot of a tree that the host lacks."""
        raise EngineError(self.name, what, f"the tree {digest} is gone", Kind.ABSENT)

    async def _put_base(self, what: str, archive: Path, digest: str) -> None:
        """Sends what roots are made of, which a host unpacks once; others that it has go."""
        async with self._unpacking_base:
            look = ["test", "-d", f"{self._base}/roots/{digest}"]
            if (await self._run(what, look, timeout=QUICK)).status == 0:
                return
            await self._put(what, archive, digest)
            await self._script(what, "roots", "unpack", digest, timeout=UNPACK)
            await self._script(what, "roots", "prune", digest, timeout=UNPACK)

    # -- how

    def _error(self, what: str, problem: RunnerError) -> EngineError:
        return EngineError(self.name, what, problem.why, problem.kind)

    def _attempt(self, what: str, attempt: str) -> None:
        if not wire.ATTEMPT.fullmatch(attempt):
            why = f"{attempt[:80]!a} is not the name of an attempt"
            raise EngineError(self.name, what, why, Kind.REFUSED)

    @contextmanager
    def _understood(self, what: str) -> Iterator[None]:
        """Makes what cannot be read an error of the host."""
        try:
            yield
        except wire.NonsenseError as problem:
            why = f"it said something that cannot be: {problem}"
            raise EngineError(self.name, what, why, Kind.BROKEN) from None

    def _command(self, script: str, *words: str) -> list[str]:
        where = f"{self._base}/on_host/{self._version}/{script}"
        env = ["env", "LC_ALL=C", f"CLUSTERBUILD_SH={self._shell}"]
        return [*env, self._shell, where, self._base, *words]

    async def _prepare(self, what: str) -> None:
        """Sees to it that the scripts are on the host, once for each engine and probe."""
        async with self._preparing:
            if self._prepared:
                return
            argv = script_words(self._shell, INSTALL, self._base, self._version)
            done = await self._run(what, argv, stdin=self._scripts, timeout=START)
            if done.status:
                raise self._failed(what, done)
            self._prepared = True

    async def _run(
        self,
        what: str,
        argv: Sequence[str],
        *,
        timeout: float,
        stdin: bytes = b"",
        limit: int = 1 << 20,
    ) -> Completed:
        try:
            return await self._runner.run(argv, stdin=stdin, timeout=timeout, limit=limit)
        except RunnerError as problem:
            raise self._error(what, problem) from None

    async def _script(
        self,
        what: str,
        script: str,
        *words: str,
        timeout: float,
        stdin: bytes = b"",
        limit: int = 1 << 20,
        expect: tuple[int, ...] = (0,),
    ) -> Completed:
        """Runs a script on the host; any exit status but those of `expect` is an error."""
        await self._prepare(what)
        argv = self._command(script, *words)
        done = await self._run(what, argv, stdin=stdin, timeout=timeout, limit=limit)
        if done.status in expect:
            return done
        raise self._failed(what, done)

    def _failed(self, what: str, done: Completed) -> EngineError:
        """The error that an exit status and what was said with it stand for."""
        said = done.err.decode("ascii", "backslashreplace").strip().splitlines()
        why = said[-1][:500] if said else f"the command ended with status {done.status}"
        why = "".join(c if c.isprintable() else "?" for c in why)
        full = b"No space left on device" in done.err or b"Disk quota exceeded" in done.err
        kind = Kind.FULL if full else STATUS_KINDS.get(done.status, Kind.BROKEN)
        return EngineError(self.name, what, why, kind)

    def _missing(self, what: str, said: bytes, files: Mapping[str, Path]) -> list[str]:
        """The digests of the files that the host says it lacks, if they are ones it needs."""
        digests = []
        for line in said.decode("ascii", "backslashreplace").splitlines():
            word, _, digest = line.partition(" ")
            if word != "missing" or digest not in files:
                why = f"it asked for something it does not need: {line[:80]!a}"
                raise EngineError(self.name, what, why, Kind.BROKEN)
            digests.append(digest)
        return digests

    async def _put(self, what: str, source: Path, digest: str) -> None:
        try:
            await self._runner.put(source, f"{self._base}/files/{digest}", digest)
        except RunnerError as problem:
            raise self._error(f"{what} (sending {source.name})", problem) from None

    def _digest(self, path: Path) -> str:
        """SHA256 of a file here, read once as long as it does not change."""
        status = path.stat()
        key = (str(path), status.st_size, status.st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = digest_of(path)
        return self._digests[key]
