"""The files of a snapshot with their digests, to say what a build of a pkgpath reads."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from pathlib import Path

from clusterdep.api import scanned

#: Kinds of things in a snapshot that are plain files.
FILES = frozenset("fx")


class TreeFiles:
    """Made of the listing of a snapshot: nothing is read again but what links lead to."""

    def __init__(self, root: Path, listing: Iterable[tuple[str, str, str]]) -> None:
        """`listing` has kind, digest or target, and path of everything in it."""
        self._root = root
        self._digests: dict[str, str] = {}
        for kind, content, path in listing:
            if kind != "d":
                self._digests[path] = content if kind in FILES else ""
        self._paths = sorted(self._digests)

    def read_by(self, pkgpath: str, out: bytes, tree: str) -> dict[str, str]:
        """Digests by path of what a build reads, by what `make pbulk-index` printed in `tree`."""
        return scanned.inputs(
            pkgpath, self._own(pkgpath), scanned.included(out), tree, self._digest
        )

    def _own(self, pkgpath: str) -> Iterator[str]:
        """The files of a package directory that belong to the package, relative to it."""
        top = f"{pkgpath}/"
        for at in range(bisect.bisect_left(self._paths, top), len(self._paths)):
            path = self._paths[at]
            if not path.startswith(top):
                return
            name = path.removeprefix(top)
            if not scanned.is_foreign(name):
                yield name

    def _digest(self, path: str) -> str:
        return self._digests.get(path) or scanned.content(self._root / path)
