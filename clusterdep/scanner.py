"""The scan helper: asks a tree for its pkgpaths, and runs `make pbulk-index` in each.

What make says is a result, also where it fails or hangs; only what keeps the whole
scan from being done is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from clusterdep import bounded
from clusterdep.api import scanned
from clusterdep.core.inputs import files_digest
from clusterdep.core.scanindex import Record, Refusal, Splitter, is_pkgpath, read
from clusterdep.core.tokens import parse_token

_SYSTEM_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"

_T = TypeVar("_T")


class ScannerError(Exception):
    """The scan can not be done. `status` is an exit code of sysexits(3)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Problem:
    """Part of the tree that could not be listed."""

    where: str  # a category, or a name that was given
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


@dataclass(frozen=True, slots=True)
class Enumeration:
    """The pkgpaths of a tree in its own order. With problems it is not all of them."""

    pkgpaths: tuple[str, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What came of one pkgpath: records, or an error."""

    pkgpath: str
    records: bytes  # as make printed them; empty if it failed
    error: str  # what make said, 64 KiB at most; empty if it did not fail
    seconds: float  # wall time
    inputs_digest: str  # hex; of the files that a build of it reads; empty if it failed
    inputs: Mapping[str, str] = field(default_factory=dict)  # those files: digest by path
    warning: str = ""  # what make said without failing


class Scanner:
    """Scans one tree, whose files must not change meanwhile. Use it in a `with` statement:
    its option cache and HOME are made on entry and removed on exit."""

    def __init__(
        self,
        tree: Path,
        *,
        prefix: Path | None = None,
        make: str = "",
        path: str = "",
        jobs: int = 0,
        time_limit: float = scanned.TIME_LIMIT,
        seen_as: str = "",
    ) -> None:
        """Raises ScannerError if there is no such tree or no make.

        `prefix` has the tools of the bootstrap kit: its bin/bmake is used if there is
        one, else `make`, else bmake; its etc/mk.conf is MAKECONF. `path` replaces the
        search path. `jobs` run at once, as many as there are cores if it is 0. `seen_as` is
        where results say that the tree is, if it is a copy.
        """
        self.tree = _directory(tree)
        self._seen_as = seen_as or str(self.tree)
        self.jobs = jobs or _cores()
        self._limits = bounded.Limits(time_limit, scanned.MOST_OUTPUT)
        tools = f"{prefix}/bin:{prefix}/sbin:" if prefix else ""
        self._environment = {"LC_ALL": "C", "PATH": path or tools + _SYSTEM_PATH}
        if prefix and (prefix / "etc/mk.conf").exists():
            self._environment["MAKECONF"] = f"{prefix}/etc/mk.conf"
        self._make = self._find_make(prefix, make)
        self._digests: dict[str, str] = {}  # of files that several packages include
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def _find_make(self, prefix: Path | None, make: str) -> str:
        own = prefix / "bin/bmake" if prefix else None
        wanted = str(own) if own and own.exists() else make or "bmake"
        found = shutil.which(wanted, path=self._environment["PATH"])
        if found is None:
            places = "" if "/" in wanted else f" in {self._environment['PATH']}"
            raise ScannerError(
                f"{wanted}: there is no such program{places}; install it, or name another make",
                os.EX_UNAVAILABLE,
            )
        return found

    def __enter__(self) -> Self:
        self._scratch = tempfile.TemporaryDirectory(
            prefix="clusterdep-scan-", ignore_cleanup_errors=True
        )
        for variable, name in (("HOME", "home"), ("PBULK_CACHE_DIRECTORY", "cache")):
            directory = Path(self._scratch.name, name)
            directory.mkdir()
            self._environment[variable] = str(directory)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._scratch is not None
        self._scratch.cleanup()

    # --- what there is

    async def enumerate(self) -> Enumeration:
        """All pkgpaths, by the tree's own lists; raises ScannerError if its top can not be listed.

        A category that can not be listed is a problem, and its packages are missing.
        """
        ended = await self._list(self.tree)
        if ended.fault:
            raise ScannerError(f"{self.tree}: {_error(ended)}", os.EX_DATAERR)
        categories, wrong = scanned.subdirectories(ended.out)
        if not categories:
            raise ScannerError(
                f"{self.tree}: make show-subdir-var names no category; is it a pkgsrc tree?",
                os.EX_DATAERR,
            )
        problems = [Problem(str(self.tree), why) for why in wrong]
        return await self._gather(categories, problems)

    async def enumerate_named(self, names: Iterable[str]) -> Enumeration:
        """The same for some only: pkgpaths as they are given, and all pkgpaths of categories."""
        return await self._gather([name.rstrip("/") for name in names], [])

    async def _gather(self, names: list[str], problems: list[Problem]) -> Enumeration:
        found: dict[str, tuple[list[str], list[Problem]]] = {}
        listed = self._each(deque(dict.fromkeys(names)), self._members)
        async with contextlib.aclosing(listed):
            async for name, answer in listed:
                found[name] = answer
        order = dict.fromkeys(names)
        pkgpaths = dict.fromkeys(path for name in order for path in found[name][0])
        problems += [problem for name in order for problem in found[name][1]]
        return Enumeration(tuple(pkgpaths), tuple(problems))

    async def _members(self, name: str) -> tuple[list[str], list[Problem]]:
        """The pkgpaths that a category has, or the pkgpath that it is."""
        if is_pkgpath(os.fsencode(name)):
            return [name], []
        if not scanned.is_directory_name(name):
            return [], [Problem(name, "it is neither a category nor category/package")]
        ended = await self._list(self.tree / name)
        if ended.fault:
            return [], [Problem(name, _error(ended))]
        words, wrong = scanned.subdirectories(ended.out)
        return [f"{name}/{word}" for word in words], [Problem(name, why) for why in wrong]

    async def _list(self, directory: Path) -> bounded.Ended:
        return await self._run(directory, "show-subdir-var", "VARNAME=SUBDIR")

    # --- what the packages say

    async def scan(
        self, pkgpaths: Iterable[str], follow: bool = False
    ) -> AsyncGenerator[ScanResult, None]:
        """Scans each pkgpath once; results come in the order in which they are complete.

        With `follow` also the pkgpaths that dependencies name, and theirs, to the
        end. Raises ScannerError if make can not be started. Whoever may stop before
        the end should do it within contextlib.aclosing(): that ends what still runs.
        """
        waiting = deque(dict.fromkeys(pkgpaths))
        seen = set(waiting)
        scans = self._each(waiting, self._scan)
        async with contextlib.aclosing(scans):
            async for _, (result, named) in scans:
                new = dict.fromkeys(path for path in named if follow and path not in seen)
                waiting.extend(new)
                seen.update(new)
                yield result

    async def _each(
        self, waiting: deque[str], work: Callable[[str], Coroutine[Any, Any, _T]]
    ) -> AsyncGenerator[tuple[str, _T], None]:
        """Does the work for all that wait, so many at once as there are jobs."""
        running: dict[asyncio.Task[_T], str] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    one = waiting.popleft()
                    running[asyncio.create_task(work(one))] = one
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield running.pop(task), task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _scan(self, pkgpath: str) -> tuple[ScanResult, list[str]]:
        """The result of one pkgpath, and the pkgpaths that its dependencies name."""
        ended = await self._run(self.tree / pkgpath, "pbulk-index")
        return await asyncio.to_thread(self._judge, pkgpath, ended)

    def _judge(self, pkgpath: str, ended: bounded.Ended) -> tuple[ScanResult, list[str]]:
        records: list[Record] = []
        fault = ended.fault or scanned.flaw(ended.out)
        if not fault:
            records, fault = _records(pkgpath, ended.out)
        if fault:
            error = _error(replace(ended, fault=fault))
            return ScanResult(pkgpath, b"", error, ended.seconds, ""), []
        read = scanned.included(ended.out)
        own = _files(self.tree / pkgpath)
        files = scanned.inputs(pkgpath, own, read, self._seen_as, self._digest_for(pkgpath))
        named = [parse_token(token) for record in records for token in record.depends]
        return (
            ScanResult(
                pkgpath,
                ended.out,
                "",
                ended.seconds,
                files_digest(files),
                files,
                ended.said.decode(errors="backslashreplace").strip(),
            ),
            [one.pkgpath.decode() for one in named if not one.why and is_pkgpath(one.pkgpath)],
        )

    # --- what a build reads

    def _digest_for(self, pkgpath: str) -> Callable[[str], str]:
        """Digests files of the tree; what is not the package's own may be read for others, too."""

        def digest(name: str) -> str:
            if name.startswith(f"{pkgpath}/"):
                return scanned.content(self.tree / name)
            if name not in self._digests:
                self._digests[name] = scanned.content(self.tree / name)
            return self._digests[name]

        return digest

    async def _run(self, directory: Path, *words: str) -> bounded.Ended:
        """Runs make there; raises ScannerError if it can not be started at all."""
        try:
            ended = await bounded.run(
                [self._make, *words], directory, self._environment, self._limits
            )
        except OSError as error:
            raise ScannerError(f"{self._make}: {error.strerror}", os.EX_OSERR) from error
        fault = f"make {' '.join(words)}: {ended.fault}" if ended.fault else ""
        out, said = (
            scanned.relocated(text, str(self.tree), self._seen_as)
            for text in (ended.out, ended.said)
        )
        return replace(ended, fault=fault, out=out, said=said)


def _error(ended: bounded.Ended) -> str:
    return scanned.error_text(ended.fault, ended.out, ended.said)


def _directory(tree: Path) -> Path:
    try:
        found = tree.resolve(strict=True)
        if found.is_dir():
            return found
        why: object = "it is not a directory"
    except OSError as error:
        why = error.strerror
    except RuntimeError as error:
        why = error
    raise ScannerError(f"{tree}: {why}", os.EX_NOINPUT)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _records(pkgpath: str, out: bytes) -> tuple[list[Record], str]:
    """The records; or why there are none, or not all of them can be read.

    A record that is left out would be missed by its dependents, and nobody could tell them why:
    the pkgpath fails as a whole, and its last good records stay.
    """
    splitter = Splitter()
    texts = [*splitter.feed(out), *splitter.finish()]
    found = [text if isinstance(text, Refusal) else read(text, pkgpath.encode()) for text in texts]
    good = [one for one in found if isinstance(one, Record)]
    bad = [one for one in found if isinstance(one, Refusal)]
    if bad:
        return [], f"make pbulk-index: {bad[0]}"
    return good, "" if good else "make pbulk-index printed no record"


def _files(directory: Path) -> Iterator[str]:
    """The files below a package directory that belong to the package, relative to it."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with contextlib.suppress(OSError), os.scandir(directory / below) as entries:
            for entry in entries:
                name = below + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if not scanned.is_foreign_directory(entry.name):
                        waiting.append(f"{name}/")
                elif not scanned.is_foreign_file(entry.name):
                    yield name
