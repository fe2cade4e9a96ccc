"""The files that scans read, in the database and in memory: see core/files.py.

Nothing is loaded before somebody asks: a daemon that starts answers for its jobs first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager

from clusterdep.core.files import Paths, Readers
from clusterdep.store.database import Store

#: Pkgpaths that are taken up between two looks at the event loop: some milliseconds.
SLICE = 1000


class FileIndex:
    """Numbers of paths for all profiles, and who reads them. Belongs to the event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._paths: Paths | None = None
        self._readers: dict[int, Readers] = {}  # by profile
        self._whole: dict[int, asyncio.Task[None]] = {}
        self._loading = asyncio.Lock()

    @property
    def paths(self) -> Paths:
        """All paths; `load` them before."""
        assert self._paths is not None
        return self._paths

    async def load(self) -> Paths:
        """All paths; taken up in slices when first asked for."""
        async with self._loading:
            if self._paths is None:
                paths, rows = Paths(), self._store.rows
                for read in ("files", "file_sets"):
                    last = 0
                    while found := [tuple(row) for row in rows(read, (last, SLICE))]:
                        paths.know(**{"paths" if read == "files" else "sets": found})
                        last = found[-1][0]
                        await asyncio.sleep(0)
                self._paths = paths
        return self._paths

    def write(self) -> None:
        """Writes the paths that are new; within the transaction of the pkgpaths that read them."""
        if self._paths is not None:
            self._store.run_many("put_file", self._paths.new_paths)
            self._store.run_many("put_file_set", self._paths.new_sets)

    def write_in_pieces(
        self, transaction: Callable[[], AbstractContextManager[None]]
    ) -> Iterator[None]:
        """The same, in commits of bounded size; each yield follows one."""
        paths = self.paths
        while len(paths.new_paths) + len(paths.new_sets) > SLICE:
            some, few = paths.new_paths[:SLICE], paths.new_sets[: SLICE // 10]
            with transaction():
                self._store.run_many("put_file", some)
                self._store.run_many("put_file_set", few)
            del paths.new_paths[: len(some)], paths.new_sets[: len(few)]
            yield
        with transaction():
            self.write()
        self.stored()

    def stored(self) -> None:
        """Right after the commit: what `write` wrote is stored."""
        if self._paths is not None:
            self._paths.new_paths.clear()
            self._paths.new_sets.clear()

    def take(self, profile: int, pkgpaths: Mapping[int, bytes], gone: Iterable[int]) -> None:
        """After the commit: these pkgpaths read this now, and some are no more.

        `pkgpaths` are what `core.files.pack` made, by the id of the pkgpath.
        """
        readers = self._readers.get(profile)
        if readers is None:
            return
        for pkgpath, packed in pkgpaths.items():
            readers.put(pkgpath, packed)
        for pkgpath in gone:
            readers.drop(pkgpath)

    def forget(self, profile: int) -> None:
        """The profile is no more, or has been changed behind our back."""
        self._readers.pop(profile, None)
        task = self._whole.pop(profile, None)
        if task is not None:
            task.cancel()

    async def readers(self, profile: int) -> Readers:
        """Who reads what in a profile; taken up in slices when first asked for."""
        paths = await self.load()
        task = self._whole.get(profile)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            # `take` keeps up what is there already, in whatever order it comes.
            self._readers[profile] = Readers(paths)
            task = self._whole[profile] = asyncio.create_task(self._take_up(profile))
        await asyncio.shield(task)
        return self._readers[profile]

    async def _take_up(self, profile: int) -> None:
        readers = self._readers[profile]
        last = 0
        while True:
            found = list(self._store.rows("pkgpath_files", (profile, last, SLICE)))
            if not found:
                return
            for row in found:
                readers.put(row["id"], row["files"])
            last = found[-1]["id"]
            await asyncio.sleep(0)
