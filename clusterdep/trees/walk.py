"""Trees of plain files, and what a walk through any tree finds."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from clusterdep.core.changes import is_foreign
from clusterdep.trees.seen import Listing, Mark, Seen, TreeError, content, differences, summary

#: Directories of the top that hold nothing of the tree, and may hold very much.
NOT_THE_TREE = ("distfiles", "packages")
#: A file that changed so shortly before it was looked at may change again and show the same
#: time (seconds): the resolution of times on old file systems.
RACY = 2.0
#: How long is waited before a tree that changed is looked at again, seconds.
PAUSE = 1.0

#: What the bookkeeping of a directory tells of a file, by its name and stat; empty: nothing.
Told = Callable[[str, os.stat_result], str]
#: What there is to know of a directory, relative to the top ("" or "a/b/").
Opened = Callable[[str], Told]


def nothing_told(name: str, stat: os.stat_result) -> str:
    """Plain files: nobody knows what they hold but by reading them."""
    return ""


def entries(
    top: Path, skip: Collection[str], opened: Opened
) -> Iterator[tuple[str, str, os.stat_result]]:
    """(path, what is told of it, stat) of every file, relative to `top`."""
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        told = opened(directory)
        try:
            found = list(os.scandir(top / directory))
        except FileNotFoundError:
            if not directory:
                raise TreeError(f"{top}: there is no such directory") from None
            continue  # removed meanwhile: the next look tells
        except OSError as error:
            raise TreeError(f"{top / directory}: {error.strerror}") from error
        for entry in found:
            path = f"{directory}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if path not in skip and not is_foreign(f"{path}/x"):
                    waiting.append(f"{path}/")
            elif not is_foreign(path):
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat(follow_symlinks=False)
                    yield path, told(entry.name, stat), stat


def marks(
    top: Path, skip: Collection[str], before: Listing | None, opened: Opened
) -> dict[str, Mark]:
    """The marks of all files; one is read only where nothing else tells that it is the same."""
    old = before.marks if before else {}
    sure = int(((before.taken if before else 0) - RACY) * 1e9)
    found = {}
    for path, known, stat in entries(top, {*NOT_THE_TREE, *skip}, opened):
        was = old.get(path)
        same = (
            was is not None
            and was[1:] == (stat.st_size, stat.st_mtime_ns, stat.st_ino)
            and stat.st_mtime_ns < sure
        )
        if known:
            text = known
        elif same and was is not None:
            text = was.content
        else:
            text = content(top / path)
        mark = Mark(text, stat.st_size, stat.st_mtime_ns, stat.st_ino)
        found[path] = was if was == mark else mark
    return found


class Files:
    """A directory of files that somebody changes somehow."""

    def __init__(self, top: Path, skip: Collection[str] = (), pause: float = PAUSE) -> None:
        """`skip` are names in `top` where another tree is laid over it."""
        self.top = top
        self.skip = skip
        self.pause = pause

    def opened(self, directory: str) -> Told:
        """What tells of the files of a directory without reading them. Raises TreeError."""
        return nothing_told

    def look(self, before: Listing | None) -> Seen:
        """See Tree. What changed while it was looked at is not taken in."""
        listing = self._list(before)
        changes = differences(before.marks, listing.marks) if before else {}
        if changes:
            time.sleep(self.pause)
            again = self._list(listing)
            moving = differences(listing.marks, again.marks)
            if moving:
                raise TreeError(
                    f"{self.top}: {min(moving)} and perhaps others change at this moment; "
                    "it is looked at again when that is over"
                )
            listing = again
        return Seen(listing, changes)

    def _list(self, before: Listing | None) -> Listing:
        taken = time.time()
        found = marks(self.top, self.skip, before, self.opened)
        return Listing(f"{self.scheme}:{summary(found)}", found, taken)

    scheme = "files"
