"""The engine for hosts that are reached over ssh: the same scripts, with a link in between."""

from __future__ import annotations

import asyncio
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from clusterbuild.bulk import Bulk
from clusterbuild.engines import Distfile, EngineError, HostFacts, JobSpec, Kind
from clusterbuild.engines.files import local_trouble
from clusterbuild.engines.host import UNPACK, HostEngine
from clusterbuild.engines.runner import Completed, RunnerError, script_words
from clusterbuild.remote import Link
from clusterbuild.ssh_config import Way
from clusterdep.api.hosts_file import HostEntry, is_archive

#: Files up to this size go over the connection that is open already, bytes.
SMALL = 1 << 20
#: Deadlines, seconds: of a question, of a small file.
QUICK, SMALL_SECONDS = 30.0, 60.0
#: How often a transfer that broke is begun or resumed, and the first and longest pause between.
TRIES = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
#: Exit statuses of the scripts below.
NOT_THERE, DAMAGED, INCOMPLETE = 66, 65, 75

_PATH = "PATH=$PATH:/usr/bin:/bin:/usr/sbin:/sbin:/usr/pkg/bin; LC_ALL=C; export PATH LC_ALL\n"

#: Says what there is of the file $1 of $2 bytes: "whole", or the size of what was sent of it.
ASK = f"""{_PATH}umask 022
mkdir -p "${{1%/*}}" || exit 73
size() {{ set -- $(wc -c <"$1"); printf '%s\\n' "$1"; }}
if [ -f "$1" ] && [ "$(size "$1")" = "$2" ]; then
    printf 'whole\\n'
elif [ -f "$1.part" ] && [ ! -L "$1.part" ]; then
    size "$1.part"
else
    printf '0\\n'
fi
"""

#: Takes the rest of the file $1 of $2 bytes with the SHA256 $3; $4: how much of it is there.
TAKE = f"""{_PATH}umask 022
mkdir -p "${{1%/*}}" || exit 73
part=$1.part
[ "$4" != 0 ] || rm -f "$part"
cat >>"$part" || {{ rm -f "$part"; exit 74; }}
set -- "$1" "$2" "$3" $(wc -c <"$part")
[ "$2" = "$4" ] || exit {INCOMPLETE}
sum=
for tool in 'openssl dgst -sha256 -r' sha256sum 'sha256 -q' 'cksum -a sha256 -q' \\
    'digest sha256' 'shasum -a 256'; do
    command -v "${{tool%% *}}" >/dev/null 2>&1 || continue
    set -- "$1" "$2" "$3" $($tool <"$part" 2>/dev/null)
    sum=${{4:-}}
    [ "${{#sum}}" -ne 64 ] || break
done
[ -n "$sum" ] || {{ echo 'there is no tool to make a SHA256 with' >&2; exit 73; }}
[ "$sum" = "$3" ] || {{ rm -f "$part"; exit {DAMAGED}; }}
mv -f "$part" "$1" || exit 74
"""

#: Prints the plain file $1 of $2 bytes from byte $3 on, which counts from 1.
GIVE = f"""{_PATH}[ -f "$1" ] && [ ! -L "$1" ] || exit {NOT_THERE}
set -- "$1" "$2" "$3" $(wc -c <"$1")
[ "$2" = "$4" ] || exit {DAMAGED}
[ "$3" != 1 ] || exec cat "$1"
exec tail -c "+$3" "$1"
"""


class Trees(Protocol):
    """Where snapshots of trees come from."""

    async def archive(self, digest: str) -> Path:
        """A snapshot as a compressed tar file. Raises OSError."""

    def wanted(self) -> frozenset[str]:
        """Snapshots that may be built from again."""


#: Finds the distfiles of a job that are at hand here.
FindDistfiles = Callable[[JobSpec], Awaitable[Sequence[Distfile]]]


class SshRunner:
    """Runs commands on one host, with its sudo before them, and moves files."""

    def __init__(self, link: Link, bulk: Bulk, sudo: Sequence[str], shell: str) -> None:
        self._link = link
        self._bulk = bulk
        self._sudo = tuple(sudo)
        self._shell = shell
        self._sending: weakref.WeakValueDictionary[str, asyncio.Lock] = (
            weakref.WeakValueDictionary()
        )

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float, limit: int = 1 << 20
    ) -> Completed:
        """See Runner.run."""
        return await self._link.run([*self._sudo, *argv], stdin=stdin, timeout=timeout, limit=limit)

    def lines(self, argv: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """See Runner.lines."""
        return self._link.lines([*self._sudo, *argv])

    async def close(self) -> None:
        """See Runner.close."""
        await self._link.close()

    # -- to the host

    async def put(self, source: Path, target: str, sha256: str) -> None:
        """See Runner.put. What was sent of a file before the link broke is not sent again."""
        async with self._sending.setdefault(target, asyncio.Lock()):
            try:
                size = await asyncio.to_thread(_size, source)
            except OSError as problem:
                raise local_trouble(problem) from None
            await self._tried(lambda: self._put(source, target, size, sha256))

    async def _put(self, source: Path, target: str, size: int, sha256: str) -> bool:
        words = script_words(self._shell, ASK, target, str(size))
        asked = await self.run(words, timeout=QUICK)
        said = asked.out.decode("ascii", "replace").strip()
        if asked.status or not (said == "whole" or said.isdecimal()):
            raise _failed(asked)
        if said == "whole":
            return True
        offset = int(said) if int(said) <= size else 0
        words = script_words(self._shell, TAKE, target, str(size), sha256, str(offset))
        if size - offset <= SMALL:
            rest = await asyncio.to_thread(_rest, source, offset)
            done = await self.run(words, stdin=rest, timeout=SMALL_SECONDS)
        else:
            done = await self._bulk.send([*self._sudo, *words], source, offset)
        if done.status in (DAMAGED, INCOMPLETE):
            return False
        if done.status:
            raise _failed(done)
        return True

    # -- from the host

    async def get(self, source: str, target: Path, size: int) -> None:
        """See Runner.get. What is there of `target` is taken for the file's beginning."""
        await self._tried(lambda: self._get(source, target, size))

    async def _get(self, source: str, target: Path, size: int) -> bool:
        try:
            there = await asyncio.to_thread(_begun, target, size)
            words = script_words(self._shell, GIVE, source, str(size), str(there + 1))
            if size - there <= SMALL:
                done = await self.run(words, timeout=SMALL_SECONDS, limit=SMALL)
                await asyncio.to_thread(_append, target, done.out)
            else:
                done = await self._bulk.receive([*self._sudo, *words], target, size)
        except OSError as problem:
            raise local_trouble(problem) from None
        if done.status == NOT_THERE:
            raise RunnerError(Kind.ABSENT, f"there is no file {source}")
        if done.status == DAMAGED:
            raise RunnerError(Kind.BROKEN, f"{source} is no plain file of {size} bytes")
        if done.status:
            raise _failed(done)
        return await asyncio.to_thread(_size, target) == size

    # -- both

    async def _tried(self, once: Callable[[], Awaitable[bool]]) -> None:
        """Until it is done; again where the link broke, or what came there is not right."""
        pause = FIRST_PAUSE
        trouble = RunnerError(Kind.BROKEN, f"it arrived damaged {TRIES} times")
        for _ in range(TRIES):
            try:
                if await once():
                    return
            except RunnerError as error:
                if error.kind is not Kind.UNREACHABLE:
                    raise
                trouble = error
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
        raise trouble


def _size(path: Path) -> int:
    return path.stat().st_size


def _begun(target: Path, size: int) -> int:
    """How much of a file is here already; what cannot be its beginning is removed."""
    if target.exists() and target.stat().st_size > size:
        target.unlink()
    return target.stat().st_size if target.exists() else 0


def _append(target: Path, data: bytes) -> None:
    with target.open("ab") as file:
        file.write(data)


def _rest(source: Path, offset: int) -> bytes:
    with source.open("rb") as file:
        file.seek(offset)
        return file.read(SMALL)


def _failed(done: Completed) -> RunnerError:
    said = done.err.decode("ascii", "backslashreplace").strip().splitlines()
    why = said[-1][:500] if said else f"the command ended with status {done.status}"
    full = b"No space left on device" in done.err or b"Disk quota exceeded" in done.err
    kind = Kind.FULL if full else Kind.REFUSED
    return RunnerError(kind, "".join(c if c.isprintable() else "?" for c in why))


class SshEngine(HostEngine):
    """One host of the hosts file."""

    way = "ssh"

    def __init__(self, entry: HostEntry, trees: Trees, distfiles: FindDistfiles) -> None:
        way = Way(
            address=entry.address or entry.name,
            port=entry.port,
            user=entry.user,
            ssh_config=entry.ssh_config,
            identity=entry.identity,
            known_hosts=entry.known_hosts,
            connect_timeout=entry.connect_timeout,
        )
        link = Link(way, entry.name)
        runner = SshRunner(link, Bulk(way, entry.transfers), entry.sudo, entry.shell)
        base_dir = "" if is_archive(entry.sandbox_base) else entry.sandbox_base
        super().__init__(entry.name, runner, entry.base, entry.shell, base_dir)
        self._entry = entry
        self._trees = trees
        self._find_distfiles = distfiles
        self._unpacking = asyncio.Lock()
        self._starting: Counter[str] = Counter()  # snapshots of jobs that are being started

    async def probe(self) -> HostFacts:
        """See Engine.probe. What the hosts file says of a host counts for more."""
        facts = await super().probe()
        return replace(
            facts,
            cores=self._entry.cores or facts.cores,
            memory=self._entry.memory or facts.memory,
        )

    async def start(self, job: JobSpec) -> None:
        """See Engine.start. The host also gets the tree and the distfiles that are at hand."""
        if not job.snapshot:
            why = "there is no snapshot of its tree"
            raise EngineError(self.name, f"start {job.pkgname}", why, Kind.REFUSED)
        self._starting[job.snapshot] += 1
        try:
            found = await self._find_distfiles(job)
            await super().start(replace(job, distfiles=tuple(found)))
        finally:
            self._starting[job.snapshot] -= 1

    def _tree(self, job: JobSpec) -> str:
        return f"{self._base}/trees/{job.snapshot}"

    def _distdir(self, job: JobSpec) -> str:
        return f"{self._base}/jobs/{job.attempt}/distfiles"

    async def _put_tree(self, what: str, digest: str) -> None:
        async with self._unpacking:
            # Another job may have waited for it, and it is there by now.
            look = ["test", "-d", f"{self._base}/trees/{digest}"]
            if (await self._run(what, look, timeout=QUICK)).status == 0:
                return
            try:
                archive = await self._trees.archive(digest)
                packed = await asyncio.to_thread(self._digest, archive)
            except OSError as problem:
                raise self._error(what, local_trouble(problem)) from None
            await self._put(what, archive, packed)
            await self._script(what, "trees", "unpack", digest, packed, timeout=UNPACK)
            keep = self._trees.wanted() | {name for name, jobs in self._starting.items() if jobs}
            await self._script(what, "trees", "prune", *sorted(keep), timeout=UNPACK)
