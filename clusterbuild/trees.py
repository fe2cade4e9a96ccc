"""What jobs are built from: the snapshot of their tree, and the distfiles that are at hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from clusterbuild.distfiles import Shelf, wanted
from clusterbuild.engines import Distfile, JobSpec
from clusterbuild.snapshots import Snapshot, Snapshots
from clusterbuild.tree_files import TreeFiles

#: How long a tree that nobody has pinned is not looked at again, seconds.
FRESH_SECONDS = 60.0


class Trees:
    """Snapshots and distfiles for the dispatcher: what blocks is done in threads."""

    def __init__(self, root: Path) -> None:
        """`root` is the directory of the snapshots, which a run shares with the daemon."""
        self._snapshots = Snapshots(root)
        self._shelf = Shelf()
        self._taken: dict[Path, tuple[float, Snapshot]] = {}
        self._taking = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._generations: dict[str, str] = {}  # of each profile the newest that was looked at for
        self._files: tuple[str, TreeFiles] | None = None  # of the snapshot that was asked for last
        self._listing = asyncio.Lock()

    async def of(self, profile: str, tree: Path, generation: str = "") -> Snapshot:
        """What a job of a profile is to read: the snapshot that a run has pinned.

        Where none is pinned, the tree as it is, or was a short while ago; for the scans of a
        generation as it is when the first of them asks. Raises Fault.
        """
        pinned = await asyncio.to_thread(self._snapshots.pinned, profile, tree)
        if pinned is not None:
            return pinned
        async with self._taking:
            at, snapshot = self._taken.get(tree, (0.0, None))
            old = time.monotonic() - at > FRESH_SECONDS
            if generation:
                old = self._generations.get(profile) != generation
            if snapshot is None or old:
                snapshot = await asyncio.to_thread(self._snapshots.take, tree)
                self._taken[tree] = (time.monotonic(), snapshot)
                await asyncio.to_thread(self._snapshots.prune)
            if generation:
                self._generations[profile] = generation
            return snapshot

    async def files(self, profile: str, tree: Path, digest: str) -> TreeFiles | None:
        """The files of a snapshot; with no digest of what jobs of the profile read now.

        None if it is not here any more.
        """
        async with self._listing:
            if not digest:
                digest = (await self.of(profile, tree)).digest
            if self._files is None or self._files[0] != digest:
                read = await asyncio.to_thread(self._read, digest)
                self._files = None if read is None else (digest, read)
            return None if self._files is None else self._files[1]

    def _read(self, digest: str) -> TreeFiles | None:
        try:
            return TreeFiles(self._snapshots.path_of(digest), self._snapshots.files(digest))
        except OSError:
            return None

    async def archive(self, digest: str) -> Path:
        """A snapshot as a compressed tar file. Raises OSError."""
        return await asyncio.to_thread(self._snapshots.archive, digest)

    def wanted(self) -> frozenset[str]:
        """Snapshots that may be built from again."""
        taken = frozenset(snapshot.digest for _, snapshot in self._taken.values())
        return self._snapshots.wanted() | taken

    async def distfiles(self, job: JobSpec) -> Sequence[Distfile]:
        """The distfiles a job may want that are at hand, whole."""
        if job.distdir is None:
            return []
        async with self._reading:
            return await asyncio.to_thread(self._find, job, job.distdir)

    def _find(self, job: JobSpec, distdir: Path) -> list[Distfile]:
        return self._shelf.find(wanted(job.tree, job.pkgpath), [distdir])
