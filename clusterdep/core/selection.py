"""What somebody wants built: pkgpaths, categories, and patterns of names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from clusterdep.core import dewey


class Selection:
    """The entries of a selection; none at all select everything.

    An entry with a slash is a pkgpath; any other one is a category, a pkgname, or a
    pattern. Raises dewey.PatternError for an entry that is none of these.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self.entries = tuple(dict.fromkeys(entries))
        self._exact: set[str] = set()  # pkgpaths, categories, pkgnames
        self._patterns: list[tuple[str, tuple[bytes, ...], dewey.Pattern]] = []
        for entry in self.entries:
            name = entry.rstrip("/")
            self._exact.add(name)
            if "/" not in name:
                pattern = dewey.compile_pattern(name.encode())
                self._patterns.append((entry, tuple(pattern.prefixes), pattern))

    def takes(self, pkgpath: str, pkgname: str) -> bool:
        """Whether the package is selected."""
        if not self.entries:
            return True
        if not self._exact.isdisjoint((pkgpath, pkgname, pkgpath.partition("/")[0])):
            return True
        return any(self._matching(pkgname))

    def missing(self, packages: Iterable[tuple[str, str]], pkgpaths: Iterable[str]) -> list[str]:
        """The entries that name nothing of `packages` (pkgpath, pkgname) or `pkgpaths`."""
        left = dict.fromkeys(self.entries)
        known = set(pkgpaths)
        for entry in self.entries:
            if entry.rstrip("/") in known:
                del left[entry]
        if not left:
            return []
        for pkgpath, pkgname in packages:
            category = pkgpath.partition("/")[0]
            for entry in list(left):
                if entry.rstrip("/") in (pkgpath, pkgname, category):
                    del left[entry]
            for entry in self._matching(pkgname):
                left.pop(entry, None)
            if not left:
                break
        return list(left)

    def _matching(self, pkgname: str) -> Iterator[str]:
        """The entries that are patterns and match the name."""
        name = pkgname.encode()
        for entry, prefixes, pattern in self._patterns:
            if name.startswith(prefixes) and pattern.match(name):
                yield entry
